//! Two feasible parts of one continuous optimum: the heavier weighs at least half.
//!
//! Where a continuous schedule is not integral-feasible, some image leaves strictly inside the load of a later one, which until
//! then lives from room that is not free yet. Each image does so to at most one load, as loads do not overlap. So the conflicts form a forest, and a forest
//! falls into two parts without conflicts (beyond the paper, whose two scans give the same guarantee).

use super::weight;
use crate::due_order::{self, Item};

/// How the part to keep is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// Leave out each load that overflows, the earliest first. Keeps at least half the *number*: for equal weights (INFOCOM 2010).
    FromLeft,
    /// The same from the latest load on; what is kept and what is left out are both feasible, and the heavier stays (INFOCOM 2010).
    FromRight,
    /// The heaviest set without conflicts, by a dynamic program over the forest in O(n log n) (beyond the paper).
    Forest,
}

impl Half {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::FromLeft, Self::FromRight, Self::Forest];

    /// The part of a continuous optimum, by due date, to keep.
    pub(super) fn of(self, capacity: i64, optimum: &[Item]) -> Vec<Item> {
        match self {
            Self::FromLeft => from_left(capacity, optimum),
            Self::FromRight => from_right(capacity, optimum),
            Self::Forest => forest(capacity, optimum),
        }
    }
}

/// Bytes of kept loads that are on the stage when a load starts, with the starts of the whole optimum.
fn held_at(start: i64, kept: &[(i64, Item)]) -> i128 {
    let on_stage = |(from, item): &&(i64, Item)| *from <= start && start < item.due;
    let on_stage = kept.iter().filter(on_stage);
    on_stage.map(|(_, item)| i128::from(item.size)).sum()
}

fn from_left(capacity: i64, optimum: &[Item]) -> Vec<Item> {
    let mut kept = Vec::new();
    let mut staged: Vec<(i64, Item)> = Vec::new();
    for (start, item) in due_order::starts(optimum).into_iter().zip(optimum) {
        staged.retain(|(_, other)| other.due > start);
        if held_at(start, &staged) + i128::from(item.size) <= i128::from(capacity) {
            staged.push((start, *item));
            kept.push(*item);
        }
    }
    kept
}

/// Adding an earlier load only matters to later loads that start before it leaves, and to itself.
fn from_right(capacity: i64, optimum: &[Item]) -> Vec<Item> {
    let starts = due_order::starts(optimum);
    let mut kept: Vec<(i64, Item)> = Vec::new();
    let mut left_out = Vec::new();
    for (start, item) in starts.into_iter().zip(optimum).rev() {
        // Nothing kept leaves before this one, so the stage is fullest at the last start before its due date.
        let brought = kept.iter().rev().take_while(|(from, _)| *from < item.due);
        let held: i128 = brought.map(|(_, other)| i128::from(other.size)).sum();
        if held + i128::from(item.size) <= i128::from(capacity) {
            kept.push((start, *item));
        } else {
            left_out.push(*item);
        }
    }
    let mut kept: Vec<_> = kept.into_iter().map(|(_, item)| item).collect();
    if weight(&left_out) > weight(&kept) {
        kept = left_out;
    }
    kept.reverse();
    kept
}

/// The load that an image leaves strictly inside of, if any, and if that one overflows: its parent in the forest, and later than it.
fn parents(capacity: i64, optimum: &[Item], starts: &[i64]) -> Vec<Option<usize>> {
    let overflows = overflows(capacity, optimum, starts);
    optimum
        .iter()
        .map(|item| {
            let after = starts.partition_point(|start| *start < item.due);
            let last = after.checked_sub(1)?;
            (overflows[last] && item.due < starts[last] + optimum[last].size).then_some(last)
        })
        .collect()
}

/// Whether each load starts with too little room for its whole image, if all are served.
fn overflows(capacity: i64, optimum: &[Item], starts: &[i64]) -> Vec<bool> {
    let mut staged: Vec<(i64, Item)> = Vec::new();
    optimum
        .iter()
        .zip(starts)
        .map(|(item, start)| {
            staged.retain(|(_, other)| other.due > *start);
            let held = held_at(*start, &staged) + i128::from(item.size);
            staged.push((*start, *item));
            held > i128::from(capacity)
        })
        .collect()
}

/// Children come before their parents, so one pass adds up and one pass back chooses.
fn forest(capacity: i64, optimum: &[Item]) -> Vec<Item> {
    let parents = parents(capacity, optimum, &due_order::starts(optimum));
    let mut taken: Vec<u128> = optimum.iter().map(|item| u128::from(item.weight)).collect();
    let mut left = vec![0u128; optimum.len()];
    for (place, parent) in parents.iter().enumerate() {
        if let Some(parent) = *parent {
            taken[parent] += left[place];
            left[parent] += taken[place].max(left[place]);
        }
    }
    let mut takes = vec![false; optimum.len()];
    for place in (0..optimum.len()).rev() {
        let parent_taken = parents[place].is_some_and(|parent| takes[parent]);
        takes[place] = !parent_taken && taken[place] >= left[place];
    }
    let kept = optimum.iter().zip(takes).filter(|(_, takes)| *takes);
    kept.map(|(item, _)| *item).collect()
}
