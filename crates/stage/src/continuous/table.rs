//! Algorithm 1 of INFOCOM 2010 as printed there: a table over all total weights.
//!
//! Kept to compare with: the front finds the same in a fraction of the time and memory wherever weights are large.

use crate::Unsupported;
use crate::due_order::Item;

/// Cells that a table may have: one bit each, 64 MiB.
const CELLS_MAX: u128 = 1 << 29;

/// No way leads to this weight.
const NEVER: i64 = i64::MIN;

pub(super) fn heaviest(items: &[Item], floors: &[i64]) -> Result<Vec<Item>, Unsupported> {
    let total: u128 = items.iter().map(|item| u128::from(item.weight)).sum();
    let cells = total.saturating_add(1).saturating_mul(items.len() as u128);
    let width = usize::try_from(total).ok().filter(|_| cells <= CELLS_MAX);
    let Some(width) = width.map(|total| total + 1) else {
        return Err(Unsupported::Table {
            cells,
            most: CELLS_MAX,
        });
    };
    let mut table = Table::new(width, items.len());
    for (place, (item, floor)) in items.iter().zip(floors).enumerate().rev() {
        table.add(place, item, *floor);
    }
    Ok(table.trace(items))
}

struct Table {
    /// By weight: the latest time until which the link is free.
    free_until: Vec<i64>,
    /// A bit for each item and weight: whether the item was taken there.
    taken: Vec<u64>,
}

impl Table {
    fn new(width: usize, items: usize) -> Self {
        let mut free_until = vec![NEVER; width];
        free_until[0] = i64::MAX;
        let taken = vec![0; (width * items).div_ceil(64)];
        Self { free_until, taken }
    }

    fn bit(&self, place: usize, weight: usize) -> (usize, u64) {
        let bit = place * self.free_until.len() + weight;
        (bit / 64, 1 << (bit % 64))
    }

    /// Weights from the greatest down, so that the item is taken once at most.
    fn add(&mut self, place: usize, item: &Item, floor: i64) {
        for free_until in &mut self.free_until {
            *free_until = item.due.min(*free_until);
        }
        let own = usize::try_from(item.weight).unwrap_or(usize::MAX);
        for weight in (own..self.free_until.len()).rev() {
            let before = self.free_until[weight - own];
            let start = before.saturating_sub(item.size);
            if start >= floor && start > self.free_until[weight] {
                self.free_until[weight] = start;
                let (word, mask) = self.bit(place, weight);
                self.taken[word] |= mask;
            }
        }
    }

    fn trace(&self, items: &[Item]) -> Vec<Item> {
        let reached = self.free_until.iter().rposition(|free| *free != NEVER);
        let mut weight = reached.unwrap_or(0);
        let mut chosen = Vec::new();
        for (place, item) in items.iter().enumerate() {
            let (word, mask) = self.bit(place, weight);
            if self.taken[word] & mask != 0 {
                chosen.push(*item);
                weight -= usize::try_from(item.weight).unwrap_or(weight);
            }
        }
        chosen
    }
}
