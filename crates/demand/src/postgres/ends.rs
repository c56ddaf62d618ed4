//! Checkpoints, releases and finishes: what the holder of a claim may say about its job.
//!
//! Each is one conditional statement on job, state, fence and nonce (DESIGN §3.3). Only when it
//! changes no row does a second one ask why, under a lock on the job.

use mutual_model::identity::NodeId;
use mutual_model::job::{Failure, JobState};
use mutual_model::lease::{Claim, Fence};

use super::claims::{end_attempts, on_claim};
use super::jobs::{namespaces, touch};
use super::rows::{self, document, name_of, number};
use super::session::Param;
use super::statements as sql;
use super::work::{Done, Fault, Work};
use crate::rules::ending::Ending;
use crate::rules::{bounds, rights};
use crate::{
    AttemptEnd, Checkpoint, CheckpointReport, Disposition, FinishReply, Principal, Reason,
    ReleaseRequest, StoreError,
};

/// Why a conditional statement changed nothing.
struct Standing {
    needed_copies: u32,
    last: Fence,
    in_force: bool,
}

impl Standing {
    fn fenced(&self) -> Fault {
        StoreError::Fenced {
            current: (self.last.sequence > 0).then_some(self.last),
        }
        .into()
    }
}

/// The job that a claim names, if `who` may see it; locked.
async fn standing(work: &Work, who: &Principal, agent: NodeId, claim: &Claim) -> Done<Standing> {
    let row = work
        .first(
            sql::CLAIM_STATE,
            &[
                ("id", &claim.job.0.as_bytes().as_slice()),
                ("fence_epoch", &number(claim.fence.epoch)),
                ("fence_sequence", &number(claim.fence.sequence)),
                ("nonce", &claim.nonce.0.as_slice()),
                ("agent", &agent.0.as_slice()),
            ],
        )
        .await?
        .ok_or(StoreError::NotFound)?;
    if !rights::sees(who, &rows::text(&row, 0)?) {
        return Err(StoreError::NotFound.into());
    }
    Ok(Standing {
        needed_copies: rows::count(&row, 1)?,
        last: rows::fence(&row, 2)?,
        in_force: row.try_get(4)?,
    })
}

pub(super) async fn checkpoint(
    work: &Work,
    who: &Principal,
    report: &CheckpointReport,
) -> Done<()> {
    let agent = rights::worker(who)?;
    let claim = &report.claim;
    let kept = document(&Checkpoint {
        fence: claim.fence,
        sequence: report.sequence,
        manifest: report.manifest.clone(),
    })?;
    let copies = bounds::checkpoint_copies(report, &agent);
    let changed = on_claim(
        work,
        sql::CHECKPOINT,
        claim,
        &[
            ("checkpoint", &kept),
            ("sequence", &number(report.sequence)),
            ("agent", &agent.0.as_slice()),
            ("namespaces", &namespaces(&who.namespaces)),
            ("copies", &i64::from(copies)),
        ],
    )
    .await?;
    if changed > 0 {
        return Ok(());
    }
    let standing = standing(work, who, agent, claim).await?;
    if !standing.in_force {
        return Err(standing.fenced());
    }
    if copies < standing.needed_copies.min(1) {
        return Err(StoreError::from(bounds::checkpoint_unvouched(report)).into());
    }
    touch(work, claim.job).await
}

/// Queues a held job again without counting the attempt, if the claim is in force.
pub(super) async fn give_back(work: &Work, claim: &Claim, reason: &str) -> Done<()> {
    let reason = document(&Reason::Released(reason.to_owned()))?;
    let params: &[(&'static str, Param<'_>)] = &[("reason", &reason), ("now", &work.time())];
    if on_claim(work, sql::GIVE_BACK, claim, params).await? > 0 {
        let ended = [(claim.job, number(claim.fence.sequence))];
        end_attempts(work, &ended, AttemptEnd::Released).await?;
    }
    Ok(())
}

pub(super) async fn release(work: &Work, who: &Principal, request: &ReleaseRequest) -> Done<()> {
    let agent = rights::worker(who)?;
    let claim = &request.claim;
    let reason = document(&Reason::Released(request.reason.clone()))?;
    let changed = on_claim(
        work,
        sql::RELEASE,
        claim,
        &[
            ("reason", &reason),
            ("now", &work.time()),
            ("agent", &agent.0.as_slice()),
            ("namespaces", &namespaces(&who.namespaces)),
        ],
    )
    .await?;
    if changed > 0 {
        let ended = [(claim.job, number(claim.fence.sequence))];
        return end_attempts(work, &ended, AttemptEnd::Released).await;
    }
    let standing = standing(work, who, agent, claim).await?;
    let repeated = work
        .execute(
            sql::RELEASE_REPEAT,
            &[
                ("job", &claim.job.0.as_bytes().as_slice()),
                ("fence_sequence", &number(claim.fence.sequence)),
                ("fence_epoch", &number(claim.fence.epoch)),
                ("nonce", &claim.nonce.0.as_slice()),
                ("agent", &agent.0.as_slice()),
            ],
        )
        .await?;
    match repeated {
        0 => Err(standing.fenced()),
        _ => Ok(()),
    }
}

pub(super) async fn finish(work: &Work, ending: &Ending) -> Done<FinishReply> {
    if let Some(state) = end_job(work, ending).await? {
        return record_end(work, ending, state).await;
    }
    let standing = standing(work, &ending.who, ending.agent, &ending.request.claim).await?;
    if standing.in_force && ending.copies < standing.needed_copies {
        let refusal = bounds::result_unvouched(ending.copies, standing.needed_copies);
        return Err(StoreError::from(refusal).into());
    }
    if standing.in_force {
        return Err(Fault::Again);
    }
    let before = finished_before(work, ending).await?;
    before.ok_or_else(|| standing.fenced())
}

/// The one statement that ends an attempt; the state it left the job in, if the claim is in force.
async fn end_job(work: &Work, ending: &Ending) -> Done<Option<JobState>> {
    let claim = &ending.request.claim;
    let failure = ending.failure();
    let failed_state = match failure {
        Some(Failure::TimeLimit) => JobState::TimedOut,
        _ => JobState::Failed,
    };
    let reason = failure
        .map(|failure| document(&Reason::Failure(failure.clone())))
        .transpose()?;
    let row = work
        .first(
            sql::FINISH,
            &[
                ("success", &failure.is_none()),
                ("retryable", &failure.is_some_and(Failure::is_retryable)),
                ("failed_state", &failed_state.name()),
                ("reason", &reason),
                ("result", &document(&ending.request.result)?),
                ("now", &work.time()),
                ("id", &claim.job.0.as_bytes().as_slice()),
                ("fence_epoch", &number(claim.fence.epoch)),
                ("fence_sequence", &number(claim.fence.sequence)),
                ("nonce", &claim.nonce.0.as_slice()),
                ("agent", &ending.agent.0.as_slice()),
                ("namespaces", &namespaces(&ending.who.namespaces)),
                ("copies", &i64::from(ending.copies)),
            ],
        )
        .await?;
    row.map(|row| rows::text(&row, 0)).transpose()
}

async fn record_end(work: &Work, ending: &Ending, state: JobState) -> Done<FinishReply> {
    let claim = &ending.request.claim;
    let disposition = if state.is_terminal() {
        Disposition::Ended
    } else {
        Disposition::Retried
    };
    let end = if ending.failure().is_none() {
        AttemptEnd::Succeeded
    } else {
        AttemptEnd::Failed
    };
    work.execute(
        sql::ATTEMPT_FINISH,
        &[
            ("now", &work.time()),
            ("ending", &name_of(&end)?),
            ("digest", &ending.digest.as_slice()),
            ("disposition", &name_of(&disposition)?),
            ("reply_state", &state.name()),
            ("log", &ending.failed_log().map(document).transpose()?),
            ("job", &claim.job.0.as_bytes().as_slice()),
            ("fence_sequence", &number(claim.fence.sequence)),
        ],
    )
    .await?;
    Ok(FinishReply { disposition, state })
}

/// The reply to an earlier finish of the same claim, from a statement that itself writes.
async fn finished_before(work: &Work, ending: &Ending) -> Done<Option<FinishReply>> {
    let claim = &ending.request.claim;
    let known = work
        .first(
            sql::FINISH_REPEAT,
            &[
                ("job", &claim.job.0.as_bytes().as_slice()),
                ("fence_sequence", &number(claim.fence.sequence)),
                ("fence_epoch", &number(claim.fence.epoch)),
                ("nonce", &claim.nonce.0.as_slice()),
                ("agent", &ending.agent.0.as_slice()),
            ],
        )
        .await?;
    let Some(row) = known else {
        return Ok(None);
    };
    if rows::bytes::<32>(&row, 0)? != ending.digest {
        let problem = "this claim was finished with another result";
        return Err(StoreError::Conflict(problem.into()).into());
    }
    Ok(Some(FinishReply {
        disposition: rows::from_name(&row, 1)?,
        state: rows::text(&row, 2)?,
    }))
}
