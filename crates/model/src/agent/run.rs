//! One held claim and where its run stands.

use std::time::Duration;

use super::accounts::Share;
use super::event::{Grant, RunKey};
use crate::job::OnDisconnect;
use crate::lease::{Claim, HeldJob, Phase};
use crate::time::Timestamp;

/// Why the agent ends a run itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The claim is void: cancelled, fenced off or revoked.
    Void,
    /// The agent shuts down.
    Shutdown,
    /// The time limit is reached.
    TimeLimit,
    /// The store could not be reached in time and the task wants to be stopped then.
    CutOff,
    /// Held ahead of the slots, it found no room in time.
    NoRoom,
}

impl Why {
    pub(super) const fn release_reason(self) -> &'static str {
        match self {
            Self::Void | Self::TimeLimit => "stopped",
            Self::Shutdown => "the agent shuts down",
            Self::CutOff => "the agent was cut off from the store",
            Self::NoRoom => "no slot came free in time",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Image and input are on their way.
    Preparing,
    /// Prepared, but the lease is too old to start anything, or there is no room yet.
    Ready,
    /// The program is being started.
    Starting,
    /// It runs, since then.
    Running(Timestamp),
    /// It is frozen.
    Paused,
    /// It was told to end.
    Stopping(Why),
    /// Its output is being stored.
    Storing,
    /// Its finish is in the outbox.
    Recorded,
    /// It is being given back.
    Releasing,
}

/// A run that waits for room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ahead {
    /// What it takes once there is room.
    pub(super) needs: Share,
    pub(super) since: Timestamp,
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) claim: Claim,
    pub(super) stage: Stage,
    pub(super) phase: Phase,
    pub(super) reserved: Share,
    /// Set while it is held ahead of the slots.
    pub(super) ahead: Option<Ahead>,
    pub(super) on_disconnect: OnDisconnect,
    timeout: Duration,
    /// Running time before the current `Stage::Running`.
    ran: Duration,
    checkpoint_every: Option<Duration>,
    checkpoint_due: Option<Timestamp>,
    checkpoint_wanted: bool,
    checkpointing: Option<Saving>,
    /// When the last one ended, and the earliest time of the next.
    checkpoint_ended: Timestamp,
    checkpoint_from: Timestamp,
    checkpoints: u64,
    acknowledged: u64,
}

/// Why a checkpoint is being saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Saving {
    Interval,
    Request,
}

/// After a checkpoint that could not be saved, the next is not tried before this has passed: the store asks again with
/// each renewal, and a large directory that nobody keeps must not be read all the time.
const CHECKPOINT_REST: Duration = Duration::from_secs(10);

impl Run {
    pub(super) fn new(grant: &Grant, reserved: Share) -> Self {
        let spec = &grant.spec;
        // An exclusive task must not run on beside its successor.
        let on_disconnect = match spec.on_disconnect {
            OnDisconnect::Finish if spec.exclusive => OnDisconnect::Pause,
            other => other,
        };
        Self {
            claim: grant.claim,
            stage: Stage::Preparing,
            phase: Phase::Preparing,
            reserved,
            ahead: None,
            on_disconnect,
            timeout: Duration::from_millis(spec.timeout_ms),
            ran: Duration::ZERO,
            checkpoint_every: spec.checkpoint_ms.map(Duration::from_millis),
            checkpoint_due: None,
            checkpoint_wanted: false,
            checkpointing: None,
            checkpoint_ended: Timestamp(0),
            checkpoint_from: Timestamp(0),
            checkpoints: 0,
            acknowledged: 0,
        }
    }

    /// A run that is held ahead of the slots.
    pub(super) fn waiting(grant: &Grant, ahead: Ahead) -> Self {
        Self {
            ahead: Some(ahead),
            ..Self::new(grant, Share::NOTHING)
        }
    }

    pub(super) fn held(&self) -> HeldJob {
        HeldJob {
            claim: self.claim,
            phase: self.phase,
        }
    }

    /// Whether a program runs, could start or is frozen: what a shutdown must end.
    pub(super) const fn is_live(&self) -> bool {
        !matches!(
            self.stage,
            Stage::Stopping(_) | Stage::Storing | Stage::Recorded | Stage::Releasing
        )
    }

    pub(super) fn started(&mut self, now: Timestamp) {
        self.stage = Stage::Running(now);
        self.phase = Phase::Running;
        self.plan_checkpoint(now);
    }

    pub(super) fn pause(&mut self, now: Timestamp) {
        if let Stage::Running(since) = self.stage {
            self.ran += now.since(since);
            self.stage = Stage::Paused;
        }
    }

    /// When the time limit is reached.
    pub(super) fn limit_due(&self) -> Option<Timestamp> {
        match self.stage {
            Stage::Running(since) => Some(since.after(self.timeout.saturating_sub(self.ran))),
            _ => None,
        }
    }

    /// Whether it may start as soon as it is prepared and the lease is good.
    pub(super) const fn may_start(&self) -> bool {
        self.ahead.is_none() && matches!(self.stage, Stage::Ready)
    }

    /// When it is given back unless there is room before.
    pub(super) fn ahead_until(&self, ahead_for: Duration) -> Option<Timestamp> {
        let ahead = self.ahead.filter(|_| self.is_live());
        ahead.map(|ahead| ahead.since.after(ahead_for))
    }

    /// When the next checkpoint is to begin.
    pub(super) fn checkpoint_due(&self) -> Option<Timestamp> {
        match (self.stage, self.checkpointing) {
            (Stage::Running(_), None) => Some(self.checkpoint_due?.max(self.checkpoint_from)),
            _ => None,
        }
    }

    /// The store's answer to a renewal sent at `sent` says that a user wants a checkpoint. It says so until one is
    /// acknowledged: what the checkpoint under way or the last one has answered already is not wanted again.
    pub(super) fn want_checkpoint(&mut self, now: Timestamp, sent: Timestamp) {
        let answered = sent < self.checkpoint_ended || self.checkpointing == Some(Saving::Request);
        if !answered {
            self.checkpoint_wanted = true;
            self.checkpoint_due = Some(now);
        }
    }

    pub(super) fn begin_checkpoint(&mut self) -> u64 {
        let wanted = std::mem::take(&mut self.checkpoint_wanted);
        self.checkpointing = Some(match wanted {
            true => Saving::Request,
            false => Saving::Interval,
        });
        self.checkpoint_due = None;
        self.checkpoints += 1;
        self.checkpoints
    }

    /// The last checkpoint that was acknowledged; 0 if none was.
    pub(super) const fn checkpoint(&self) -> u64 {
        self.acknowledged
    }

    pub(super) fn end_checkpoint(&mut self, now: Timestamp, saved: bool) {
        self.checkpointing = None;
        if saved {
            self.checkpoint_ended = now;
            self.acknowledged = self.checkpoints;
        } else {
            self.checkpoint_from = now.after(CHECKPOINT_REST);
        }
        if self.checkpoint_due.is_none() {
            self.plan_checkpoint(now);
        }
    }

    fn plan_checkpoint(&mut self, now: Timestamp) {
        self.checkpoint_due = self.checkpoint_every.map(|interval| now.after(interval));
    }
}

/// A run as others may look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStatus {
    /// The run.
    pub key: RunKey,
    /// The claim.
    pub claim: Claim,
    /// How far it has got.
    pub phase: Phase,
    /// Its last checkpoint that was saved or given up, 0 if there is none.
    pub checkpoint: u64,
    /// Whether it is frozen until its store answers.
    pub paused: bool,
}
