//! A schedule together with how good it is known to be.

use serde::Serialize;

use crate::{Instance, Schedule};

/// A feasible schedule, its weight, and what no schedule can exceed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Solution {
    /// The loads.
    pub schedule: Schedule,
    /// Their total weight.
    pub weight: u128,
    /// No schedule of the instance weighs more.
    pub bound: u128,
}

impl Solution {
    pub(crate) fn exact(instance: &Instance, schedule: Schedule) -> Self {
        let weight = schedule.weight(instance);
        Self {
            schedule,
            weight,
            bound: weight,
        }
    }

    pub(crate) fn bounded(instance: &Instance, schedule: Schedule, bound: u128) -> Self {
        let weight = schedule.weight(instance);
        debug_assert!(weight <= bound, "a bound holds for every schedule");
        Self {
            schedule,
            weight,
            bound,
        }
    }

    /// Whether no schedule can be better.
    #[must_use]
    pub fn is_proved_best(&self) -> bool {
        self.weight == self.bound
    }
}
