//! A way to have come back to a due date, and when another one makes it needless.

use super::sets::{Class, EMPTY, Set, Sets};
use crate::trail::{Path, START};

/// No load is under way.
pub(super) const IDLE: Class = Class::MAX;

#[derive(Debug, Clone, Copy)]
pub(super) struct Label {
    /// Weight of what is due now or later and served.
    pub(super) weight: u128,
    /// From when on the link is taken; now if it is idle.
    pub(super) taken_from: i64,
    /// Since when an idle link waits for what is due next, although others are to be loaded.
    pub(super) waits_from: Option<i64>,
    /// What is served but not loaded yet.
    pub(super) waiting: Set,
    /// The same with the load under way.
    pub(super) staged: Set,
    pub(super) under_way: Class,
    /// Bytes still to be loaded of images that nothing else is known of. They take the link at any time, and room once they have arrived.
    pub(super) debt: i64,
    pub(super) path: Path,
}

impl Label {
    /// At an event with nothing served yet.
    pub(super) const fn at(event: i64, debt: i64) -> Self {
        Self {
            weight: 0,
            taken_from: event,
            waits_from: None,
            waiting: EMPTY,
            staged: EMPTY,
            under_way: IDLE,
            debt,
            path: START,
        }
    }

    /// Come to an event, at which the link may have nothing to do but what it owes.
    pub(super) fn arrived(self, at: i64) -> Self {
        if self.taken_from < at {
            return self;
        }
        Self {
            taken_from: at,
            under_way: IDLE,
            staged: self.waiting,
            debt: (self.debt - (self.taken_from - at)).max(0),
            ..self
        }
    }

    /// Until when the link is free for what is due before, at best.
    pub(super) fn free_until(&self, sets: &Sets) -> i64 {
        self.taken_from - sets.bytes(self.waiting) - self.debt
    }

    /// Whether it can do all that another one can, in no more room: each of its images is told one of the other's that is as large and
    /// goes no earlier.
    ///
    /// A link that waits is committed to what is due next, so it only compares with another one that waits.
    pub(super) fn covers(&self, other: &Self, sets: &Sets) -> bool {
        if self.debt > other.debt {
            return false;
        }
        if let Some(since) = self.waits_from {
            return self.waiting == other.waiting
                && other.waits_from.is_some_and(|other| other >= since);
        }
        if self.taken_from < other.taken_from {
            return false;
        }
        let theirs = sets.classes(other.waiting);
        let may_last =
            self.under_way == IDLE || other.under_way != IDLE && self.under_way <= other.under_way;
        may_last && fits_into(sets.classes(self.waiting), theirs)
            || self.under_way != IDLE && fits_into(sets.classes(self.staged), theirs)
    }
}

/// Whether each of some images can be told another one, of the same size or larger; both ascend.
fn fits_into(some: &[Class], others: &[Class]) -> bool {
    let mut pairs = some.iter().rev().zip(others.iter().rev());
    some.len() <= others.len() && pairs.all(|(one, other)| one <= other)
}
