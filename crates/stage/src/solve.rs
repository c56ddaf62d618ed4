//! The best schedule that time allows, whatever the model.

use crate::continuous::{self, Occupied};
use crate::due_order::{self, Item};
use crate::integral::{self, Search};
use crate::shared::{self, Shared};
use crate::{Instance, Load, Model, Schedule, Solution, Unsupported, right_tight};

/// Solves an instance as well as it can until told to stop, and says how good the answer is.
///
/// The continuous model is solved exactly at once. For the integral one, the approximations come first, then the exact search
/// in ever wider passes: the schedule only gets heavier and the bound only lower, until both meet. `stop` is asked often (at each due date of
/// each pass); a search that ends at once still answers with an approximation.
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

/// Passes that find a good schedule, before time is spent on a better bound: it comes faster when more is known.
const PASSES_BEFORE_BOUND: u32 = 1;

fn continuous_best(instance: &Instance, items: &[Item]) -> Result<Solution, Unsupported> {
    let are_equal = items
        .windows(2)
        .all(|pair| pair[0].weight == pair[1].weight);
    match are_equal {
        true => continuous::most(instance),
        false => continuous::heaviest(instance),
    }
}

fn integral_best(
    instance: &Instance,
    items: &[Item],
    relaxed: &Solution,
    stop: &mut dyn FnMut() -> bool,
) -> Solution {
    let first = match instance.staged() {
        [] => integral::first_answer(instance, items, relaxed),
        _ => {
            let found = at_large(instance, Model::Integral, stop);
            Solution::bounded(instance, found.schedule, found.bound.min(relaxed.bound))
        }
    };
    if first.is_proved_best() {
        return first;
    }
    let Solution {
        mut schedule,
        weight,
        bound,
    } = first;
    let Some(mut search) = Search::new(&Occupied::of(instance), items, weight) else {
        return Solution::bounded(instance, schedule, bound);
    };
    search.lower_bound_to(bound);
    let mut bound = bound;
    let mut has_relaxed = !instance.staged().is_empty();
    for pass in 1.. {
        if search.is_done() || stop() {
            break;
        }
        let found = search.pass(stop);
        bound = found.bound;
        if let Some(order) = found.order {
            schedule = tightened(instance, &order).unwrap_or(schedule);
        }
        if pass == PASSES_BEFORE_BOUND && bound > schedule.weight(instance) {
            schedule = locally_improved(instance, items, schedule, stop);
            search.raise_known_to(schedule.weight(instance));
        }
        if pass == PASSES_BEFORE_BOUND && bound > schedule.weight(instance) && !has_relaxed {
            let known = schedule.weight(instance);
            let capacity = due_order::capacity(instance);
            bound = integral::interrupted_bound(capacity, items, known, bound, stop);
            search.lower_bound_to(bound);
            has_relaxed = true;
        }
    }
    Solution::bounded(instance, schedule, bound)
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
