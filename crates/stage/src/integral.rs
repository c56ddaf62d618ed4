//! The integral model: an image occupies its whole size from the start of its load.
//!
//! Due-date order may lose here: with a stage of 7 and images of size 1, 1, 6 due at 9, 10, 11, all three can be served, but only if
//! the large one is loaded before the one due at 10. So the general case is approximated, from the continuous optimum, which
//! bounds it from above. Special sizes are solved exactly.

mod chosen;
mod half;
mod large;
mod refill;

use crate::due_order::{self, Item};
use crate::{Instance, Solution, Unsupported, continuous};

pub use half::Half;

/// A schedule of at least half the greatest weight, with gaps refilled: the best of every [`Half`].
///
/// Time is that of [`continuous::heaviest`], and then O(n · r) to refill with r reservations left over.
///
/// # Errors
///
/// [`Unsupported::LoadTime`] if a load time differs from its size.
pub fn approximate(instance: &Instance) -> Result<Solution, Unsupported> {
    let items = due_order::items(instance)?;
    let capacity = due_order::capacity(instance);
    let relaxed = continuous::heaviest(instance)?;
    let optimum = chosen::of(&items, &relaxed.schedule);
    let mut best = Vec::new();
    for half in Half::ALL {
        let kept = refill::refill(capacity, &items, half.of(capacity, &optimum));
        if weight(&kept) > weight(&best) {
            best = kept;
        }
    }
    let schedule = due_order::right_tight(&best);
    Ok(Solution::bounded(instance, schedule, relaxed.bound))
}

/// One of the ways to make a continuous optimum integral, without refilling, to be compared with the others.
///
/// # Errors
///
/// [`Unsupported::LoadTime`] if a load time differs from its size.
pub fn half(instance: &Instance, half: Half) -> Result<Solution, Unsupported> {
    let items = due_order::items(instance)?;
    let relaxed = continuous::heaviest(instance)?;
    let optimum = chosen::of(&items, &relaxed.schedule);
    let kept = half.of(due_order::capacity(instance), &optimum);
    let schedule = due_order::right_tight(&kept);
    Ok(Solution::bounded(instance, schedule, relaxed.bound))
}

/// The schedule of greatest weight when all images have one size: the continuous optimum of a stage that holds a whole number of them.
///
/// # Errors
///
/// [`Unsupported::LoadTime`] if a load time differs from its size, [`Unsupported::Size`] if sizes differ.
pub fn equal_sizes(instance: &Instance) -> Result<Solution, Unsupported> {
    let items = due_order::items(instance)?;
    let Some(first) = items.first() else {
        return continuous::heaviest(instance);
    };
    if let Some(odd) = items.iter().find(|item| item.size != first.size) {
        return Err(Unsupported::Size { index: odd.index });
    }
    let capacity = due_order::capacity(instance);
    let whole = capacity - capacity % first.size;
    let chosen = continuous::heaviest_items(whole, &items);
    Ok(Solution::exact(instance, due_order::right_tight(&chosen)))
}

/// The schedule of greatest weight when every image takes more than half the stage, in O(n log n).
///
/// No two can be on the stage together, and each is there for the shortest time when it is loaded just before its due date: weighted
/// interval scheduling on [due − size, due).
///
/// # Errors
///
/// [`Unsupported::LoadTime`] if a load time differs from its size, [`Unsupported::Small`] if an image fits twice.
pub fn large_images(instance: &Instance) -> Result<Solution, Unsupported> {
    let items = large_items(instance)?;
    let chosen = large::by_intervals(&items);
    Ok(Solution::exact(instance, due_order::right_tight(&chosen)))
}

/// The same as [`large_images`], by the paper's dynamic program that runs forward in time: due dates in order, and a Pareto front of weight and of
/// the moment from which the stage is free. O(n · F) for fronts of F states.
///
/// # Errors
///
/// As for [`large_images`].
pub fn large_images_forward(instance: &Instance) -> Result<Solution, Unsupported> {
    let items = large_items(instance)?;
    let chosen = large::by_states(&items);
    Ok(Solution::exact(instance, due_order::right_tight(&chosen)))
}

fn large_items(instance: &Instance) -> Result<Vec<Item>, Unsupported> {
    let items = due_order::items(instance)?;
    let capacity = due_order::capacity(instance);
    match items.iter().find(|item| item.size <= capacity / 2) {
        Some(small) => Err(Unsupported::Small { index: small.index }),
        None => Ok(items),
    }
}

fn weight(items: &[Item]) -> u128 {
    items.iter().map(|item| u128::from(item.weight)).sum()
}
