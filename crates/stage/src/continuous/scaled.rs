//! The FPTAS of INFOCOM 2010: weights counted in steps of ε · w_max / n, and the exact algorithm on those.

use crate::due_order::Item;

/// How much of the greatest weight may be lost, in millionths: 1 to 1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epsilon(u32);

const WHOLE: u32 = 1_000_000;

impl Epsilon {
    /// `None` if it is 0 or more than a whole.
    #[must_use]
    pub const fn millionths(millionths: u32) -> Option<Self> {
        match millionths {
            1..=WHOLE => Some(Self(millionths)),
            _ => None,
        }
    }

    /// One step of weight, at least 1: then nothing is lost.
    pub(super) fn step(self, items: &[Item]) -> u64 {
        let heaviest = items.iter().map(|item| item.weight).max().unwrap_or(0);
        let count = u128::try_from(items.len()).unwrap_or(u128::MAX).max(1);
        let step = u128::from(self.0) * u128::from(heaviest) / (u128::from(WHOLE) * count);
        u64::try_from(step).unwrap_or(u64::MAX).max(1)
    }
}

/// Items with weights in whole steps; those below one step go, as they count nothing.
pub(super) fn in_steps(items: &[Item], step: u64) -> Vec<Item> {
    let scaled = items.iter().map(|item| Item {
        weight: item.weight / step,
        ..*item
    });
    scaled.filter(|item| item.weight > 0).collect()
}
