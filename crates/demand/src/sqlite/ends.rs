//! Checkpoints, releases and finishes: what the holder of a claim may say about its job.
//!
//! Each is one conditional statement on job, state, fence and nonce (DESIGN §3.3). Only when it
//! changes no row does a second one ask why.

use mutual_model::identity::NodeId;
use mutual_model::job::{Failure, JobState};
use mutual_model::lease::{Claim, Fence};
use rusqlite::{OptionalExtension as _, named_params};

use super::claims::{end_attempt, on_claim};
use super::failed;
use super::rows::{self, document, name_of, number, time};
use super::statements as sql;
use super::writer::Work;
use crate::rules::digest::Digest;
use crate::rules::ending::Ending;
use crate::rules::{bounds, rights};
use crate::{
    AttemptEnd, Checkpoint, CheckpointReport, Disposition, FinishReply, Principal, Reason,
    ReleaseRequest, StoreError, StoreResult,
};

/// Why a conditional statement changed nothing.
struct Standing {
    needed_copies: u32,
    last: Fence,
    in_force: bool,
}

impl Standing {
    fn fenced(&self) -> StoreError {
        StoreError::Fenced {
            current: (self.last.sequence > 0).then_some(self.last),
        }
    }
}

/// The job that a claim names, if `who` may see it.
fn standing(
    work: &Work<'_>,
    who: &Principal,
    agent: NodeId,
    claim: &Claim,
) -> StoreResult<Standing> {
    let params = named_params! {
        ":fence_epoch": number(claim.fence.epoch),
        ":fence_sequence": number(claim.fence.sequence),
        ":nonce": claim.nonce.0,
        ":agent": agent.0,
        ":id": claim.job.0.as_bytes(),
    };
    let found = work
        .db
        .prepare_cached(sql::CLAIM_STATE)
        .and_then(|mut statement| {
            let row = statement.query_row(params, |row| {
                let standing = Standing {
                    needed_copies: row.get(1)?,
                    last: rows::fence(row, 2)?,
                    in_force: row.get::<_, Option<bool>>(4)?.unwrap_or(false),
                };
                Ok((rows::text(row, 0)?, standing))
            });
            row.optional()
        })
        .map_err(failed)?;
    match found {
        Some((namespace, standing)) if rights::sees(who, &namespace) => Ok(standing),
        _ => Err(StoreError::NotFound),
    }
}

pub(super) fn checkpoint(
    work: &Work<'_>,
    who: &Principal,
    report: &CheckpointReport,
) -> StoreResult<()> {
    let agent = rights::worker(who)?;
    let claim = &report.claim;
    let standing = standing(work, who, agent, claim)?;
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
            (":checkpoint", &kept),
            (":sequence", &number(report.sequence)),
            (":agent", &agent.0),
            (":copies", &copies),
        ],
    )?;
    if changed > 0 {
        return Ok(());
    }
    if !standing.in_force {
        return Err(standing.fenced());
    }
    if copies < standing.needed_copies.min(1) {
        return Err(bounds::checkpoint_unvouched(report).into());
    }
    touch(work, claim)
}

fn touch(work: &Work<'_>, claim: &Claim) -> StoreResult<()> {
    work.db
        .prepare_cached(sql::TOUCH)
        .and_then(|mut statement| statement.execute(named_params! {":id": claim.job.0.as_bytes()}))
        .map(drop)
        .map_err(failed)
}

/// Queues a held job again without counting the attempt; whether the claim was in force.
pub(super) fn give_back(
    work: &Work<'_>,
    claim: &Claim,
    agent: Option<NodeId>,
    reason: &str,
) -> StoreResult<bool> {
    let reason = document(&Reason::Released(reason.to_owned()))?;
    let changed = on_claim(
        work,
        sql::RELEASE,
        claim,
        &[
            (":reason", &reason),
            (":now", &time(work.now)),
            (":agent", &agent.map(|agent| agent.0)),
        ],
    )?;
    if changed == 0 {
        return Ok(false);
    }
    end_attempt(
        work,
        claim.job,
        number(claim.fence.sequence),
        AttemptEnd::Released,
    )?;
    Ok(true)
}

pub(super) fn release(
    work: &Work<'_>,
    who: &Principal,
    request: &ReleaseRequest,
) -> StoreResult<()> {
    let agent = rights::worker(who)?;
    let claim = &request.claim;
    let standing = standing(work, who, agent, claim)?;
    if give_back(work, claim, Some(agent), &request.reason)? {
        return Ok(());
    }
    let params = named_params! {
        ":job": claim.job.0.as_bytes(),
        ":fence_sequence": number(claim.fence.sequence),
        ":fence_epoch": number(claim.fence.epoch),
        ":nonce": claim.nonce.0,
        ":agent": agent.0,
    };
    let repeated = work
        .db
        .prepare_cached(sql::RELEASE_REPEAT)
        .and_then(|mut statement| statement.execute(params))
        .map_err(failed)?;
    if repeated > 0 {
        return Ok(());
    }
    Err(standing.fenced())
}

/// Ends attempts, each for itself: what is refused leaves the others as they are. What the database
/// cannot do undoes all of them.
pub(super) fn finish_many(
    work: &Work<'_>,
    endings: &[Ending],
) -> StoreResult<Vec<StoreResult<FinishReply>>> {
    let answers = endings.iter().map(|ending| match finish(work, ending) {
        Err(fault) if fault.is_retryable() || matches!(fault, StoreError::Internal(_)) => {
            Err(fault)
        }
        answer => Ok(answer),
    });
    answers.collect()
}

pub(super) fn finish(work: &Work<'_>, ending: &Ending) -> StoreResult<FinishReply> {
    let claim = &ending.request.claim;
    let standing = standing(work, &ending.who, ending.agent, claim)?;
    if let Some(state) = end_job(work, ending)? {
        return record_end(work, ending, state);
    }
    if standing.in_force {
        return Err(bounds::result_unvouched(ending.copies, standing.needed_copies).into());
    }
    finished_before(work, ending)?.ok_or_else(|| standing.fenced())
}

/// The one statement that ends an attempt; the state it left the job in, if the claim is in force.
fn end_job(work: &Work<'_>, ending: &Ending) -> StoreResult<Option<JobState>> {
    let claim = &ending.request.claim;
    let failure = ending.failure();
    let failed_state = match failure {
        Some(Failure::TimeLimit) => JobState::TimedOut,
        _ => JobState::Failed,
    };
    let reason = failure
        .map(|failure| document(&Reason::Failure(failure.clone())))
        .transpose()?;
    let mut statement = work.db.prepare_cached(sql::FINISH).map_err(failed)?;
    let state = statement.query_row(
        named_params! {
            ":success": failure.is_none(),
            ":retryable": failure.is_some_and(Failure::is_retryable),
            ":failed_state": failed_state.name(),
            ":reason": reason,
            ":result": document(&ending.request.result)?,
            ":now": time(work.now),
            ":id": claim.job.0.as_bytes(),
            ":fence_epoch": number(claim.fence.epoch),
            ":fence_sequence": number(claim.fence.sequence),
            ":nonce": claim.nonce.0,
            ":agent": ending.agent.0,
            ":copies": ending.copies,
        },
        |row| rows::text(row, 0),
    );
    state.optional().map_err(failed)
}

fn record_end(work: &Work<'_>, ending: &Ending, state: JobState) -> StoreResult<FinishReply> {
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
    let params = named_params! {
        ":now": time(work.now),
        ":ending": name_of(&end)?,
        ":digest": ending.digest,
        ":disposition": name_of(&disposition)?,
        ":reply_state": state.name(),
        ":log": ending.failed_log().map(document).transpose()?,
        ":job": claim.job.0.as_bytes(),
        ":fence_sequence": number(claim.fence.sequence),
    };
    work.db
        .prepare_cached(sql::ATTEMPT_FINISH)
        .and_then(|mut statement| statement.execute(params))
        .map_err(failed)?;
    Ok(FinishReply { disposition, state })
}

/// The reply to an earlier finish of the same claim, from a statement that itself writes.
fn finished_before(work: &Work<'_>, ending: &Ending) -> StoreResult<Option<FinishReply>> {
    let claim = &ending.request.claim;
    let params = named_params! {
        ":job": claim.job.0.as_bytes(),
        ":fence_sequence": number(claim.fence.sequence),
        ":fence_epoch": number(claim.fence.epoch),
        ":nonce": claim.nonce.0,
        ":agent": ending.agent.0,
    };
    let known: Option<(Digest, FinishReply)> = work
        .db
        .prepare_cached(sql::FINISH_REPEAT)
        .and_then(|mut statement| {
            let known = statement.query_row(params, |row| {
                let reply = FinishReply {
                    disposition: rows::from_name(row, 1)?,
                    state: rows::text(row, 2)?,
                };
                Ok((row.get(0)?, reply))
            });
            known.optional()
        })
        .map_err(failed)?;
    match known {
        Some((digest, reply)) if digest == ending.digest => Ok(Some(reply)),
        Some(_) => Err(StoreError::Conflict(
            "this claim was finished with another result".into(),
        )),
        None => Ok(None),
    }
}
