//! A right-tight schedule in due-date order, and whether the stage has room for it in the integral model.

use crate::Schedule;
use crate::due_order::{self, Item};

/// The items that a schedule serves, by due date; `items` are all of the instance, by due date.
pub(super) fn of(items: &[Item], schedule: &Schedule) -> Vec<Item> {
    let mut served: Vec<_> = schedule.order().collect();
    served.sort_unstable();
    let is_served = |item: &&Item| served.binary_search(&item.index).is_ok();
    items.iter().filter(is_served).copied().collect()
}

/// Whether items in due-date order, loaded right-tight, fit onto link and stage.
///
/// They do if and only if each starts at 0 or later, and from its start to the end of the load under way just before its due date (else to
/// that date) the link brings no more than the capacity (beyond the paper).
pub(super) fn fits(capacity: i64, items: &[Item]) -> bool {
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
