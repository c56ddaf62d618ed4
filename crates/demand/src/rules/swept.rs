//! What a sweep ended, and who is told.

use mutual_model::ids::{JobId, Namespace};
use mutual_model::job::JobState;

use super::rights;
use crate::{Principal, RequeueReport, Right};

/// What a sweep ended, with the namespaces that decide who is told.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    pub(crate) lost: Vec<(JobId, Namespace, JobState)>,
    pub(crate) expired: Vec<(JobId, Namespace)>,
}

impl Swept {
    pub(crate) fn is_empty(&self) -> bool {
        self.lost.is_empty() && self.expired.is_empty()
    }

    /// What `who` is told of it: operators everything, others what is in their namespaces.
    pub(crate) fn report(self, who: &Principal, next_ms: u64) -> RequeueReport {
        let told = |namespace: &Namespace| {
            rights::has(who, Right::Operate) || rights::sees(who, namespace)
        };
        let mut report = RequeueReport {
            next_ms,
            ..RequeueReport::default()
        };
        let lost = self.lost.into_iter();
        for (job, _, state) in lost.filter(|(_, namespace, _)| told(namespace)) {
            match state {
                JobState::Queued => report.requeued.push(job),
                _ => report.buried.push(job),
            }
        }
        let expired = self.expired.into_iter();
        let expired = expired.filter(|(_, namespace)| told(namespace));
        report.expired = expired.map(|(job, _)| job).collect();
        report
    }
}
