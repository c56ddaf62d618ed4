//! Orders in which the memory store looks at its jobs.

use std::collections::BTreeSet;

use mutual_model::ids::{JobId, Namespace};
use mutual_model::lease::Holder;
use mutual_model::time::UnixMillis;

use super::record::Record;
use mutual_model::job::JobState;

/// Which jobs are queued, held or waiting, kept in step with the records.
#[derive(Debug, Default)]
pub(super) struct Index {
    queued: BTreeSet<(Namespace, i64, JobId)>,
    held: BTreeSet<(Holder, JobId)>,
    waiting: BTreeSet<(UnixMillis, JobId)>,
}

impl Index {
    pub(super) fn insert(&mut self, record: &Record) {
        if record.state == JobState::Queued {
            self.queued
                .insert((record.namespace.clone(), record.rank, record.id));
        }
        if matches!(record.state, JobState::Queued | JobState::AwaitingInput) {
            self.waiting.insert((record.waits_until, record.id));
        }
        if let Some(holder) = record.holder() {
            self.held.insert((holder, record.id));
        }
    }

    pub(super) fn remove(&mut self, record: &Record) {
        if record.state == JobState::Queued {
            self.queued
                .remove(&(record.namespace.clone(), record.rank, record.id));
        }
        if matches!(record.state, JobState::Queued | JobState::AwaitingInput) {
            self.waiting.remove(&(record.waits_until, record.id));
        }
        if let Some(holder) = record.holder() {
            self.held.remove(&(holder, record.id));
        }
    }

    /// Queued jobs of one namespace, best rank first.
    pub(super) fn queued(&self, namespace: &Namespace) -> impl Iterator<Item = (i64, JobId)> {
        let from = (namespace.clone(), i64::MIN, JobId(uuid::Uuid::nil()));
        let to = (namespace.clone(), i64::MAX, JobId(uuid::Uuid::max()));
        self.queued
            .range(from..=to)
            .map(|(_, rank, job)| (*rank, *job))
    }

    /// What an incarnation holds.
    pub(super) fn held_by(&self, holder: Holder) -> Vec<JobId> {
        let from = (holder, JobId(uuid::Uuid::nil()));
        let to = (holder, JobId(uuid::Uuid::max()));
        self.held.range(from..=to).map(|(_, job)| *job).collect()
    }

    /// Jobs that wait no longer than `now`.
    pub(super) fn waited_out(&self, now: UnixMillis) -> Vec<JobId> {
        let end = (now, JobId(uuid::Uuid::max()));
        self.waiting.range(..=end).map(|(_, job)| *job).collect()
    }

    /// When the first waiting job gives up.
    pub(super) fn next_wait_end(&self) -> Option<UnixMillis> {
        self.waiting.first().map(|(at, _)| *at)
    }

    /// Whether an incarnation holds anything.
    pub(super) fn holds_some(&self, holder: Holder) -> bool {
        let from = (holder, JobId(uuid::Uuid::nil()));
        let to = (holder, JobId(uuid::Uuid::max()));
        self.held.range(from..=to).next().is_some()
    }
}
