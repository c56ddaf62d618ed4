//! The owner's limits and what is left of them.

use crate::resources::Resources;

/// What a reservation takes: resources and slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) resources: Resources,
    pub(super) slots: u32,
}

impl Share {
    pub(super) const NOTHING: Self = Self {
        resources: Resources::ZERO,
        slots: 0,
    };

    pub(super) const fn task(resources: Resources) -> Self {
        Self {
            resources,
            slots: 1,
        }
    }

    #[must_use]
    pub(super) const fn plus(&self, other: &Self) -> Self {
        Self {
            resources: self.resources.saturating_add(&other.resources),
            slots: self.slots.saturating_add(other.slots),
        }
    }

    fn checked_sub(&self, other: &Self) -> Option<Self> {
        Some(Self {
            resources: self.resources.checked_sub(&other.resources)?,
            slots: self.slots.checked_sub(other.slots)?,
        })
    }
}

/// Free and limit; what is taken is the difference.
#[derive(Debug)]
pub(super) struct Accounts {
    limit: Share,
    free: Share,
}

impl Accounts {
    pub(super) const fn new(resources: Resources, slots: u32) -> Self {
        let limit = Share { resources, slots };
        Self { limit, free: limit }
    }

    pub(super) const fn free(&self) -> &Share {
        &self.free
    }

    /// Takes all of `share` or nothing.
    #[must_use]
    pub(super) fn take(&mut self, share: &Share) -> bool {
        let left = self.free.checked_sub(share);
        if let Some(left) = left {
            self.free = left;
        }
        left.is_some()
    }

    pub(super) fn give(&mut self, share: &Share) {
        self.free = self.free.plus(share);
        assert!(
            self.limit.checked_sub(&self.free).is_some(),
            "more was given back than taken: {:?} of {:?}",
            self.free,
            self.limit
        );
    }

    /// Checks the books against the sum of all that is reserved.
    pub(super) fn check(&self, reserved: impl Iterator<Item = Share>) {
        let sum = reserved.fold(self.free, |sum, share| sum.plus(&share));
        assert_eq!(
            sum, self.limit,
            "free and reserved must add up to the limits"
        );
    }
}
