//! Submitting, showing and cancelling.

use mutual_model::ids::JobId;
use mutual_model::job::JobState;
use mutual_model::lease::Fence;
use mutual_model::time::UnixMillis;

use super::record::Record;
use super::state::State;
use crate::rules::digest::{self, Digest};
use crate::rules::{bounds, rights};
use crate::{
    AttemptEnd, EventPage, JobFilter, JobPage, JobView, Manifest, Principal, Reason, Right,
    StoreError, StoreResult, Submission, Submitted, Submitter,
};

impl State {
    pub(super) fn submit(
        &mut self,
        who: &Principal,
        tasks: Vec<Submission>,
    ) -> StoreResult<Vec<Submitted>> {
        rights::require(who, Right::Submit)?;
        bounds::submissions(&tasks, who.node.as_ref())?;
        let digests = tasks
            .iter()
            .map(digest::submission)
            .collect::<StoreResult<Vec<_>>>()?;
        // All or none: everything is checked before the first is stored.
        self.check_new(who, &tasks, &digests)?;
        let stored = tasks.into_iter().zip(digests);
        Ok(stored
            .map(|(task, digest)| self.store(who, task, digest))
            .collect())
    }

    fn check_new(
        &self,
        who: &Principal,
        tasks: &[Submission],
        digests: &[Digest],
    ) -> StoreResult<()> {
        let mut fresh = std::collections::BTreeMap::new();
        for (task, digest) in tasks.iter().zip(digests) {
            if !rights::sees(who, &task.namespace) {
                return Err(StoreError::NotFound);
            }
            let key = (task.namespace.clone(), task.client_key.clone());
            let stored = self.keys.get(&key).and_then(|job| self.records.get(job));
            let known = stored.map_or_else(
                || *fresh.entry(key).or_insert(*digest),
                |record| record.digest,
            );
            if known != *digest {
                return Err(other_payload(task));
            }
        }
        Ok(())
    }

    fn store(&mut self, who: &Principal, task: Submission, digest: Digest) -> Submitted {
        let key = (task.namespace.clone(), task.client_key.clone());
        if let Some(record) = self.keys.get(&key).and_then(|job| self.records.get(job)) {
            return Submitted {
                job: record.id,
                state: record.state,
                repeated: true,
            };
        }
        let id = JobId::new(self.now, self.draw());
        let record = new_record(who, task, digest, id, self.now);
        let state = record.state;
        self.keys.insert(key, id);
        self.add(record);
        Submitted {
            job: id,
            state,
            repeated: false,
        }
    }

    pub(super) fn attach_manifest(
        &mut self,
        who: &Principal,
        job: JobId,
        input: Manifest,
    ) -> StoreResult<JobView> {
        rights::require(who, Right::Submit)?;
        let record = self.seen(who, job)?;
        bounds::input(&input, who.node.as_ref(), record.spec.result_copies)?;
        if record.input.as_ref() == Some(&input) {
            return Ok(record.view());
        }
        if record.state != JobState::AwaitingInput {
            return Err(no_input_awaited(record.state));
        }
        let now = self.now;
        Ok(self.change(job, |record| {
            record.input = Some(input);
            record.enqueue(now);
            record.view()
        }))
    }

    pub(super) fn job(&self, who: &Principal, job: JobId) -> StoreResult<JobView> {
        rights::require(who, Right::Read)?;
        self.seen(who, job).map(Record::view)
    }

    pub(super) fn jobs(&self, who: &Principal, filter: &JobFilter) -> StoreResult<JobPage> {
        rights::require(who, Right::Read)?;
        let limit = bounds::page(filter)? as usize;
        let before = filter.before.unwrap_or(JobId(uuid::Uuid::max()));
        let matching = self
            .records
            .range(..before)
            .rev()
            .map(|(_, record)| record)
            .filter(|record| rights::sees(who, &record.namespace) && shown(filter, record));
        let mut jobs: Vec<JobView> = matching.take(limit + 1).map(Record::view).collect();
        let more = jobs.len() > limit;
        jobs.truncate(limit);
        Ok(JobPage {
            next: jobs.last().map(|job| job.id).filter(|_| more),
            jobs,
            possibly_old: false,
        })
    }

    pub(super) fn cancel(
        &mut self,
        who: &Principal,
        job: JobId,
        reason: &str,
    ) -> StoreResult<JobView> {
        rights::require(who, Right::Submit)?;
        bounds::reason(reason)?;
        if self.seen(who, job)?.state.is_terminal() {
            return self.seen(who, job).map(Record::view);
        }
        let now = self.now;
        let reason = Reason::Cancelled(reason.to_owned());
        Ok(self.change(job, |record| {
            if record.state.is_held() {
                record.end_attempt(AttemptEnd::Cancelled, now);
            }
            record.end(JobState::Cancelled, Some(reason), now);
            record.view()
        }))
    }

    pub(super) fn request_checkpoint(&mut self, who: &Principal, job: JobId) -> StoreResult<()> {
        rights::require(who, Right::Submit)?;
        let state = self.seen(who, job)?.state;
        if !state.is_held() {
            return Err(StoreError::Conflict(format!(
                "the job is {state}: nobody holds it"
            )));
        }
        self.change(job, |record| record.checkpoint_wanted = true);
        Ok(())
    }

    pub(super) fn events(&self, who: &Principal, after: u64, limit: u32) -> StoreResult<EventPage> {
        let namespaces = rights::readable(who)?;
        bounds::events(limit)?;
        let visible = self
            .events_after(after)
            .filter(|event| namespaces.is_none_or(|seen| seen.contains(&event.namespace)));
        let events: Vec<_> = visible.take(limit as usize).cloned().collect();
        let is_all = events.len() < limit as usize;
        let last = events.last().map(|event| event.sequence);
        let next = if is_all {
            self.position().max(after)
        } else {
            last.unwrap_or(after)
        };
        Ok(EventPage { events, next })
    }

    pub(super) fn new_epoch(&mut self, who: &Principal) -> StoreResult<u64> {
        rights::require(who, Right::Operate)?;
        self.begin_epoch(self.now);
        Ok(self.epoch)
    }
}

fn other_payload(task: &Submission) -> StoreError {
    StoreError::Conflict(format!(
        "client key {} of namespace {} was used for another task",
        task.client_key, task.namespace
    ))
}

fn no_input_awaited(state: JobState) -> StoreError {
    StoreError::Conflict(format!("the job is {state} and awaits no such input"))
}

fn new_record(
    who: &Principal,
    task: Submission,
    digest: Digest,
    id: JobId,
    now: UnixMillis,
) -> Record {
    let awaits_input = task.spec.has_input && task.input.is_none();
    let mut record = Record {
        id,
        namespace: task.namespace,
        client_key: task.client_key,
        digest,
        submitter: Submitter {
            subject: who.subject.clone(),
            sealing: task.result_key.unwrap_or(who.sealing),
        },
        state: JobState::AwaitingInput,
        reason: None,
        created_at: now,
        queued_at: None,
        finished_at: None,
        rank: 0,
        waits_until: UnixMillis(now.0.saturating_add(task.spec.expires_ms)),
        spec: task.spec,
        counted: 0,
        last_fence: Fence {
            epoch: 0,
            sequence: 0,
        },
        attempts: Vec::new(),
        input: task.input,
        checkpoints: Vec::new(),
        checkpoint_wanted: false,
        unlisted: 0,
        result: None,
    };
    if !awaits_input {
        record.enqueue(now);
    }
    record
}

fn shown(filter: &JobFilter, record: &Record) -> bool {
    let name_fits = |prefix: &String| record.spec.name.starts_with(prefix);
    let holder_fits = |agent| record.holder().is_some_and(|holder| holder.agent == agent);
    filter
        .namespace
        .as_ref()
        .is_none_or(|only| *only == record.namespace)
        && (filter.states.is_empty() || filter.states.contains(&record.state))
        && filter.name_prefix.as_ref().is_none_or(name_fits)
        && filter.holder.is_none_or(holder_fits)
}
