//! The heaviest set of tasks when there are few: exact, over all orders (beyond the paper).
//!
//! Whether loads fit in some order is a dynamic program over sets of them. How early a load can start beside the images of those before it is a matter
//! of which these are, not of their order; so of all orders of one set only the earliest end counts: O(2^m · m²) for m loads.
//! Serving fewer tasks is never harder: a set that contains one that does not fit need not be looked at.

use super::Shared;
use crate::timeline::{Held, Timeline, Work};

/// Tasks that are tried in all combinations.
const TASKS_MAX: usize = 14;

/// Images of a set of tasks that are tried in all orders.
const IMAGES_MAX: usize = 14;

/// Loads that are placed after some others, in total: a fraction of a second.
const STEPS_MAX: u64 = 1 << 20;

/// Tasks to serve, and their loads in order.
pub(super) struct Best {
    pub(super) served: Vec<usize>,
    pub(super) loads: Vec<(usize, Work)>,
}

/// What a search for a set heavier than a known one found.
pub(super) enum Outcome {
    Heavier(Best),
    /// There is none.
    None,
    /// There is too much to try.
    Unknown,
}

/// The heaviest set of some tasks that fits, if it is heavier than what is known.
pub(super) fn heaviest(
    shared: &Shared,
    timeline: &Timeline<'_>,
    tasks: &[usize],
    known: u128,
) -> Outcome {
    if tasks.len() > TASKS_MAX {
        return Outcome::Unknown;
    }
    let mut sets = Sets {
        shared,
        timeline,
        tasks,
        too_much: Vec::new(),
        steps: 0,
    };
    sets.heaviest(known)
}

struct Sets<'a> {
    shared: &'a Shared,
    timeline: &'a Timeline<'a>,
    tasks: &'a [usize],
    /// Sets of tasks, as bits, that do not fit.
    too_much: Vec<u32>,
    steps: u64,
}

impl Sets<'_> {
    fn heaviest(&mut self, known: u128) -> Outcome {
        let sets = 0..1u32 << self.tasks.len();
        let weighed = sets.map(|set| (self.shared.weight(&self.members(set)), set));
        let mut heavier: Vec<_> = weighed.filter(|(weight, _)| *weight > known).collect();
        heavier.sort_unstable_by(|one, other| other.cmp(one));
        for (_, set) in heavier {
            if self.too_much.iter().any(|less| set & less == *less) {
                continue;
            }
            match self.order(set) {
                Some(Some(loads)) => {
                    let served = self.members(set);
                    return Outcome::Heavier(Best { served, loads });
                }
                Some(None) => self.learn(set),
                None => return Outcome::Unknown,
            }
        }
        Outcome::None
    }

    fn members(&self, set: u32) -> Vec<usize> {
        let members = self.tasks.iter().enumerate();
        let members = members.filter(|(bit, _)| set & (1 << bit) != 0);
        members.map(|(_, task)| *task).collect()
    }

    /// Remembers the least part found of a set that does not fit.
    fn learn(&mut self, mut set: u32) {
        for bit in 0..self.tasks.len() {
            let less = set & !(1 << bit);
            if less != set && matches!(self.order(less), Some(None)) {
                set = less;
            }
        }
        self.too_much.push(set);
    }

    /// The loads for a set of tasks in an order that fits, or that there is none; `None` if that takes too long.
    fn order(&mut self, set: u32) -> Option<Option<Vec<(usize, Work)>>> {
        let works = self.shared.works(&self.members(set));
        if works.len() > IMAGES_MAX {
            return None;
        }
        // Sets that no order leads to are passed over quickly, but there are many.
        self.steps += (1 << works.len()) / 16;
        let mut orders = Orders::new(self.timeline, &works);
        orders.place_all(&mut self.steps)?;
        let order = orders.order();
        Some(order.map(|order| order.into_iter().map(|place| works[place]).collect()))
    }
}

/// For each set of loads, as bits: the earliest end of all of them, and the last one then.
struct Orders<'a> {
    timeline: &'a Timeline<'a>,
    works: &'a [(usize, Work)],
    ends: Vec<Option<(u64, usize)>>,
}

impl<'a> Orders<'a> {
    fn new(timeline: &'a Timeline<'a>, works: &'a [(usize, Work)]) -> Self {
        let mut ends = vec![None; 1 << works.len()];
        ends[0] = Some((timeline.free_from, 0));
        Self {
            timeline,
            works,
            ends,
        }
    }

    fn place_all(&mut self, steps: &mut u64) -> Option<()> {
        for set in 0..self.ends.len() {
            let Some((end, _)) = self.ends[set] else {
                continue;
            };
            let rest = (0..self.works.len()).filter(|place| set & (1 << place) == 0);
            let rest: Vec<_> = rest.collect();
            let is_late = |place: &usize| {
                let work = &self.works[*place].1;
                end.saturating_add(work.loading) > work.deadline
            };
            if rest.iter().any(is_late) {
                continue;
            }
            *steps += rest.len() as u64;
            if *steps > STEPS_MAX {
                return None;
            }
            self.place_each(set, end, &rest);
        }
        Some(())
    }

    fn place_each(&mut self, set: usize, end: u64, rest: &[usize]) {
        let leaving = self.leaving(set, end);
        let held: u128 = leaving.iter().map(|held| u128::from(held.size)).sum();
        for place in rest {
            let work = &self.works[*place].1;
            let start = self.timeline.first_room(end, work, leaving.iter(), held);
            let end = start.map(|start| start.saturating_add(work.loading));
            if let Some(end) = end.filter(|end| *end <= work.deadline) {
                let known = &mut self.ends[set | 1 << place];
                *known = known.filter(|known| known.0 <= end).or(Some((end, *place)));
            }
        }
    }

    /// What a set of loads leaves on the stage after a moment, by departure.
    fn leaving(&self, set: usize, moment: u64) -> Vec<Held> {
        let loaded = self.works.iter().enumerate();
        let loaded = loaded.filter(|(place, _)| set & (1 << place) != 0);
        let loaded = loaded.map(|(_, (_, work))| Held {
            leaves: work.leaves,
            size: work.size,
        });
        let all = self.timeline.held.iter().copied().chain(loaded);
        let mut leaving: Vec<_> = all.filter(|held| held.leaves > moment).collect();
        leaving.sort_unstable();
        leaving
    }

    /// An order of all loads, if any fits.
    fn order(&self) -> Option<Vec<usize>> {
        let mut set = self.ends.len() - 1;
        let mut order = Vec::with_capacity(self.works.len());
        while set > 0 {
            let (_, last) = self.ends[set]?;
            order.push(last);
            set &= !(1 << last);
        }
        order.reverse();
        Some(order)
    }
}
