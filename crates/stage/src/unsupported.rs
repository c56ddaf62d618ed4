//! What an algorithm does not take.

/// Why an algorithm does not take an instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// Only [`validate()`](crate::validate()) and [`right_tight`](crate::right_tight()) know load times that differ from sizes:
    /// without that, due-date order may lose, and no exact algorithm of polynomial time is known.
    #[error("reservation {index}: load_time differs from size, which this algorithm does not know")]
    LoadTime {
        /// Position of the reservation, from 0.
        index: usize,
    },
    /// Images already on the stage are more than the algorithm knows.
    #[error("images already on the stage are not known to this algorithm")]
    Staged,
    /// Images that stay after their due dates are more than the algorithm knows.
    #[error("unload is not 0, which this algorithm does not know")]
    Unload,
    /// A table of so many cells would be needed.
    #[error("the table would have {cells} cells: at most {most} are allowed")]
    Table {
        /// Cells needed.
        cells: u128,
        /// Cells allowed.
        most: u128,
    },
    /// The images are too large for the algorithm's guarantee.
    #[error(
        "the largest image is {size}: this algorithm needs at most a seventh of the stage, {most}"
    )]
    TooLarge {
        /// Bytes of the largest image that can be served.
        size: u64,
        /// Bytes allowed.
        most: u64,
    },
    /// The algorithm is for equal weights.
    #[error(
        "reservation {index}: its weight differs from the first one's, and this algorithm counts"
    )]
    Weight {
        /// Position of the reservation, from 0.
        index: usize,
    },
    /// The algorithm is for images above half the stage.
    #[error(
        "reservation {index}: its image fits twice on the stage, and this algorithm is for larger ones"
    )]
    Small {
        /// Position of the reservation, from 0.
        index: usize,
    },
    /// The algorithm is for images of one size.
    #[error(
        "reservation {index}: its size differs from the first one's, and this algorithm is for one size"
    )]
    Size {
        /// Position of the reservation, from 0.
        index: usize,
    },
}
