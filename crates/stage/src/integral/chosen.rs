//! What a schedule serves.

use crate::Schedule;
use crate::due_order::Item;

/// The items that a schedule serves, by due date; `items` are all of the instance, by due date.
pub(super) fn of(items: &[Item], schedule: &Schedule) -> Vec<Item> {
    let mut served: Vec<_> = schedule.order().collect();
    served.sort_unstable();
    let is_served = |item: &&Item| served.binary_search(&item.index).is_ok();
    items.iter().filter(is_served).copied().collect()
}
