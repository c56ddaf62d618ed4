//! The exact search: labels that run forward in time, one layer for each due date.
//!
//! # Why images of one size are alike
//!
//! When an image is loaded, nothing has to be decided but its size. Which reservation it serves can wait until a due date comes: of the
//! loaded images of that size, any may be handed over, because all take the same room. So a label says how many images of each size
//! are on the stage, from when the link is free, and what weight has been served; for k sizes there are at most
//! (C/s₁ + 1)…(C/s_k + 1) different stages, however many reservations there are. The integral model is therefore solved exactly in time
//! that grows linearly with n for a fixed set of sizes (beyond the paper). With all sizes different, a label is the set of what is staged.
//!
//! # Labels
//!
//! Between two due dates room does not change, so each load starts when the link becomes free or at a due date. Of two labels with the same
//! stage and the same load under way, one that is free no later and weighs no less leads at least as far. A label is dropped if the
//! continuous optimum of the rest, its staged bytes taken for tokens, cannot bring it above the best schedule known.
//!
//! # Width
//!
//! A layer keeps at most so many labels, those of the greatest bound. The greatest bound that was cut off is remembered, so that every
//! pass ends with an upper bound, and proves its schedule best if that is no greater. Passes grow wider until then.

mod layer;
mod problem;
mod sets;

use crate::continuous::Occupied;
use crate::due_order::Item;

use layer::{Limits, Pass};
use problem::Problem;

/// States that the bounds of all due dates may take together: 1.5 GiB.
const BOUND_STATES_MAX: usize = 1 << 25;

/// What the first pass may spend, and how much more each next one.
const FIRST: Limits = Limits {
    width: 64,
    sizes: 6,
    ways: 12,
};
const WIDER: usize = 8;
const MORE_SIZES: usize = 2;
const MORE_WAYS: usize = 2;

/// What a search found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Indices of the reservations served, in the order of their loads; `None` if nothing beats what was known.
    pub(crate) order: Option<Vec<usize>>,
    /// No schedule weighs more.
    pub(crate) bound: u128,
}

/// A search that can be taken up again, wider each time.
#[derive(Debug)]
pub(crate) struct Search {
    problem: Problem,
    limits: Limits,
    best: u128,
    bound: u128,
}

impl Search {
    /// For items by due date, and a weight that is known to be possible. `None` if the bounds would take too much memory.
    pub(crate) fn new(occupied: &Occupied, items: &[Item], known: u128) -> Option<Self> {
        let problem = Problem::new(occupied, items, BOUND_STATES_MAX)?;
        let bound = problem.bound().max(known);
        Some(Self {
            problem,
            limits: FIRST,
            best: known,
            bound,
        })
    }

    /// Whether the best schedule known is proved best.
    pub(crate) fn is_done(&self) -> bool {
        self.best >= self.bound
    }

    /// Another bound is known.
    pub(crate) fn lower_bound_to(&mut self, bound: u128) {
        self.bound = self.bound.min(bound.max(self.best));
    }

    /// A heavier schedule is known from elsewhere.
    pub(crate) fn raise_known_to(&mut self, weight: u128) {
        self.best = self.best.max(weight);
        self.bound = self.bound.max(self.best);
    }

    /// One pass, and a wider one next time. `stop` is asked once for each due date.
    pub(crate) fn pass(&mut self, stop: &mut dyn FnMut() -> bool) -> Found {
        let outcome = Pass::new(&self.problem, self.limits, self.best).run(stop);
        self.limits = Limits {
            width: self.limits.width.saturating_mul(WIDER),
            sizes: self.limits.sizes.saturating_mul(MORE_SIZES),
            ways: self.limits.ways.saturating_mul(MORE_WAYS),
        };
        if outcome.order.is_some() {
            self.best = outcome.weight;
        }
        self.bound = self.bound.min(outcome.cut_off.max(self.best));
        Found {
            order: outcome.order,
            bound: self.bound,
        }
    }
}
