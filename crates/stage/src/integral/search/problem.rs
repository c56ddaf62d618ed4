//! The instance as the search reads it: due dates in order, sizes as classes, and bounds for the rest.

use std::cmp::Reverse;
use std::ops::Range;

use super::sets::Class;
use crate::continuous::{self, Occupied, Rest};
use crate::due_order::Item;

/// A moment at which images leave, and the time until the next one.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) at: i64,
    /// Room beside images staged from the beginning, until the next event.
    pub(super) room: i64,
    /// Positions of the items due then.
    pub(super) items: Range<usize>,
}

#[derive(Debug)]
pub(super) struct Problem {
    /// By due date, class, and weight, the heaviest first.
    pub(super) items: Vec<Item>,
    pub(super) class_of: Vec<Class>,
    /// Sizes of the classes, ascending.
    pub(super) sizes: Vec<i64>,
    /// The first is the beginning; no item is due then.
    pub(super) events: Vec<Event>,
    /// By item: whether one of its size that is due later weighs more, so that a loaded image may be kept for it.
    pub(super) may_wait: Vec<bool>,
    /// By class: due dates, ascending.
    pub(super) dues: Vec<Vec<i64>>,
    /// By number of items that are past.
    rests: Vec<Rest>,
}

impl Problem {
    pub(super) fn new(occupied: &Occupied, items: &[Item], states_max: usize) -> Option<Self> {
        let mut items = items.to_vec();
        let key = |item: &Item| (item.due, item.size, Reverse(item.weight), item.index);
        items.sort_by_key(key);
        let mut sizes: Vec<_> = items.iter().map(|item| item.size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        Class::try_from(sizes.len()).ok()?;
        let class = |item: &Item| sizes.partition_point(|size| *size < item.size);
        let class_of: Vec<_> = items.iter().map(|item| class(item) as Class).collect();
        let mut dues = vec![Vec::new(); sizes.len()];
        for (item, class) in items.iter().zip(&class_of) {
            dues[usize::from(*class)].push(item.due);
        }
        Some(Self {
            may_wait: may_wait(&items, &class_of, sizes.len()),
            events: events(occupied, &items),
            rests: continuous::rests(occupied, &items, states_max)?,
            class_of,
            sizes,
            dues,
            items,
        })
    }

    pub(super) fn size(&self, class: Class) -> i64 {
        self.sizes[usize::from(class)]
    }

    /// The greatest weight of items from a position on, if the link works for them from `from` on.
    pub(super) fn rest(&self, position: usize, from: i64) -> u128 {
        self.rests[position].weight(from)
    }

    pub(super) fn bound(&self) -> u128 {
        self.rest(0, 0)
    }
}

fn may_wait(items: &[Item], class_of: &[Class], classes: usize) -> Vec<bool> {
    let mut heaviest_later = vec![0; classes];
    let mut may_wait = vec![false; items.len()];
    let mut place = items.len();
    while place > 0 {
        let due = items[place - 1].due;
        let first = items[..place].partition_point(|item| item.due < due);
        for (at, item) in items.iter().enumerate().take(place).skip(first) {
            may_wait[at] = heaviest_later[usize::from(class_of[at])] > item.weight;
        }
        for (at, item) in items.iter().enumerate().take(place).skip(first) {
            let heaviest = &mut heaviest_later[usize::from(class_of[at])];
            *heaviest = item.weight.max(*heaviest);
        }
        place = first;
    }
    may_wait
}

fn events(occupied: &Occupied, items: &[Item]) -> Vec<Event> {
    let mut moments: Vec<_> = items.iter().map(|item| item.due).collect();
    moments.extend(occupied.moments().chain([0]));
    moments.sort_unstable();
    moments.dedup();
    let nexts = moments.iter().skip(1).copied().chain([i64::MAX]);
    moments
        .iter()
        .zip(nexts)
        .map(|(at, next)| Event {
            at: *at,
            room: occupied.room_before(next),
            items: items.partition_point(|item| item.due < *at)
                ..items.partition_point(|item| item.due <= *at),
        })
        .collect()
}
