//! The exact search: labels that run backward in time, one layer for each due date.
//!
//! # Why backward
//!
//! The latest starts for an order are feasible if any are (INFOCOM 2010). Backward in time they are a queue: when its due date comes, an image is
//! served or not, and if it is, it stays until the link has loaded it; the link does one load after the other. What an
//! image weighs and when it is due is past once it is served, so a label needs to know only which sizes wait, from when on the link is
//! taken, and what weight is served: the integral model is solved exactly in time that grows linearly with n for a fixed set of sizes, and
//! few images wait at a time even if all sizes differ (beyond the paper).
//!
//! # Labels
//!
//! When the link becomes free, it does any of the loads that wait. It stands idle beside them only for an image that is due next, which it then
//! loads at once, and only if nothing else could be loaded meanwhile: in every other case that load can as well be done first. A label is needless if one that weighs no less
//! [covers](label::Label::covers) it. A label is dropped if an upper bound for what is due before, so many bytes
//! being left to load, cannot bring it above the best schedule known. That bound is the continuous optimum at first, and lowered by [`chain`].
//!
//! # Width
//!
//! A layer keeps at most so many labels, those of the greatest bound. The greatest bound that was cut off is remembered, so that every
//! pass ends with an upper bound, and proves its schedule best if that is no greater.

mod chain;
mod label;
mod layer;
mod pass;
mod problem;
mod sets;

use crate::continuous::Occupied;
use crate::due_order::Item;

use pass::{Pass, Span};
use problem::Problem;

/// States that the bounds of all due dates may take together: 1 GiB.
const BOUND_STATES_MAX: usize = 1 << 25;

/// A search that can be taken up again, wider each time.
#[derive(Debug)]
pub(crate) struct Search {
    problem: Problem,
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
            best: known,
            bound,
        })
    }

    /// No schedule weighs more.
    pub(crate) fn bound(&self) -> u128 {
        self.bound
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

    /// Finds lower bounds for what is due first, and so for all; see [`chain`].
    pub(crate) fn lower_bounds(&mut self, stop: &mut dyn FnMut() -> bool) {
        self.lower_bounds_by(&chain::COARSE, stop);
    }

    /// Finds still lower bounds, in more time.
    pub(crate) fn lower_bounds_further(&mut self, stop: &mut dyn FnMut() -> bool) {
        self.lower_bounds_by(&chain::FINE, stop);
    }

    fn lower_bounds_by(&mut self, grain: &chain::Grain, stop: &mut dyn FnMut() -> bool) {
        chain::lower(&mut self.problem, grain, stop);
        self.lower_bound_to(self.problem.bound());
    }

    /// One pass that keeps so many labels of each layer: the order of loads, if it weighs more than what was known. `stop` is asked
    /// several times for each due date.
    pub(crate) fn pass(
        &mut self,
        width: usize,
        stop: &mut dyn FnMut() -> bool,
    ) -> Option<Vec<usize>> {
        let whole = Span {
            first: 0,
            last: self.problem.events.len() - 1,
            debt: 0,
        };
        let outcome = Pass::new(&self.problem, whole, width, self.best).run(stop);
        self.best = outcome.weight;
        self.lower_bound_to(outcome.cut_off);
        outcome.order
    }
}
