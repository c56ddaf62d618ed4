//! Submitting, showing and cancelling.

use std::collections::BTreeMap;

use mutual_model::ids::{JobId, Namespace};
use mutual_model::job::JobState;
use uuid::Uuid;

use super::rows::{self, document, number};
use super::statements as sql;
use super::work::{Done, Work};
use crate::rules::{ATTEMPTS_SHOWN, bounds, digest, queue, rights};
use crate::{
    EventPage, JobFilter, JobPage, JobView, Manifest, Principal, Reason, StoreError, StoreResult,
    Submission, Submitted,
};

pub(super) async fn submit(
    work: &Work,
    who: &Principal,
    tasks: &[Submission],
) -> Done<Vec<Submitted>> {
    if tasks.iter().any(|task| !rights::sees(who, &task.namespace)) {
        return Err(StoreError::NotFound.into());
    }
    // In one order everywhere, so that two batches with common keys never wait for each other.
    let mut order: Vec<usize> = (0..tasks.len()).collect();
    order.sort_by_key(|&index| (&tasks[index].namespace, &tasks[index].client_key));
    let mut submitted = BTreeMap::new();
    for index in order {
        submitted.insert(index, submit_one(work, who, &tasks[index]).await?);
    }
    Ok(submitted.into_values().collect())
}

async fn submit_one(work: &Work, who: &Principal, task: &Submission) -> Done<Submitted> {
    let digest = digest::submission(task)?;
    let fresh = JobId::new(work.now, rand::random());
    let state = if task.spec.has_input && task.input.is_none() {
        JobState::AwaitingInput
    } else {
        JobState::Queued
    };
    let row = insert(work, who, task, &digest, fresh, state).await?;
    let (job, state) = (rows::job_id(&row, 0)?, rows::text(&row, 1)?);
    if rows::bytes::<32>(&row, 2)? != digest {
        return Err(StoreError::Conflict(format!(
            "client key {} of namespace {} was used for another task",
            task.client_key, task.namespace
        ))
        .into());
    }
    Ok(Submitted {
        job,
        state,
        repeated: job != fresh,
    })
}

async fn insert(
    work: &Work,
    who: &Principal,
    task: &Submission,
    digest: &digest::Digest,
    job: JobId,
    state: JobState,
) -> Done<tokio_postgres::Row> {
    let spec = &task.spec;
    let need = &spec.resources;
    let labels: StoreResult<Option<String>> = (!spec.labels.is_empty())
        .then(|| document(&spec.labels))
        .transpose();
    let input = task.input.as_ref().map(document).transpose()?;
    let sealing = task.result_key.unwrap_or(who.sealing);
    let queued_at = (state == JobState::Queued).then(|| work.time());
    work.one(
        sql::SUBMIT,
        &[
            ("id", &job.0.as_bytes().as_slice()),
            ("namespace", &task.namespace.as_str()),
            ("client_key", &task.client_key.as_str()),
            ("digest", &digest.as_slice()),
            ("subject", &who.subject),
            ("sealing", &sealing.0.as_slice()),
            ("name", &spec.name),
            ("spec", &document(spec)?),
            ("retries", &i64::from(spec.retries)),
            ("expires_ms", &number(spec.expires_ms)),
            ("exclusive", &spec.exclusive),
            ("result_copies", &i64::from(spec.result_copies)),
            ("cpu_millis", &i64::from(need.cpu_millis)),
            ("memory_bytes", &number(need.memory_bytes)),
            ("gpus", &i64::from(need.gpus)),
            ("scratch_bytes", &number(need.scratch_bytes)),
            ("classes", &i64::from(queue::accepted_bits(spec.class))),
            ("labels", &labels?),
            ("priority", &i64::from(spec.priority)),
            ("state", &state.name()),
            ("now", &work.time()),
            ("queued_at", &queued_at),
            ("rank", &queue::rank(work.now, spec.priority)),
            ("input", &input),
        ],
    )
    .await
}

pub(super) async fn touch(work: &Work, job: JobId) -> Done<()> {
    work.execute(sql::TOUCH, &[("id", &job.0.as_bytes().as_slice())])
        .await?;
    Ok(())
}

/// The whole of one job, whoever asks.
async fn whole(work: &Work, job: JobId) -> Done<JobView> {
    let row = work
        .first(sql::JOB, &[("id", &job.0.as_bytes().as_slice())])
        .await?;
    let mut view = rows::view_head(&row.ok_or(StoreError::NotFound)?)?;
    add_attempts(work, &mut view).await?;
    Ok(view)
}

async fn add_attempts(work: &Work, view: &mut JobView) -> Done<()> {
    let limit = number(ATTEMPTS_SHOWN as u64);
    let job = view.id;
    let newest_first = work
        .query(
            sql::ATTEMPTS,
            &[("job", &job.0.as_bytes().as_slice()), ("limit", &limit)],
        )
        .await?;
    let attempts = newest_first.iter().rev().map(rows::attempt);
    view.attempts = attempts.collect::<Done<_>>()?;
    Ok(())
}

/// One job, if `who` may see it.
pub(super) async fn view(work: &Work, who: &Principal, job: JobId) -> Done<JobView> {
    let view = whole(work, job).await?;
    if rights::sees(who, &view.namespace) {
        return Ok(view);
    }
    Err(StoreError::NotFound.into())
}

pub(super) async fn attach(
    work: &Work,
    who: &Principal,
    job: JobId,
    input: &Manifest,
) -> Done<JobView> {
    let before = view(work, who, job).await?;
    bounds::input(input, who.node.as_ref(), before.spec.result_copies)?;
    let params: super::session::Named<'_> = &[
        ("input", &document(input)?),
        ("now", &work.time()),
        ("id", &job.0.as_bytes().as_slice()),
    ];
    if work.execute(sql::ATTACH, params).await? > 0 {
        return whole(work, job).await;
    }
    // A write of our own before the answer is read: it waits for whoever was first.
    touch(work, job).await?;
    let now = whole(work, job).await?;
    if now.input.as_ref() == Some(input) {
        return Ok(now);
    }
    let state = now.state;
    Err(StoreError::Conflict(format!("the job is {state} and awaits no such input")).into())
}

pub(super) async fn cancel(
    work: &Work,
    who: &Principal,
    job: JobId,
    reason: &str,
) -> Done<JobView> {
    view(work, who, job).await?;
    let reason = document(&Reason::Cancelled(reason.to_owned()))?;
    let id = job.0.as_bytes().as_slice();
    let params: super::session::Named<'_> =
        &[("reason", &reason), ("now", &work.time()), ("id", &id)];
    if work.execute(sql::CANCEL, params).await? == 0 {
        touch(work, job).await?;
    } else {
        let params: super::session::Named<'_> = &[("now", &work.time()), ("job", &id)];
        work.execute(sql::ATTEMPT_CANCEL, params).await?;
    }
    whole(work, job).await
}

pub(super) async fn request_checkpoint(work: &Work, who: &Principal, job: JobId) -> Done<()> {
    let state = view(work, who, job).await?.state;
    let params: super::session::Named<'_> = &[("id", &job.0.as_bytes().as_slice())];
    if work.execute(sql::REQUEST_CHECKPOINT, params).await? == 0 {
        let problem = format!("the job is {state}: nobody holds it");
        return Err(StoreError::Conflict(problem).into());
    }
    Ok(())
}

/// Namespaces as the array that statements take.
pub(super) fn namespaces(of: &[Namespace]) -> Vec<&str> {
    of.iter().map(Namespace::as_str).collect()
}

pub(super) async fn list(
    work: &Work,
    who: &Principal,
    filter: &JobFilter,
    limit: u32,
) -> Done<JobPage> {
    let mut seen = who.namespaces.clone();
    if let Some(only) = &filter.namespace {
        seen.retain(|namespace| namespace == only);
    }
    let before = filter.before.map_or(Uuid::max(), |job| job.0);
    let names: Vec<&str> = filter.states.iter().map(|state| state.name()).collect();
    let holder = filter.holder.map(|holder| holder.0);
    let rows = work
        .query(
            sql::JOBS,
            &[
                ("before", &before.as_bytes().as_slice()),
                ("namespaces", &namespaces(&seen)),
                ("states", &(!names.is_empty()).then_some(names)),
                ("prefix", &filter.name_prefix),
                ("holder", &holder.as_ref().map(<[u8; 32]>::as_slice)),
                ("limit", &i64::from(limit + 1)),
            ],
        )
        .await?;
    let mut jobs = rows.iter().map(rows::view_head).collect::<Done<Vec<_>>>()?;
    let more = jobs.len() > limit as usize;
    jobs.truncate(limit as usize);
    for job in &mut jobs {
        add_attempts(work, job).await?;
    }
    Ok(JobPage {
        next: jobs.last().map(|job| job.id).filter(|_| more),
        jobs,
        possibly_old: false,
    })
}

/// Changes after a position, of these namespaces or of all.
pub(super) async fn events(
    work: &Work,
    seen: Option<&[Namespace]>,
    after: u64,
    limit: u32,
) -> Done<EventPage> {
    let rows = work
        .query(
            sql::EVENTS,
            &[
                ("after", &number(after)),
                ("everywhere", &seen.is_none()),
                ("namespaces", &namespaces(seen.unwrap_or_default())),
                ("limit", &i64::from(limit)),
            ],
        )
        .await?;
    let events = rows.iter().map(rows::event).collect::<Done<Vec<_>>>()?;
    let next = events.last().map_or(after, |event| event.sequence);
    Ok(EventPage { events, next })
}
