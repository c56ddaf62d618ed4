//! One pass over due dates, the last one first, with layers of bounded width.

use std::collections::VecDeque;
use std::ops::Range;

use super::label::{IDLE, Label};
use super::layer;
use super::problem::{Event, Problem};
use super::sets::{Class, EMPTY, Sets};
use crate::due_order::Item;
use crate::trail::Trail;

/// A choice that loads an image of a class has this bit; others name the item served.
const LOADS: u32 = 1 << 31;

/// How often it is asked whether to stop.
const LABELS_BETWEEN_STOPS: usize = 64;

/// Sets numbered before those no longer in use are forgotten.
const SETS_MAX: usize = 1 << 20;

/// Labels that may come to an event before those are dropped that are not needed.
const COMING_MAX: usize = 1 << 21;

/// From which event back to which one a pass goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) first: usize,
    pub(super) last: usize,
    /// Bytes of what is due later and not loaded yet; see [`Label::debt`].
    pub(super) debt: i64,
}

/// How a pass ended.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The order of loads, if it weighs more than what was known.
    pub(super) order: Option<Vec<usize>>,
    /// The greatest weight, with the bound of what is due no later than the first event; what was known if that is no less.
    pub(super) weight: u128,
    /// The greatest bound of a label that was cut off.
    pub(super) cut_off: u128,
}

pub(super) struct Pass<'a> {
    problem: &'a Problem,
    span: Span,
    width: usize,
    known: u128,
    cut_off: u128,
    sets: Sets,
    trail: Trail,
    /// Labels that have come to the event before.
    next: Vec<Label>,
}

impl<'a> Pass<'a> {
    /// A pass that keeps so many labels of each layer, and looks for more than what is known.
    pub(super) fn new(problem: &'a Problem, span: Span, width: usize, known: u128) -> Self {
        Self {
            problem,
            span,
            width,
            known,
            cut_off: 0,
            sets: Sets::new(problem.sizes.len()),
            trail: Trail::default(),
            next: Vec::new(),
        }
    }

    pub(super) fn run(mut self, stop: &mut dyn FnMut() -> bool) -> Outcome {
        let Span { last, debt, .. } = self.span;
        self.accept(Label::at(self.problem.events[last].at, debt), last);
        let mut layer = std::mem::take(&mut self.next);
        for event in (self.span.first..self.span.last).rev() {
            for (place, label) in layer.iter().enumerate() {
                if place % LABELS_BETWEEN_STOPS == 0 && stop() {
                    return self.stopped(&layer[place..], event);
                }
                self.cross(*label, event);
                if self.next.len() > COMING_MAX {
                    let coming = self.thinned(event, stop);
                    self.next = coming;
                }
            }
            layer = self.thinned(event, stop);
            self.forget_sets(&mut layer);
        }
        self.outcome(&layer)
    }

    /// How many items are left at an event; those due at the first one are not looked at.
    fn past(&self, event: usize) -> usize {
        let items = &self.problem.events[event].items;
        match event == self.span.first {
            true => items.end,
            false => items.start,
        }
    }

    /// Ends before the first event: no label leads to a schedule.
    fn stopped(mut self, to_cross: &[Label], event: usize) -> Outcome {
        let crossed = std::mem::take(&mut self.next);
        self.cut_off_all(to_cross, self.problem.events[event + 1].items.start);
        self.cut_off_all(&crossed, self.past(event));
        self.outcome(&[])
    }

    fn outcome(self, layer: &[Label]) -> Outcome {
        let position = self.past(self.span.first);
        let weights = layer
            .iter()
            .map(|label| (self.bound(label, position), label));
        let best = weights.max_by_key(|(weight, _)| *weight);
        let best = best.filter(|(weight, _)| *weight > self.known);
        Outcome {
            weight: best.map_or(self.known, |(weight, _)| weight),
            order: best.map(|(_, label)| order(self.problem, &self.trail.choices(label.path))),
            cut_off: self.cut_off,
        }
    }

    /// Labels that have come to an event, without those that are needless or too many.
    fn thinned(&mut self, event: usize, stop: &mut dyn FnMut() -> bool) -> Vec<Label> {
        let mut layer = std::mem::take(&mut self.next);
        layer::drop_needless(&mut layer, &self.sets, &mut self.trail, stop);
        let position = self.past(event);
        let bound = |label: &Label| self.bound(label, position);
        let over = layer::narrow(&mut layer, self.width, &self.sets, bound);
        self.cut_off_all(&over, position);
        for label in over {
            self.trail.release(label.path);
        }
        layer
    }

    /// All that a label can do between an event and the one after.
    fn cross(&mut self, label: Label, event: usize) {
        let at = self.problem.events[event].at;
        let mut arrived = Vec::new();
        // Loads that begin and end in between may as well come in the order of their sizes.
        let mut open = vec![(label, 0)];
        while let Some((label, least)) = open.pop() {
            if label.taken_from <= at || label.waiting == EMPTY {
                arrived.push(label.arrived(at));
                continue;
            }
            arrived.extend(self.wait(&label, at));
            if label.waits_from.is_none() {
                self.go_on(&label, least, at, &mut open);
            }
            self.trail.release(label.path);
        }
        layer::drop_covered(&mut arrived, &self.sets, &mut self.trail);
        for label in arrived {
            self.accept(label, event);
        }
    }

    /// Leaves the link idle until an event, unless something could be loaded meanwhile.
    fn wait(&mut self, label: &Label, at: i64) -> Option<Label> {
        let waits_from = label.waits_from.unwrap_or(label.taken_from);
        let least = *self.sets.classes(label.waiting).first()?;
        if self.problem.size(least) <= waits_from - at {
            return None;
        }
        self.trail.retain(label.path);
        let waits = Label {
            waits_from: Some(waits_from),
            ..*label
        };
        Some(waits.arrived(at))
    }

    /// Opens a label for each load that the link can do next.
    fn go_on(&mut self, label: &Label, least: Class, at: i64, open: &mut Vec<(Label, Class)>) {
        let mut last = IDLE;
        for place in 0..self.sets.classes(label.waiting).len() {
            let class = self.sets.classes(label.waiting)[place];
            let start = label.taken_from - self.problem.size(class);
            let is_in_order = class >= least || start <= at;
            if class != last && is_in_order {
                open.push((self.load(label, class), class));
            }
            last = class;
        }
    }

    /// The link does one of the loads that wait. What it did before is on the stage no more.
    fn load(&mut self, label: &Label, class: Class) -> Label {
        let size = self.problem.size(class);
        Label {
            taken_from: label.taken_from - size,
            waits_from: None,
            waiting: self.sets.without(label.waiting, class, size),
            staged: label.waiting,
            under_way: class,
            path: self.trail.extend(label.path, LOADS | u32::from(class)),
            ..*label
        }
    }

    /// Serves what is due at an event, or not. Takes the label's path.
    fn accept(&mut self, label: Label, event: usize) {
        let range = self.past(event)..self.problem.events[event].items.end;
        self.choose(label, event, range);
    }

    /// Serves some of a range of items. Takes the label's path.
    fn choose(&mut self, label: Label, event: usize, mut items: Range<usize>) {
        let room = self.problem.events[event].room;
        let is_needless = self.bound(&label, items.end) <= self.known;
        if is_needless || !self.is_possible(&label, event) {
            self.trail.release(label.path);
            return;
        }
        let Some(item) = items.next_back() else {
            self.next.push(label);
            return;
        };
        let class = self.problem.class_of[item];
        if self.sets.bytes(label.staged) + self.problem.size(class) <= room {
            let served = self.serve(&label, item);
            if label.waits_from.is_some() {
                let at_once = self.load(&served, class);
                self.choose(at_once, event, items.clone());
            }
            self.choose(served, event, items.clone());
        }
        self.choose(label, event, items);
    }

    /// Whether link and stage are large enough for what is served.
    fn is_possible(&self, label: &Label, event: usize) -> bool {
        let Event { at, room, .. } = self.problem.events[event];
        let free_until = label.free_until(&self.sets);
        // What is to be loaded until then has arrived by now.
        let arrived = at - free_until;
        free_until >= 0 && arrived.max(self.sets.bytes(label.staged)) <= room
    }

    fn serve(&mut self, label: &Label, item: usize) -> Label {
        let class = self.problem.class_of[item];
        let Item { size, weight, .. } = self.problem.items[item];
        Label {
            weight: label.weight + u128::from(weight),
            waiting: self.sets.with(label.waiting, class, size),
            staged: self.sets.with(label.staged, class, size),
            path: self.trail.extend(label.path, item as u32),
            ..*label
        }
    }

    fn bound(&self, label: &Label, position: usize) -> u128 {
        label.weight + self.problem.before(position, label.free_until(&self.sets))
    }

    fn cut_off_all(&mut self, labels: &[Label], position: usize) {
        let bounds = labels.iter().map(|label| self.bound(label, position));
        self.cut_off = bounds.fold(self.cut_off, u128::max);
    }

    fn forget_sets(&mut self, layer: &mut [Label]) {
        if self.sets.len() < SETS_MAX.max(4 * layer.len()) {
            return;
        }
        let mut sets = self.sets.emptied();
        for label in layer {
            label.waiting = sets.adopt(&self.sets, label.waiting);
            label.staged = sets.adopt(&self.sets, label.staged);
        }
        self.sets = sets;
    }
}

/// Backward in time, the k-th load of a class is for the k-th of its items served. Choices come the last one first.
fn order(problem: &Problem, choices: &[u32]) -> Vec<usize> {
    let mut waiting = vec![VecDeque::new(); problem.sizes.len()];
    let mut order = Vec::new();
    for choice in choices.iter().rev() {
        if choice & LOADS == 0 {
            let item = *choice as usize;
            waiting[usize::from(problem.class_of[item])].push_back(problem.items[item].index);
        } else {
            order.extend(waiting[(choice & !LOADS) as usize].pop_front());
        }
    }
    order.extend(waiting.into_iter().flatten());
    order.reverse();
    order
}
