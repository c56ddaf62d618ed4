//! What is to be staged: the capacity, the reservations, and what makes an instance wrong.

use serde::{Deserialize, Serialize};

/// The largest size, capacity, time or load time: 2⁶², so that differences and single sums of them fit into 64 bits with a sign.
pub const LIMIT: u64 = 1 << 62;

/// What a load that is under way occupies on the stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Model {
    /// The bytes that have arrived so far: storage that grows with the file.
    Continuous,
    /// The whole image from the start of its load: storage that is reserved up front.
    Integral,
}

/// One image that must lie on the stage at a due date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reservation {
    /// Bytes of the image, 1 to [`LIMIT`].
    pub size: u64,
    /// When the load must have ended and the image is handed over, at most [`LIMIT`].
    pub due: u64,
    /// What serving it is worth; a reservation of weight 0 is never served.
    pub weight: u64,
    /// How long the link takes for it, 1 to [`LIMIT`]; its size if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_time: Option<u64>,
}

impl Reservation {
    /// An image that the link loads at the rate that defines the unit of time.
    #[must_use]
    pub const fn new(size: u64, due: u64, weight: u64) -> Self {
        Self {
            size,
            due,
            weight,
            load_time: None,
        }
    }

    /// How long the link takes for it.
    #[must_use]
    pub fn loading(&self) -> u64 {
        self.load_time.unwrap_or(self.size)
    }
}

/// Why no schedule can or should serve a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exclusion {
    /// The image is larger than the stage.
    #[error("the image of {size} is larger than the stage of {capacity}")]
    LargerThanStage {
        /// Bytes of the image.
        size: u64,
        /// Bytes of the stage.
        capacity: u64,
    },
    /// A load that starts at 0 ends after the due date.
    #[error("the load takes {loading}, which ends after the due date {due}")]
    DueTooSoon {
        /// How long the load takes.
        loading: u64,
        /// The due date.
        due: u64,
    },
    /// Its weight is 0, so that serving it would only take room.
    #[error("its weight is 0")]
    Weightless,
}

/// Why reservations and a capacity are no instance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstanceError {
    /// A stage of no size, or of more than [`LIMIT`].
    #[error("capacity is {capacity}: it must be from 1 to 2^62")]
    Capacity {
        /// The capacity given.
        capacity: u64,
    },
    /// More reservations than fit into 32 bits.
    #[error("{count} reservations: at most 2^32 - 1 can be planned at once")]
    TooMany {
        /// The number given.
        count: usize,
    },
    /// A field of a reservation is out of its range.
    #[error("reservation {index}: {field} is {value}: it must be from {least} to 2^62")]
    Field {
        /// Position of the reservation, from 0.
        index: usize,
        /// Name of the field.
        field: &'static str,
        /// The value given.
        value: u64,
        /// The least value allowed.
        least: u64,
    },
}

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

/// A stage and what is to be loaded onto it. Every field is within its range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Draft")]
pub struct Instance {
    capacity: u64,
    reservations: Vec<Reservation>,
}

/// An instance as written down, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Draft {
    capacity: u64,
    reservations: Vec<Reservation>,
}

impl TryFrom<Draft> for Instance {
    type Error = InstanceError;

    fn try_from(draft: Draft) -> Result<Self, InstanceError> {
        Self::new(draft.capacity, draft.reservations)
    }
}

impl Instance {
    /// A stage of `capacity` bytes, empty at time 0, and its reservations in any order.
    ///
    /// # Errors
    ///
    /// [`InstanceError`] names the first field that is out of its range.
    pub fn new(capacity: u64, reservations: Vec<Reservation>) -> Result<Self, InstanceError> {
        if !(1..=LIMIT).contains(&capacity) {
            return Err(InstanceError::Capacity { capacity });
        }
        if u32::try_from(reservations.len()).is_err() {
            let count = reservations.len();
            return Err(InstanceError::TooMany { count });
        }
        for (index, reservation) in reservations.iter().enumerate() {
            check(index, reservation)?;
        }
        Ok(Self {
            capacity,
            reservations,
        })
    }

    /// Bytes of the stage.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        self.capacity
    }

    /// All reservations; a [`Load`](crate::Load) names one by its position here.
    #[must_use]
    pub fn reservations(&self) -> &[Reservation] {
        &self.reservations
    }

    /// Why a reservation can or should not be served at all, whatever else is; `None` if it alone can.
    ///
    /// # Panics
    ///
    /// If `index` is not a position in [`reservations`](Self::reservations).
    #[must_use]
    pub fn exclusion(&self, index: usize) -> Option<Exclusion> {
        let reservation = &self.reservations[index];
        let (size, due, loading) = (reservation.size, reservation.due, reservation.loading());
        if size > self.capacity {
            let capacity = self.capacity;
            Some(Exclusion::LargerThanStage { size, capacity })
        } else if loading > due {
            Some(Exclusion::DueTooSoon { loading, due })
        } else if reservation.weight == 0 {
            Some(Exclusion::Weightless)
        } else {
            None
        }
    }

    /// All reservations that cannot or should not be served, each with its reason, in their own order.
    pub fn excluded(&self) -> impl Iterator<Item = (usize, Exclusion)> {
        (0..self.reservations.len())
            .filter_map(|index| self.exclusion(index).map(|reason| (index, reason)))
    }
}

fn check(index: usize, reservation: &Reservation) -> Result<(), InstanceError> {
    let fields = [
        ("size", reservation.size, 1),
        ("due", reservation.due, 0),
        ("load_time", reservation.loading(), 1),
    ];
    for (field, value, least) in fields {
        if !(least..=LIMIT).contains(&value) {
            return Err(InstanceError::Field {
                index,
                field,
                value,
                least,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_out_of_range_are_named() {
        let fails = |capacity, reservation| {
            Instance::new(capacity, vec![reservation])
                .unwrap_err()
                .to_string()
        };
        assert!(fails(0, Reservation::new(1, 1, 1)).starts_with("capacity is 0"));
        assert!(fails(LIMIT + 1, Reservation::new(1, 1, 1)).starts_with("capacity is"));
        assert!(fails(9, Reservation::new(0, 1, 1)).starts_with("reservation 0: size is 0"));
        assert!(fails(9, Reservation::new(1, LIMIT + 1, 1)).starts_with("reservation 0: due is"));
        let mut slow = Reservation::new(1, 1, 1);
        slow.load_time = Some(0);
        assert!(fails(9, slow).starts_with("reservation 0: load_time is 0"));
    }

    #[test]
    fn what_cannot_be_served_says_why() {
        let reservations = vec![
            Reservation::new(8, 20, 1),
            Reservation::new(5, 4, 1),
            Reservation::new(5, 5, 0),
            Reservation::new(5, 5, 1),
        ];
        let instance = Instance::new(7, reservations).unwrap();
        let excluded: Vec<_> = instance.excluded().collect();
        let larger = Exclusion::LargerThanStage {
            size: 8,
            capacity: 7,
        };
        let soon = Exclusion::DueTooSoon { loading: 5, due: 4 };
        assert_eq!(
            excluded,
            [(0, larger), (1, soon), (2, Exclusion::Weightless)]
        );
    }

    #[test]
    fn instances_read_from_text_are_checked_too() {
        let good = r#"{"capacity": 7, "reservations": [{"size": 1, "due": 2, "weight": 3}]}"#;
        let instance: Instance = serde_json::from_str(good).unwrap();
        assert_eq!(instance.reservations()[0], Reservation::new(1, 2, 3));
        let again = serde_json::to_string(&instance).unwrap();
        assert_eq!(serde_json::from_str::<Instance>(&again).unwrap(), instance);
        for bad in [
            r#"{"capacity": 0, "reservations": []}"#,
            r#"{"capacity": 7, "reservations": [], "extra": 1}"#,
            r#"{"capacity": 7, "reservations": [{"size": 1, "due": -2, "weight": 3}]}"#,
        ] {
            assert!(serde_json::from_str::<Instance>(bad).is_err(), "{bad}");
        }
    }
}
