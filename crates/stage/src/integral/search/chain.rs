//! Bounds for what is due first, below the continuous ones.
//!
//! # The chain
//!
//! Going forward, every few due dates: a pass back over some dates before finds the greatest weight that integral loads can
//! reach there, with the bound of what is due still earlier, which was lowered before. So each loss that whole images cause is found within
//! one of the passes, and the bounds hand it on from one to the next (beyond the paper).
//!
//! # What is relaxed
//!
//! What is due later is only known by a [`debt`](super::label::Label::debt): how many of its bytes are still to be loaded. They take the link at any
//! time, a byte at a time, and no more room than what has arrived. A debt must not come first: loading what is due later before what is due earlier is sometimes better. Bounds are
//! found for several debts, and hold for all that lie above.

use super::pass::{Pass, Span};
use super::problem::{Event, Problem};

/// How finely bounds are lowered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grain {
    /// Due dates from one lowered bound to the next, and over how many a pass goes back.
    step: usize,
    depth: usize,
    /// For how many amounts of what is due later, from none to nearly all the room.
    levels: i64,
    /// Labels of a layer: to find a weight that is possible, and to find that no more is.
    narrow: usize,
    wide: usize,
}

/// Closes four fifths of the gap to the continuous bound on general instances.
pub(super) const COARSE: Grain = Grain {
    step: 8,
    depth: 24,
    levels: 8,
    narrow: 16,
    wide: 512,
};

/// Closes nine tenths, in five times the time.
pub(super) const FINE: Grain = Grain {
    depth: 40,
    ..COARSE
};

/// Lowers all bounds, as far as time allows.
///
/// O(n · levels · depth / step) layers of at most `wide` labels.
pub(super) fn lower(problem: &mut Problem, grain: &Grain, stop: &mut dyn FnMut() -> bool) {
    let mut lowered = None;
    let last = problem.events.len() - 1;
    let events = (grain.step..last).step_by(grain.step).chain([last]);
    for event in events {
        let position = problem.events[event].items.end;
        if let Some(before) = lowered {
            problem.renew(before, position);
        }
        if problem.events[event].items.is_empty() {
            continue;
        }
        let caps = caps(problem, grain, event, stop);
        if stop() {
            break;
        }
        problem.cap(position, &caps);
        lowered = Some(position);
    }
    if let Some(before) = lowered {
        problem.renew(before, problem.items.len());
    }
}

/// What is possible at most if so many bytes for later must have arrived at an event; nothing is due after the last one.
fn caps(
    problem: &Problem,
    grain: &Grain,
    event: usize,
    stop: &mut dyn FnMut() -> bool,
) -> Vec<(i64, u128)> {
    let levels = match event + 1 == problem.events.len() {
        true => 1,
        false => grain.levels,
    };
    let room = i128::from(problem.events[event].room);
    let bytes = (0..levels).map(|level| (room * i128::from(level) / i128::from(levels)) as i64);
    let caps = bytes.map(|bytes| (bytes, cap(problem, grain, event, bytes, stop)));
    caps.collect()
}

fn cap(
    problem: &Problem,
    grain: &Grain,
    event: usize,
    bytes: i64,
    stop: &mut dyn FnMut() -> bool,
) -> u128 {
    let Event { items, .. } = &problem.events[event];
    let span = Span {
        first: event.saturating_sub(grain.depth),
        last: event,
        debt: bytes,
    };
    let most = problem.before_leaving(items.end, bytes);
    let possible = Pass::new(problem, span, grain.narrow, 0).run(stop).weight;
    if possible >= most {
        return most;
    }
    let outcome = Pass::new(problem, span, grain.wide, possible).run(stop);
    most.min(outcome.weight.max(outcome.cut_off))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::continuous::Occupied;
    use crate::{Instance, Reservation, Staged, due_order};

    const STATES_MAX: usize = 1 << 20;

    /// Reservations that meet each other, and images that are staged from the beginning.
    fn any() -> impl Strategy<Value = Instance> {
        (4u64..24).prop_flat_map(|capacity| {
            let row = (1..=capacity, 0..=5 * capacity, 1u64..5);
            let rows = prop::collection::vec(row, 1..14);
            let staged = prop::collection::vec((1..=capacity / 2, 0..=2 * capacity), 0..=2);
            (rows, staged).prop_map(move |(rows, staged)| {
                let rows = rows.into_iter();
                let rows = rows.map(|(size, due, weight)| Reservation::new(size, due, weight));
                let staged = staged.into_iter().map(|(size, due)| Staged { size, due });
                let instance = Instance::new(capacity, rows.collect()).unwrap();
                instance.with_staged(staged.collect()).unwrap()
            })
        })
    }

    fn grain() -> impl Strategy<Value = Grain> {
        let grain = (1usize..4, 1usize..6, 1i64..6, 1usize..4, 1usize..8);
        grain.prop_map(|(step, depth, levels, narrow, wide)| Grain {
            step,
            depth,
            levels,
            narrow,
            wide,
        })
    }

    /// The greatest weight, by a pass that cuts nothing off; and of the first items alone.
    fn best(problem: &Problem, last: usize, debt: i64) -> u128 {
        let span = Span {
            first: 0,
            last,
            debt,
        };
        let outcome = Pass::new(problem, span, usize::MAX, 0).run(&mut || false);
        assert_eq!(outcome.cut_off, 0);
        outcome.weight
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        #[test]
        fn no_bound_is_below_what_is_possible(
            given in any(),
            grain in grain(),
            stops_after in 0usize..400,
        ) {
            let items = due_order::items_beside_staged(&given).unwrap();
            let problem = || Problem::new(&Occupied::of(&given), &items, STATES_MAX).unwrap();
            let (plain, mut lowered) = (problem(), problem());
            let mut asked = 0;
            lower(&mut lowered, &grain, &mut || {
                asked += 1;
                asked > stops_after
            });
            for (last, event) in plain.events.iter().enumerate().skip(1) {
                for bytes in 0..=event.room.min(event.at) {
                    let until = event.at - bytes;
                    let possible = best(&plain, last, bytes);
                    prop_assert!(lowered.before(event.items.end, until) >= possible);
                    prop_assert!(lowered.before(event.items.end, until) <= plain.before(event.items.end, until));
                }
            }
            let end = plain.events.len() - 1;
            prop_assert_eq!(best(&lowered, end, 0), best(&plain, end, 0));
        }
    }
}
