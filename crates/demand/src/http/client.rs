//! The client: a demand store that is somewhere else.
//!
//! Several addresses may front ONE store; the client goes on to the next when one cannot be
//! reached (DESIGN §3.8). A request that was sent but not answered is repeated only where repeating
//! is harmless; whatever stays unanswered is reported as [`StoreError::Unknown`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::Method;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use bytes::Bytes;
use mutual_model::ids::JobId;
use reqwest::header;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Credentials;
use super::wire::{
    CancelBody, Done, EpochReply, ErrorBody, EventsQuery, JobsQuery, RequeueBody, SubmitBody,
    SubmitReply,
};
use crate::error::{StoreError, StoreResult};
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
}

impl Default for HttpStoreConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(15),
            tries: 3,
            backoff: Duration::from_millis(50),
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

/// A demand store behind HTTP. Cheap to clone; clones share connections.
///
/// The [`Principal`] that the trait's methods take is ignored: the server believes only the
/// [`Credentials`].
#[derive(Debug, Clone)]
pub struct HttpStore {
    http: reqwest::Client,
    bases: Arc<[String]>,
    preferred: Arc<AtomicUsize>,
    credentials: Arc<dyn Credentials>,
    config: HttpStoreConfig,
}

/// How a try ended without an answer.
enum NoAnswer {
    /// Nothing was sent.
    NotSent(String),
    /// It was sent; what became of it is not known.
    Unanswered(String),
}

/// Whether a request may be repeated when its fate is unknown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Harmless,
    Never,
}

/// Longest answer that is read: a full page of jobs fits well within.
const ANSWER_BYTES_MAX: usize = 64 << 20;

impl HttpStore {
    /// A client of the one store behind `bases`, each of the form `http://HOST:PORT`.
    ///
    /// # Errors
    /// [`HttpStoreError`].
    pub fn new(
        bases: &[String],
        credentials: Arc<dyn Credentials>,
        config: HttpStoreConfig,
    ) -> Result<Self, HttpStoreError> {
        if bases.is_empty() {
            return Err(HttpStoreError::NoAddress);
        }
        let bases = bases.iter().map(|base| checked_base(base));
        let http = reqwest::Client::builder()
            .connect_timeout(config.connect_timeout)
            .timeout(config.request_timeout)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            http,
            bases: bases.collect::<Result<_, _>>()?,
            preferred: Arc::default(),
            credentials,
            config,
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
        &self.bases
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
        let wait = wait.min(self.config.request_timeout / 2);
        let wait_ms = mutual_model::time::millis(wait);
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

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> StoreResult<T> {
        let request = self
            .http
            .get(format!("http://x{path}"))
            .query(query)
            .build();
        let request = request.map_err(|error| StoreError::Internal(error.to_string()))?;
        let url = request.url();
        let path_and_query = match url.query() {
            Some(query) if !query.is_empty() => format!("{path}?{query}"),
            _ => path.to_owned(),
        };
        self.ask(Method::GET, &path_and_query, Bytes::new(), Repeat::Harmless)
            .await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        repeat: Repeat,
    ) -> StoreResult<T> {
        let body =
            serde_json::to_vec(body).map_err(|error| StoreError::Internal(error.to_string()))?;
        self.ask(Method::POST, path, body.into(), repeat).await
    }

    /// Tries the addresses in turn, the last good one first.
    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        repeat: Repeat,
    ) -> StoreResult<T> {
        let mut delays = ExponentialBuilder::default()
            .with_min_delay(self.config.backoff)
            .with_max_times(self.config.tries.saturating_sub(1))
            .with_jitter()
            .build();
        let mut was_sent = false;
        loop {
            let index = self.preferred.load(Ordering::Relaxed) % self.bases.len();
            let outcome = self
                .ask_once(&self.bases[index], &method, path, &body)
                .await;
            let problem = match outcome {
                Ok(bytes_or_error) => return bytes_or_error.and_then(|bytes| read_answer(&bytes)),
                Err(NoAnswer::NotSent(problem)) => problem,
                Err(NoAnswer::Unanswered(problem)) => {
                    was_sent = true;
                    problem
                }
            };
            self.prefer_next(index);
            let may_repeat = !was_sent || repeat == Repeat::Harmless;
            match delays.next().filter(|_| may_repeat) {
                Some(delay) => tokio::time::sleep(delay).await,
                None if was_sent && method != Method::GET => {
                    return Err(StoreError::Unknown(problem));
                }
                None => return Err(StoreError::Unavailable(problem)),
            }
        }
    }

    fn prefer_next(&self, failed: usize) {
        let next = (failed + 1) % self.bases.len();
        // Lost races are harmless: somebody else moved on already.
        let _ = self
            .preferred
            .compare_exchange(failed, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    async fn ask_once(
        &self,
        base: &str,
        method: &Method,
        path: &str,
        body: &Bytes,
    ) -> Result<StoreResult<Bytes>, NoAnswer> {
        let authorization = self.credentials.authorize(method, path, body);
        let request = self
            .http
            .request(method.clone(), format!("{base}{path}"))
            .header(header::AUTHORIZATION, authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.clone());
        let response = request.send().await.map_err(|error| {
            let problem = format!("{base}: {}", innermost(&error));
            if error.is_connect() || error.is_builder() {
                NoAnswer::NotSent(problem)
            } else {
                NoAnswer::Unanswered(problem)
            }
        })?;
        let status = response.status();
        let bytes = read_bounded(response)
            .await
            .map_err(|problem| NoAnswer::Unanswered(format!("{base}: {problem}")))?;
        if status.is_success() {
            return Ok(Ok(bytes));
        }
        Ok(Err(stated_error(status, &bytes)))
    }
}

/// The cause that says most: what is at the end of the chain of sources.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

async fn read_bounded(mut response: reqwest::Response) -> Result<Bytes, String> {
    let mut bytes = bytes::BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| innermost(&error))? {
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(format!("an answer of more than {ANSWER_BYTES_MAX} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

fn stated_error(status: reqwest::StatusCode, bytes: &[u8]) -> StoreError {
    let stated = serde_json::from_slice::<ErrorBody>(bytes).ok();
    match stated {
        Some(ErrorBody { error }) => error
            .store
            .unwrap_or(StoreError::Unavailable(error.message)),
        None if status.is_server_error() => {
            StoreError::Unknown(format!("the server answered {status}"))
        }
        None => StoreError::Unavailable(format!("{status}: this is no demand store")),
    }
}

fn read_answer<T: DeserializeOwned>(bytes: &[u8]) -> StoreResult<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError::Unknown(format!("an answer that cannot be read: {error}")))
}

fn checked_base(text: &str) -> Result<String, HttpStoreError> {
    let refused = |problem: &str| HttpStoreError::Address {
        url: text.to_owned(),
        problem: problem.to_owned(),
    };
    let url = reqwest::Url::parse(text).map_err(|error| refused(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(refused("not an http or https URL with a host"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(refused("it has a path or a query"));
    }
    Ok(text.trim_end_matches('/').to_owned())
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
        let Done {} = self.post(&path, &request, Repeat::Never).await?;
        Ok(())
    }

    async fn finish(&self, _: &Principal, request: FinishRequest) -> StoreResult<FinishReply> {
        let path = format!("/jobs/{}/finish", request.claim.job);
        self.post(&path, &request, Repeat::Harmless).await
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

    #[test]
    fn bad_addresses_are_named() {
        for bad in ["", "x", "ftp://a", "http://a/b", "http://a?x=1"] {
            let error = checked_base(bad).unwrap_err();
            assert!(matches!(error, HttpStoreError::Address { .. }), "{bad}");
        }
        assert_eq!(checked_base("http://a:1/").unwrap(), "http://a:1");
    }
}
