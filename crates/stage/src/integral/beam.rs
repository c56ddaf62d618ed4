//! The beam in due-date order: take or skip, from the latest due date to the earliest, and keep the most promising ways.
//!
//! A way knows its weight, until when the link is free, and the loads planned so far: whether one more fits depends only on the load
//! under way just before its due date (see [`super::refill`]). Ways are ranked by their weight and the continuous optimum of what comes
//! before. At unlimited width the result is the best of all schedules in due-date order (beyond the paper).

use std::cmp::Reverse;

use crate::continuous::Before;
use crate::due_order::Item;

#[derive(Debug, Clone, Copy)]
struct Way {
    weight: u128,
    free_until: i64,
    /// The earliest load taken: position in [`Beam::taken`].
    first: Option<usize>,
}

#[derive(Debug)]
struct Taken {
    place: usize,
    start: i64,
    /// The next load.
    after: Option<usize>,
}

/// The heaviest set in due-date order that a beam of a width finds; `items` come by due date, `before` has a front for each of them.
pub(super) fn best(capacity: i64, items: &[Item], before: &[Before], width: usize) -> Vec<Item> {
    let mut beam = Beam {
        capacity,
        items,
        taken: Vec::new(),
    };
    let mut ways = vec![Way {
        weight: 0,
        free_until: i64::MAX,
        first: None,
    }];
    for place in (0..items.len()).rev() {
        let taken: Vec<_> = ways
            .iter()
            .filter_map(|way| beam.take(way, place))
            .collect();
        ways.extend(taken);
        narrow(&mut ways, &before[place], width);
    }
    let best = ways.iter().max_by_key(|way| way.weight);
    let loads = beam.loads(best.and_then(|way| way.first));
    loads.map(|load| items[load.place]).collect()
}

/// Ways that are free equally long or shorter and weigh no more are never needed only if their loads are alike, so all are kept that the width
/// allows.
fn narrow(ways: &mut Vec<Way>, before: &Before, width: usize) {
    if ways.len() > width {
        let promise = |way: &Way| way.weight + before.weight(way.free_until);
        ways.sort_by_cached_key(|way| Reverse((promise(way), way.free_until)));
        ways.truncate(width);
    }
}

struct Beam<'a> {
    capacity: i64,
    items: &'a [Item],
    taken: Vec<Taken>,
}

impl Beam<'_> {
    fn take(&mut self, way: &Way, place: usize) -> Option<Way> {
        let item = &self.items[place];
        let start = item.due.min(way.free_until) - item.size;
        if start < 0 || self.reserved_until(way, item.due) - start > self.capacity {
            return None;
        }
        self.taken.push(Taken {
            place,
            start,
            after: way.first,
        });
        Some(Way {
            weight: way.weight + u128::from(item.weight),
            free_until: start,
            first: Some(self.taken.len() - 1),
        })
    }

    /// The end of the load under way just before `due`, else `due`.
    fn reserved_until(&self, way: &Way, due: i64) -> i64 {
        let started = self.loads(way.first).take_while(|load| load.start < due);
        let last = started.last();
        last.map_or(due, |load| {
            due.max(load.start + self.items[load.place].size)
        })
    }

    fn loads(&self, first: Option<usize>) -> impl Iterator<Item = &Taken> {
        let load = move |number: usize| &self.taken[number];
        std::iter::successors(first.map(load), move |taken| taken.after.map(load))
    }
}
