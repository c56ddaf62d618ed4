//! What can be said of a finish before looking at the job.

use std::collections::BTreeMap;

use mutual_model::identity::NodeId;
use mutual_model::job::Failure;

use super::digest::{self, Digest};
use super::{bounds, rights};
use crate::{FinishReply, FinishRequest, Manifest, Outcome, Principal, StoreError, StoreResult};

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

/// Finishes of a batch that were refused before any job was looked at, by their place.
#[derive(Debug)]
pub(crate) struct Refused(BTreeMap<usize, StoreError>);

/// Parts those of a batch that can be tried from those that cannot.
pub(crate) fn sort_out<T>(batch: impl Iterator<Item = StoreResult<T>>) -> (Vec<T>, Refused) {
    let (mut tried, mut refused) = (Vec::new(), BTreeMap::new());
    for (place, entry) in batch.enumerate() {
        match entry {
            Ok(entry) => tried.push(entry),
            Err(error) => {
                refused.insert(place, error);
            }
        }
    }
    (tried, Refused(refused))
}

/// The finishes of one caller that can be tried.
pub(crate) fn prepare(who: &Principal, requests: Vec<FinishRequest>) -> (Vec<Ending>, Refused) {
    let endings = requests
        .into_iter()
        .map(|request| Ending::new(who, request));
    sort_out(endings)
}

impl Refused {
    /// The answers to all, in the order asked; `tried` are those to `count` that were tried.
    pub(crate) fn with(
        self,
        count: usize,
        tried: StoreResult<Vec<StoreResult<FinishReply>>>,
    ) -> Vec<StoreResult<FinishReply>> {
        let Self(mut refused) = self;
        let mut tried = match tried {
            Ok(answers) => answers,
            Err(error) => vec![Err(error); count],
        }
        .into_iter();
        let places = 0..count + refused.len();
        let answer = |place| match refused.remove(&place) {
            Some(error) => Some(Err(error)),
            None => tried.next(),
        };
        places.filter_map(answer).collect()
    }
}
