//! The life of a run from grant to discard.

use super::Agent;
use super::accounts::Share;
use super::event::{Action, End, RunKey, StoreUrl};
use super::run::{Run, Stage, Why};
use crate::job::{Failure, OnDisconnect};
use crate::resources::Resources;
use crate::time::Timestamp;

impl Agent {
    pub(super) fn runs_at(&self, store: &StoreUrl) -> impl Iterator<Item = (&RunKey, &Run)> {
        let store = store.clone();
        self.runs.iter().filter(move |(key, _)| key.store == store)
    }

    pub(super) fn is_cut_off(&self, store: &StoreUrl) -> bool {
        self.stores.get(store).is_none_or(|known| known.cut_off)
    }

    pub(super) fn on_prepared(&mut self, key: &RunKey, out: &mut Vec<Action>) {
        let cut_off = self.is_cut_off(&key.store);
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        if run.stage != Stage::Preparing {
            return;
        }
        run.stage = Stage::Ready;
        if !cut_off && run.may_start() {
            run.stage = Stage::Starting;
            out.push(Action::Start { key: key.clone() });
        }
    }

    pub(super) fn on_started(&mut self, now: Timestamp, key: &RunKey, out: &mut Vec<Action>) {
        let cut_off = self.is_cut_off(&key.store);
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        if run.stage != Stage::Starting {
            return;
        }
        run.started(now);
        if cut_off && run.on_disconnect == OnDisconnect::Pause {
            run.pause(now);
            out.push(Action::Pause { key: key.clone() });
        }
        self.report_soon(now, &key.store);
    }

    pub(super) fn on_ended(
        &mut self,
        now: Timestamp,
        key: &RunKey,
        end: End,
        out: &mut Vec<Action>,
    ) {
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        if matches!(
            run.stage,
            Stage::Storing | Stage::Recorded | Stage::Releasing
        ) {
            return;
        }
        let kept = Share {
            resources: Resources {
                scratch_bytes: run.reserved.resources.scratch_bytes,
                ..Resources::ZERO
            },
            slots: 0,
        };
        let freed = Share {
            resources: Resources {
                scratch_bytes: 0,
                ..run.reserved.resources
            },
            slots: run.reserved.slots,
        };
        run.reserved = kept;
        run.ahead = None;
        let stage = run.stage;
        self.give_back(freed);
        self.poll_now(now, &key.store);
        self.after_end(now, key, stage, end, out);
    }

    fn after_end(
        &mut self,
        now: Timestamp,
        key: &RunKey,
        stage: Stage,
        end: End,
        out: &mut Vec<Action>,
    ) {
        match (stage, end) {
            (Stage::Stopping(Why::Void), _) => self.discard(now, key, out),
            (_, End::Success) => self.conclude(key, None, out),
            (_, End::Failure(failure)) => self.conclude(key, Some(failure), out),
            (Stage::Stopping(Why::TimeLimit), End::Stopped) => {
                self.conclude(key, Some(Failure::TimeLimit), out);
            }
            (Stage::Stopping(why), End::Stopped) => self.release(key, why.release_reason(), out),
            (_, End::Stopped) => self.release(key, "stopped on the machine", out),
        }
    }

    fn conclude(&mut self, key: &RunKey, failure: Option<Failure>, out: &mut Vec<Action>) {
        if let Some(run) = self.runs.get_mut(key) {
            run.stage = Stage::Storing;
            let key = key.clone();
            out.push(Action::Conclude { key, failure });
        }
    }

    fn release(&mut self, key: &RunKey, reason: &str, out: &mut Vec<Action>) {
        if let Some(run) = self.runs.get_mut(key) {
            run.stage = Stage::Releasing;
            out.push(Action::Release {
                key: key.clone(),
                claim: run.claim,
                reason: reason.to_owned(),
            });
        }
    }

    pub(super) fn on_recorded(&mut self, now: Timestamp, key: &RunKey) {
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        if run.stage == Stage::Storing {
            run.stage = Stage::Recorded;
            let freed = std::mem::replace(&mut run.reserved, Share::NOTHING);
            self.give_back(freed);
            self.poll_now(now, &key.store);
        }
    }

    /// The claim is void: ends what runs, forgets the rest. A recorded finish stays, since only
    /// the store's answer to it may remove it from the outbox.
    pub(super) fn void(&mut self, now: Timestamp, key: &RunKey, out: &mut Vec<Action>) {
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        match run.stage {
            Stage::Stopping(_) => run.stage = Stage::Stopping(Why::Void),
            Stage::Storing | Stage::Releasing => self.discard(now, key, out),
            Stage::Recorded => {}
            _ => {
                run.stage = Stage::Stopping(Why::Void);
                out.push(Action::Stop { key: key.clone() });
            }
        }
    }

    pub(super) fn discard(&mut self, now: Timestamp, key: &RunKey, out: &mut Vec<Action>) {
        let Some(run) = self.runs.remove(key) else {
            return;
        };
        self.give_back(run.reserved);
        self.forget_lease_if_idle(&key.store);
        if run.reserved.slots > 0 || run.reserved.resources != Resources::ZERO {
            self.poll_now(now, &key.store);
        }
        out.push(Action::Discard { key: key.clone() });
    }

    pub(super) fn enforce_limits(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        for (key, run) in &mut self.runs {
            if run.limit_due().is_some_and(|due| due <= now) {
                run.stage = Stage::Stopping(Why::TimeLimit);
                out.push(Action::Stop { key: key.clone() });
            }
        }
    }

    pub(super) fn begin_checkpoints(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        for (key, run) in &mut self.runs {
            if run.checkpoint_due().is_some_and(|due| due <= now) {
                let sequence = run.begin_checkpoint();
                let key = key.clone();
                out.push(Action::Checkpoint { key, sequence });
            }
        }
    }

    pub(super) fn on_checkpointed(&mut self, now: Timestamp, key: &RunKey, saved: bool) {
        if let Some(run) = self.runs.get_mut(key) {
            run.end_checkpoint(now, saved);
        }
    }

    pub(super) fn shut_down(&mut self, out: &mut Vec<Action>) {
        self.draining = true;
        self.ads.clear();
        for (key, run) in self.runs.iter_mut().filter(|(_, run)| run.is_live()) {
            run.stage = Stage::Stopping(Why::Shutdown);
            out.push(Action::Stop { key: key.clone() });
        }
    }
}
