//! Getting an answer from one of the servers of ONE store.
//!
//! The client goes on to the next address when one cannot be reached or is not able to serve, and
//! back off between tries. Three rules keep that safe (DESIGN §3.7, 3.8, 3.12):
//!
//! * With several addresses, a server is asked for its store's id before anything else, and again
//!   after it was away. One that serves another store is never written to nor believed.
//! * A request that was sent and not answered is repeated only where a repeat is settled by
//!   idempotence. A refusal that says that nothing was changed allows a repeat of anything.
//! * What stays unanswered is [`StoreError::Unknown`], whatever a later try was told.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::http::Method;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use bytes::Bytes;
use mutual_model::ids::StoreId;
use reqwest::header;
use serde::Serialize;

use super::Credentials;
use super::client::{HttpStoreConfig, HttpStoreError};
use super::wire::ErrorBody;
use crate::error::{StoreError, StoreResult};
use crate::store::StoreInfo;

/// Longest answer that is read: a full page of jobs fits well within.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Longest wait that a server can ask for between two tries.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(2);

/// Whether a request may be repeated when its fate is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    Harmless,
    Never,
}

/// A request to whichever server answers.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) method: Method,
    /// Path and query.
    pub(super) path: &'a str,
    pub(super) body: Bytes,
    pub(super) repeat: Repeat,
}

impl Asked<'_> {
    fn changes_something(&self) -> bool {
        self.method != Method::GET
    }
}

/// How a try ended without an answer.
#[derive(Debug)]
enum NoAnswer {
    /// Nothing was sent.
    NotSent(String),
    /// It was sent; what became of it is not known.
    Unanswered(String),
}

/// The servers of one store. Clones share connections and what is known of the servers.
#[derive(Debug, Clone)]
pub(super) struct Servers {
    http: reqwest::Client,
    shared: Arc<Shared>,
    config: HttpStoreConfig,
}

#[derive(Debug)]
struct Shared {
    bases: Vec<String>,
    /// Whether the server at each base is known to serve `store`.
    is_sure: Vec<AtomicBool>,
    store: OnceLock<StoreId>,
    preferred: AtomicUsize,
}

impl Servers {
    pub(super) fn new(bases: &[String], config: HttpStoreConfig) -> Result<Self, HttpStoreError> {
        if bases.is_empty() {
            return Err(HttpStoreError::NoAddress);
        }
        let http = reqwest::Client::builder()
            .connect_timeout(config.connect_timeout)
            .timeout(config.request_timeout)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let checked = bases.iter().map(|base| checked_base(base));
        let shared = Shared {
            bases: checked.collect::<Result<_, _>>()?,
            is_sure: bases.iter().map(|_| AtomicBool::new(false)).collect(),
            store: OnceLock::new(),
            preferred: AtomicUsize::new(0),
        };
        Ok(Self {
            http,
            shared: Arc::new(shared),
            config,
        })
    }

    pub(super) fn bases(&self) -> &[String] {
        &self.shared.bases
    }

    pub(super) const fn config(&self) -> &HttpStoreConfig {
        &self.config
    }

    /// A path with a query.
    pub(super) fn path_with(&self, path: &str, query: &impl Serialize) -> StoreResult<String> {
        let request = self.http.get(format!("http://x{path}")).query(query);
        let request = request
            .build()
            .map_err(|error| StoreError::Internal(error.to_string()))?;
        Ok(match request.url().query() {
            Some(query) if !query.is_empty() => format!("{path}?{query}"),
            _ => path.to_owned(),
        })
    }

    /// Tries the servers in turn, the last good one first, until one answers for good.
    pub(super) async fn ask(
        &self,
        credentials: &dyn Credentials,
        asked: &Asked<'_>,
    ) -> StoreResult<Bytes> {
        let began = Instant::now();
        let mut delays = ExponentialBuilder::default()
            .with_min_delay(self.config.backoff)
            .with_max_times(self.config.tries.saturating_sub(1))
            .with_jitter()
            .build();
        let mut is_open = false;
        loop {
            let server = self.shared.preferred.load(Ordering::Relaxed) % self.bases().len();
            let error = match self.try_server(credentials, server, asked).await {
                Ok(answer) => match answer {
                    Err(error) if error.is_retryable() => error,
                    final_answer => return final_answer,
                },
                Err(NoAnswer::NotSent(problem)) => StoreError::Unavailable(problem),
                Err(NoAnswer::Unanswered(problem)) => StoreError::Unknown(problem),
            };
            self.prefer_next(server);
            is_open |= matches!(error, StoreError::Unknown(_));
            let may_repeat = !is_open || asked.repeat == Repeat::Harmless;
            let delay = delays.next().map(|delay| delay.max(wait_asked(&error)));
            match delay
                .filter(|delay| may_repeat && began.elapsed() + *delay < self.config.patience)
            {
                Some(delay) => tokio::time::sleep(delay).await,
                None => return Err(outcome(error, is_open && asked.changes_something())),
            }
        }
    }

    fn prefer_next(&self, failed: usize) {
        let next = (failed + 1) % self.bases().len();
        // Lost races are harmless: somebody else moved on already.
        let _ = self.shared.preferred.compare_exchange(
            failed,
            next,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    async fn try_server(
        &self,
        credentials: &dyn Credentials,
        server: usize,
        asked: &Asked<'_>,
    ) -> Result<StoreResult<Bytes>, NoAnswer> {
        let is_sure = &self.shared.is_sure[server];
        if self.bases().len() > 1 && !is_sure.load(Ordering::Acquire) {
            if let Err(refusal) = self.make_sure(credentials, server).await? {
                return Ok(Err(refusal));
            }
            is_sure.store(true, Ordering::Release);
        }
        let answer = self.send(credentials, server, asked).await;
        if answer.is_err() {
            // What comes back at this address may be another store.
            is_sure.store(false, Ordering::Release);
        }
        answer
    }

    /// Asks a server which store it serves; refuses one that serves another.
    async fn make_sure(
        &self,
        credentials: &dyn Credentials,
        server: usize,
    ) -> Result<StoreResult<()>, NoAnswer> {
        let question = Asked {
            method: Method::GET,
            path: "/store",
            body: Bytes::new(),
            repeat: Repeat::Harmless,
        };
        // The question changes nothing, so what it is about has not been sent.
        let answer = self.send(credentials, server, &question).await;
        let answer = answer.map_err(|error| match error {
            NoAnswer::NotSent(problem) | NoAnswer::Unanswered(problem) => {
                NoAnswer::NotSent(problem)
            }
        })?;
        let base = &self.bases()[server];
        let info = match answer.map(|bytes| serde_json::from_slice::<StoreInfo>(&bytes)) {
            Ok(Ok(info)) => info,
            Ok(Err(error)) => {
                return Err(NoAnswer::NotSent(format!(
                    "{base} is no demand store: {error}"
                )));
            }
            Err(refusal) => return Ok(Err(refusal)),
        };
        let known = self.shared.store.get_or_init(|| info.store);
        if *known == info.store {
            return Ok(Ok(()));
        }
        Err(NoAnswer::NotSent(format!(
            "{base} serves another demand store ({}) than the others ({known}): take it off the list of addresses",
            info.store
        )))
    }

    async fn send(
        &self,
        credentials: &dyn Credentials,
        server: usize,
        asked: &Asked<'_>,
    ) -> Result<StoreResult<Bytes>, NoAnswer> {
        let base = &self.bases()[server];
        let authorization = credentials.authorize(&asked.method, asked.path, &asked.body);
        let request = self
            .http
            .request(asked.method.clone(), format!("{base}{}", asked.path))
            .header(header::AUTHORIZATION, authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .body(asked.body.clone());
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

/// How long the server asks to be left alone, within reason.
fn wait_asked(error: &StoreError) -> Duration {
    match error {
        StoreError::Overloaded { retry_after_ms } => {
            Duration::from_millis(*retry_after_ms).min(RETRY_AFTER_MAX)
        }
        _ => Duration::ZERO,
    }
}

/// What to say in the end: while one try's fate is open, so is the request's.
fn outcome(error: StoreError, is_open: bool) -> StoreError {
    match error {
        StoreError::Unknown(problem) if !is_open => StoreError::Unavailable(problem),
        error @ StoreError::Unknown(_) => error,
        error if is_open => StoreError::Unknown(error.to_string()),
        error => error,
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
    match serde_json::from_slice::<ErrorBody>(bytes) {
        Ok(ErrorBody { error }) => error.stated(),
        Err(_) if status.is_server_error() => {
            StoreError::Unknown(format!("the server answered {status}"))
        }
        Err(_) => StoreError::Unavailable(format!("{status}: this is no demand store")),
    }
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

    #[test]
    fn an_open_try_keeps_the_outcome_open() {
        let away = || StoreError::Unavailable("away".into());
        let open = || StoreError::Unknown("cut off".into());
        assert_eq!(outcome(away(), false), away());
        assert!(matches!(outcome(away(), true), StoreError::Unknown(_)));
        assert_eq!(outcome(open(), true), open());
        // A question that changes nothing leaves nothing open.
        assert!(matches!(outcome(open(), false), StoreError::Unavailable(_)));
    }

    #[test]
    fn no_server_makes_a_client_wait_for_ever() {
        let retry_after_ms = u64::MAX;
        assert_eq!(
            wait_asked(&StoreError::Overloaded { retry_after_ms }),
            RETRY_AFTER_MAX
        );
    }
}
