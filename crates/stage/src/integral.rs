//! The integral model: an image occupies its whole size from the start of its load.
//!
//! Due-date order may lose here: with a stage of 7 and images of size 1, 1, 6 due at 9, 10, 11, all three can be served, but only if
//! the large one is loaded before the one due at 10. So the general case is approximated, from the continuous optimum, which
//! bounds it from above. Special sizes are solved exactly.

mod beam;
mod chosen;
mod half;
mod large;
mod refill;
mod search;
mod small;
mod windows;

use std::num::NonZeroUsize;

use crate::continuous::{Epsilon, Occupied};
use crate::due_order::{self, Item};
use crate::{Instance, Solution, Unsupported, baseline, continuous};

pub use half::Half;
pub(crate) use search::Search;
pub(crate) use windows::{ITEMS_MAX as WINDOW_ITEMS_MAX, improve};

/// A schedule of at least half the greatest weight, with gaps refilled: the best of every [`Half`].
///
/// Time is that of [`continuous::heaviest`], and then O(n · r) to refill with r reservations left over.
///
/// ```
/// use mutual_stage::{Instance, Reservation, integral};
///
/// let reservations = [(5, 9), (3, 13), (3, 17), (9, 20)].map(|(size, due)| Reservation::new(size, due, 1));
/// let solution = integral::approximate(&Instance::new(9, reservations.into())?)?;
/// assert!(2 * solution.weight >= solution.bound);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`Unsupported::LoadTime`] if a load time differs from its size.
pub fn approximate(instance: &Instance) -> Result<Solution, Unsupported> {
    let items = due_order::items(instance)?;
    let capacity = due_order::capacity(instance);
    let relaxed = continuous::heaviest(instance)?;
    let optimum = chosen::of(&items, &relaxed.schedule);
    let best = best_half(capacity, &items, &optimum);
    let schedule = due_order::right_tight(&best);
    Ok(Solution::bounded(instance, schedule, relaxed.bound))
}

/// One of the ways to make a continuous optimum integral, without refilling, to be compared with the others.
///
/// ```
/// use mutual_stage::integral::{Half, half};
/// use mutual_stage::{Instance, Reservation};
///
/// let reservations = [(5, 9), (3, 13), (3, 17), (9, 20)].map(|(size, due)| Reservation::new(size, due, 1));
/// let instance = Instance::new(9, reservations.into())?;
/// let kept = Half::ALL.map(|kind| half(&instance, kind).map(|solution| solution.weight));
/// assert!(kept.iter().all(|kept| kept.as_ref().is_ok_and(|weight| *weight >= 2)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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

/// The paper's weighted 2 (1 + ε)-approximation: [`Half::FromRight`] of a continuous schedule found by the FPTAS, in O(n³ / ε).
///
/// ```
/// use mutual_stage::continuous::Epsilon;
/// use mutual_stage::{Instance, Reservation, integral};
///
/// let reservations = (1..40).map(|j| Reservation::new(if j % 2 == 0 { 30 } else { 4 }, 12 * j, 1 + j % 7));
/// let instance = Instance::new(40, reservations.collect())?;
/// let tenth = Epsilon::millionths(100_000).ok_or("out of range")?;
/// let solution = integral::half_of_near_heaviest(&instance, tenth)?;
/// assert!(22 * solution.weight >= 10 * solution.bound);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As for [`approximate`].
pub fn half_of_near_heaviest(
    instance: &Instance,
    epsilon: Epsilon,
) -> Result<Solution, Unsupported> {
    let items = due_order::items(instance)?;
    let relaxed = continuous::near_heaviest(instance, epsilon)?;
    let near = chosen::of(&items, &relaxed.schedule);
    let kept = Half::FromRight.of(due_order::capacity(instance), &near);
    let schedule = due_order::right_tight(&kept);
    Ok(Solution::bounded(instance, schedule, relaxed.bound))
}

/// For images of at most a seventh of the stage: at least (1 − 1/q) of the greatest weight, with q = ⌊(C − 3 s_max) / (2 s_max)⌋ (INFOCOM
/// 2010, constant derived here).
///
/// The heavier of two: a continuous optimum without every q-th group of loads, and a continuous optimum for a stage that is smaller by the
/// largest image, which always leaves room for the load under way (beyond the paper).
///
/// ```
/// use mutual_stage::{Instance, Reservation, integral};
///
/// let reservations = (0..300).map(|j| Reservation::new(1 + j % 3, 10 + 2 * j / 3, 1 + j % 5));
/// let solution = integral::small_images(&Instance::new(60, reservations.collect())?)?;
/// assert!(9 * solution.bound <= 10 * solution.weight);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`Unsupported::LoadTime`] if a load time differs from its size, [`Unsupported::TooLarge`] if an image is larger.
pub fn small_images(instance: &Instance) -> Result<Solution, Unsupported> {
    let items = due_order::items(instance)?;
    let capacity = due_order::capacity(instance);
    let size_max = items.iter().map(|item| item.size).max().unwrap_or(1);
    let most = capacity / 7;
    if size_max > most {
        let (size, most) = (size_max.unsigned_abs(), most.unsigned_abs());
        return Err(Unsupported::TooLarge { size, most });
    }
    let q = (capacity - 3 * size_max) / (2 * size_max);
    let q = usize::try_from(q)
        .unwrap_or(usize::MAX)
        .min(items.len() + 1);
    let relaxed = continuous::heaviest(instance)?;
    let optimum = chosen::of(&items, &relaxed.schedule);
    let grouped = small::without_every(q, size_max, &optimum);
    let smaller = continuous::heaviest_items(capacity - size_max, &items);
    let kept = small::heavier(grouped, smaller);
    let schedule = due_order::right_tight(&kept);
    Ok(Solution::bounded(instance, schedule, relaxed.bound))
}

/// The best schedule in due-date order that a beam of some width finds; beyond the paper.
///
/// O(n · width · k) for k images on the stage at a time. With unlimited width it is the best in due-date order, which may be less
/// than the best of all.
///
/// ```
/// use std::num::NonZeroUsize;
///
/// use mutual_stage::{Instance, Model, Reservation, integral, solve};
///
/// // All three can be served, but only if the large one is loaded before the one due at 10.
/// let reservations = [(1, 9), (1, 10), (6, 11)].map(|(size, due)| Reservation::new(size, due, 1));
/// let instance = Instance::new(7, reservations.into())?;
/// let width = NonZeroUsize::new(200).ok_or("no width")?;
/// assert_eq!(integral::beam(&instance, width)?.weight, 2);
/// assert_eq!(solve(&instance, Model::Integral, &mut || false).weight, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`Unsupported::LoadTime`] if a load time differs from its size, [`Unsupported::Table`] if the bounds that rank its ways take too much memory.
pub fn beam(instance: &Instance, width: NonZeroUsize) -> Result<Solution, Unsupported> {
    let items = due_order::items(instance)?;
    let capacity = due_order::capacity(instance);
    let bound = continuous::heaviest(instance)?.bound;
    let too_many = Unsupported::Table {
        cells: BEAM_STATES_MAX as u128 + 1,
        most: BEAM_STATES_MAX as u128,
    };
    let befores = continuous::befores(&Occupied::nothing(capacity), &items, BEAM_STATES_MAX)
        .ok_or(too_many)?;
    let chosen = beam::best(capacity, &items, &befores, width.get());
    let kept = refill::refill(capacity, &items, chosen);
    Ok(Solution::bounded(
        instance,
        due_order::right_tight(&kept),
        bound,
    ))
}

/// An upper bound for every integral schedule, mostly below the continuous one; beyond the paper.
///
/// Bounds for what is due first are lowered one after the other: each by the greatest weight that integral loads can reach over the last two dozen due
/// dates, with the bound of what is due still earlier. What is due later is only known by how much of the link's time it takes. Where a weight
/// is known to be possible, the bound is never below that. Linear in n, for about as many steps as images that wait at a time have orders.
///
/// ```
/// use mutual_stage::{Instance, Reservation, continuous, integral};
///
/// let reservations = (1..60).map(|j| Reservation::new(if j % 2 == 0 { 30 } else { 4 }, 12 * j, 1));
/// let instance = Instance::new(40, reservations.collect())?;
/// let bound = integral::upper_bound(&instance, 0, &mut || false)?;
/// assert!(bound < continuous::heaviest(&instance)?.bound);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`Unsupported::LoadTime`] if a load time differs from its size, and [`Unsupported::Unload`].
pub fn upper_bound(
    instance: &Instance,
    known: u128,
    stop: &mut dyn FnMut() -> bool,
) -> Result<u128, Unsupported> {
    let items = due_order::items_beside_staged(instance)?;
    let relaxed = continuous::heaviest(instance)?.bound;
    let Some(mut search) = Search::new(&Occupied::of(instance), &items, known) else {
        return Ok(relaxed.max(known));
    };
    search.lower_bounds(stop);
    Ok(search.bound())
}

/// States that the bounds of a beam may take together.
const BEAM_STATES_MAX: usize = 1 << 24;

/// The schedule of greatest weight when all images have one size: the continuous optimum of a stage that holds a whole number of them.
///
/// ```
/// use mutual_stage::{Instance, Reservation, integral};
///
/// // Two fit at a time; the third of those due together is one too many.
/// let reservations = [60, 60, 60, 90].map(|due| Reservation::new(30, due, 1));
/// let solution = integral::equal_sizes(&Instance::new(80, reservations.into())?)?;
/// assert_eq!((solution.weight, solution.is_proved_best()), (3, true));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
/// ```
/// use mutual_stage::{Instance, Reservation, integral};
///
/// // No two can be there together: the second would have to load before the first has left.
/// let reservations = [(6, 10), (7, 15), (8, 23)].map(|(size, due)| Reservation::new(size, due, 1));
/// let solution = integral::large_images(&Instance::new(10, reservations.into())?)?;
/// assert_eq!((solution.weight, solution.is_proved_best()), (2, true));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
/// ```
/// use mutual_stage::{Instance, Reservation, integral};
///
/// let reservations = (1..50).map(|j| Reservation::new(6 + j % 4, 4 * j, 1 + j % 5));
/// let instance = Instance::new(10, reservations.collect())?;
/// let forward = integral::large_images_forward(&instance)?;
/// assert_eq!(forward.weight, integral::large_images(&instance)?.weight);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As for [`large_images`].
pub fn large_images_forward(instance: &Instance) -> Result<Solution, Unsupported> {
    let items = large_items(instance)?;
    let chosen = large::by_states(&items);
    Ok(Solution::exact(instance, due_order::right_tight(&chosen)))
}

/// What is known before any search on an empty stage: the exact schedule of special sizes, else an approximation.
pub(crate) fn first_answer(instance: &Instance, items: &[Item], relaxed: &Solution) -> Solution {
    let capacity = due_order::capacity(instance);
    if items.iter().all(|item| item.size > capacity / 2) {
        let chosen = large::by_intervals(items);
        return Solution::exact(instance, due_order::right_tight(&chosen));
    }
    let optimum = chosen::of(items, &relaxed.schedule);
    let forward = baseline::forward_items(capacity, items);
    let kept = small::heavier(
        best_half(capacity, items, &optimum),
        refill::refill(capacity, items, chosen::of(items, &forward)),
    );
    Solution::bounded(instance, due_order::right_tight(&kept), relaxed.bound)
}

/// The heaviest of all halves of a continuous optimum, each refilled.
fn best_half(capacity: i64, items: &[Item], optimum: &[Item]) -> Vec<Item> {
    let halves = Half::ALL.map(|half| refill::refill(capacity, items, half.of(capacity, optimum)));
    let best = halves.into_iter().rev().max_by_key(|kept| weight(kept));
    best.unwrap_or_default()
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
