//! Algorithm 1 of INFOCOM 2010, on its Pareto front instead of a table.
//!
//! Reservations are taken by non-increasing due date. A state says what weight has been reached and until when the link is still free;
//! of two states, one that has no more weight and no more time can never lead to more. Moving the free time back to the next due
//! date (the clamp) makes many states equal, which is what keeps fronts short.

use crate::due_order::Item;
use crate::trail::{Path, START, Trail};

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

/// The chosen items, by due date; `items` come by due date, each with the earliest start of its load.
pub(super) fn heaviest(items: &[Item], floors: &[i64]) -> Vec<Item> {
    let mut fronts = Fronts::new();
    for (position, item) in items.iter().enumerate().rev() {
        fronts.add(item, floors[position], position);
    }
    fronts.chosen(items)
}

/// The front so far, and room for the next one.
struct Fronts {
    trail: Trail,
    front: Vec<State>,
    spare: Vec<State>,
}

impl Fronts {
    fn new() -> Self {
        let nothing = State {
            weight: 0,
            free_until: i64::MAX,
            path: START,
        };
        Self {
            trail: Trail::default(),
            front: vec![nothing],
            spare: Vec::new(),
        }
    }

    fn add(&mut self, item: &Item, floor: i64, position: usize) {
        let choice = u32::try_from(position).expect("instances count in 32 bits");
        clamp(&mut self.trail, &mut self.front, item.due);
        merge(
            &mut self.trail,
            &self.front,
            &mut self.spare,
            item,
            floor,
            choice,
        );
        for state in self.front.drain(..) {
            self.trail.release(state.path);
        }
        std::mem::swap(&mut self.front, &mut self.spare);
    }

    fn chosen(&self, items: &[Item]) -> Vec<Item> {
        let best = self.front.last().map_or(START, |state| state.path);
        let chosen = self.trail.choices(best).into_iter();
        chosen.map(|position| items[position as usize]).collect()
    }
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
