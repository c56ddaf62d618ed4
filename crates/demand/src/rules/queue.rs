//! The order of the queue, and which jobs go to an agent.
//!
//! A job's *rank* is the time it entered the queue, moved forward or back by its priority: one
//! step is worth 60 s of waiting. Ordering by this constant is the same as ordering by priority
//! aged by waiting time, at any moment, so no row is ever rewritten to age it.

use mutual_model::job::{IsolationClass, JobState};
use mutual_model::resources::Resources;
use mutual_model::time::UnixMillis;

use crate::Offer;

/// What one step of priority is worth, in milliseconds of waiting.
const PRIORITY_STEP_MS: i64 = 60_000;
/// Puts a job that lost its holder before every other: more than 300 years of waiting, so that
/// ranks with and without it never mix.
pub(crate) const RECOVERED_BONUS_MS: i64 = 10_000_000_000_000;

/// A job's place in the queue; lower goes first.
pub(crate) fn rank(queued_at: UnixMillis, priority: i32) -> i64 {
    let queued_at = i64::try_from(queued_at.0).unwrap_or(i64::MAX);
    queued_at.saturating_sub(i64::from(priority) * PRIORITY_STEP_MS)
}

/// The place of a job that lost its holder: before every one that did not.
pub(crate) fn recovered(rank: i64) -> i64 {
    if rank < -RECOVERED_BONUS_MS / 2 {
        return rank;
    }
    rank - RECOVERED_BONUS_MS
}

/// Isolation classes as bits, so that a statement can match them.
pub(crate) fn class_bit(class: IsolationClass) -> i32 {
    match class {
        IsolationClass::Process => 1,
        IsolationClass::Container => 2,
        IsolationClass::Sandbox => 4,
        IsolationClass::Vm => 8,
    }
}

/// Every class an agent proved.
pub(crate) fn class_bits(classes: &[IsolationClass]) -> i32 {
    classes
        .iter()
        .fold(0, |bits, class| bits | class_bit(*class))
}

/// What a task accepts: one class, or any if it names none.
pub(crate) fn accepted_bits(class: Option<IsolationClass>) -> i32 {
    class.map_or(15, class_bit)
}

/// How often a job is looked at per free slot before an agent's request gives up on packing.
const CANDIDATES_PER_SLOT: u32 = 4;
/// Candidates looked at in one request.
const CANDIDATES_MAX: u32 = 2_048;

/// How many fitting jobs to look at for so many slots.
pub(crate) fn candidates(slots: u32) -> u32 {
    slots
        .saturating_mul(CANDIDATES_PER_SLOT)
        .min(CANDIDATES_MAX)
}

/// Chooses, in order of rank, what fits together into an offer.
#[derive(Debug)]
pub(crate) struct Packing {
    free: Resources,
    slots: u32,
}

impl Packing {
    pub(crate) const fn new(offer: &Offer) -> Self {
        Self {
            free: offer.free,
            slots: offer.slots,
        }
    }

    /// Whether no further job can be taken.
    #[cfg(any(feature = "sqlite", feature = "postgres", test))]
    pub(crate) const fn is_full(&self) -> bool {
        self.slots == 0
    }

    /// Takes a job if there is room for it.
    pub(crate) fn take(&mut self, need: &Resources) -> bool {
        if self.slots == 0 {
            return false;
        }
        let Some(left) = self.free.checked_sub(need) else {
            return false;
        };
        self.free = left;
        self.slots -= 1;
        true
    }
}

/// Where a job stands once another attempt went wrong.
pub(crate) fn after_loss(counted_before: u32, retries: u32) -> JobState {
    if counted_before < retries {
        JobState::Queued
    } else {
        JobState::Dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_priority_is_worth_a_minute_of_waiting() {
        let base = UnixMillis(1_800_000_000_000);
        let urgent = rank(UnixMillis(base.0 + 59_000), 1);
        let waiting = rank(base, 0);
        assert!(urgent < waiting);
        assert!(rank(UnixMillis(base.0 + 61_000), 1) > waiting);
        assert!(recovered(rank(UnixMillis(base.0 + 9_000_000), -100)) < rank(base, 100));
        assert_eq!(recovered(recovered(waiting)), recovered(waiting));
    }

    #[test]
    fn packing_skips_what_does_not_fit_and_goes_on() {
        let amount = |cpu_millis| Resources {
            cpu_millis,
            ..Resources::ZERO
        };
        let mut packing = Packing {
            free: amount(1_000),
            slots: 2,
        };
        assert!(packing.take(&amount(600)));
        assert!(!packing.take(&amount(600)));
        assert!(packing.take(&amount(400)));
        assert!(packing.is_full());
        assert!(!packing.take(&amount(0)));
    }
}
