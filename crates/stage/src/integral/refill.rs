//! Serves what still fits once conflicts were resolved.

use std::cmp::Reverse;

use super::chosen::fits;
use crate::due_order::Item;

/// Adds items that still fit, the heaviest first and of equal ones the smallest; all lists are by due date.
///
/// O(n) for each item left over.
pub(super) fn refill(capacity: i64, items: &[Item], mut kept: Vec<Item>) -> Vec<Item> {
    let mut rest = left_over(items, &kept);
    rest.sort_by_key(|item| (Reverse(item.weight), item.size, item.due, item.index));
    for item in rest {
        let key = |other: &Item| (other.due, other.index);
        let place = kept.partition_point(|other| key(other) < key(&item));
        kept.insert(place, item);
        if !fits(capacity, &kept) {
            kept.remove(place);
        }
    }
    kept
}

fn left_over(items: &[Item], kept: &[Item]) -> Vec<Item> {
    let mut kept = kept.iter().peekable();
    let is_left = |item: &&Item| kept.next_if(|next| next.index == item.index).is_none();
    items.iter().filter(is_left).copied().collect()
}
