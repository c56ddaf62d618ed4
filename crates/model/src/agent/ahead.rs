//! Recovered jobs held ahead of the slots.
//!
//! When an agent dies on a busy cloud nobody has room for its tasks. Rather than leave them in the
//! queue, a few agents claim them and fetch image and input while their own tasks still run, so
//! that a recovered task starts the moment a slot is free. Nobody waits for ever behind a long
//! task: after [`Config::ahead_for`](super::Config::ahead_for) the claim is given back.

use super::event::{Action, StoreUrl};
use super::run::{Ahead, Run, Stage, Why};
use super::{Agent, RunKey};
use crate::matching::{Need, Offer};
use crate::time::Timestamp;

impl Agent {
    /// Whether a task may be held ahead of the slots: it fits on the machine at all, and no more
    /// than the allowed number wait, `further` of them promised already.
    pub(super) fn may_wait(&self, store: &StoreUrl, need: &Need, further: u32) -> bool {
        let Some(known) = self.stores.get(store) else {
            return false;
        };
        let whole = Offer {
            free: self.config.resources,
            slots: self.config.slots,
            classes: known.classes.clone(),
            labels: self.config.labels.clone(),
        };
        let waiting = self.held_ahead().saturating_add(further);
        waiting < self.config.ahead && whole.fits(need).is_ok()
    }

    fn held_ahead(&self) -> u32 {
        let waiting = self.runs.values().filter(|run| run.ahead.is_some()).count();
        let claimed: u32 = self.claims.values().map(|claim| claim.ahead).sum();
        u32::try_from(waiting)
            .unwrap_or(u32::MAX)
            .saturating_add(claimed)
    }

    /// Gives free slots to those that have waited longest.
    pub(super) fn seat_ahead(&mut self, out: &mut Vec<Action>) {
        for key in self.waiting() {
            let cut_off = self.is_cut_off(&key.store);
            let Some(run) = self.runs.get_mut(&key) else {
                continue;
            };
            let Some(Ahead { needs, .. }) = run.ahead.filter(|_| run.is_live()) else {
                continue;
            };
            if !self.accounts.take(&needs) {
                continue;
            }
            run.reserved = needs;
            run.ahead = None;
            if !cut_off && run.may_start() {
                run.stage = Stage::Starting;
                out.push(Action::Start { key });
            }
        }
    }

    fn waiting(&self) -> Vec<RunKey> {
        let since = |run: &Run| run.ahead.map(|ahead| ahead.since);
        let waiting = self.runs.iter();
        let waiting = waiting.filter_map(|(key, run)| Some((since(run)?, key.clone())));
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_unstable();
        waiting.into_iter().map(|(_, key)| key).collect()
    }

    /// Gives back what has waited too long.
    pub(super) fn give_up_ahead(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        let ahead_for = self.config.ahead_for;
        for (key, run) in &mut self.runs {
            if run.ahead_until(ahead_for).is_some_and(|until| until <= now) {
                run.stage = Stage::Stopping(Why::NoRoom);
                out.push(Action::Stop { key: key.clone() });
            }
        }
    }
}
