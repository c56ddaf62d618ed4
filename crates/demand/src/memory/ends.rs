//! Checkpoints, releases and finishes: what the holder of a claim may say about its job.

use mutual_model::identity::NodeId;
use mutual_model::job::{Failure, JobState};
use mutual_model::lease::Claim;

use super::record::Record;
use super::state::State;
use crate::rules::digest::{self, Digest};
use crate::rules::{bounds, rights};
use crate::{
    AttemptEnd, Checkpoint, CheckpointReport, Disposition, FinishReply, FinishRequest, Manifest,
    Outcome, Principal, Reason, ReleaseRequest, StoreError, StoreResult,
};

impl State {
    /// Whether the claim is in force; `NotFound` for foreign namespaces.
    fn in_force(&self, who: &Principal, agent: NodeId, claim: &Claim) -> StoreResult<bool> {
        let record = self.seen(who, claim.job)?;
        Ok(record.is_current(claim, agent))
    }

    pub(super) fn checkpoint(
        &mut self,
        who: &Principal,
        report: CheckpointReport,
    ) -> StoreResult<()> {
        let agent = rights::worker(who)?;
        bounds::checkpoint_sizes(&report)?;
        if !self.in_force(who, agent, &report.claim)? {
            return Err(self.fenced(&report.claim));
        }
        let needed = self.seen(who, report.claim.job)?.spec.result_copies.min(1);
        if bounds::checkpoint_copies(&report, &agent) < needed {
            return Err(bounds::checkpoint_unvouched(&report).into());
        }
        self.change(report.claim.job, |record| keep_checkpoint(record, report));
        Ok(())
    }

    pub(super) fn release(&mut self, who: &Principal, request: &ReleaseRequest) -> StoreResult<()> {
        let agent = rights::worker(who)?;
        bounds::release(request)?;
        let claim = &request.claim;
        if self.in_force(who, agent, claim)? {
            let now = self.now;
            self.change(claim.job, |record| {
                record.give_back(request.reason.clone(), now);
            });
            return Ok(());
        }
        let was_released = self.records.get_mut(&claim.job).is_some_and(|record| {
            record
                .past(claim)
                .is_some_and(|past| past.attempt.end == Some(AttemptEnd::Released))
        });
        if was_released {
            return Ok(());
        }
        Err(self.fenced(claim))
    }

    pub(super) fn finish(
        &mut self,
        who: &Principal,
        request: FinishRequest,
    ) -> StoreResult<FinishReply> {
        let agent = rights::worker(who)?;
        bounds::finish(&request)?;
        let digest = digest::finish(&request)?;
        if !self.in_force(who, agent, &request.claim)? {
            return self.finished_before(&request.claim, digest);
        }
        let needed = self.seen(who, request.claim.job)?.spec.result_copies;
        let found = bounds::result_copies(&request, &agent);
        if found < needed {
            return Err(bounds::result_unvouched(found, needed).into());
        }
        let now = self.now;
        Ok(self.change(request.claim.job, |record| {
            accept(record, request, digest, now)
        }))
    }

    fn finished_before(&mut self, claim: &Claim, digest: Digest) -> StoreResult<FinishReply> {
        let record = self.records.get_mut(&claim.job);
        let finish = record.and_then(|record| record.past(claim)?.finish);
        match finish {
            Some((known, reply)) if known == digest => Ok(reply),
            Some(_) => Err(StoreError::Conflict(
                "this claim was finished with another result".into(),
            )),
            None => Err(self.fenced(claim)),
        }
    }
}

fn keep_checkpoint(record: &mut Record, report: CheckpointReport) {
    record.checkpoint_wanted = false;
    let best = record.checkpoints.first();
    let is_newer =
        best.is_none_or(|best| (best.fence, best.sequence) < (report.claim.fence, report.sequence));
    if !is_newer {
        return;
    }
    let newest = Checkpoint {
        fence: report.claim.fence,
        sequence: report.sequence,
        manifest: report.manifest,
    };
    record.checkpoints.insert(0, newest);
    record.checkpoints.truncate(2);
}

fn accept(
    record: &mut Record,
    request: FinishRequest,
    digest: Digest,
    now: mutual_model::time::UnixMillis,
) -> FinishReply {
    let disposition = match request.outcome {
        Outcome::Success => {
            record.end_attempt(AttemptEnd::Succeeded, now);
            record.end(JobState::Succeeded, None, now);
            Disposition::Ended
        }
        Outcome::Failure(failure) => {
            let failed = fail(record, failure, now);
            keep_log(record, request.result.log.clone());
            failed
        }
    };
    if disposition == Disposition::Ended {
        record.result = Some(request.result);
    }
    let reply = FinishReply {
        disposition,
        state: record.state,
    };
    if let Some(past) = record.attempts.last_mut() {
        past.finish = Some((digest, reply));
    }
    reply
}

fn keep_log(record: &mut Record, log: Option<Manifest>) {
    if let Some(past) = record.attempts.last_mut() {
        past.attempt.log = log;
    }
}

fn fail(record: &mut Record, failure: Failure, now: mutual_model::time::UnixMillis) -> Disposition {
    record.end_attempt(AttemptEnd::Failed, now);
    let may_retry = failure.is_retryable() && record.counted < record.spec.retries;
    record.counted += 1;
    if may_retry {
        record.enqueue(now);
        record.reason = Some(Reason::Failure(failure));
        return Disposition::Retried;
    }
    let state = match failure {
        Failure::TimeLimit => JobState::TimedOut,
        _ => JobState::Failed,
    };
    record.end(state, Some(Reason::Failure(failure)), now);
    Disposition::Ended
}
