//! The instance as the search reads it: due dates in order, sizes as classes, and bounds for what is due before.

use std::ops::Range;

use super::sets::Class;
use crate::continuous::{self, Before, Occupied};
use crate::due_order::Item;

/// A moment at which images leave.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) at: i64,
    /// Room beside images staged from the beginning, just before.
    pub(super) room: i64,
    /// Positions of the items due then.
    pub(super) items: Range<usize>,
}

#[derive(Debug)]
pub(super) struct Problem {
    /// By due date.
    pub(super) items: Vec<Item>,
    pub(super) class_of: Vec<Class>,
    /// Sizes of the classes, ascending.
    pub(super) sizes: Vec<i64>,
    /// The first is the beginning; no item is due then.
    pub(super) events: Vec<Event>,
    /// By number of items: an upper bound for what is due first.
    befores: Vec<Before>,
    occupied: Occupied,
}

impl Problem {
    pub(super) fn new(occupied: &Occupied, items: &[Item], states_max: usize) -> Option<Self> {
        let mut sizes: Vec<_> = items.iter().map(|item| item.size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        Class::try_from(sizes.len()).ok()?;
        let class = |item: &Item| sizes.partition_point(|size| *size < item.size);
        Some(Self {
            class_of: items.iter().map(|item| class(item) as Class).collect(),
            events: events(occupied, items),
            befores: continuous::befores(occupied, items, states_max)?,
            sizes,
            occupied: occupied.clone(),
            items: items.to_vec(),
        })
    }

    pub(super) fn size(&self, class: Class) -> i64 {
        self.sizes[usize::from(class)]
    }

    /// The greatest weight of items before a position, if so many tokens must be left at the last due date among them.
    pub(super) fn before_leaving(&self, position: usize, tokens: i64) -> u128 {
        self.befores[position].weight_leaving(tokens)
    }

    /// Lowers the bounds of a position, and with it of those up to another one; see [`Before::capped`].
    pub(super) fn cap(&mut self, position: usize, caps: &[(i64, u128)]) {
        self.befores[position] = self.befores[position].capped(caps);
    }

    pub(super) fn renew(&mut self, position: usize, until: usize) {
        for next in position + 1..=until {
            self.befores[next] = self.befores[next - 1].then(&self.occupied, &self.items[next - 1]);
        }
    }

    /// The greatest weight of items before a position, if the link works for them until `until` at most.
    pub(super) fn before(&self, position: usize, until: i64) -> u128 {
        self.befores[position].weight(until)
    }

    pub(super) fn bound(&self) -> u128 {
        self.before(self.items.len(), i64::MAX)
    }
}

fn events(occupied: &Occupied, items: &[Item]) -> Vec<Event> {
    let mut moments: Vec<_> = items.iter().map(|item| item.due).collect();
    moments.extend(occupied.moments().chain([0]));
    moments.sort_unstable();
    moments.dedup();
    moments
        .into_iter()
        .map(|at| Event {
            at,
            room: occupied.room_before(at),
            items: items.partition_point(|item| item.due < at)
                ..items.partition_point(|item| item.due <= at),
        })
        .collect()
}
