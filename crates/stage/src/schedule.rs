//! What an algorithm answers: which reservations are loaded, and when each load starts.

use serde::{Deserialize, Serialize};

use crate::Instance;

/// One load over the entry link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Position in [`Instance::reservations`].
    pub reservation: usize,
    /// When the load starts, on the link's clock ([`Instance::on_link`]): what the link can have brought before.
    pub start: u64,
}

/// Loads in the order of their starts. Any may be wrong for an instance: [`validate()`](crate::validate()) judges.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Load>", into = "Vec<Load>")]
pub struct Schedule {
    loads: Vec<Load>,
}

impl Schedule {
    /// The loads, by start.
    #[must_use]
    pub fn loads(&self) -> &[Load] {
        &self.loads
    }

    /// The reservations served, in the order of their loads.
    pub fn order(&self) -> impl DoubleEndedIterator<Item = usize> {
        self.loads.iter().map(|load| load.reservation)
    }

    /// Total weight of the reservations served. It cannot overflow: fewer than 2³² weights of 64 bits each.
    ///
    /// # Panics
    ///
    /// If a load names a reservation that the instance does not have.
    #[must_use]
    pub fn weight(&self, instance: &Instance) -> u128 {
        let reservations = instance.reservations();
        self.order()
            .map(|index| u128::from(reservations[index].weight))
            .sum()
    }
}

impl From<Vec<Load>> for Schedule {
    fn from(mut loads: Vec<Load>) -> Self {
        loads.sort_by_key(|load| (load.start, load.reservation));
        Self { loads }
    }
}

impl From<Schedule> for Vec<Load> {
    fn from(schedule: Schedule) -> Self {
        schedule.loads
    }
}

impl FromIterator<Load> for Schedule {
    fn from_iter<I: IntoIterator<Item = Load>>(loads: I) -> Self {
        loads.into_iter().collect::<Vec<_>>().into()
    }
}
