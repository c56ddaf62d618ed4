//! Submitting, showing and cancelling.

use std::collections::BTreeMap;

use mutual_model::ids::{JobId, Namespace};
use mutual_model::job::JobState;
use mutual_model::resources::Resources;
use mutual_model::time::UnixMillis;
use tokio_postgres::Row;
use uuid::Uuid;

use super::pool::Pool;
use super::rows::{self, document, number};
use super::session::Param;
use super::statements as sql;
use super::work::{self, Done, Fault, Work};
use crate::rules::{ATTEMPTS_SHOWN, bounds, digest, queue, rights};
use crate::{
    EventPage, JobFilter, JobPage, JobView, Manifest, Principal, Reason, StoreError, StoreResult,
    Submission, Submitted,
};

/// Stores tasks together, all or none.
pub(super) async fn submit(
    work: &Work,
    who: &Principal,
    tasks: &[Submission],
) -> Done<Vec<Submitted>> {
    let batch = Batch::new(who, tasks, work.now)?;
    let rows = work.query(sql::SUBMIT, &batch.named()).await?;
    batch.answers(&rows)
}

/// Stores one task, in a single round trip.
pub(super) async fn submit_one(
    pool: &Pool,
    who: &Principal,
    task: &Submission,
) -> StoreResult<Vec<Submitted>> {
    let batch = Batch::new(who, std::slice::from_ref(task), pool.about_now())?;
    let rows = work::alone(pool, sql::SUBMIT_ONE, &batch.named()).await?;
    batch.answers(&rows).map_err(Fault::refusal)
}

/// Tasks with what is stored of them.
struct Batch<'a> {
    who: &'a Principal,
    tasks: &'a [Submission],
    digests: Vec<digest::Digest>,
    fresh: Vec<JobId>,
    columns: Columns<'a>,
}

impl<'a> Batch<'a> {
    /// The moment only goes into the names of new jobs.
    fn new(who: &'a Principal, tasks: &'a [Submission], now: UnixMillis) -> StoreResult<Self> {
        if tasks.iter().any(|task| !rights::sees(who, &task.namespace)) {
            return Err(StoreError::NotFound);
        }
        let digests = tasks.iter().map(digest::submission);
        let digests = digests.collect::<StoreResult<Vec<_>>>()?;
        // In one order everywhere, so that two batches with common keys never wait for each other; and
        // each key once, since one statement can change a row once.
        let places = tasks.iter().enumerate().rev();
        let firsts: BTreeMap<_, usize> = places.map(|(place, task)| (key(task), place)).collect();
        let fresh: Vec<JobId> = (0..tasks.len())
            .map(|_| JobId::new(now, rand::random()))
            .collect();
        let mut columns = Columns::default();
        for &index in firsts.values() {
            columns.add(who, &tasks[index], &digests[index], fresh[index])?;
        }
        Ok(Self {
            who,
            tasks,
            digests,
            fresh,
            columns,
        })
    }

    fn named(&self) -> Vec<(&'static str, Param<'_>)> {
        let mut named = self.columns.named();
        named.push(("subject", &self.who.subject));
        named
    }

    fn answers(&self, rows: &[Row]) -> Done<Vec<Submitted>> {
        let mut stored = BTreeMap::new();
        for row in rows {
            stored.insert((row.try_get(0)?, row.try_get(1)?), row);
        }
        let answers = self.tasks.iter().zip(&self.digests).zip(&self.fresh);
        let answers = answers.map(|((task, digest), fresh)| {
            let row = stored.get(&key(task));
            let row = row.ok_or_else(|| StoreError::Internal("a stored task is missing".into()))?;
            answer(task, row, digest, *fresh)
        });
        answers.collect()
    }
}

fn key(task: &Submission) -> (&str, &str) {
    (task.namespace.as_str(), task.client_key.as_str())
}

fn answer(task: &Submission, row: &Row, digest: &digest::Digest, fresh: JobId) -> Done<Submitted> {
    let (job, state) = (rows::job_id(row, 2)?, rows::text(row, 3)?);
    if rows::bytes::<32>(row, 4)? != *digest {
        let problem = format!(
            "client key {} of namespace {} was used for another task",
            task.client_key, task.namespace
        );
        return Err(StoreError::Conflict(problem).into());
    }
    Ok(Submitted {
        job,
        state,
        repeated: job != fresh,
    })
}

/// Tasks as `submit.sql` takes them: one array for each column.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Vec<u8>>,
    namespaces: Vec<&'a str>,
    client_keys: Vec<&'a str>,
    digests: Vec<Vec<u8>>,
    sealings: Vec<Vec<u8>>,
    names: Vec<&'a str>,
    specs: Vec<String>,
    retries: Vec<i64>,
    expires_ms: Vec<i64>,
    exclusives: Vec<bool>,
    result_copies: Vec<i64>,
    cpu_millis: Vec<i64>,
    memory_bytes: Vec<i64>,
    gpus: Vec<i64>,
    scratch_bytes: Vec<i64>,
    classes: Vec<i64>,
    labels: Vec<Option<String>>,
    priorities: Vec<i64>,
    states: Vec<&'static str>,
    inputs: Vec<Option<String>>,
}

impl<'a> Columns<'a> {
    fn add(
        &mut self,
        who: &Principal,
        task: &'a Submission,
        digest: &digest::Digest,
        job: JobId,
    ) -> StoreResult<()> {
        let spec = &task.spec;
        let awaits_input = spec.has_input && task.input.is_none();
        let state = if awaits_input {
            JobState::AwaitingInput
        } else {
            JobState::Queued
        };
        let labels = (!spec.labels.is_empty()).then(|| document(&spec.labels));
        self.ids.push(job.0.as_bytes().to_vec());
        self.namespaces.push(task.namespace.as_str());
        self.client_keys.push(task.client_key.as_str());
        self.digests.push(digest.to_vec());
        let sealing = task.result_key.unwrap_or(who.sealing);
        self.sealings.push(sealing.0.to_vec());
        self.names.push(&spec.name);
        self.specs.push(document(spec)?);
        self.retries.push(spec.retries.into());
        self.expires_ms.push(number(spec.expires_ms));
        self.exclusives.push(spec.exclusive);
        self.result_copies.push(spec.result_copies.into());
        self.labels.push(labels.transpose()?);
        self.priorities.push(spec.priority.into());
        self.classes.push(queue::accepted_bits(spec.class).into());
        self.states.push(state.name());
        self.inputs
            .push(task.input.as_ref().map(document).transpose()?);
        self.add_need(&spec.resources);
        Ok(())
    }

    fn add_need(&mut self, need: &Resources) {
        self.cpu_millis.push(need.cpu_millis.into());
        self.memory_bytes.push(number(need.memory_bytes));
        self.gpus.push(need.gpus.into());
        self.scratch_bytes.push(number(need.scratch_bytes));
    }

    fn named(&self) -> Vec<(&'static str, Param<'_>)> {
        vec![
            ("ids", &self.ids),
            ("namespaces", &self.namespaces),
            ("client_keys", &self.client_keys),
            ("digests", &self.digests),
            ("sealings", &self.sealings),
            ("names", &self.names),
            ("specs", &self.specs),
            ("retries", &self.retries),
            ("expires_ms", &self.expires_ms),
            ("exclusives", &self.exclusives),
            ("result_copies", &self.result_copies),
            ("cpu_millis", &self.cpu_millis),
            ("memory_bytes", &self.memory_bytes),
            ("gpus", &self.gpus),
            ("scratch_bytes", &self.scratch_bytes),
            ("classes", &self.classes),
            ("labels", &self.labels),
            ("priorities", &self.priorities),
            ("states", &self.states),
            ("inputs", &self.inputs),
        ]
    }
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
