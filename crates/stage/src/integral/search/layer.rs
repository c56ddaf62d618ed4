//! One pass over all due dates with layers of bounded width.

use std::cmp::Reverse;

use super::problem::Problem;
use super::sets::{Class, EMPTY, Set, Sets};
use crate::trail::{Path, START, Trail};

/// No load is under way.
const IDLE: Class = Class::MAX;

/// A choice that loads an image of a class has this bit; others name the item served.
const LOADS: u32 = 1 << 31;

/// What a pass may spend; each of them cuts labels off, and remembers their bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Labels of a layer.
    pub(super) width: usize,
    /// Sizes considered for the next load: those due soonest.
    pub(super) sizes: usize,
    /// Ways in which one label may go on until the next due date.
    pub(super) ways: usize,
}

/// How often it is asked whether to stop.
const LABELS_BETWEEN_STOPS: usize = 64;

/// Sets numbered before those no longer in use are forgotten.
const SETS_MAX: usize = 1 << 20;

/// A way to have come to a due date.
#[derive(Debug, Clone, Copy)]
struct Label {
    /// Weight of what was served by now.
    weight: u128,
    /// When the link is free next, not before now.
    free_from: i64,
    /// All that is staged, with the load under way.
    set: Set,
    under_way: Class,
    path: Path,
}

/// How a pass ended.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The order of loads, if it weighs more than what was known.
    pub(super) order: Option<Vec<usize>>,
    pub(super) weight: u128,
    /// The greatest bound of a label that was cut off.
    pub(super) cut_off: u128,
}

pub(super) struct Pass<'a> {
    problem: &'a Problem,
    limits: Limits,
    known: u128,
    cut_off: u128,
    /// Sizes to be considered for the next load, the one due soonest first, and whether some are left out.
    soonest: Vec<Class>,
    has_others: bool,
    sets: Sets,
    trail: Trail,
    /// Labels that have crossed the current gap.
    next: Vec<Label>,
    /// By class: how many of its items are past.
    past: Vec<usize>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(problem: &'a Problem, limits: Limits, known: u128) -> Self {
        Self {
            problem,
            limits,
            known,
            cut_off: 0,
            soonest: Vec::new(),
            has_others: false,
            sets: Sets::new(),
            trail: Trail::default(),
            next: Vec::new(),
            past: vec![0; problem.sizes.len()],
        }
    }

    pub(super) fn run(mut self, stop: &mut dyn FnMut() -> bool) -> Outcome {
        let mut layer = vec![Label {
            weight: 0,
            free_from: 0,
            set: EMPTY,
            under_way: IDLE,
            path: START,
        }];
        for event in 1..self.problem.events.len() {
            self.look_ahead();
            for (place, label) in layer.iter().enumerate() {
                if place % LABELS_BETWEEN_STOPS == 0 && stop() {
                    return self.stopped(&layer[place..], event);
                }
                self.cross(*label, event);
            }
            layer = std::mem::take(&mut self.next);
            self.dominate(&mut layer);
            self.narrow(&mut layer, self.problem.events[event].items.end);
            self.forget_sets(&mut layer);
            for item in self.problem.events[event].items.clone() {
                self.past[usize::from(self.problem.class_of[item])] += 1;
            }
        }
        self.outcome(&layer)
    }

    /// Ends before the last event: neither labels still to cross nor those that have crossed lead to a schedule.
    fn stopped(mut self, to_cross: &[Label], event: usize) -> Outcome {
        let crossed = std::mem::take(&mut self.next);
        self.cut_off_all(to_cross, self.problem.events[event - 1].items.end);
        self.cut_off_all(&crossed, self.problem.events[event].items.end);
        self.outcome(&[])
    }

    fn outcome(self, layer: &[Label]) -> Outcome {
        let best = layer.iter().max_by_key(|label| label.weight);
        let best = best.filter(|label| label.weight > self.known);
        Outcome {
            weight: best.map_or(self.known, |label| label.weight),
            order: best.map(|label| order(self.problem, &self.trail.choices(label.path))),
            cut_off: self.cut_off,
        }
    }

    /// Finds the sizes of what is due soonest.
    fn look_ahead(&mut self) {
        let dues = self.problem.dues.iter().zip(&self.past);
        let next = dues.enumerate().filter_map(|(class, (dues, past))| {
            let class = Class::try_from(class).ok()?;
            Some((*dues.get(*past)?, class))
        });
        let mut next: Vec<_> = next.collect();
        self.has_others = next.len() > self.limits.sizes;
        if self.has_others {
            next.select_nth_unstable(self.limits.sizes);
            next.truncate(self.limits.sizes);
        }
        next.sort_unstable();
        self.soonest = next.into_iter().map(|(_, class)| class).collect();
    }

    /// All that a label can do between the event before and this one, and at this one.
    fn cross(&mut self, label: Label, event: usize) {
        let until = self.problem.events[event].at;
        let room = self.problem.events[event - 1].room;
        let mut is_cut = false;
        let mut ways = 0;
        // Loads that begin and end in between may as well come in the order of their sizes.
        let mut open = vec![(label, 0)];
        while let Some((label, least)) = open.pop() {
            if label.free_from < until {
                // Few sizes lead to few stages, which meet again.
                let is_open = !self.has_others || ways < self.limits.ways;
                is_cut |= self.has_others;
                if is_open {
                    ways += self.go_on(&label, least, until, room, &mut open);
                }
            }
            self.arrive(label, event);
        }
        if is_cut {
            self.cut_off_all(&[label], self.problem.events[event - 1].items.end);
        }
    }

    /// Opens a label for each load that can start next; says how many.
    fn go_on(
        &mut self,
        label: &Label,
        least: Class,
        until: i64,
        room: i64,
        open: &mut Vec<(Label, Class)>,
    ) -> usize {
        let before = open.len();
        let room = room - self.sets.bytes(label.set);
        for place in (0..self.soonest.len()).rev() {
            let class = self.soonest[place];
            let size = self.problem.size(class);
            let end = label.free_from + size;
            let is_in_order = class >= least || end >= until;
            if size <= room && is_in_order && self.is_wanted(label.set, class, end) {
                open.push((self.load(label, class, end), class));
            }
        }
        open.len() - before
    }

    /// Whether one more image of a class, there at `end`, can serve a reservation.
    fn is_wanted(&self, set: Set, class: Class, end: i64) -> bool {
        let dues = &self.problem.dues[usize::from(class)];
        let left = dues.len() - self.past[usize::from(class)];
        dues.last().is_some_and(|last| *last >= end) && self.sets.count(set, class) < left
    }

    fn load(&mut self, label: &Label, class: Class, end: i64) -> Label {
        Label {
            free_from: end,
            set: self.sets.with(label.set, class, self.problem.size(class)),
            under_way: class,
            path: self.trail.extend(label.path, LOADS | u32::from(class)),
            ..*label
        }
    }

    /// Waits for the event if the link is free before, and hands over what is due. Takes the label's path.
    fn arrive(&mut self, mut label: Label, event: usize) {
        let event = &self.problem.events[event];
        if label.free_from <= event.at {
            label.free_from = event.at;
            label.under_way = IDLE;
        }
        if self.bound(&label, event.items.start) > self.known {
            self.hand_over(label, event.items.start, event.items.end);
        } else {
            self.trail.release(label.path);
        }
    }

    /// Serves items from `item` to `end`, or not. Takes the label's path.
    fn hand_over(&mut self, mut label: Label, item: usize, end: usize) {
        for item in item..end {
            let class = self.problem.class_of[item];
            let loading = usize::from(label.under_way == class);
            if self.sets.count(label.set, class) <= loading {
                continue;
            }
            if self.problem.may_wait[item] {
                self.trail.retain(label.path);
                self.hand_over(label, item + 1, end);
            }
            let path = self.trail.extend(label.path, item as u32);
            self.trail.release(label.path);
            label.path = path;
            label.weight += u128::from(self.problem.items[item].weight);
            label.set = self
                .sets
                .without(label.set, class, self.problem.size(class));
        }
        if self.bound(&label, end) > self.known || end == self.problem.items.len() {
            self.next.push(label);
        } else {
            self.trail.release(label.path);
        }
    }

    fn bound(&self, label: &Label, position: usize) -> u128 {
        let from = label.free_from - self.sets.bytes(label.set);
        label.weight + self.problem.rest(position, from)
    }

    /// Of labels with the same stage and the same load under way, keeps those that none is better than.
    fn dominate(&mut self, layer: &mut Vec<Label>) {
        layer.sort_unstable_by_key(|label| {
            (
                label.set,
                label.under_way,
                label.free_from,
                Reverse(label.weight),
            )
        });
        let mut last: Option<Label> = None;
        let trail = &mut self.trail;
        layer.retain(|label| {
            let is_worse = last.is_some_and(|last| {
                last.set == label.set
                    && last.under_way == label.under_way
                    && last.weight >= label.weight
            });
            if is_worse {
                trail.release(label.path);
            } else {
                last = Some(*label);
            }
            !is_worse
        });
    }

    /// Keeps the labels of the greatest bound, and of equal ones those for which the link has worked the longest.
    fn narrow(&mut self, layer: &mut Vec<Label>, position: usize) {
        if layer.len() <= self.limits.width {
            return;
        }
        let rank = |label: &Label| {
            let from = label.free_from - self.sets.bytes(label.set);
            (Reverse(self.bound(label, position)), from)
        };
        let mut ranked: Vec<_> = layer.iter().map(|label| (rank(label), *label)).collect();
        ranked.select_nth_unstable_by_key(self.limits.width, |(rank, _)| *rank);
        let over: Vec<_> = ranked
            .drain(self.limits.width..)
            .map(|(_, label)| label)
            .collect();
        *layer = ranked.into_iter().map(|(_, label)| label).collect();
        self.cut_off_all(&over, position);
        for label in over {
            self.trail.release(label.path);
        }
    }

    fn cut_off_all(&mut self, labels: &[Label], position: usize) {
        let bounds = labels.iter().map(|label| self.bound(label, position));
        self.cut_off = bounds.fold(self.cut_off, u128::max);
    }

    fn forget_sets(&mut self, layer: &mut [Label]) {
        if self.sets.len() < SETS_MAX.max(4 * layer.len()) {
            return;
        }
        let mut sets = Sets::new();
        for label in layer {
            label.set = sets.adopt(&self.sets, label.set);
        }
        self.sets = sets;
    }
}

/// The k-th load of a class serves the k-th of its items served; loads in vain are left out. Choices come the last one first.
fn order(problem: &Problem, choices: &[u32]) -> Vec<usize> {
    let mut served = vec![Vec::new(); problem.sizes.len()];
    for item in choices.iter().filter(|choice| **choice & LOADS == 0) {
        let item = *item as usize;
        served[usize::from(problem.class_of[item])].push(problem.items[item].index);
    }
    let loads = choices.iter().rev().filter(|choice| **choice & LOADS != 0);
    loads
        .filter_map(|choice| served[(*choice & !LOADS) as usize].pop())
        .collect()
}
