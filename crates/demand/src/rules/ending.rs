//! What can be said of a finish before looking at the job.

use mutual_model::identity::NodeId;
use mutual_model::job::Failure;

use super::digest::{self, Digest};
use super::{bounds, rights};
use crate::{FinishRequest, Manifest, Outcome, Principal, StoreResult};

/// A finish with everything that can be said about it before looking at the job.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) who: Principal,
    pub(crate) agent: NodeId,
    pub(crate) request: FinishRequest,
    pub(crate) digest: Digest,
    pub(crate) copies: u32,
}

impl Ending {
    pub(crate) fn new(who: &Principal, request: FinishRequest) -> StoreResult<Self> {
        let agent = rights::worker(who)?;
        bounds::finish(&request)?;
        Ok(Self {
            who: who.clone(),
            agent,
            digest: digest::finish(&request)?,
            copies: bounds::result_copies(&request, &agent),
            request,
        })
    }

    pub(crate) fn failure(&self) -> Option<&Failure> {
        match &self.request.outcome {
            Outcome::Success => None,
            Outcome::Failure(failure) => Some(failure),
        }
    }

    /// The log of a failed attempt: it is kept with the attempt, since the job may go on without it.
    pub(crate) fn failed_log(&self) -> Option<&Manifest> {
        let log = self.request.result.log.as_ref();
        log.filter(|_| self.failure().is_some())
    }
}
