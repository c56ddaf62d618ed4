//! Why agents left jobs, kept in memory for `explain`, within bounds.

use std::collections::{BTreeMap, VecDeque};

use mutual_model::identity::NodeId;
use mutual_model::ids::JobId;
use mutual_model::time::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::auth::unix_now;

/// Jobs remembered; the oldest are forgotten first.
const JOBS_MAX: usize = 10_000;
/// Reasons remembered for each.
const PER_JOB_MAX: usize = 8;

/// An agent's reason for leaving a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declined {
    /// The agent.
    pub agent: NodeId,
    /// When, by this machine's clock.
    pub at: UnixMillis,
    /// Why, in its own words.
    pub reason: String,
}

#[derive(Debug, Default)]
pub(super) struct Declines {
    // Job ids sort by submission time, so the first is the oldest.
    jobs: BTreeMap<JobId, VecDeque<Declined>>,
}

impl Declines {
    pub(super) fn note(&mut self, job: JobId, agent: NodeId, reason: &str) {
        let reasons = self.jobs.entry(job).or_default();
        reasons.retain(|declined| declined.agent != agent);
        if reasons.len() == PER_JOB_MAX {
            reasons.pop_front();
        }
        reasons.push_back(Declined {
            agent,
            at: unix_now(),
            reason: reason.to_owned(),
        });
        if self.jobs.len() > JOBS_MAX {
            self.jobs.pop_first();
        }
    }

    pub(super) fn of(&self, job: &JobId) -> Vec<Declined> {
        self.jobs.get(job).into_iter().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_bounded_and_the_latest_of_each_agent_stays() {
        let job = JobId::new(UnixMillis(1), [0; 10]);
        let mut declines = Declines::default();
        for number in 0..20_u8 {
            declines.note(job, NodeId([number % 10; 32]), &format!("{number}"));
        }
        let reasons = declines.of(&job);
        assert_eq!(reasons.len(), PER_JOB_MAX);
        assert_eq!(reasons.last().unwrap().reason, "19");
        for number in 0..=JOBS_MAX as u64 {
            declines.note(
                JobId::new(UnixMillis(number + 2), [0; 10]),
                NodeId([0; 32]),
                "x",
            );
        }
        assert_eq!(declines.jobs.len(), JOBS_MAX);
        assert_eq!(declines.of(&job), []);
    }
}
