//! Between rows and the types of this crate.

use mutual_model::identity::{NodeId, SealingPublic};
use mutual_model::ids::{Incarnation, JobId, Nonce};
use mutual_model::job::JobState;
use mutual_model::lease::{Claim, Fence, Holder};
use mutual_model::time::UnixMillis;
use rusqlite::types::Type;
use rusqlite::{Connection, Row, named_params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::failed;
use super::statements as sql;
use crate::rules::ATTEMPTS_SHOWN;
use crate::{
    Attempt, AttemptEnd, Checkpoint, ClaimGrant, JobEvent, JobView, StoreError, StoreResult,
    Submitter,
};

type Cell<T> = rusqlite::Result<T>;

fn damaged(
    column: usize,
    kind: Type,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
}

/// A number that SQLite can hold; stored numbers never reach the sign bit.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn time(at: UnixMillis) -> i64 {
    number(at.0)
}

pub(super) fn unsigned(row: &Row<'_>, column: usize) -> Cell<u64> {
    row.get::<_, i64>(column)
        .map(|value| u64::try_from(value).unwrap_or(0))
}

fn count(row: &Row<'_>, column: usize) -> Cell<u32> {
    Ok(u32::try_from(unsigned(row, column)?).unwrap_or(u32::MAX))
}

fn when(row: &Row<'_>, column: usize) -> Cell<UnixMillis> {
    unsigned(row, column).map(UnixMillis)
}

fn when_known(row: &Row<'_>, column: usize) -> Cell<Option<UnixMillis>> {
    let value: Option<i64> = row.get(column)?;
    Ok(value.map(|value| UnixMillis(u64::try_from(value).unwrap_or(0))))
}

fn uuid(row: &Row<'_>, column: usize) -> Cell<Uuid> {
    row.get(column).map(Uuid::from_bytes)
}

pub(super) fn job_id(row: &Row<'_>, column: usize) -> Cell<JobId> {
    uuid(row, column).map(JobId)
}

/// A value that is stored by its name.
pub(super) fn text<T>(row: &Row<'_>, column: usize) -> Cell<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text = row.get_ref(column)?.as_str()?;
    text.parse()
        .map_err(|error| damaged(column, Type::Text, error))
}

/// A document.
pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Cell<T> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text).map_err(|error| damaged(column, Type::Text, error))
}

/// A document that may be missing.
pub(super) fn json_known<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Cell<Option<T>> {
    match row.get_ref(column)?.as_str_or_null()? {
        Some(text) => serde_json::from_str(text)
            .map(Some)
            .map_err(|error| damaged(column, Type::Text, error)),
        None => Ok(None),
    }
}

/// A document's text.
pub(super) fn document(value: &impl Serialize) -> StoreResult<String> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Internal(format!("cannot write a document: {error}")))
}

/// A small enumeration's name, as its JSON form has it.
pub(super) fn name_of(value: &impl Serialize) -> StoreResult<String> {
    Ok(document(value)?.trim_matches('"').to_owned())
}

pub(super) fn from_name<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Cell<T> {
    let name = row.get_ref(column)?.as_str()?;
    serde_json::from_value(serde_json::Value::from(name))
        .map_err(|error| damaged(column, Type::Text, error))
}

pub(super) fn fence(row: &Row<'_>, epoch_column: usize) -> Cell<Fence> {
    Ok(Fence {
        epoch: unsigned(row, epoch_column)?,
        sequence: unsigned(row, epoch_column + 1)?,
    })
}

fn checkpoints(row: &Row<'_>, first_column: usize) -> Cell<Vec<Checkpoint>> {
    let best = json_known(row, first_column)?;
    let before = json_known(row, first_column + 1)?;
    Ok(best.into_iter().chain(before).collect())
}

/// A job without its attempts, from the columns of `job.sql`.
fn view_head(row: &Row<'_>) -> Cell<JobView> {
    Ok(JobView {
        id: job_id(row, 0)?,
        namespace: text(row, 1)?,
        client_key: text(row, 2)?,
        submitter: Submitter {
            subject: row.get(3)?,
            sealing: SealingPublic(row.get(4)?),
        },
        spec: json(row, 5)?,
        state: text(row, 6)?,
        reason: json_known(row, 7)?,
        created_at: when(row, 8)?,
        queued_at: when_known(row, 9)?,
        finished_at: when_known(row, 10)?,
        attempts_counted: count(row, 11)?,
        attempts: Vec::new(),
        input: json_known(row, 12)?,
        checkpoints: checkpoints(row, 13)?,
        result: json_known(row, 15)?,
        possibly_old: false,
    })
}

fn attempt(row: &Row<'_>) -> Cell<Attempt> {
    let ending: Option<String> = row.get(8)?;
    let end: Option<AttemptEnd> = match ending {
        Some(_) => Some(from_name(row, 8)?),
        None => None,
    };
    Ok(Attempt {
        fence: fence(row, 0)?,
        holder: Holder {
            agent: NodeId(row.get(2)?),
            incarnation: Incarnation(uuid(row, 3)?),
        },
        agent_url: row.get(4)?,
        claimed_at: when(row, 5)?,
        started_at: when_known(row, 6)?,
        ended_at: when_known(row, 7)?,
        end,
        log: json_known(row, 9)?,
    })
}

fn attempts(db: &Connection, job: JobId) -> Cell<Vec<Attempt>> {
    let mut statement = db.prepare_cached(sql::ATTEMPTS)?;
    let newest_first = statement.query_map(
        named_params! {":job": job.0.as_bytes(), ":limit": ATTEMPTS_SHOWN as i64},
        attempt,
    )?;
    let mut attempts = newest_first.collect::<Cell<Vec<_>>>()?;
    attempts.reverse();
    Ok(attempts)
}

/// The whole of one job, whoever asks.
pub(super) fn view(db: &Connection, job: JobId) -> StoreResult<JobView> {
    let look = || {
        let mut statement = db.prepare_cached(sql::JOB)?;
        let mut view = statement.query_row(named_params! {":id": job.0.as_bytes()}, view_head)?;
        view.attempts = attempts(db, job)?;
        Ok(view)
    };
    look().map_err(|error| match error {
        rusqlite::Error::QueryReturnedNoRows => StoreError::NotFound,
        error => failed(error),
    })
}

/// Whole jobs, from a statement with the columns of `job.sql`.
pub(super) fn views(
    db: &Connection,
    statement: &str,
    params: &[(&str, &dyn rusqlite::ToSql)],
) -> Cell<Vec<JobView>> {
    let mut statement = db.prepare_cached(statement)?;
    let heads = statement.query_map(params, view_head)?;
    heads
        .map(|head| {
            let mut view = head?;
            view.attempts = attempts(db, view.id)?;
            Ok(view)
        })
        .collect()
}

/// A grant, from the columns of `claim.sql`.
pub(super) fn grant(row: &Row<'_>, nonce: Nonce) -> Cell<ClaimGrant> {
    let fence = fence(row, 3)?;
    Ok(ClaimGrant {
        claim: Claim {
            job: job_id(row, 0)?,
            fence,
            nonce,
        },
        namespace: text(row, 1)?,
        spec: json(row, 2)?,
        attempt: u32::try_from(fence.sequence).unwrap_or(u32::MAX),
        input: json_known(row, 5)?,
        checkpoints: checkpoints(row, 6)?,
        result_key: SealingPublic(row.get(8)?),
    })
}

pub(super) fn event(row: &Row<'_>) -> Cell<JobEvent> {
    let job = job_id(row, 2)?;
    let nonce: Option<[u8; 16]> = row.get(7)?;
    let claim = match nonce {
        Some(nonce) => Some(Claim {
            job,
            fence: fence(row, 5)?,
            nonce: Nonce(nonce),
        }),
        None => None,
    };
    let state: JobState = text(row, 4)?;
    Ok(JobEvent {
        sequence: unsigned(row, 0)?,
        at: when(row, 1)?,
        job,
        namespace: text(row, 3)?,
        state,
        claim,
        agent: row.get::<_, Option<[u8; 32]>>(8)?.map(NodeId),
        reason: json_known(row, 9)?,
    })
}
