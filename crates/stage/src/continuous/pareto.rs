//! Algorithm 1 of INFOCOM 2010, on its Pareto front instead of a table.
//!
//! Reservations are taken by non-increasing due date. A state says what weight has been reached and until when the link is still free;
//! of two states, one that has no more weight and no more time can never lead to more. Moving the free time back to the next due
//! date (the clamp) makes many states equal, which is what keeps fronts short.

use super::floor;
use super::trail::{Path, START, Trail};
use crate::due_order::Item;

/// One way to have served some of the reservations seen so far.
#[derive(Debug, Clone, Copy)]
struct State {
    weight: u128,
    /// Loads of earlier due dates must end by then.
    free_until: i64,
    path: Path,
}

impl State {
    fn dominates(&self, other: &Self) -> bool {
        self.weight >= other.weight && self.free_until >= other.free_until
    }
}

/// The chosen items, by due date; `items` come by due date.
pub(super) fn heaviest(capacity: i64, items: &[Item]) -> Vec<Item> {
    let mut trail = Trail::default();
    let mut front = vec![State {
        weight: 0,
        free_until: i64::MAX,
        path: START,
    }];
    let mut spare = Vec::new();
    for (position, item) in items.iter().enumerate().rev() {
        let choice = u32::try_from(position).expect("instances count in 32 bits");
        let earliest = floor(capacity, item);
        clamp(&mut trail, &mut front, item.due);
        merge(&mut trail, &front, &mut spare, item, earliest, choice);
        for state in front.drain(..) {
            trail.release(state.path);
        }
        std::mem::swap(&mut front, &mut spare);
    }
    let best = front.last().map_or(START, |state| state.path);
    let chosen = trail.choices(best).into_iter();
    chosen.map(|position| items[position as usize]).collect()
}

/// No load of an earlier due date can use the link after it. Fronts ascend in weight and so descend in free time: those states at the
/// beginning that are now equally free give way to the last of them.
fn clamp(trail: &mut Trail, front: &mut Vec<State>, due: i64) {
    let late = front.partition_point(|state| state.free_until >= due);
    if late == 0 {
        return;
    }
    for state in front.drain(..late - 1) {
        trail.release(state.path);
    }
    front[0].free_until = due;
}

/// Merges the states that leave the item out with those that take it, and keeps those that none dominates.
fn merge(
    trail: &mut Trail,
    front: &[State],
    merged: &mut Vec<State>,
    item: &Item,
    earliest: i64,
    choice: u32,
) {
    let taken = |state: &State| State {
        weight: state.weight + u128::from(item.weight),
        free_until: state.free_until - item.size,
        path: state.path,
    };
    // Later states have less free time: only a beginning of the front can take the item.
    let able = front.partition_point(|state| state.free_until - item.size >= earliest);
    let (mut left, mut took) = (front.iter(), front[..able].iter().map(taken));
    let (mut next_left, mut next_took) = (left.next().copied(), took.next());
    loop {
        match (next_left, next_took) {
            (Some(leave), Some(take)) if leave.weight <= take.weight => {
                push(trail, merged, leave, None);
                next_left = left.next().copied();
            }
            (_, Some(take)) => {
                push(trail, merged, take, Some(choice));
                next_took = took.next();
            }
            (Some(leave), None) => {
                push(trail, merged, leave, None);
                next_left = left.next().copied();
            }
            (None, None) => return,
        }
    }
}

/// Appends a state to a front; states come by non-decreasing weight.
fn push(trail: &mut Trail, front: &mut Vec<State>, mut state: State, choice: Option<u32>) {
    while let Some(last) = front.last() {
        if last.dominates(&state) {
            return;
        }
        if !state.dominates(last) {
            break;
        }
        trail.release(last.path);
        front.pop();
    }
    match choice {
        Some(choice) => state.path = trail.extend(state.path, choice),
        None => trail.retain(state.path),
    }
    front.push(state);
}
