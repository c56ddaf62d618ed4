//! Serves what still fits once conflicts were resolved.
//!
//! Items in due-date order, loaded right-tight, fit onto link and stage if and only if each starts at 0 or later, and from its start to the end of
//! the load under way just before its due date (else to that date) the link brings no more than the capacity (beyond the paper).

use std::cmp::Reverse;

use crate::due_order::{self, Item};

/// Adds items that still fit, the heaviest first and of equal ones the smallest; all lists are by due date.
///
/// For each item left over, O(log n) and what its load would push ahead; O(n) more if it is added.
pub(super) fn refill(capacity: i64, items: &[Item], kept: Vec<Item>) -> Vec<Item> {
    let mut rest = left_over(items, &kept);
    rest.sort_by_key(|item| (Reverse(item.weight), item.size, item.due, item.index));
    let mut tight = Tight {
        capacity,
        starts: due_order::starts(&kept),
        items: kept,
    };
    for item in rest {
        tight.add(item);
    }
    tight.items
}

fn left_over(items: &[Item], kept: &[Item]) -> Vec<Item> {
    let mut kept = kept.iter().peekable();
    let is_left = |item: &&Item| kept.next_if(|next| next.index == item.index).is_none();
    items.iter().filter(is_left).copied().collect()
}

/// Items that fit, with their latest starts.
struct Tight {
    capacity: i64,
    items: Vec<Item>,
    starts: Vec<i64>,
}

/// An item in its place, with the starts of all loads from the first one that moves to its own.
struct Added {
    item: Item,
    place: usize,
    first: usize,
    moved: Vec<i64>,
}

impl Tight {
    /// Adds an item if it fits.
    fn add(&mut self, item: Item) {
        let Some(added) = self.moved_by(item).filter(|added| self.has_room(added)) else {
            return;
        };
        self.items.insert(added.place, item);
        self.starts
            .splice(added.first..added.place, added.moved.iter().copied());
    }

    /// What an item's load pushes ahead; `None` if that starts too early.
    fn moved_by(&self, item: Item) -> Option<Added> {
        let key = |other: &Item| (other.due, other.index);
        let place = self.items.partition_point(|other| key(other) < key(&item));
        let mut free_until = self.starts.get(place).copied().unwrap_or(i64::MAX);
        let mut moved = Vec::new();
        let earlier = self.items[..place].iter().zip(&self.starts).rev();
        let before = std::iter::once((&item, &i64::MIN)).chain(earlier);
        for (other, start_before) in before {
            let start = other.due.min(free_until) - other.size;
            if start == *start_before {
                break;
            }
            if start < 0 || other.due - start > self.capacity {
                return None;
            }
            moved.push(start);
            free_until = start;
        }
        moved.reverse();
        Some(Added {
            item,
            place,
            first: place + 1 - moved.len(),
            moved,
        })
    }

    /// Whether there is room with an item added: only loads that are on the stage when others move can be in the way.
    fn has_room(&self, added: &Added) -> bool {
        let from = added.moved[0];
        let affected = self.items.partition_point(|item| item.due <= from);
        let affected = affected.min(added.first);
        let mut next = affected;
        (affected..=added.place).all(|number| {
            let (item, start) = self.with(added, number);
            // Later loads are where they were, and the item's own is the last that starts before its due date at the least.
            while next <= self.items.len() && self.with(added, next).1 < item.due {
                next += 1;
            }
            let (last, last_start) = self.with(added, next - 1);
            (last_start + last.size).max(item.due) - start <= self.capacity
        })
    }

    /// A load among all with the one added.
    fn with(&self, added: &Added, number: usize) -> (Item, i64) {
        match number {
            _ if number < added.first => (self.items[number], self.starts[number]),
            _ if number < added.place => (self.items[number], added.moved[number - added.first]),
            _ if number == added.place => (added.item, added.moved[number - added.first]),
            _ => (self.items[number - 1], self.starts[number - 1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// By the definition.
    fn fits(capacity: i64, items: &[Item]) -> bool {
        let starts = due_order::starts(items);
        if starts.first().is_some_and(|first| *first < 0) {
            return false;
        }
        let mut next = 0;
        items.iter().zip(&starts).all(|(item, start)| {
            while next < items.len() && starts[next] < item.due {
                next += 1;
            }
            // What starts last before the due date is this very load at the latest.
            let last = next - 1;
            let end = starts[last] + items[last].size;
            end.max(item.due) - start <= capacity
        })
    }

    fn one_by_one(capacity: i64, items: &[Item], mut kept: Vec<Item>) -> Vec<Item> {
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_096))]
        #[test]
        fn what_moves_is_all_that_must_be_looked_at(
            capacity in 4i64..30,
            given in prop::collection::vec((1i64..14, 1i64..60, 1u64..4), 0..24),
        ) {
            let mut items: Vec<_> = given
                .into_iter()
                .enumerate()
                .filter(|(_, (size, due, _))| *size <= capacity.min(*due))
                .map(|(index, (size, due, weight))| Item { index, size, due, weight })
                .collect();
            items.sort_by_key(|item| (item.due, item.index));
            let refilled = refill(capacity, &items, Vec::new());
            prop_assert!(fits(capacity, &refilled));
            prop_assert_eq!(refilled, one_by_one(capacity, &items, Vec::new()));
        }
    }
}
