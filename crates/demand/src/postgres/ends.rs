//! Checkpoints, releases and finishes: what the holder of a claim may say about its job.
//!
//! Each is one conditional statement on job, state, fence and nonce (DESIGN §3.3). Only when it
//! changes no row does a second one ask why, under a lock on the job.

use std::collections::{BTreeMap, BTreeSet};

use mutual_model::identity::NodeId;
use mutual_model::ids::JobId;
use mutual_model::job::{Failure, JobState};
use mutual_model::lease::{Claim, Fence};

use super::claims::{end_attempts, on_claim};
use super::jobs::{namespaces, touch};
use super::rows::{self, document, number};
use super::session::Param;
use super::statements as sql;
use super::work::{Done, Fault, Work};
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

/// Ends attempts of one holder, each for itself: what is refused leaves the others as they are.
pub(super) async fn finish_many(
    work: &Work,
    endings: &[Ending],
) -> Done<Vec<StoreResult<FinishReply>>> {
    let mut answers: BTreeMap<usize, StoreResult<FinishReply>> = BTreeMap::new();
    let mut waiting: Vec<usize> = (0..endings.len()).collect();
    while !waiting.is_empty() {
        let (turn, later) = one_of_each_job(endings, waiting);
        let asked: Vec<&Ending> = turn.iter().map(|&index| &endings[index]).collect();
        let ended = end_jobs(work, &asked).await?;
        for (index, ending) in turn.into_iter().zip(asked) {
            let answer = match ended.get(&ending.request.claim.job) {
                Some(state) => Ok(reply(*state)),
                None => own(not_ended(work, ending).await)?,
            };
            answers.insert(index, answer);
        }
        waiting = later;
    }
    Ok(answers.into_values().collect())
}

/// One statement can change a job once: the first of each job, and the others for another turn.
fn one_of_each_job(endings: &[Ending], waiting: Vec<usize>) -> (Vec<usize>, Vec<usize>) {
    let mut seen = BTreeSet::new();
    waiting
        .into_iter()
        .partition(|&index| seen.insert(endings[index].request.claim.job))
}

/// A refusal by the rules concerns one finish; anything else the whole transaction.
fn own<T>(done: Done<T>) -> Done<StoreResult<T>> {
    match done {
        Ok(value) => Ok(Ok(value)),
        Err(Fault::Refused(error)) => Ok(Err(error)),
        Err(fault) => Err(fault),
    }
}

fn reply(state: JobState) -> FinishReply {
    let disposition = if state.is_terminal() {
        Disposition::Ended
    } else {
        Disposition::Retried
    };
    FinishReply { disposition, state }
}

/// Why the statement did not end it, or what it was answered before.
async fn not_ended(work: &Work, ending: &Ending) -> Done<FinishReply> {
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

/// The one statement that ends attempts; the states it left the jobs in whose claims are in force.
async fn end_jobs(work: &Work, asked: &[&Ending]) -> Done<BTreeMap<JobId, JobState>> {
    let Some(first) = asked.first() else {
        return Ok(BTreeMap::new());
    };
    let claims = || asked.iter().map(|ending| &ending.request.claim);
    let failures = || asked.iter().map(|ending| ending.failure());
    let ids: Vec<&[u8]> = claims().map(|claim| &claim.job.0.as_bytes()[..]).collect();
    let epochs: Vec<i64> = claims().map(|claim| number(claim.fence.epoch)).collect();
    let sequences: Vec<i64> = claims().map(|claim| number(claim.fence.sequence)).collect();
    let nonces: Vec<&[u8]> = claims().map(|claim| &claim.nonce.0[..]).collect();
    let successes: Vec<bool> = failures().map(|failure| failure.is_none()).collect();
    let retryables = failures().map(|failure| failure.is_some_and(Failure::is_retryable));
    let retryables: Vec<bool> = retryables.collect();
    let failed_states: Vec<&str> = failures()
        .map(|failure| failed_state(failure).name())
        .collect();
    let reasons = failures().map(reason).collect::<StoreResult<Vec<_>>>()?;
    let results = asked.iter().map(|ending| document(&ending.request.result));
    let results = results.collect::<StoreResult<Vec<_>>>()?;
    let copies: Vec<i64> = asked.iter().map(|ending| ending.copies.into()).collect();
    let logs = asked.iter().map(|ending| ending.failed_log().map(document));
    let logs = logs
        .map(Option::transpose)
        .collect::<StoreResult<Vec<_>>>()?;
    let digests: Vec<&[u8]> = asked.iter().map(|ending| &ending.digest[..]).collect();
    let ended = work
        .query(
            sql::FINISH,
            &[
                ("ids", &ids),
                ("fence_epochs", &epochs),
                ("fence_sequences", &sequences),
                ("nonces", &nonces),
                ("successes", &successes),
                ("retryables", &retryables),
                ("failed_states", &failed_states),
                ("reasons", &reasons),
                ("results", &results),
                ("copies", &copies),
                ("digests", &digests),
                ("logs", &logs),
                ("now", &work.time()),
                ("agent", &first.agent.0.as_slice()),
                ("namespaces", &namespaces(&first.who.namespaces)),
            ],
        )
        .await?;
    let ended = ended.iter();
    ended
        .map(|row| Ok((rows::job_id(row, 0)?, rows::text(row, 1)?)))
        .collect()
}

const fn failed_state(failure: Option<&Failure>) -> JobState {
    match failure {
        Some(Failure::TimeLimit) => JobState::TimedOut,
        _ => JobState::Failed,
    }
}

fn reason(failure: Option<&Failure>) -> StoreResult<Option<String>> {
    failure
        .map(|failure| document(&Reason::Failure(failure.clone())))
        .transpose()
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
