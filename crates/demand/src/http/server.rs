//! The service: any store behind HTTP, with credentials checked and data keys re-sealed.
//!
//! Store operations are not cancel-safe, so each runs to its end in a task of its own even when
//! the client hangs up. The number of operations under way is bounded; beyond it a caller is told
//! to come back.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, RawQuery, Request, State};
use axum::http::{StatusCode, request};
use axum::routing::{get, post};
use mutual_model::identity::{NodeId, PublicKey, SealingPublic};
use mutual_model::ids::JobId;
use mutual_model::job::FieldError;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, mpsc, watch};

use super::answers::{Answer, Reply, ok};
use super::keys::{CHECKPOINT_KEY_PURPOSE, INPUT_KEY_PURPOSE};
use super::wire::{
    CancelBody, Done, EpochReply, EventsQuery, FinishManyReply, JobsQuery, RequeueBody, SubmitBody,
    SubmitReply, read_finishes, read_json,
};
use super::{Authenticate, RequestHead, Reseal};
use crate::error::{StoreError, StoreResult};
use crate::rules::ending;
use crate::store::{
    CheckpointReport, ClaimReply, ClaimRequest, ClaimScope, DemandStore, FinishRequest, Principal,
    ReleaseRequest, RenewRequest, Revocation,
};
use crate::view::{EventPage, JobFilter, Manifest};

/// Bounds on what one client can ask of the service.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes of headers, and of path and query. The HTTP library's own limits, 100 headers and
    /// some 400 KiB, bound what is read before this is looked at.
    pub head_bytes: usize,
    /// Largest request body, in bytes.
    pub body_bytes: usize,
    /// Store operations under way at once; beyond it callers are told to come back.
    pub operations: usize,
    /// Longest wait of one question for events.
    pub wait: Duration,
}

impl Default for Limits {
    /// 32 KiB (credentials take 12 KiB at most), 8 MiB (a full batch of 1,000 submissions of
    /// ordinary tasks), 1,024 and 30 s.
    fn default() -> Self {
        Self {
            head_bytes: 32 << 10,
            body_bytes: 8 << 20,
            operations: 1_024,
            wait: Duration::from_secs(30),
        }
    }
}

/// How long an overloaded service asks callers to wait, in milliseconds.
const RETRY_AFTER_MS: u64 = 200;
/// How often a store that cannot tell of changes is asked for them.
const POLL: Duration = Duration::from_millis(250);

/// A store to be served, and what it is served with.
#[derive(Debug)]
pub struct Service {
    store: Arc<dyn DemandStore>,
    gate: Arc<dyn Authenticate>,
    keys: Arc<dyn Reseal>,
    server: PublicKey,
    changes: Option<watch::Receiver<u64>>,
    limits: Limits,
    operations: Arc<Semaphore>,
    touched: Option<mpsc::Sender<NodeId>>,
}

impl Service {
    /// A service over `store` by the node with the key `server`. `changes` moves with every
    /// committed change; without it, waiting for events falls back to asking.
    pub fn new(
        store: Arc<dyn DemandStore>,
        gate: Arc<dyn Authenticate>,
        keys: Arc<dyn Reseal>,
        server: PublicKey,
        changes: Option<watch::Receiver<u64>>,
        limits: Limits,
    ) -> Self {
        Self {
            store,
            gate,
            keys,
            server,
            changes,
            limits,
            operations: Arc::new(Semaphore::new(limits.operations)),
            touched: None,
        }
    }

    /// Also reports agents that should renew at once, because a checkpoint was asked of them.
    #[must_use]
    pub fn with_touched(self, touched: mpsc::Sender<NodeId>) -> Self {
        Self {
            touched: Some(touched),
            ..self
        }
    }

    /// The routes.
    pub fn router(self) -> Router {
        let body_bytes = self.limits.body_bytes;
        Router::new()
            .route("/store", get(info))
            .route("/store/new-epoch", post(new_epoch))
            .route("/jobs", post(submit).get(jobs))
            .route("/jobs/{id}", get(job))
            .route("/jobs/{id}/manifest", post(manifest))
            .route("/jobs/{id}/try-claim", post(try_claim_one))
            .route("/jobs/{id}/checkpoint", post(checkpoint))
            .route("/jobs/{id}/release", post(release))
            .route("/jobs/{id}/finish", post(finish))
            .route("/jobs/{id}/cancel", post(cancel))
            .route("/jobs/{id}/request-checkpoint", post(request_checkpoint))
            .route("/try-claim", post(try_claim))
            .route("/finish", post(finish_many))
            .route("/renew", post(renew))
            .route("/revoke", post(revoke))
            .route("/requeue", post(requeue))
            .route("/events", get(events))
            .fallback(no_such_path)
            .method_not_allowed_fallback(wrong_method)
            .layer(DefaultBodyLimit::max(body_bytes))
            .with_state(Arc::new(self))
    }

    /// Runs one operation to its end, whatever becomes of the caller.
    async fn operate<T, F>(self: &Arc<Self>, operation: F) -> Result<T, Answer>
    where
        T: Send + 'static,
        F: Future<Output = StoreResult<T>> + Send + 'static,
    {
        let permit = Arc::clone(&self.operations)
            .try_acquire_owned()
            .map_err(|_| StoreError::Overloaded {
                retry_after_ms: RETRY_AFTER_MS,
            })?;
        let task = tokio::spawn(async move {
            let outcome = operation.await;
            drop(permit);
            outcome
        });
        match task.await {
            Ok(outcome) => Ok(outcome?),
            Err(error) => Err(StoreError::Internal(format!("operation failed: {error}")).into()),
        }
    }

    /// Refuses a data key that the store could never hand on.
    fn check_key(&self, purpose: &str, field: &str, object: &Manifest) -> Result<(), Answer> {
        self.keys
            .check(purpose, &object.enc_meta.sealed_key)
            .map_err(|_| {
                StoreError::Invalid(FieldError::new(
                    format!("{field}.enc_meta.sealed_key"),
                    "it is not sealed to this store",
                    "seal it to the `sealing` key that GET /store gives",
                ))
                .into()
            })
    }

    /// Re-seals an object's key to a claimant. A key that cannot be opened any more is left as it
    /// is: the claimant then reports that it could not read the object.
    fn hand_key(&self, purpose: &str, object: &mut Manifest, to: &SealingPublic) {
        let sealed = &mut object.enc_meta.sealed_key;
        match self.keys.reseal(purpose, sealed, to) {
            Ok(resealed) => *sealed = resealed,
            Err(error) => tracing::warn!(root = %object.root, %error, "cannot hand on a data key"),
        }
    }

    fn hand_keys(&self, reply: &mut ClaimReply, to: &SealingPublic) {
        for grant in &mut reply.grants {
            if let Some(input) = &mut grant.input {
                self.hand_key(INPUT_KEY_PURPOSE, input, to);
            }
            for checkpoint in &mut grant.checkpoints {
                self.hand_key(CHECKPOINT_KEY_PURPOSE, &mut checkpoint.manifest, to);
            }
        }
    }
}

type Shared = State<Arc<Service>>;
/// A request whose sender is known.
struct Asked {
    who: Principal,
    body: Bytes,
}

impl Asked {
    fn json<T: DeserializeOwned>(&self) -> Result<T, Answer> {
        Ok(read_json(&self.body)?)
    }
}

/// Refuses a request whose head alone is too long; its body is not read then.
fn check_head(parts: &request::Parts, limit: usize) -> Result<(), Answer> {
    let headers = parts.headers.iter();
    let headers = headers.map(|(name, value)| name.as_str().len() + value.len());
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let too_large = |status, code, field: &str, bytes: usize| {
        let problem = format!("{bytes} bytes");
        let fix = format!("send at most {limit} bytes of it");
        Err(Answer::Plain(
            status,
            code,
            FieldError::new(field, problem, fix),
        ))
    };
    match (headers.sum::<usize>(), path.len()) {
        (bytes, _) if bytes > limit => {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            too_large(status, "headers_too_large", "headers", bytes)
        }
        (_, bytes) if bytes > limit => {
            too_large(StatusCode::URI_TOO_LONG, "path_too_long", "path", bytes)
        }
        _ => Ok(()),
    }
}

/// Reads the whole request within the limits and finds out who sends it.
async fn admit(service: &Service, request: Request) -> Result<Asked, Answer> {
    let (parts, body) = request.into_parts();
    check_head(&parts, service.limits.head_bytes)?;
    let limit = service.limits.body_bytes;
    let body = axum::body::to_bytes(body, limit).await.map_err(|_| {
        let problem = format!("more than {limit} bytes, or cut off");
        let fix = "send fewer or smaller entries at once";
        let error = FieldError::new("body", problem, fix);
        Answer::Plain(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", error)
    })?;
    let who = service
        .gate
        .authenticate(&head(&parts, &body))
        .map_err(Answer::Refused)?;
    Ok(Asked { who, body })
}

fn head<'a>(parts: &'a request::Parts, body: &'a [u8]) -> RequestHead<'a> {
    let path_and_query = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    RequestHead {
        method: &parts.method,
        path_and_query,
        headers: &parts.headers,
        body,
    }
}

/// What stands in the path where a job's id should.
struct JobPath(String);

impl<S: Send + Sync> FromRequestParts<S> for JobPath {
    type Rejection = Answer;

    async fn from_request_parts(parts: &mut request::Parts, state: &S) -> Result<Self, Answer> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(id)| Self(id)).map_err(|_| no_job_id())
    }
}

fn no_job_id() -> Answer {
    FieldError::new("id", "not a job id", "use the UUID that submitting gave").into()
}

fn job_id(text: &str) -> Result<JobId, Answer> {
    text.parse().map_err(|_| no_job_id())
}

/// The job in the path and the one in the body must be the same.
fn same_job(path: &str, body: JobId) -> Result<(), Answer> {
    if job_id(path)? == body {
        return Ok(());
    }
    let problem = "names another job than the path";
    Err(FieldError::new("claim.job", problem, "use one job in both places").into())
}

fn query<T: DeserializeOwned>(raw: Option<String>) -> Result<T, Answer> {
    let uri = format!("http://x/?{}", raw.unwrap_or_default());
    let malformed =
        |problem: String| FieldError::new("query", problem, "see the API's description");
    let uri = uri
        .parse()
        .map_err(|error: axum::http::uri::InvalidUri| malformed(error.to_string()))?;
    let query = axum::extract::Query::<T>::try_from_uri(&uri)
        .map_err(|error| malformed(error.body_text()))?;
    Ok(query.0)
}

async fn no_such_path() -> Answer {
    let error = FieldError::new("path", "not served here", "see the API's description");
    Answer::Plain(StatusCode::NOT_FOUND, "no_such_path", error)
}

async fn wrong_method() -> Answer {
    let error = FieldError::new("method", "not allowed here", "see the API's description");
    Answer::Plain(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", error)
}

async fn info(State(service): Shared, request: Request) -> Reply {
    admit(&service, request).await?;
    let mut info = service.store.info().await?;
    info.server = Some(service.server);
    info.sealing = Some(service.keys.sealing());
    ok(&info)
}

async fn submit(State(service): Shared, request: Request) -> Reply {
    let asked = admit(&service, request).await?;
    let SubmitBody { tasks } = asked.json()?;
    for (index, task) in tasks.iter().enumerate() {
        if let Some(input) = &task.input {
            service.check_key(INPUT_KEY_PURPOSE, &format!("tasks[{index}].input"), input)?;
        }
    }
    let store = Arc::clone(&service.store);
    let submitted = service
        .operate(async move { store.submit(&asked.who, tasks).await })
        .await?;
    ok(&SubmitReply { submitted })
}

async fn manifest(State(service): Shared, JobPath(id): JobPath, request: Request) -> Reply {
    let asked = admit(&service, request).await?;
    let (id, input) = (job_id(&id)?, asked.json::<Manifest>()?);
    service.check_key(INPUT_KEY_PURPOSE, "body", &input)?;
    let store = Arc::clone(&service.store);
    let view = service
        .operate(async move { store.attach_manifest(&asked.who, id, input).await })
        .await?;
    ok(&view)
}

async fn job(State(service): Shared, JobPath(id): JobPath, request: Request) -> Reply {
    let asked = admit(&service, request).await?;
    ok(&service.store.job(&asked.who, job_id(&id)?).await?)
}

async fn jobs(State(service): Shared, RawQuery(raw): RawQuery, request: Request) -> Reply {
    let asked = admit(&service, request).await?;
    let filter = JobFilter::try_from(query::<JobsQuery>(raw)?)?;
    ok(&service.store.jobs(&asked.who, &filter).await?)
}

async fn cancel(State(service): Shared, JobPath(id): JobPath, request: Request) -> Reply {
    let asked = admit(&service, request).await?;
    let (id, body) = (job_id(&id)?, asked.json::<CancelBody>()?);
    let store = Arc::clone(&service.store);
    let view = service
        .operate(async move { store.cancel(&asked.who, id, &body.reason).await })
        .await?;
    ok(&view)
}

async fn try_claim_one(State(service): Shared, JobPath(id): JobPath, request: Request) -> Reply {
    let asked = admit(&service, request).await?;
    let mut claim: ClaimRequest = asked.json()?;
    claim.scope = ClaimScope::Jobs(vec![job_id(&id)?]);
    claim_as(&service, asked.who, claim).await
}

async fn try_claim(State(service): Shared, request: Request) -> Reply {
    let asked = admit(&service, request).await?;
    let claim = asked.json()?;
    claim_as(&service, asked.who, claim).await
}

async fn claim_as(service: &Arc<Service>, who: Principal, claim: ClaimRequest) -> Reply {
    let store = Arc::clone(&service.store);
    let sealing = who.sealing;
    let mut reply = service
        .operate(async move { store.try_claim(&who, claim).await })
        .await?;
    service.hand_keys(&mut reply, &sealing);
    ok(&reply)
}

async fn renew(State(service): Shared, request: Request) -> Reply {
    let asked = admit(&service, request).await?;
    let renewal: RenewRequest = asked.json()?;
    let store = Arc::clone(&service.store);
    let reply = service
        .operate(async move { store.renew(&asked.who, renewal).await })
        .await?;
    ok(&reply)
}

async fn checkpoint(State(service): Shared, JobPath(id): JobPath, request: Request) -> Reply {
    let asked = admit(&service, request).await?;
    let report: CheckpointReport = asked.json()?;
    same_job(&id, report.claim.job)?;
    service.check_key(CHECKPOINT_KEY_PURPOSE, "manifest", &report.manifest)?;
    let store = Arc::clone(&service.store);
    service
        .operate(async move { store.checkpoint(&asked.who, report).await })
        .await?;
    ok(&Done {})
}

async fn release(State(service): Shared, JobPath(id): JobPath, request: Request) -> Reply {
    let asked = admit(&service, request).await?;
    let body: ReleaseRequest = asked.json()?;
    same_job(&id, body.claim.job)?;
    let store = Arc::clone(&service.store);
    service
        .operate(async move { store.release(&asked.who, body).await })
        .await?;
    ok(&Done {})
}

async fn finish(State(service): Shared, JobPath(id): JobPath, request: Request) -> Reply {
    let asked = admit(&service, request).await?;
    let body: FinishRequest = asked.json()?;
    same_job(&id, body.claim.job)?;
    let store = Arc::clone(&service.store);
    let reply = service
        .operate(async move { store.finish(&asked.who, body).await })
        .await?;
    ok(&reply)
}

/// One answer for each finish; what is refused leaves the others as they are.
async fn finish_many(State(service): Shared, request: Request) -> Reply {
    let asked = admit(&service, request).await?;
    let (tried, refused) = ending::sort_out(read_finishes(&asked.body)?.into_iter());
    let count = tried.len();
    let store = Arc::clone(&service.store);
    let outcomes = service
        .operate(async move { Ok(store.finish_many(&asked.who, tried).await) })
        .await?;
    let replies = refused.with(count, Ok(outcomes)).into_iter();
    ok(&FinishManyReply {
        replies: replies.map(Into::into).collect(),
    })
}

async fn revoke(State(service): Shared, request: Request) -> Reply {
    let asked = admit(&service, request).await?;
    let revocation: Revocation = asked.json()?;
    let store = Arc::clone(&service.store);
    let reply = service
        .operate(async move { store.revoke(&asked.who, revocation).await })
        .await?;
    ok(&reply)
}

async fn requeue(State(service): Shared, request: Request) -> Reply {
    let asked = admit(&service, request).await?;
    let RequeueBody { limit } = asked.json()?;
    let store = Arc::clone(&service.store);
    let report = service
        .operate(async move { store.requeue(&asked.who, limit).await })
        .await?;
    ok(&report)
}

async fn request_checkpoint(
    State(service): Shared,
    JobPath(id): JobPath,
    request: Request,
) -> Reply {
    let asked = admit(&service, request).await?;
    let id = job_id(&id)?;
    let store = Arc::clone(&service.store);
    let asking = async move {
        store.request_checkpoint(&asked.who, id).await?;
        store.job(&asked.who, id).await
    };
    let view = service.operate(asking).await?;
    if let (Some(touched), Some(attempt)) = (&service.touched, view.current()) {
        // Full: the agent learns of it with its next renewal.
        let _ = touched.try_send(attempt.holder.agent);
    }
    ok(&Done {})
}

async fn new_epoch(State(service): Shared, request: Request) -> Reply {
    let asked = admit(&service, request).await?;
    let store = Arc::clone(&service.store);
    let epoch = service
        .operate(async move { store.new_epoch(&asked.who).await })
        .await?;
    ok(&EpochReply { epoch })
}

async fn events(State(service): Shared, RawQuery(raw): RawQuery, request: Request) -> Reply {
    let asked = admit(&service, request).await?;
    let wanted: EventsQuery = query(raw)?;
    let wait = Duration::from_millis(wanted.wait_ms).min(service.limits.wait);
    let waited = tokio::time::timeout(wait, first_events(&service, &asked.who, &wanted)).await;
    match waited {
        Ok(page) => ok(&page?),
        Err(_) => {
            let page = service.store.events(&asked.who, wanted.after, wanted.limit);
            ok(&page.await?)
        }
    }
}

/// Waits until there is something after the wanted position. Cancel-safe: it only reads.
async fn first_events(
    service: &Service,
    who: &Principal,
    wanted: &EventsQuery,
) -> StoreResult<EventPage> {
    let mut changes = service.changes.clone();
    loop {
        if let Some(changes) = &mut changes {
            changes.mark_unchanged();
        }
        let page = service
            .store
            .events(who, wanted.after, wanted.limit)
            .await?;
        if !page.events.is_empty() || wanted.wait_ms == 0 {
            return Ok(page);
        }
        let is_told = match &mut changes {
            Some(changes) => changes.changed().await.is_ok(),
            None => false,
        };
        if !is_told {
            tokio::time::sleep(POLL).await;
        }
    }
}
