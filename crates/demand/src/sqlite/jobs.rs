//! Submitting, showing and cancelling.

use mutual_model::ids::{JobId, Namespace};
use mutual_model::job::JobState;
use rusqlite::{Connection, OptionalExtension as _, named_params};
use uuid::Uuid;

use super::failed;
use super::rows::{self, document, number, time};
use super::statements as sql;
use super::writer::Work;
use crate::rules::{bounds, digest, queue, rights};
use crate::{
    EventPage, JobFilter, JobPage, JobView, Manifest, Principal, Reason, StoreError, StoreResult,
    Submission, Submitted,
};

pub(super) fn submit(
    work: &Work<'_>,
    who: &Principal,
    tasks: &[Submission],
) -> StoreResult<Vec<Submitted>> {
    tasks
        .iter()
        .map(|task| submit_one(work, who, task))
        .collect()
}

fn submit_one(work: &Work<'_>, who: &Principal, task: &Submission) -> StoreResult<Submitted> {
    if !rights::sees(who, &task.namespace) {
        return Err(StoreError::NotFound);
    }
    let digest = digest::submission(task)?;
    if let Some((job, state, known)) = job_of_key(work.db, task).map_err(failed)? {
        if known != digest {
            return Err(StoreError::Conflict(format!(
                "client key {} of namespace {} was used for another task",
                task.client_key, task.namespace
            )));
        }
        touch(work.db, job)?;
        return Ok(Submitted {
            job,
            state,
            repeated: true,
        });
    }
    let job = JobId::new(work.now, rand::random());
    let state = if task.spec.has_input && task.input.is_none() {
        JobState::AwaitingInput
    } else {
        JobState::Queued
    };
    insert(work, who, task, digest, job, state)?;
    Ok(Submitted {
        job,
        state,
        repeated: false,
    })
}

fn job_of_key(
    db: &Connection,
    task: &Submission,
) -> rusqlite::Result<Option<(JobId, JobState, digest::Digest)>> {
    db.prepare_cached(sql::JOB_OF_KEY)?
        .query_row(
            named_params! {
                ":namespace": task.namespace.as_str(),
                ":client_key": task.client_key.as_str(),
            },
            |row| Ok((rows::job_id(row, 0)?, rows::text(row, 1)?, row.get(2)?)),
        )
        .optional()
}

fn insert(
    work: &Work<'_>,
    who: &Principal,
    task: &Submission,
    digest: digest::Digest,
    job: JobId,
    state: JobState,
) -> StoreResult<()> {
    let spec = &task.spec;
    let need = &spec.resources;
    let labels = (!spec.labels.is_empty())
        .then(|| document(&spec.labels))
        .transpose()?;
    let input = task.input.as_ref().map(document).transpose()?;
    let sealing = task.result_key.unwrap_or(who.sealing);
    let mut statement = work.db.prepare_cached(sql::SUBMIT).map_err(failed)?;
    let inserted = statement.execute(named_params! {
        ":id": job.0.as_bytes(),
        ":namespace": task.namespace.as_str(),
        ":client_key": task.client_key.as_str(),
        ":digest": digest,
        ":subject": who.subject,
        ":sealing": sealing.0,
        ":name": spec.name,
        ":spec": document(spec)?,
        ":retries": spec.retries,
        ":expires_ms": number(spec.expires_ms),
        ":exclusive": spec.exclusive,
        ":result_copies": spec.result_copies,
        ":cpu_millis": need.cpu_millis,
        ":memory_bytes": number(need.memory_bytes),
        ":gpus": need.gpus,
        ":scratch_bytes": number(need.scratch_bytes),
        ":classes": queue::accepted_bits(spec.class),
        ":labels": labels,
        ":priority": spec.priority,
        ":state": state.name(),
        ":now": time(work.now),
        ":queued_at": (state == JobState::Queued).then(|| time(work.now)),
        ":rank": queue::rank(work.now, spec.priority),
        ":input": input,
    });
    inserted.map(drop).map_err(failed)
}

fn touch(db: &Connection, job: JobId) -> StoreResult<()> {
    db.prepare_cached(sql::TOUCH)
        .and_then(|mut statement| statement.execute(named_params! {":id": job.0.as_bytes()}))
        .map(drop)
        .map_err(failed)
}

/// One job, if `who` may see it.
pub(super) fn view(db: &Connection, who: &Principal, job: JobId) -> StoreResult<JobView> {
    let view = rows::view(db, job)?;
    if rights::sees(who, &view.namespace) {
        return Ok(view);
    }
    Err(StoreError::NotFound)
}

pub(super) fn attach(
    work: &Work<'_>,
    who: &Principal,
    job: JobId,
    input: &Manifest,
) -> StoreResult<JobView> {
    let before = view(work.db, who, job)?;
    bounds::input(input, who.node.as_ref(), before.spec.result_copies)?;
    if before.input.as_ref() == Some(input) {
        touch(work.db, job)?;
        return Ok(before);
    }
    let params = named_params! {
        ":input": document(input)?,
        ":now": time(work.now),
        ":id": job.0.as_bytes(),
    };
    let attached = work
        .db
        .prepare_cached(sql::ATTACH)
        .and_then(|mut statement| statement.execute(params));
    if attached.map_err(failed)? == 0 {
        return Err(StoreError::Conflict(format!(
            "the job is {} and awaits no such input",
            before.state
        )));
    }
    rows::view(work.db, job)
}

pub(super) fn cancel(
    work: &Work<'_>,
    who: &Principal,
    job: JobId,
    reason: String,
) -> StoreResult<JobView> {
    view(work.db, who, job)?;
    let reason = document(&Reason::Cancelled(reason))?;
    let params = named_params! {":reason": reason, ":now": time(work.now), ":id": job.0.as_bytes()};
    let ended = work
        .db
        .prepare_cached(sql::CANCEL)
        .and_then(|mut statement| statement.execute(params));
    if ended.map_err(failed)? == 0 {
        touch(work.db, job)?;
    } else {
        work.db
            .prepare_cached(sql::ATTEMPT_CANCEL)
            .and_then(|mut statement| {
                statement.execute(named_params! {":now": time(work.now), ":job": job.0.as_bytes()})
            })
            .map_err(failed)?;
    }
    rows::view(work.db, job)
}

pub(super) fn request_checkpoint(work: &Work<'_>, who: &Principal, job: JobId) -> StoreResult<()> {
    let state = view(work.db, who, job)?.state;
    let asked = work
        .db
        .prepare_cached(sql::REQUEST_CHECKPOINT)
        .and_then(|mut statement| statement.execute(named_params! {":id": job.0.as_bytes()}))
        .map_err(failed)?;
    if asked == 0 {
        return Err(StoreError::Conflict(format!(
            "the job is {state}: nobody holds it"
        )));
    }
    Ok(())
}

/// Namespaces as the JSON array that statements take.
pub(super) fn namespaces(of: &[Namespace]) -> StoreResult<String> {
    document(&of)
}

pub(super) fn list(
    db: &Connection,
    who: &Principal,
    filter: &JobFilter,
    limit: u32,
) -> StoreResult<JobPage> {
    let mut seen = who.namespaces.clone();
    if let Some(only) = &filter.namespace {
        seen.retain(|namespace| namespace == only);
    }
    let before = filter.before.map_or(Uuid::max(), |job| job.0);
    let states = (!filter.states.is_empty())
        .then(|| document(&filter.states))
        .transpose()?;
    let params: &[(&str, &dyn rusqlite::ToSql)] = named_params! {
        ":before": before.as_bytes(),
        ":namespaces": namespaces(&seen)?,
        ":states": states,
        ":prefix": filter.name_prefix,
        ":holder": filter.holder.map(|holder| holder.0),
        ":limit": limit + 1,
    };
    let mut jobs = rows::views(db, sql::JOBS, params).map_err(failed)?;
    let more = jobs.len() > limit as usize;
    jobs.truncate(limit as usize);
    Ok(JobPage {
        next: jobs.last().map(|job| job.id).filter(|_| more),
        jobs,
        possibly_old: false,
    })
}

/// Changes after a position, of these namespaces or of all.
pub(super) fn events(
    db: &Connection,
    seen: Option<&[Namespace]>,
    after: u64,
    limit: u32,
) -> StoreResult<EventPage> {
    let params = named_params! {
        ":after": number(after),
        ":everywhere": seen.is_none(),
        ":namespaces": namespaces(seen.unwrap_or_default())?,
        ":limit": limit,
    };
    let look = || {
        // One read transaction, so that the position is not ahead of the events.
        let snapshot = db.unchecked_transaction()?;
        let mut statement = snapshot.prepare_cached(sql::EVENTS)?;
        let events = statement
            .query_map(params, rows::event)?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let position = snapshot.query_row(sql::POSITION, [], |row| rows::unsigned(row, 0))?;
        Ok((events, position))
    };
    let (events, position) = look().map_err(failed)?;
    let next = match events.last() {
        Some(last) if events.len() == limit as usize => last.sequence,
        _ => position.max(after),
    };
    Ok(EventPage { events, next })
}
