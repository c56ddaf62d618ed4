//! The best schedule that time allows, whatever the model.

use crate::continuous::{self, Occupied};
use crate::due_order::{self, Item};
use crate::integral::{self, Search};
use crate::shared::{self, Shared};
use crate::{Instance, Load, Model, Schedule, Solution, Unsupported, right_tight};

/// Solves an instance as well as it can until told to stop, and says how good the answer is.
///
/// The continuous model is solved exactly at once. For the integral one, the approximations come first, then the exact search
/// in ever wider passes, with better bounds in between: the schedule only gets heavier and the bound only lower, until both meet, or until the widest pass
/// (262,144 ways at each due date, which keeps memory within limits) has ended. `stop` is asked often (for every few ways at each due date);
/// a search that ends at once still answers with an approximation.
///
/// ```
/// use mutual_stage::{Instance, Model, Reservation, solve};
///
/// let reservations = (0..200_u64).zip([3, 10, 30].into_iter().cycle());
/// let reservations = reservations.map(|(k, size)| Reservation::new(size, 100 + 11 * k, 1));
/// let instance = Instance::new(40, reservations.collect())?;
/// let solution = solve(&instance, Model::Integral, &mut || false);
/// assert!(solution.is_proved_best());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Load times that differ from sizes and images that stay after their due dates are left to [`shared::solve`].
pub fn solve(instance: &Instance, model: Model, stop: &mut dyn FnMut() -> bool) -> Solution {
    match exactly(instance, model, stop) {
        Ok(solution) => solution,
        Err(_) => at_large(instance, model, stop),
    }
}

fn exactly(
    instance: &Instance,
    model: Model,
    stop: &mut dyn FnMut() -> bool,
) -> Result<Solution, Unsupported> {
    let items = due_order::items_beside_staged(instance)?;
    let relaxed = continuous_best(instance, &items)?;
    match model {
        Model::Continuous => Ok(relaxed),
        Model::Integral => Ok(integral_best(instance, &items, &relaxed, stop)),
    }
}

/// What no exact algorithm knows. Images numbered like reservations make the schedules alike.
fn at_large(instance: &Instance, model: Model, stop: &mut dyn FnMut() -> bool) -> Solution {
    let found = shared::solve(&Shared::plain(instance), model, stop);
    let loads = found.schedule.loads.into_iter().map(|load| Load {
        reservation: load.image,
        start: load.start,
    });
    Solution::bounded(instance, loads.collect(), found.bound)
}

/// Labels of a layer in each pass.
const WIDTHS: [usize; 7] = [1, 8, 64, 512, 1 << 12, 1 << 15, 1 << 18];

/// The pass before which bounds are lowered: it takes less time when a good schedule is known.
const BOUNDED_WIDTH: usize = 512;

/// The pass before which the schedule is improved locally: it is much slower than all passes before.
const IMPROVED_WIDTH: usize = 1 << 12;

fn continuous_best(instance: &Instance, items: &[Item]) -> Result<Solution, Unsupported> {
    match are_equal(items) {
        true => continuous::most(instance),
        false => continuous::heaviest(instance),
    }
}

fn are_equal(items: &[Item]) -> bool {
    let mut pairs = items.windows(2);
    pairs.all(|pair| pair[0].weight == pair[1].weight)
}

fn integral_best(
    instance: &Instance,
    items: &[Item],
    relaxed: &Solution,
    stop: &mut dyn FnMut() -> bool,
) -> Solution {
    let first = first_answer(instance, items, relaxed);
    if first.is_proved_best() {
        return first;
    }
    let Some(mut search) = Search::new(&Occupied::of(instance), items, first.weight) else {
        return without_search(instance, first, stop);
    };
    search.lower_bound_to(first.bound);
    let mut schedule = first.schedule;
    for width in WIDTHS {
        // Beside staged images, the first pass is the approximation.
        let is_first = width == WIDTHS[0] && !instance.staged().is_empty();
        if search.is_done() || !is_first && stop() {
            break;
        }
        if width == BOUNDED_WIDTH {
            search.lower_bounds(stop);
        }
        if width == IMPROVED_WIDTH {
            schedule = locally_improved(instance, items, schedule, stop);
            search.raise_known_to(schedule.weight(instance));
            search.lower_bounds_further(stop);
        }
        let order = match is_first {
            true => search.pass(width, &mut || false),
            false => search.pass(width, stop),
        };
        if let Some(order) = order {
            schedule = tightened(instance, &order).unwrap_or(schedule);
        }
    }
    Solution::bounded(instance, schedule, search.bound())
}

/// The best approximation; nothing yet beside staged images.
fn first_answer(instance: &Instance, items: &[Item], relaxed: &Solution) -> Solution {
    if !instance.staged().is_empty() {
        return Solution::bounded(instance, Schedule::default(), relaxed.bound);
    }
    let first = integral::first_answer(instance, items, relaxed);
    if first.is_proved_best() || !are_equal(items) {
        return first;
    }
    // There are several continuous optima, and halves of another one may be better.
    match continuous::heaviest(instance) {
        Ok(other) => heavier(first, integral::first_answer(instance, items, &other)),
        Err(_) => first,
    }
}

fn heavier(one: Solution, other: Solution) -> Solution {
    match other.weight > one.weight {
        true => other,
        false => one,
    }
}

/// What there is if the bounds of the search would take too much memory.
fn without_search(
    instance: &Instance,
    first: Solution,
    stop: &mut dyn FnMut() -> bool,
) -> Solution {
    if instance.staged().is_empty() {
        return first;
    }
    let found = at_large(instance, Model::Integral, stop);
    let bound = found.bound.min(first.bound);
    Solution::bounded(instance, found.schedule, bound)
}

/// The same or a heavier schedule, by windows.
fn locally_improved(
    instance: &Instance,
    items: &[Item],
    schedule: Schedule,
    stop: &mut dyn FnMut() -> bool,
) -> Schedule {
    if items.len() > integral::WINDOW_ITEMS_MAX {
        return schedule;
    }
    let order: Vec<_> = schedule.order().collect();
    let better = integral::improve(&Occupied::of(instance), items, &order, stop);
    let better = better.and_then(|order| tightened(instance, &order));
    better.unwrap_or(schedule)
}

/// The search only finds orders that the link is fast enough for.
fn tightened(instance: &Instance, order: &[usize]) -> Option<Schedule> {
    let tight = right_tight(instance, order);
    debug_assert!(tight.is_ok(), "labels keep their due dates");
    tight.ok()
}
