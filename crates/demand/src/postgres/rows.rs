//! Between rows and the types of this crate.

use mutual_model::identity::{NodeId, SealingPublic};
use mutual_model::ids::{Incarnation, JobId, Nonce};
use mutual_model::job::JobState;
use mutual_model::lease::{Claim, Fence, Holder};
use mutual_model::time::UnixMillis;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use uuid::Uuid;

use super::work::{Done, Fault};
use crate::{
    Attempt, Checkpoint, ClaimGrant, JobEvent, JobView, StoreError, StoreResult, Submitter,
};

type Cell<T> = Done<T>;

/// A number that the database can hold; stored numbers never reach the sign bit.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn time(at: UnixMillis) -> i64 {
    number(at.0)
}

pub(super) fn unsigned(row: &Row, column: usize) -> Cell<u64> {
    let value: i64 = row.try_get(column)?;
    Ok(u64::try_from(value).unwrap_or(0))
}

pub(super) fn count(row: &Row, column: usize) -> Cell<u32> {
    Ok(u32::try_from(unsigned(row, column)?).unwrap_or(u32::MAX))
}

fn when(row: &Row, column: usize) -> Cell<UnixMillis> {
    unsigned(row, column).map(UnixMillis)
}

fn when_known(row: &Row, column: usize) -> Cell<Option<UnixMillis>> {
    let value: Option<i64> = row.try_get(column)?;
    Ok(value.map(|value| UnixMillis(u64::try_from(value).unwrap_or(0))))
}

/// A value of a fixed length.
pub(super) fn bytes<const N: usize>(row: &Row, column: usize) -> Cell<[u8; N]> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes
        .try_into()
        .map_err(|error| Fault::damaged(column, error))
}

/// A value of a fixed length that may be missing.
pub(super) fn bytes_known<const N: usize>(row: &Row, column: usize) -> Cell<Option<[u8; N]>> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    let bytes = bytes.map(|bytes| bytes.try_into());
    bytes
        .transpose()
        .map_err(|error| Fault::damaged(column, error))
}

pub(super) fn uuid(row: &Row, column: usize) -> Cell<Uuid> {
    bytes(row, column).map(Uuid::from_bytes)
}

pub(super) fn job_id(row: &Row, column: usize) -> Cell<JobId> {
    uuid(row, column).map(JobId)
}

/// A value that is stored by its name.
pub(super) fn text<T>(row: &Row, column: usize) -> Cell<T>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    let text: &str = row.try_get(column)?;
    text.parse().map_err(|error| Fault::damaged(column, error))
}

/// A document.
pub(super) fn json<T: DeserializeOwned>(row: &Row, column: usize) -> Cell<T> {
    let text: &str = row.try_get(column)?;
    serde_json::from_str(text).map_err(|error| Fault::damaged(column, error))
}

/// A document that may be missing.
pub(super) fn json_known<T: DeserializeOwned>(row: &Row, column: usize) -> Cell<Option<T>> {
    let text: Option<&str> = row.try_get(column)?;
    let document = text.map(serde_json::from_str);
    document
        .transpose()
        .map_err(|error| Fault::damaged(column, error))
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

/// A small enumeration, from its name.
pub(super) fn from_name<T: DeserializeOwned>(row: &Row, column: usize) -> Cell<T> {
    let name: &str = row.try_get(column)?;
    serde_json::from_value(serde_json::Value::from(name))
        .map_err(|error| Fault::damaged(column, error))
}

pub(super) fn fence(row: &Row, epoch_column: usize) -> Cell<Fence> {
    Ok(Fence {
        epoch: unsigned(row, epoch_column)?,
        sequence: unsigned(row, epoch_column + 1)?,
    })
}

fn checkpoints(row: &Row, first_column: usize) -> Cell<Vec<Checkpoint>> {
    let best = json_known(row, first_column)?;
    let before = json_known(row, first_column + 1)?;
    Ok(best.into_iter().chain(before).collect())
}

/// A job without its attempts, from the columns of `job.sql`.
pub(super) fn view_head(row: &Row) -> Cell<JobView> {
    Ok(JobView {
        id: job_id(row, 0)?,
        namespace: text(row, 1)?,
        client_key: text(row, 2)?,
        submitter: Submitter {
            subject: row.try_get(3)?,
            sealing: SealingPublic(bytes(row, 4)?),
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

/// An attempt, from the columns of `attempts.sql`.
pub(super) fn attempt(row: &Row) -> Cell<Attempt> {
    let ending: Option<&str> = row.try_get(8)?;
    let end = match ending {
        Some(_) => Some(from_name(row, 8)?),
        None => None,
    };
    Ok(Attempt {
        fence: fence(row, 0)?,
        holder: Holder {
            agent: NodeId(bytes(row, 2)?),
            incarnation: Incarnation(uuid(row, 3)?),
        },
        agent_url: row.try_get(4)?,
        claimed_at: when(row, 5)?,
        started_at: when_known(row, 6)?,
        ended_at: when_known(row, 7)?,
        end,
        log: json_known(row, 9)?,
    })
}

/// A grant, from the columns of `claim.sql`.
pub(super) fn grant(row: &Row, nonce: Nonce) -> Cell<ClaimGrant> {
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
        result_key: SealingPublic(bytes(row, 8)?),
    })
}

pub(super) fn event(row: &Row) -> Cell<JobEvent> {
    let job = job_id(row, 2)?;
    let nonce = bytes_known(row, 7)?;
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
        agent: bytes_known(row, 8)?.map(NodeId),
        reason: json_known(row, 9)?,
    })
}
