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
//!
//! Images already on the stage only raise the earliest starts (beyond the paper): a load must not start before b − (room just before b), for every
//! moment b up to its due date at which a staged image leaves, and for the due date itself. A link of changing rate is one of
//! constant rate by its own clock ([`Bandwidth`](crate::Bandwidth)).

mod before;
mod bucket;
mod floors;
mod gains;
mod pareto;
mod scaled;
mod table;

use crate::due_order::{self, Item};
use crate::{Instance, Solution, Unsupported};

pub(crate) use before::Before;
pub(crate) use floors::Occupied;
pub use scaled::Epsilon;

/// The schedule of greatest weight: Algorithm 1 of the paper, kept to its Pareto front.
///
/// O(n · F) time for fronts of F states: about 40 with seven images to a stageful, about 1,000 with seventy. In the worst case F is the
/// number of different total weights.
///
/// ```
/// use mutual_stage::{Instance, Reservation, continuous};
///
/// let reservations = vec![
///     Reservation::new(3, 4, 5), // size, due date, weight
///     Reservation::new(4, 5, 6),
///     Reservation::new(2, 9, 1),
/// ];
/// let solution = continuous::heaviest(&Instance::new(5, reservations)?)?;
/// assert_eq!(solution.weight, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`Unsupported::LoadTime`] if a load time differs from its size, [`Unsupported::Unload`] if images stay after their due dates.
pub fn heaviest(instance: &Instance) -> Result<Solution, Unsupported> {
    let items = due_order::items_beside_staged(instance)?;
    let floors = floors::floors(&Occupied::of(instance), &items);
    Ok(solution(instance, &pareto::heaviest(&items, &floors)))
}

/// The same as [`heaviest`] by the table that the paper prints, in O(n · W) time and O(n · W) bits for a total weight W.
///
/// ```
/// use mutual_stage::{Instance, Reservation, continuous};
///
/// let reservations = (1..50).map(|j| Reservation::new(1 + j % 7, 3 * j, 1 + j % 5));
/// let instance = Instance::new(10, reservations.collect())?;
/// let by_table = continuous::heaviest_by_table(&instance)?;
/// assert_eq!(by_table.weight, continuous::heaviest(&instance)?.weight);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As for [`heaviest`], and [`Unsupported::Table`] if the table is too large.
pub fn heaviest_by_table(instance: &Instance) -> Result<Solution, Unsupported> {
    let items = due_order::items_beside_staged(instance)?;
    let floors = floors::floors(&Occupied::of(instance), &items);
    let chosen = table::heaviest(&items, &floors)?;
    Ok(solution(instance, &chosen))
}

/// The paper's FPTAS: a schedule of at least (1 − ε) times the greatest weight, in O(n³ / ε).
///
/// ```
/// use mutual_stage::continuous::{self, Epsilon};
/// use mutual_stage::{Instance, Reservation};
///
/// let reservations = (1..100).map(|j| Reservation::new(1 + j % 7, 3 * j, 1_000 + j));
/// let instance = Instance::new(10, reservations.collect())?;
/// let tenth = Epsilon::millionths(100_000).ok_or("out of range")?;
/// let near = continuous::near_heaviest(&instance, tenth)?;
/// assert!(10 * near.weight >= 9 * continuous::heaviest(&instance)?.weight);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As for [`heaviest`].
pub fn near_heaviest(instance: &Instance, epsilon: Epsilon) -> Result<Solution, Unsupported> {
    let items = due_order::items_beside_staged(instance)?;
    let step = epsilon.step(&items);
    let scaled = scaled::in_steps(&items, step);
    let floors = floors::floors(&Occupied::of(instance), &scaled);
    let chosen = pareto::heaviest(&scaled, &floors);
    // Each reservation of an optimum loses less than a step.
    let steps: u128 = chosen.iter().map(|item| u128::from(item.weight)).sum();
    let lost = u128::from(step - 1) * items.len() as u128;
    let schedule = due_order::right_tight(&chosen);
    Ok(Solution::bounded(
        instance,
        schedule,
        steps * u128::from(step) + lost,
    ))
}

/// The greatest weight for items in due-date order on an empty stage of any capacity.
pub(crate) fn heaviest_items(capacity: i64, items: &[Item]) -> Vec<Item> {
    let floors: Vec<_> = items
        .iter()
        .map(|item| (item.due - capacity).max(0))
        .collect();
    pareto::heaviest(items, &floors)
}

/// The greatest weight of items in due-date order.
pub(crate) fn best_weight(occupied: &Occupied, items: &[Item]) -> u128 {
    let chosen = pareto::heaviest(items, &floors::floors(occupied, items));
    chosen.iter().map(|item| u128::from(item.weight)).sum()
}

/// What the first items can weigh, for each number of them; see [`Before`]. `None` if that takes more than `most` states.
pub(crate) fn befores(occupied: &Occupied, items: &[Item], most: usize) -> Option<Vec<Before>> {
    before::befores(occupied, items, most)
}

/// The schedule that serves the most reservations, for equal weights, in O(n log n).
///
/// Goes through the due dates in order and keeps every reservation; when the token bucket runs dry, it gives up the one whose absence leaves the
/// most tokens (beyond the paper; after Kise, Ibaraki and Mine 1978, who did so for agreeable time windows).
///
/// ```
/// use mutual_stage::{Instance, Reservation, continuous};
///
/// let reservations = (1..=1_000).map(|j| Reservation::new(5, 4 * j, 1)).collect();
/// let solution = continuous::most(&Instance::new(20, reservations)?)?;
/// assert_eq!(solution.weight, 800);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`Unsupported::LoadTime`] if a load time differs from its size, [`Unsupported::Weight`] if weights differ, [`Unsupported::Unload`] if
/// images stay after their due dates.
pub fn most(instance: &Instance) -> Result<Solution, Unsupported> {
    let items = due_order::items_beside_staged(instance)?;
    if let Some(odd) = items.iter().find(|item| item.weight != items[0].weight) {
        return Err(Unsupported::Weight { index: odd.index });
    }
    let chosen = bucket::most(&Occupied::of(instance), &items);
    Ok(solution(instance, &chosen))
}

fn solution(instance: &Instance, chosen: &[Item]) -> Solution {
    Solution::exact(instance, due_order::right_tight(chosen))
}
