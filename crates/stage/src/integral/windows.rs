//! Local improvement: the search once more for what is due within a window, while all that is served outside stays served.
//!
//! What is served outside weighs so much that nothing within makes up for it, and what is not served outside is gone; so few labels are
//! left, and the search is quick. Windows overlap by half, and come again until none of them brings anything (beyond the paper).

use std::collections::BTreeSet;
use std::ops::Range;

use super::search::Search;
use crate::continuous::Occupied;
use crate::due_order::Item;

/// Items of a window.
const WINDOW: usize = 32;

/// Labels of a layer.
const WIDTH: usize = 64;

/// With so few sizes the search as a whole is quick.
const FEW_SIZES: usize = 6;

/// Items beyond which a round of windows takes longer than a wider search.
pub(crate) const ITEMS_MAX: usize = 2_000;

/// An order of loads that weighs more than the one given, if a window leads to one; none where sizes are few. Items come by due date; both orders name reservations.
pub(crate) fn improve(
    occupied: &Occupied,
    items: &[Item],
    order: &[usize],
    stop: &mut dyn FnMut() -> bool,
) -> Option<Vec<usize>> {
    let sizes: BTreeSet<_> = items.iter().map(|item| item.size).collect();
    if sizes.len() <= FEW_SIZES {
        return None;
    }
    let mut best = order.to_vec();
    let mut first = 0;
    // Windows since the last gain; after a whole round nothing is left to gain.
    let mut in_vain = 0;
    while in_vain <= 2 * items.len() / WINDOW + 1 && !stop() {
        let window = first..(first + WINDOW).min(items.len());
        match improve_window(occupied, items, &best, window, stop) {
            Some(better) => {
                best = better;
                in_vain = 0;
            }
            None => in_vain += 1,
        }
        first = match first + WINDOW < items.len() {
            true => first + WINDOW / 2,
            false => 0,
        };
    }
    (best != order).then_some(best)
}

fn improve_window(
    occupied: &Occupied,
    items: &[Item],
    order: &[usize],
    window: Range<usize>,
    stop: &mut dyn FnMut() -> bool,
) -> Option<Vec<usize>> {
    let served: BTreeSet<_> = order.iter().copied().collect();
    let within: u64 = sum(&items[window.clone()])?;
    let fixed = within.checked_add(1)?;
    let (mut left, mut known) = (Vec::new(), 0u128);
    for (place, item) in items.iter().enumerate() {
        let is_served = served.contains(&item.index);
        let weight = match window.contains(&place) {
            true => item.weight,
            false if is_served => fixed,
            false => continue,
        };
        left.push(Item { weight, ..*item });
        known += u128::from(weight) * u128::from(is_served);
    }
    Search::new(occupied, &left, known)?.pass(WIDTH, stop)
}

fn sum(items: &[Item]) -> Option<u64> {
    items
        .iter()
        .try_fold(0u64, |sum, item| sum.checked_add(item.weight))
}
