//! Where every task stands, and whose death would be worth seeing.

use std::time::Duration;

use mutual_node::auth::unix_now;
use mutual_node::demand::{JobFilter, JobView};
use mutual_node::model::identity::NodeId;
use mutual_node::model::ids::JobId;
use mutual_node::model::job::JobState;
use mutual_node::model::time::UnixMillis;

use crate::client::Client;
use crate::cloud::Cloud;
use crate::failure::{Failure, Outcome};

/// How much the agents can hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) agents: usize,
    /// Tasks at once on each.
    pub(super) slots: usize,
}

impl Room {
    pub(super) fn of(cloud: &Cloud) -> Self {
        let plan = cloud.plan();
        Self {
            agents: plan.agents,
            slots: plan.slots as usize,
        }
    }
}

/// The tasks in the order of their numbers, as the store showed them last.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// Tasks up to this number are short: nobody dies for them and no stream of theirs is followed.
    pub(super) short: u32,
    pub(super) jobs: Vec<JobView>,
}

impl Board {
    /// Looks at the store; gives the numbers (from 0) of the tasks whose state changed.
    pub(super) async fn refresh(&mut self, client: &Client) -> Outcome<Vec<usize>> {
        let filter = JobFilter {
            limit: 1_000,
            ..JobFilter::default()
        };
        let mut jobs = client.jobs(&filter).await?.jobs;
        jobs.sort_by_key(number);
        let changed = jobs
            .iter()
            .enumerate()
            .filter(|(at, job)| {
                self.jobs
                    .get(*at)
                    .is_none_or(|before| before.state != job.state)
            })
            .map(|(at, _)| at)
            .collect();
        self.jobs = jobs;
        Ok(changed)
    }

    /// Whether every task is over; an error if one is over but not well.
    pub(super) fn all_succeeded(&self) -> Outcome<bool> {
        let spoiled = self
            .jobs
            .iter()
            .find(|job| job.state.is_terminal() && job.state != JobState::Succeeded);
        match spoiled {
            Some(job) => Err(Failure::internal(format!(
                "task {} ended {}: {:?}",
                number(job),
                job.state,
                job.reason
            ))),
            None => Ok(self.jobs.iter().all(|job| job.state == JobState::Succeeded)),
        }
    }

    fn with(&self, agent: NodeId, state: JobState) -> impl Iterator<Item = &JobView> {
        self.jobs
            .iter()
            .filter(move |job| job.state == state && holder(job) == Some(agent))
    }

    /// Tasks that an agent runs.
    pub(super) fn running(&self, agent: NodeId) -> Vec<JobId> {
        self.with(agent, JobState::Running)
            .map(|job| job.id)
            .collect()
    }

    /// Tasks whose result an agent made.
    pub(super) fn finished(&self, agent: NodeId) -> Vec<JobId> {
        self.with(agent, JobState::Succeeded)
            .map(|job| job.id)
            .collect()
    }

    /// The long task that began last, if that was less than `fresh_ms` ago.
    pub(super) fn youngest(&self, fresh_ms: u64) -> Option<&JobView> {
        self.jobs
            .iter()
            .filter(|job| job.state == JobState::Running && self.is_fresh(job, fresh_ms))
            .max_by_key(|job| started_at(job))
    }

    /// An agent, other than `except`, that runs something long which began less than `fresh_ms` ago
    /// and has finished something. One whose tasks fit on the others at once, unless no better
    /// moment will come.
    pub(super) fn victim(&self, except: NodeId, fresh_ms: u64, room: &Room) -> Option<NodeId> {
        let is_last_chance = !self.has_waiting() && self.youngest(fresh_ms / 2).is_none();
        self.jobs
            .iter()
            .filter(|job| job.state == JobState::Running && self.is_fresh(job, fresh_ms))
            .filter_map(holder)
            .filter(|agent| *agent != except && !self.finished(*agent).is_empty())
            .find(|agent| is_last_chance || self.fits_elsewhere(*agent, room))
    }

    /// Whether the other agents have a free slot for everything that an agent holds.
    pub(super) fn fits_elsewhere(&self, agent: NodeId, room: &Room) -> bool {
        let held = |job: &&JobView| job.state.is_held();
        let all = self.jobs.iter().filter(held).count();
        let elsewhere = room.slots * room.agents.saturating_sub(1);
        // What the others hold and what this one holds, together, if they are to take it over.
        !self.has_waiting() && all <= elsewhere && !self.running(agent).is_empty()
    }

    fn is_fresh(&self, job: &JobView, fresh_ms: u64) -> bool {
        let within = Duration::from_millis(fresh_ms);
        let began = started_at(job).is_some_and(|at| unix_now().since(at) < within);
        began && number(job) > self.short
    }

    fn has_waiting(&self) -> bool {
        let mut states = self.jobs.iter().map(|job| job.state);
        states.any(|state| state == JobState::Queued)
    }

    pub(super) fn get(&self, job: JobId) -> Option<&JobView> {
        self.jobs.iter().find(|view| view.id == job)
    }
}

/// A task's number in the array.
pub(super) fn number(job: &JobView) -> u32 {
    job.spec.array.map_or(0, |array| array.index)
}

/// Who made the last attempt.
pub(super) fn holder(job: &JobView) -> Option<NodeId> {
    job.attempts.last().map(|attempt| attempt.holder.agent)
}

fn started_at(job: &JobView) -> Option<UnixMillis> {
    job.attempts.last().and_then(|attempt| attempt.started_at)
}
