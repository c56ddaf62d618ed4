//! One job as the memory store keeps it.

use mutual_model::ids::{ClientKey, JobId, Namespace, Nonce};
use mutual_model::job::{JobState, TaskSpec};
use mutual_model::lease::{Claim, Fence, Holder};
use mutual_model::time::UnixMillis;

use crate::rules::digest::Digest;
use crate::rules::{ATTEMPTS_SHOWN, queue};
use crate::{
    Attempt, AttemptEnd, Checkpoint, ClaimGrant, FinishReply, JobEvent, JobView, Manifest, Reason,
    ResultView, Submitter,
};

/// One claim and what came of it.
#[derive(Debug, Clone)]
pub(super) struct Past {
    pub(super) attempt: Attempt,
    pub(super) nonce: Nonce,
    /// Digest of the accepted finish and the reply to it, so that a repeat is answered alike.
    pub(super) finish: Option<(Digest, FinishReply)>,
}

#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) id: JobId,
    pub(super) namespace: Namespace,
    pub(super) client_key: ClientKey,
    pub(super) digest: Digest,
    pub(super) submitter: Submitter,
    pub(super) spec: TaskSpec,
    pub(super) state: JobState,
    pub(super) reason: Option<Reason>,
    pub(super) created_at: UnixMillis,
    pub(super) queued_at: Option<UnixMillis>,
    pub(super) finished_at: Option<UnixMillis>,
    pub(super) rank: i64,
    pub(super) waits_until: UnixMillis,
    pub(super) counted: u32,
    pub(super) last_fence: Fence,
    pub(super) attempts: Vec<Past>,
    pub(super) input: Option<Manifest>,
    pub(super) checkpoints: Vec<Checkpoint>,
    pub(super) checkpoint_wanted: bool,
    pub(super) unlisted: u32,
    pub(super) result: Option<ResultView>,
}

impl Record {
    /// The claim in force.
    pub(super) fn current(&self) -> Option<&Past> {
        self.attempts.last().filter(|_| self.state.is_held())
    }

    /// The claim in force.
    pub(super) fn claim(&self) -> Option<Claim> {
        let past = self.current()?;
        Some(Claim {
            job: self.id,
            fence: past.attempt.fence,
            nonce: past.nonce,
        })
    }

    pub(super) fn is_current(
        &self,
        claim: &Claim,
        holder_agent: mutual_model::identity::NodeId,
    ) -> bool {
        self.current().is_some_and(|past| {
            past.attempt.fence == claim.fence
                && past.nonce == claim.nonce
                && past.attempt.holder.agent == holder_agent
        })
    }

    pub(super) fn holder(&self) -> Option<Holder> {
        self.current().map(|past| past.attempt.holder)
    }

    /// The attempt that this claim was, whether in force or over.
    pub(super) fn past(&mut self, claim: &Claim) -> Option<&mut Past> {
        self.attempts
            .iter_mut()
            .find(|past| past.attempt.fence == claim.fence && past.nonce == claim.nonce)
    }

    /// Puts the job into the queue; its waiting time starts anew.
    pub(super) fn enqueue(&mut self, now: UnixMillis) {
        self.state = JobState::Queued;
        self.waits_until = UnixMillis(now.0.saturating_add(self.spec.expires_ms));
        if self.queued_at.is_none() {
            self.queued_at = Some(now);
            self.rank = queue::rank(now, self.spec.priority);
        }
    }

    pub(super) fn end(&mut self, state: JobState, reason: Option<Reason>, now: UnixMillis) {
        self.state = state;
        self.reason = reason;
        self.finished_at = Some(now);
    }

    /// Ends the attempt in force.
    pub(super) fn end_attempt(&mut self, end: AttemptEnd, now: UnixMillis) {
        if let Some(past) = self.attempts.last_mut() {
            past.attempt.end = Some(end);
            past.attempt.ended_at = Some(now);
        }
    }

    /// The holder is lost: the attempt counts, and the job is queued first or buried.
    pub(super) fn lose_holder(&mut self, end: AttemptEnd, now: UnixMillis) {
        self.end_attempt(end, now);
        match queue::after_loss(self.counted, self.spec.retries) {
            JobState::Queued => {
                self.enqueue(now);
                self.rank = queue::recovered(self.rank);
                self.reason = Some(Reason::HolderLost);
            }
            state => self.end(state, Some(Reason::HolderLost), now),
        }
        self.counted += 1;
    }

    /// The holder gives the job back; the attempt does not count.
    pub(super) fn give_back(&mut self, reason: String, now: UnixMillis) {
        self.end_attempt(AttemptEnd::Released, now);
        self.enqueue(now);
        self.reason = Some(Reason::Released(reason));
    }

    pub(super) fn view(&self) -> JobView {
        let skipped = self.attempts.len().saturating_sub(ATTEMPTS_SHOWN);
        let shown = self.attempts.iter().skip(skipped);
        JobView {
            id: self.id,
            namespace: self.namespace.clone(),
            client_key: self.client_key.clone(),
            submitter: self.submitter.clone(),
            spec: self.spec.clone(),
            state: self.state,
            reason: self.reason.clone(),
            created_at: self.created_at,
            queued_at: self.queued_at,
            finished_at: self.finished_at,
            attempts_counted: self.counted,
            attempts: shown.map(|past| past.attempt.clone()).collect(),
            input: self.input.clone(),
            checkpoints: self.checkpoints.clone(),
            result: self.result.clone(),
            possibly_old: false,
        }
    }

    pub(super) fn grant(&self, past: &Past) -> ClaimGrant {
        ClaimGrant {
            claim: Claim {
                job: self.id,
                fence: past.attempt.fence,
                nonce: past.nonce,
            },
            namespace: self.namespace.clone(),
            spec: self.spec.clone(),
            attempt: u32::try_from(past.attempt.fence.sequence).unwrap_or(u32::MAX),
            input: self.input.clone(),
            checkpoints: self.checkpoints.clone(),
            result_key: self.submitter.sealing,
        }
    }

    /// The change that brought the job where it is now.
    pub(super) fn event(&self, sequence: u64, at: UnixMillis, was_held: bool) -> JobEvent {
        let past = self
            .attempts
            .last()
            .filter(|_| was_held || self.state.is_held());
        JobEvent {
            sequence,
            at,
            job: self.id,
            namespace: self.namespace.clone(),
            state: self.state,
            claim: past.map(|past| Claim {
                job: self.id,
                fence: past.attempt.fence,
                nonce: past.nonce,
            }),
            agent: past.map(|past| past.attempt.holder.agent),
            reason: self.reason.clone(),
        }
    }
}
