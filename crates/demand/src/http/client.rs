//! The client: a demand store that is somewhere else.
//!
//! What each operation is in HTTP stands here; `servers` knows how to get an answer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::Method;
use bytes::Bytes;
use mutual_model::ids::JobId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Credentials;
use super::servers::{Asked, Repeat, Servers};
use super::wire::{
    CancelBody, Done, EpochReply, EventsQuery, FinishManyReply, JobsQuery, RequeueBody, SubmitBody,
    SubmitReply,
};
use crate::error::{StoreError, StoreResult};
use crate::rules::bounds;
use crate::store::{
    CheckpointReport, ClaimReply, ClaimRequest, DemandStore, FinishReply, FinishRequest, Principal,
    ReleaseRequest, RenewReply, RenewRequest, RequeueReport, Revocation, RevocationReply,
    StoreInfo, Submission, Submitted,
};
use crate::view::{EventPage, JobFilter, JobPage, JobView, Manifest};

/// How the client behaves on a bad network.
#[derive(Debug, Clone, Copy)]
pub struct HttpStoreConfig {
    /// Longest time to reach an address.
    pub connect_timeout: Duration,
    /// Longest time for one try, connecting included.
    pub request_timeout: Duration,
    /// Tries in all, over all addresses.
    pub tries: usize,
    /// Wait before the second try; doubled each time, with jitter.
    pub backoff: Duration,
    /// No further try begins so long after the first one.
    pub patience: Duration,
}

impl Default for HttpStoreConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(15),
            tries: 4,
            backoff: Duration::from_millis(50),
            patience: Duration::from_secs(30),
        }
    }
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum HttpStoreError {
    /// No address was given.
    #[error("no address of a demand store: give at least one URL")]
    NoAddress,
    /// An address is no HTTP URL.
    #[error("{url:?} is no address of a demand store: {problem}; write http://HOST:PORT")]
    Address {
        /// The address as given.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The HTTP client could not be set up.
    #[error("cannot set up the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

/// Bytes of finishes in one request: half of what a service takes by default.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// A demand store behind HTTP. Cheap to clone; clones share connections.
///
/// The [`Principal`] that the trait's methods take is ignored: the server believes only the
/// [`Credentials`].
#[derive(Debug, Clone)]
pub struct HttpStore {
    servers: Servers,
    credentials: Arc<dyn Credentials>,
}

impl HttpStore {
    /// A client of the one store behind `bases`, each of the form `http://HOST:PORT`. With several,
    /// the first that answers says which store is meant; one that serves another is not used.
    ///
    /// # Errors
    /// [`HttpStoreError`].
    pub fn new(
        bases: &[String],
        credentials: Arc<dyn Credentials>,
        config: HttpStoreConfig,
    ) -> Result<Self, HttpStoreError> {
        let servers = Servers::new(bases, config)?;
        Ok(Self {
            servers,
            credentials,
        })
    }

    /// The same store, spoken to with other credentials, for example a user's own.
    #[must_use]
    pub fn with_credentials(&self, credentials: Arc<dyn Credentials>) -> Self {
        Self {
            credentials,
            ..self.clone()
        }
    }

    /// The addresses.
    pub fn bases(&self) -> &[String] {
        self.servers.bases()
    }

    /// Changes after a position, waiting up to `wait` for the first one. Cancel-safe.
    ///
    /// # Errors
    /// As every read: [`StoreError::Forbidden`], [`StoreError::Unavailable`].
    pub async fn events_within(
        &self,
        after: u64,
        limit: u32,
        wait: Duration,
    ) -> StoreResult<EventPage> {
        let wait = wait.min(self.servers.config().request_timeout / 2);
        let wait_ms = mutual_model::time::millis(wait);
        let query = EventsQuery {
            after,
            limit,
            wait_ms,
        };
        self.get("/events", &query).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> StoreResult<T> {
        let path_and_query = self.servers.path_with(path, query)?;
        let asked = Asked {
            method: Method::GET,
            path: &path_and_query,
            body: Bytes::new(),
            repeat: Repeat::Harmless,
        };
        self.ask(asked).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        repeat: Repeat,
    ) -> StoreResult<T> {
        let body = written(body)?.into();
        let asked = Asked {
            method: Method::POST,
            path,
            body,
            repeat,
        };
        self.ask(asked).await
    }

    async fn ask<T: DeserializeOwned>(&self, asked: Asked<'_>) -> StoreResult<T> {
        let bytes = self.servers.ask(&*self.credentials, &asked).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| StoreError::Unknown(format!("an answer that cannot be read: {error}")))
    }

    /// Sends finishes that fit into one request.
    async fn finish_batch(&self, batch: &[WrittenFinish]) -> Vec<StoreResult<FinishReply>> {
        let asked = Asked {
            method: Method::POST,
            path: "/finish",
            body: finish_body(batch),
            repeat: Repeat::Harmless,
        };
        match self.ask::<FinishManyReply>(asked).await {
            Ok(FinishManyReply { replies }) if replies.len() == batch.len() => {
                replies.into_iter().map(Into::into).collect()
            }
            Ok(FinishManyReply { replies }) => {
                let problem = format!("{} answers to {} finishes", replies.len(), batch.len());
                vec![Err(StoreError::Unknown(problem)); batch.len()]
            }
            // What is wrong with the batch need not be wrong with each: nobody drops a finish for it.
            Err(StoreError::Invalid(_)) if batch.len() > 1 => {
                let each = batch.iter().map(|finish| self.finish_written(finish));
                futures::future::join_all(each).await
            }
            Err(error) => vec![Err(error); batch.len()],
        }
    }

    async fn finish_written(&self, finish: &WrittenFinish) -> StoreResult<FinishReply> {
        let asked = Asked {
            method: Method::POST,
            path: &format!("/jobs/{}/finish", finish.job),
            body: finish.json.clone().into(),
            repeat: Repeat::Harmless,
        };
        self.ask(asked).await
    }
}

/// A finish as it travels.
struct WrittenFinish {
    job: JobId,
    json: Vec<u8>,
}

impl WrittenFinish {
    fn new(request: &FinishRequest) -> StoreResult<Self> {
        Ok(Self {
            job: request.claim.job,
            json: written(request)?,
        })
    }
}

fn written(body: &impl Serialize) -> StoreResult<Vec<u8>> {
    serde_json::to_vec(body).map_err(|error| StoreError::Internal(error.to_string()))
}

fn finish_body(batch: &[WrittenFinish]) -> Bytes {
    let entries: Vec<&[u8]> = batch.iter().map(|finish| finish.json.as_slice()).collect();
    [b"{\"finishes\":[", entries.join(&b',').as_slice(), b"]}"]
        .concat()
        .into()
}

/// How many of these fit into one request, at least one.
fn fitting(finishes: &[WrittenFinish]) -> usize {
    let mut bytes = 0;
    let fits = |finish: &&WrittenFinish| {
        bytes += finish.json.len() + 1;
        bytes <= BATCH_BYTES_MAX
    };
    let count = finishes.iter().take(bounds::FINISHES_MAX).take_while(fits);
    count.count().max(1)
}

#[async_trait]
impl DemandStore for HttpStore {
    async fn info(&self) -> StoreResult<StoreInfo> {
        self.get("/store", &()).await
    }

    async fn submit(&self, _: &Principal, tasks: Vec<Submission>) -> StoreResult<Vec<Submitted>> {
        let reply: SubmitReply = self
            .post("/jobs", &SubmitBody { tasks }, Repeat::Harmless)
            .await?;
        Ok(reply.submitted)
    }

    async fn attach_manifest(
        &self,
        _: &Principal,
        job: JobId,
        input: Manifest,
    ) -> StoreResult<JobView> {
        let path = format!("/jobs/{job}/manifest");
        self.post(&path, &input, Repeat::Harmless).await
    }

    async fn job(&self, _: &Principal, job: JobId) -> StoreResult<JobView> {
        self.get(&format!("/jobs/{job}"), &()).await
    }

    async fn jobs(&self, _: &Principal, filter: &JobFilter) -> StoreResult<JobPage> {
        self.get("/jobs", &JobsQuery::from(filter)).await
    }

    async fn cancel(&self, _: &Principal, job: JobId, reason: &str) -> StoreResult<JobView> {
        let reason = reason.to_owned();
        let path = format!("/jobs/{job}/cancel");
        self.post(&path, &CancelBody { reason }, Repeat::Harmless)
            .await
    }

    async fn try_claim(&self, _: &Principal, request: ClaimRequest) -> StoreResult<ClaimReply> {
        self.post("/try-claim", &request, Repeat::Harmless).await
    }

    async fn renew(&self, _: &Principal, request: RenewRequest) -> StoreResult<RenewReply> {
        // A repeated complete list would count twice against a claim that it misses.
        let repeat = if request.complete {
            Repeat::Never
        } else {
            Repeat::Harmless
        };
        self.post("/renew", &request, repeat).await
    }

    async fn checkpoint(&self, _: &Principal, report: CheckpointReport) -> StoreResult<()> {
        let path = format!("/jobs/{}/checkpoint", report.claim.job);
        let Done {} = self.post(&path, &report, Repeat::Harmless).await?;
        Ok(())
    }

    async fn release(&self, _: &Principal, request: ReleaseRequest) -> StoreResult<()> {
        let path = format!("/jobs/{}/release", request.claim.job);
        let Done {} = self.post(&path, &request, Repeat::Harmless).await?;
        Ok(())
    }

    async fn finish(&self, _: &Principal, request: FinishRequest) -> StoreResult<FinishReply> {
        self.finish_written(&WrittenFinish::new(&request)?).await
    }

    async fn finish_many(
        &self,
        _: &Principal,
        requests: Vec<FinishRequest>,
    ) -> Vec<StoreResult<FinishReply>> {
        let entries = requests.iter().map(WrittenFinish::new);
        let entries = match entries.collect::<StoreResult<Vec<_>>>() {
            Ok(entries) => entries,
            Err(error) => return vec![Err(error); requests.len()],
        };
        let mut replies = Vec::with_capacity(entries.len());
        let mut rest = entries.as_slice();
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(fitting(rest));
            replies.extend(self.finish_batch(batch).await);
            rest = later;
        }
        replies
    }

    async fn revoke(&self, _: &Principal, revocation: Revocation) -> StoreResult<RevocationReply> {
        self.post("/revoke", &revocation, Repeat::Never).await
    }

    async fn requeue(&self, _: &Principal, limit: u32) -> StoreResult<RequeueReport> {
        self.post("/requeue", &RequeueBody { limit }, Repeat::Harmless)
            .await
    }

    async fn events(&self, _: &Principal, after: u64, limit: u32) -> StoreResult<EventPage> {
        let wait_ms = 0;
        self.get(
            "/events",
            &EventsQuery {
                after,
                limit,
                wait_ms,
            },
        )
        .await
    }

    async fn request_checkpoint(&self, _: &Principal, job: JobId) -> StoreResult<()> {
        let path = format!("/jobs/{job}/request-checkpoint");
        let Done {} = self.post(&path, &Done {}, Repeat::Harmless).await?;
        Ok(())
    }

    async fn new_epoch(&self, _: &Principal) -> StoreResult<u64> {
        let reply: EpochReply = self
            .post("/store/new-epoch", &Done {}, Repeat::Never)
            .await?;
        Ok(reply.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finishes(count: usize, bytes: usize) -> Vec<WrittenFinish> {
        let one = || WrittenFinish {
            job: JobId(uuid::Uuid::nil()),
            json: vec![b'1'; bytes],
        };
        (0..count).map(|_| one()).collect()
    }

    #[test]
    fn batches_stay_below_the_service_s_limits_and_never_stall() {
        assert_eq!(fitting(&finishes(5, 10)), 5);
        assert_eq!(fitting(&finishes(2_000, 10)), bounds::FINISHES_MAX);
        assert_eq!(fitting(&finishes(2, 3 << 20)), 1);
        assert_eq!(fitting(&finishes(1, 5 << 20)), 1);
    }

    #[test]
    fn a_batch_is_one_document() {
        assert_eq!(&finish_body(&finishes(2, 1))[..], b"{\"finishes\":[1,1]}");
    }
}
