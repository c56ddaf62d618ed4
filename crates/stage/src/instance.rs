//! What is to be staged: the capacity, the reservations, and what makes an instance wrong.

use serde::{Deserialize, Serialize};

use crate::bandwidth::{Bandwidth, BandwidthError};

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

/// An image that lies on the stage from the beginning, and leaves at its due date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Staged {
    /// Bytes of the image, 1 to [`LIMIT`].
    pub size: u64,
    /// When it is handed over, at most [`LIMIT`].
    pub due: u64,
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
    /// What lies on the stage from the beginning is larger than the stage.
    #[error("the images staged from the beginning take {total}: the stage holds {capacity}")]
    StagedTooMuch {
        /// Their bytes.
        total: u128,
        /// Bytes of the stage.
        capacity: u64,
    },
    /// The time to hand an image over is out of its range.
    #[error("unload is {unload}: it must be at most 2^62")]
    Unload {
        /// The time given.
        unload: u64,
    },
    /// The link's rates are wrong.
    #[error(transparent)]
    Bandwidth(#[from] BandwidthError),
    /// A link of changing rate cannot be combined with load times, which say how long one of constant rate takes.
    #[error("reservation {index}: load_time cannot be given together with bandwidth")]
    LoadTimeAndBandwidth {
        /// Position of the reservation, from 0.
        index: usize,
    },
    /// More reservations than fit into 32 bits.
    #[error("{count} reservations: at most 2^32 - 1 can be planned at once")]
    TooMany {
        /// The number given.
        count: usize,
    },
    /// A field of a reservation, or of an image staged from the beginning, is out of its range.
    #[error("{what} {index}: {field} is {value}: it must be from {least} to 2^62")]
    Field {
        /// What has the field.
        what: &'static str,
        /// Its position, from 0.
        index: usize,
        /// Name of the field.
        field: &'static str,
        /// The value given.
        value: u64,
        /// The least value allowed.
        least: u64,
    },
}

/// A stage and what is to be loaded onto it. Every field is within its range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Draft")]
pub struct Instance {
    capacity: u64,
    reservations: Vec<Reservation>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    staged: Vec<Staged>,
    #[serde(skip_serializing_if = "is_zero")]
    unload: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bandwidth: Option<Bandwidth>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands fields over so"
)]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// An instance as written down, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Draft {
    capacity: u64,
    reservations: Vec<Reservation>,
    #[serde(default)]
    staged: Vec<Staged>,
    #[serde(default)]
    unload: u64,
    #[serde(default)]
    bandwidth: Option<Vec<(u64, u64)>>,
}

impl TryFrom<Draft> for Instance {
    type Error = InstanceError;

    fn try_from(draft: Draft) -> Result<Self, InstanceError> {
        let plain = Self::new(draft.capacity, draft.reservations)?;
        let unloading = plain.with_staged(draft.staged)?.with_unload(draft.unload)?;
        match draft.bandwidth {
            Some(steps) => unloading.with_bandwidth(Bandwidth::new(steps)?),
            None => Ok(unloading),
        }
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
            in_range("reservation", index, "size", reservation.size, 1)?;
            in_range("reservation", index, "due", reservation.due, 0)?;
            in_range("reservation", index, "load_time", reservation.loading(), 1)?;
        }
        Ok(Self {
            capacity,
            reservations,
            staged: Vec::new(),
            unload: 0,
            bandwidth: None,
        })
    }

    /// The same with images that lie on the stage from the beginning.
    ///
    /// # Errors
    ///
    /// [`InstanceError`] if a field is out of its range, or if they are larger than the stage together.
    pub fn with_staged(mut self, staged: Vec<Staged>) -> Result<Self, InstanceError> {
        for (index, image) in staged.iter().enumerate() {
            in_range("staged image", index, "size", image.size, 1)?;
            in_range("staged image", index, "due", image.due, 0)?;
        }
        let total: u128 = staged.iter().map(|image| u128::from(image.size)).sum();
        if total > u128::from(self.capacity) {
            let capacity = self.capacity;
            return Err(InstanceError::StagedTooMuch { total, capacity });
        }
        self.staged = staged;
        Ok(self)
    }

    /// The same with a time that each image stays after its due date, until it has been handed over.
    ///
    /// # Errors
    ///
    /// [`InstanceError::Unload`] if it is out of its range.
    pub fn with_unload(mut self, unload: u64) -> Result<Self, InstanceError> {
        if unload > LIMIT {
            return Err(InstanceError::Unload { unload });
        }
        self.unload = unload;
        Ok(self)
    }

    /// The same with a link whose rate changes.
    ///
    /// # Errors
    ///
    /// [`InstanceError::LoadTimeAndBandwidth`] if a reservation has a load time of its own, [`InstanceError::Bandwidth`] if the link
    /// brings more than [`LIMIT`] bytes by the last due date.
    pub fn with_bandwidth(mut self, bandwidth: Bandwidth) -> Result<Self, InstanceError> {
        let own = |reservation: &Reservation| reservation.load_time.is_some();
        if let Some(index) = self.reservations.iter().position(own) {
            return Err(InstanceError::LoadTimeAndBandwidth { index });
        }
        let dues = self.reservations.iter().map(|reservation| reservation.due);
        let dues = dues.chain(self.staged.iter().map(|image| image.due));
        bandwidth.check(dues.max().unwrap_or(0) + self.unload)?;
        self.bandwidth = Some(bandwidth);
        Ok(self)
    }

    /// The same site with nothing to load.
    pub(crate) fn without_reservations(&self) -> Self {
        Self {
            capacity: self.capacity,
            reservations: Vec::new(),
            staged: self.staged.clone(),
            unload: self.unload,
            bandwidth: self.bandwidth.clone(),
        }
    }

    /// Images on the stage from the beginning.
    #[must_use]
    pub fn staged(&self) -> &[Staged] {
        &self.staged
    }

    /// How long an image stays after its due date.
    #[must_use]
    pub const fn unload(&self) -> u64 {
        self.unload
    }

    /// The link's rates, if they change.
    #[must_use]
    pub const fn bandwidth(&self) -> Option<&Bandwidth> {
        self.bandwidth.as_ref()
    }

    /// A moment on the link's own clock, which shows how much the link can have brought: the moment itself at constant rate.
    #[must_use]
    pub fn on_link(&self, time: u64) -> u64 {
        match &self.bandwidth {
            Some(bandwidth) => bandwidth.bytes_by(time),
            None => time,
        }
    }

    /// By when a reservation must have been loaded, on the link's clock.
    ///
    /// # Panics
    ///
    /// If `index` is not a position in [`reservations`](Self::reservations).
    #[must_use]
    pub fn due_on_link(&self, index: usize) -> u64 {
        self.on_link(self.reservations[index].due)
    }

    /// When an image due at `due` leaves the stage, on the link's clock.
    #[must_use]
    pub fn leaves_on_link(&self, due: u64) -> u64 {
        self.on_link(due + self.unload)
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
        let (size, due, loading) = (
            reservation.size,
            self.due_on_link(index),
            reservation.loading(),
        );
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

fn in_range(
    what: &'static str,
    index: usize,
    field: &'static str,
    value: u64,
    least: u64,
) -> Result<(), InstanceError> {
    if (least..=LIMIT).contains(&value) {
        return Ok(());
    }
    Err(InstanceError::Field {
        what,
        index,
        field,
        value,
        least,
    })
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
