//! What must hold in every run, whatever was lost: by the one history checker, over what the store
//! shows and what the tasks noted.

use std::collections::BTreeMap;

use mutual_node::demand::{JobView, Look};
use mutual_node::model::history::{self, Deed, Ground, Observation};
use mutual_node::model::ids::JobId;
use mutual_node::model::job::JobState;
use mutual_node::model::lease::Holder;
use mutual_node::model::time::{Timestamp, UnixMillis};
use serde::Serialize;

use super::evidence::Execution;
use super::recovery::Fault;
use super::watch::Watch;

/// A killed agent's tasks may live this long after its own sockets are closed, no longer.
const AFTERLIFE_US: u64 = 1_000_000;
/// Violations that are told in words; a run gone wrong may have thousands.
const WORDS_MAX: usize = 5;

/// All that is known of a run in the end.
#[derive(Debug)]
pub(crate) struct Account {
    /// Tasks that were submitted.
    pub(crate) tasks: usize,
    pub(crate) jobs: Vec<JobView>,
    pub(crate) executions: BTreeMap<JobId, Vec<Execution>>,
    pub(crate) faults: Vec<Fault>,
}

/// The promises in figures.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) tasks: usize,
    pub(crate) succeeded: usize,
    /// Finishes accepted beyond the first of a job.
    pub(crate) accepted_duplicates: usize,
    /// Executions that came to their end beyond the first of a job.
    pub(crate) attempted_duplicates: usize,
    /// Executions that began while an earlier one of their job lived.
    pub(crate) overlaps: usize,
    /// How long the longest of them did.
    pub(crate) overlap_max_s: f64,
    /// Observations that the history checker judged.
    pub(crate) observations: usize,
    /// What did not hold, in words.
    pub(crate) violations: Vec<String>,
}

impl Verdict {
    pub(crate) fn of(account: &Account, watch: &Watch) -> Self {
        let succeeded = |job: &&JobView| job.state == JobState::Succeeded;
        let beyond_first = |of_job: &Vec<Execution>| {
            let ended = of_job.iter().filter(|run| run.ended_us.is_some()).count();
            ended.saturating_sub(1)
        };
        let executions = || account.executions.values();
        let history = account.history();
        let mut verdict = Self {
            tasks: account.tasks,
            succeeded: account.jobs.iter().filter(succeeded).count(),
            accepted_duplicates: watch.accepted_twice(),
            attempted_duplicates: executions().map(beyond_first).sum(),
            overlaps: executions()
                .flatten()
                .filter(|run| run.overlap_us.is_some())
                .count(),
            overlap_max_s: executions()
                .map(|of_job| longest_overlap_s(of_job))
                .fold(0.0, f64::max),
            observations: history.len(),
            violations: Vec::new(),
        };
        verdict.weigh(account);
        verdict.hear(&history);
        verdict
    }

    fn weigh(&mut self, account: &Account) {
        let Self {
            tasks, succeeded, ..
        } = *self;
        self.require(succeeded == tasks, || {
            format!("{succeeded} of {tasks} tasks succeeded")
        });
        let twice = self.accepted_duplicates;
        self.require(twice == 0, || {
            format!("{twice} results were accepted twice")
        });
        let never_ran = |job: &&JobView| {
            let runs = account.executions.get(&job.id);
            job.state == JobState::Succeeded
                && !runs.is_some_and(|runs| runs.iter().any(|run| run.ended_us.is_some()))
        };
        let without = account.jobs.iter().filter(never_ran).count();
        self.require(without == 0, || {
            format!("{without} tasks succeeded without having run to their end")
        });
        // After a kill not even for a moment.
        let (overlaps, is_silence) = (self.overlaps, account.faults.iter().any(Fault::is_silence));
        self.require(is_silence || overlaps == 0, || {
            format!("{overlaps} executions overlapped")
        });
    }

    fn hear(&mut self, history: &[Observation]) {
        let Err(found) = history::check(history) else {
            return;
        };
        let words = found.iter().take(WORDS_MAX).map(ToString::to_string);
        self.violations.extend(words);
        if let Some(more @ 1..) = found.len().checked_sub(WORDS_MAX) {
            self.violations.push(format!("and {more} more violations"));
        }
    }

    pub(crate) fn require(&mut self, holds: bool, words: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(words());
        }
    }
}

/// How long an earlier execution lived on beside a later one, as far as both said so.
fn longest_overlap_s(of_job: &[Execution]) -> f64 {
    let pairs = of_job.iter().enumerate();
    let beside = pairs.flat_map(|(at, older)| {
        let later = of_job[at + 1..].iter();
        later.map(|newer| {
            super::seconds_between(newer.began_us, older.alive_us().min(newer.alive_us()))
        })
    });
    beside.fold(0.0, f64::max)
}

impl Account {
    fn history(&self) -> Vec<Observation> {
        let first = self.jobs.iter().map(|job| job.created_at.0).min();
        let clock = Clock {
            origin: UnixMillis(first.unwrap_or_default()),
            now: Timestamp(u64::MAX / 2),
        };
        let is_silence = self.faults.iter().any(Fault::is_silence);
        let mut history: Vec<_> = self
            .jobs
            .iter()
            .flat_map(|job| clock.job(job, is_silence))
            .collect();
        for job in &self.jobs {
            let runs = self.executions.get(&job.id).into_iter().flatten();
            history.extend(runs.flat_map(|run| clock.ran(job, run)));
        }
        let kills = self.faults.iter().filter(|fault| !fault.is_silence());
        history.extend(kills.flat_map(|fault| self.deaths(&clock, fault)));
        history
    }

    /// The runs of killed agents, as far as they held anything.
    fn deaths(&self, clock: &Clock, fault: &Fault) -> Vec<Observation> {
        let attempts = self.jobs.iter().flat_map(|job| &job.attempts);
        let mut holders: Vec<Holder> = attempts
            .filter(|attempt| attempt.claimed_at.0 * 1_000 < fault.at_us)
            .map(|attempt| attempt.holder)
            .filter(|holder| fault.agents.contains_key(&holder.agent))
            .collect();
        holders.sort_unstable();
        holders.dedup();
        let death = |holder: Holder| {
            let closed = fault.agents.get(&holder.agent).copied().flatten();
            let gone_us = closed.unwrap_or(fault.at_us) + AFTERLIFE_US;
            clock.between(fault.at_us, gone_us, Deed::Died { holder })
        };
        holders.into_iter().map(death).collect()
    }
}

/// The history's time: microseconds since the first submission.
struct Clock {
    origin: UnixMillis,
    /// After everything.
    now: Timestamp,
}

impl Clock {
    fn at(&self, unix_us: u64) -> Timestamp {
        Timestamp(unix_us.saturating_sub(self.origin.0.saturating_mul(1_000)))
    }

    fn between(&self, from_us: u64, to_us: u64, deed: Deed) -> Observation {
        Observation {
            called: self.at(from_us),
            returned: self.at(to_us.max(from_us)),
            deed,
        }
    }

    fn job(&self, job: &JobView, is_silence: bool) -> Vec<Observation> {
        let ground = match is_silence {
            true => Ground::Silent,
            false => Ground::Closed,
        };
        job.observations(&Look {
            origin: self.origin,
            called: self.now,
            returned: self.now,
            seen_by: vec![job.namespace.clone()],
            ground: Some(ground),
        })
    }

    fn ran(&self, job: &JobView, run: &Execution) -> Vec<Observation> {
        let attempt = job
            .attempts
            .iter()
            .find(|attempt| attempt.fence == run.fence);
        let Some(attempt) = attempt else {
            // The view lists only the last attempts.
            return Vec::new();
        };
        let deed = Deed::Ran(history::Execution {
            holder: attempt.holder,
            job: job.id,
            fence: run.fence,
            on_disconnect: job.spec.on_disconnect,
            exclusive: job.spec.exclusive,
            resumed: None,
            unfetched: Vec::new(),
        });
        let stretches = run.stretches.iter();
        stretches
            .map(|(from_us, to_us)| self.between(*from_us, *to_us, deed.clone()))
            .collect()
    }
}
