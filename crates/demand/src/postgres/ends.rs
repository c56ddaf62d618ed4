//! Checkpoints, releases and finishes: what the holder of a claim may say about its job.
//!
//! Each is one conditional statement on job, state, fence and nonce (DESIGN §3.3). Only when it
//! changes no row does a second one ask why, under a lock on the job.

use std::collections::{BTreeMap, BTreeSet};

use mutual_model::identity::NodeId;
use mutual_model::ids::JobId;
use mutual_model::job::{Failure, JobState};
use mutual_model::lease::{Claim, Fence};
use tokio_postgres::Row;

use super::claims::{end_attempts, on_claim};
use super::jobs::{namespaces, touch};
use super::pool::Pool;
use super::rows::{self, document, number};
use super::session::Param;
use super::statements as sql;
use super::work::{self, Done, Fault, Work};
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
///
/// Mostly one statement ends them all. What it leaves is looked at in a transaction, which also finds out why.
pub(super) async fn finish_many(
    pool: &Pool,
    endings: Vec<Ending>,
) -> StoreResult<Vec<StoreResult<FinishReply>>> {
    let (turn, _) = one_of_each_job(&endings, (0..endings.len()).collect());
    let asked = turn.iter().map(|&index| &endings[index]);
    let statement = Endings::new(asked)?;
    let rows = work::alone(pool, statement.sql(), &statement.named()).await?;
    let mut ended = states(&rows).map_err(Fault::refusal)?;
    let mut answers: BTreeMap<usize, StoreResult<FinishReply>> = BTreeMap::new();
    for index in turn {
        if let Some(state) = ended.remove(&endings[index].request.claim.job) {
            answers.insert(index, Ok(reply(state)));
        }
    }
    let left = (0..endings.len()).filter(|index| !answers.contains_key(index));
    let left: Vec<usize> = left.collect();
    if left.is_empty() {
        return Ok(answers.into_values().collect());
    }
    let given = (endings, left.clone());
    let rest = work::transact(pool, &given, |work, (endings, left)| {
        Box::pin(finish_rest(work, endings, left))
    });
    match rest.await {
        Ok(rest) => answers.extend(left.into_iter().zip(rest)),
        Err(error) => answers.extend(left.into_iter().map(|index| (index, Err(error.clone())))),
    }
    Ok(answers.into_values().collect())
}

/// Ends those of `endings` that are left, or says why not.
async fn finish_rest(
    work: &Work,
    endings: &[Ending],
    left: &[usize],
) -> Done<Vec<StoreResult<FinishReply>>> {
    let mut answers: BTreeMap<usize, StoreResult<FinishReply>> = BTreeMap::new();
    let mut waiting = left.to_vec();
    while !waiting.is_empty() {
        let (turn, later) = one_of_each_job(endings, waiting);
        let statement = Endings::new(turn.iter().map(|&index| &endings[index]))?;
        let ended = states(&work.query(statement.sql(), &statement.named()).await?)?;
        for index in turn {
            let ending = &endings[index];
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

/// Finishes as `finish.sql` takes them: one array for each column.
#[derive(Default)]
struct Endings<'a> {
    ids: Vec<&'a [u8]>,
    epochs: Vec<i64>,
    sequences: Vec<i64>,
    nonces: Vec<&'a [u8]>,
    successes: Vec<bool>,
    retryables: Vec<bool>,
    failed_states: Vec<&'static str>,
    reasons: Vec<Option<String>>,
    results: Vec<String>,
    copies: Vec<i64>,
    digests: Vec<&'a [u8]>,
    logs: Vec<Option<String>>,
    agent: &'a [u8],
    namespaces: Vec<&'a str>,
}

impl<'a> Endings<'a> {
    /// Of one holder.
    fn new(endings: impl Iterator<Item = &'a Ending>) -> StoreResult<Self> {
        let mut columns = Self::default();
        for ending in endings {
            columns.add(ending)?;
        }
        Ok(columns)
    }

    fn add(&mut self, ending: &'a Ending) -> StoreResult<()> {
        let (claim, failure) = (&ending.request.claim, ending.failure());
        self.agent = &ending.agent.0;
        self.namespaces = namespaces(&ending.who.namespaces);
        self.ids.push(claim.job.0.as_bytes());
        self.epochs.push(number(claim.fence.epoch));
        self.sequences.push(number(claim.fence.sequence));
        self.nonces.push(&claim.nonce.0);
        self.successes.push(failure.is_none());
        self.retryables
            .push(failure.is_some_and(Failure::is_retryable));
        self.failed_states.push(failed_state(failure).name());
        self.reasons.push(reason(failure)?);
        self.results.push(document(&ending.request.result)?);
        self.copies.push(ending.copies.into());
        self.digests.push(&ending.digest);
        self.logs
            .push(ending.failed_log().map(document).transpose()?);
        Ok(())
    }

    fn sql(&self) -> &'static str {
        match self.ids.len() {
            1 => sql::FINISH_ONE,
            _ => sql::FINISH,
        }
    }

    fn named(&self) -> [(&'static str, Param<'_>); 14] {
        [
            ("ids", &self.ids),
            ("fence_epochs", &self.epochs),
            ("fence_sequences", &self.sequences),
            ("nonces", &self.nonces),
            ("successes", &self.successes),
            ("retryables", &self.retryables),
            ("failed_states", &self.failed_states),
            ("reasons", &self.reasons),
            ("results", &self.results),
            ("copies", &self.copies),
            ("digests", &self.digests),
            ("logs", &self.logs),
            ("agent", &self.agent),
            ("namespaces", &self.namespaces),
        ]
    }
}

/// The states in which the statement left the jobs whose claims were in force.
fn states(ended: &[Row]) -> Done<BTreeMap<JobId, JobState>> {
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
