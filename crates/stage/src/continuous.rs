//! The continuous model, solved exactly: an image occupies what has arrived of it.
//!
//! Three facts carry everything here.
//!
//! - **Due-date order loses nothing** (INFOCOM 2010), as long as a load takes as long as its image is large.
//! - **Feasibility is local** (beyond the paper): a right-tight schedule in due-date order is feasible if and only if each load
//!   starts at max(0, due − capacity) or later. That is the whole capacity check, because just before a due date the stage
//!   holds exactly what the link brought without a pause until then.
//! - **The same as a token bucket** (beyond the paper): time fills a bucket of the stage's capacity, an image takes its size out at its due
//!   date, and a set is feasible if and only if the bucket never runs dry. So the link need not load one image after the
//!   other: interrupting loads, or sharing the link among them, cannot serve more.

mod bucket;
mod gains;
mod pareto;
mod trail;

use crate::due_order::{self, Item};
use crate::{Instance, Solution, Unsupported};

/// The schedule of greatest weight: Algorithm 1 of the paper, kept to its Pareto front.
///
/// O(n · F) time for fronts of F states: about 40 with seven images to a stageful, about 1,000 with seventy. In the worst case F is the
/// number of different total weights.
///
/// # Errors
///
/// [`Unsupported::LoadTime`] if a load time differs from its size.
pub fn heaviest(instance: &Instance) -> Result<Solution, Unsupported> {
    let items = due_order::items(instance)?;
    let chosen = heaviest_items(due_order::capacity(instance), &items);
    Ok(solution(instance, &chosen))
}

/// The same for items in due-date order and any capacity.
pub(crate) fn heaviest_items(capacity: i64, items: &[Item]) -> Vec<Item> {
    pareto::heaviest(capacity, items)
}

/// The schedule that serves the most reservations, for equal weights, in O(n log n).
///
/// Goes through the due dates in order and keeps every reservation; when the token bucket runs dry, it gives up the one whose absence leaves the
/// most tokens (beyond the paper; after Kise, Ibaraki and Mine 1978, who did so for agreeable time windows).
///
/// # Errors
///
/// [`Unsupported::LoadTime`] if a load time differs from its size, [`Unsupported::Weight`] if weights differ.
pub fn most(instance: &Instance) -> Result<Solution, Unsupported> {
    let items = due_order::items(instance)?;
    if let Some(odd) = items.iter().find(|item| item.weight != items[0].weight) {
        return Err(Unsupported::Weight { index: odd.index });
    }
    let chosen = bucket::most(due_order::capacity(instance), &items);
    Ok(solution(instance, &chosen))
}

fn solution(instance: &Instance, chosen: &[Item]) -> Solution {
    Solution::exact(instance, due_order::right_tight(chosen))
}

/// The earliest that an item's load may start in a right-tight schedule in due-date order.
fn floor(capacity: i64, item: &Item) -> i64 {
    (item.due - capacity).max(0)
}
