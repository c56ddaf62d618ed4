//! The routes: each checks its caller, asks the store in the caller's name, and answers in JSON.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, MatchedPath, Path, RawQuery, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use bytes::Bytes;
use futures::Stream;
use mutual_demand::{JobFilter, JobView, Right};
use mutual_model::ids::{JobId, Namespace};
use mutual_model::job::JobState;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tower_http::timeout::TimeoutLayer;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use super::ControlDeps;
use super::answers::{explanation, known_nodes, log_access, rendered};
use super::body::{
    Explanation, Health, LogAccess, NewTask, NewTasks, NodeView, StoreView, SubmitAnswer, Task,
    TaskPage,
};
use super::counts::Counts;
use super::offer::Offerer;
use super::problem::{ErrorBody, Problem, read_json};
use super::stores::{Caller, Stores};
use super::stream::{Cursor, Subscription, Wanted};

/// Largest request body: a full batch of 1,000 ordinary tasks.
const BODY_BYTES_MAX: usize = 8 << 20;
/// Longest of all headers together; a token takes at most 8 KiB.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Longest time to answer, reading the body included.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// Open event streams at once.
const STREAMS_MAX: usize = 1_024;
/// Tasks in one submission.
const TASKS_MAX: usize = 1_000;
/// Jobs of one page.
const PAGE_MAX: u32 = 1_000;

/// What the routes share.
#[derive(Debug)]
pub(super) struct Shared {
    deps: ControlDeps,
    stores: Stores,
    offerer: Arc<Offerer>,
    counts: Counts,
    streams: Arc<Semaphore>,
}

impl Shared {
    pub(super) fn new(deps: ControlDeps, offerer: Arc<Offerer>, counts: Counts) -> Arc<Self> {
        Arc::new(Self {
            stores: Stores::new(deps.stores.clone()),
            deps,
            offerer,
            counts,
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        })
    }
}

type Served = State<Arc<Shared>>;
type Answer<T> = Result<Json<T>, Problem>;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Mutual Cloud",
        version = "1",
        description = "Submit tasks to a pool of machines and follow them. Every request carries a \
                       user's token; inputs, results and logs travel between peers, not through here."
    ),
    components(schemas(Task, ErrorBody)),
    modifiers(&BearerToken)
)]
struct Document;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("Biscuit")
            .build();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(submit, list))
        .routes(routes!(show, cancel))
        .routes(routes!(manifest))
        .routes(routes!(checkpoint))
        .routes(routes!(logs))
        .routes(routes!(explain))
        .routes(routes!(task_events))
        .routes(routes!(events))
        .routes(routes!(nodes))
        .routes(routes!(store))
        .routes(routes!(health))
        .routes(routes!(metrics))
}

/// The OpenAPI document, generated from the routes.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().to_openapi()
}

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let (router, document) = routes().split_for_parts();
    let timeout = TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, ANSWER_TIME_MAX);
    router
        .with_state(Arc::clone(&shared))
        .merge(SwaggerUi::new("/docs").url("/openapi.json", document))
        .fallback(|| async { Problem::new(StatusCode::NOT_FOUND, "no_such_path", "see /docs") })
        .method_not_allowed_fallback(|| async {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            Problem::new(status, "method_not_allowed", "see /docs")
        })
        .layer(timeout)
        .layer(middleware::from_fn_with_state(shared, observe))
}

/// Refuses oversized headers and counts every answer.
async fn observe(State(shared): Served, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("other", MatchedPath::as_str).to_owned();
    let response = match check_headers(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    let status = response.status().as_u16();
    let counts = &shared.counts;
    counts.answered(method.as_str(), &route, status, started.elapsed());
    response
}

fn check_headers(headers: &HeaderMap) -> Result<(), Problem> {
    let lengths = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    let bytes: usize = lengths.sum();
    if bytes <= HEADER_BYTES_MAX {
        return Ok(());
    }
    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    let message = format!("headers of {bytes} bytes: send at most {HEADER_BYTES_MAX}");
    Err(Problem::new(status, "headers_too_large", message))
}

/// Finds out who asks. Users only: their token goes on to the store.
fn admit(shared: &Shared, parts: &Parts) -> Result<Caller, Problem> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let who = shared
        .deps
        .gate
        .check(&parts.method, path, &parts.headers, b"")?;
    let authorization = parts.headers.get(header::AUTHORIZATION).cloned();
    match authorization {
        Some(authorization) if who.node.is_none() => Ok(Caller { who, authorization }),
        _ => Err(Problem::nodes_go_to_the_store()),
    }
}

/// Finds out who asks and reads the whole body within its limit.
async fn admit_body(shared: &Shared, request: Request) -> Result<(Caller, Bytes), Problem> {
    let (parts, body) = request.into_parts();
    let caller = admit(shared, &parts)?;
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await;
    let body = body.map_err(|_| {
        let message = format!("the body was cut off or has more than {BODY_BYTES_MAX} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    })?;
    Ok((caller, body))
}

/// The job that the path names.
pub(crate) struct TaskId(pub(crate) JobId);

impl<S: Send + Sync> FromRequestParts<S> for TaskId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let fix = "use the UUID that submitting gave";
        let bad = || Problem::invalid("id", "not a job id", fix);
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| bad())?;
        text.parse().map(Self).map_err(|_| bad())
    }
}

fn query<T: DeserializeOwned>(raw: Option<String>) -> Result<T, Problem> {
    let bad = |problem: String| Problem::invalid("query", problem, "see /docs");
    let uri = format!("http://x/?{}", raw.unwrap_or_default());
    let uri = uri.parse().map_err(|_| bad("not a query".into()))?;
    let query = axum::extract::Query::<T>::try_from_uri(&uri);
    query
        .map(|query| query.0)
        .map_err(|error| bad(error.body_text()))
}

/// Submits one task, or up to 1,000 as an array: all are stored or none.
#[utoipa::path(
    post, path = "/api/tasks", tag = "tasks", security(("token" = [])),
    request_body(
        content = NewTask,
        description = "One task, an array of them, or an object with the array as `tasks`."
    ),
    responses(
        (status = 201, description = "Stored", body = SubmitAnswer),
        (status = 400, description = "Not JSON", body = ErrorBody),
        (status = 401, description = "No valid token", body = ErrorBody),
        (status = 403, description = "Right or namespace is missing", body = ErrorBody),
        (status = 409, description = "The client key stands for another task", body = ErrorBody),
        (status = 413, description = "Too large", body = ErrorBody),
        (status = 422, description = "A field is out of bounds", body = ErrorBody),
        (status = 504, description = "Unknown whether it was stored: repeat it", body = ErrorBody)
    )
)]
async fn submit(
    State(shared): Served,
    request: Request,
) -> Result<(StatusCode, Json<SubmitAnswer>), Problem> {
    let (caller, body) = admit_body(&shared, request).await?;
    let tasks = new_tasks(&body)?;
    if tasks.is_empty() || tasks.len() > TASKS_MAX {
        let problem = format!("{} tasks", tasks.len());
        return Err(Problem::invalid(
            "body",
            problem,
            "send 1 to 1,000 tasks at once",
        ));
    }
    let tasks = tasks.into_iter().map(NewTask::into_submission).collect();
    let (submitted, store) = shared.stores.submit(&caller, tasks).await?;
    let answer = SubmitAnswer {
        tasks: submitted.into_iter().map(Into::into).collect(),
        store,
        seeding: shared.deps.seeding.clone(),
        bootstrap: shared.deps.bootstrap.clone(),
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

fn new_tasks(body: &[u8]) -> Result<Vec<NewTask>, Problem> {
    if body.trim_ascii_start().first() == Some(&b'[') {
        return read_json(body);
    }
    let is_list =
        serde_json::from_slice::<TasksProbe>(body).is_ok_and(|probe| probe.tasks.is_some());
    if is_list {
        return read_json::<NewTasks>(body).map(|list| list.tasks);
    }
    read_json(body).map(|task| vec![task])
}

/// Tells a list of tasks from a task.
#[derive(Deserialize)]
struct TasksProbe {
    tasks: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// Only this namespace.
    #[param(value_type = Option<String>)]
    namespace: Option<Namespace>,
    /// Only these states, separated by commas.
    state: Option<String>,
    /// Only tasks whose name starts with this.
    #[serde(alias = "name")]
    name_prefix: Option<String>,
    /// The page after this task: `next` of the page before.
    #[param(value_type = Option<uuid::Uuid>)]
    before: Option<JobId>,
    /// At most this many, up to 1,000; 100 if absent or 0.
    #[serde(default)]
    limit: u32,
}

impl ListQuery {
    fn filter(self) -> Result<JobFilter, Problem> {
        let limit = self.limit;
        if limit > PAGE_MAX {
            let problem = format!("{limit} is out of range");
            return Err(Problem::invalid("limit", problem, "give 1 to 1,000"));
        }
        let names = self.state.as_deref().unwrap_or_default();
        let names = names.split(',').filter(|name| !name.is_empty());
        Ok(JobFilter {
            namespace: self.namespace,
            states: names
                .map(str::parse::<JobState>)
                .collect::<Result<_, _>>()?,
            name_prefix: self.name_prefix,
            holder: None,
            before: self.before,
            limit,
        })
    }
}

/// Lists tasks, newest first.
#[utoipa::path(
    get, path = "/api/tasks", tag = "tasks", security(("token" = [])), params(ListQuery),
    responses(
        (status = 200, body = TaskPage),
        (status = 401, body = ErrorBody),
        (status = 422, body = ErrorBody)
    )
)]
async fn list(
    State(shared): Served,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Answer<TaskPage> {
    let caller = admit(&shared, &request.into_parts().0)?;
    let filter = query::<ListQuery>(raw)?.filter()?;
    Ok(Json(shared.stores.list(&caller, &filter).await?.into()))
}

/// Shows one task.
#[utoipa::path(
    get, path = "/api/tasks/{id}", tag = "tasks", security(("token" = [])),
    params(("id" = uuid::Uuid, Path)),
    responses(
        (status = 200, body = Task),
        (status = 401, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 422, body = ErrorBody)
    )
)]
async fn show(State(shared): Served, TaskId(id): TaskId, request: Request) -> Answer<JobView> {
    let caller = admit(&shared, &request.into_parts().0)?;
    let (_, view) = shared.stores.find(&caller, id).await?;
    Ok(Json(view))
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct CancelQuery {
    /// Why, for whoever looks at it later.
    reason: Option<String>,
}

/// Ends a task. One that is over is left as it is.
#[utoipa::path(
    delete, path = "/api/tasks/{id}", tag = "tasks", security(("token" = [])),
    params(("id" = uuid::Uuid, Path), CancelQuery),
    responses(
        (status = 200, body = Task),
        (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody)
    )
)]
async fn cancel(
    State(shared): Served,
    TaskId(id): TaskId,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Answer<JobView> {
    let caller = admit(&shared, &request.into_parts().0)?;
    let asked = query::<CancelQuery>(raw)?;
    let by = || format!("cancelled by {}", caller.who.subject);
    let reason = asked.reason.unwrap_or_else(by);
    let view = shared.stores.cancel(&caller, id, &reason).await?;
    Ok(Json(view))
}

/// Attaches the input that a task waits for, and queues it.
#[utoipa::path(
    post, path = "/api/tasks/{id}/manifest", tag = "tasks", security(("token" = [])),
    params(("id" = uuid::Uuid, Path)),
    request_body(content = serde_json::Value, description = "The manifest of the input."),
    responses(
        (status = 200, body = Task),
        (status = 401, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 409, description = "Another input is attached", body = ErrorBody),
        (status = 422, body = ErrorBody)
    )
)]
async fn manifest(State(shared): Served, TaskId(id): TaskId, request: Request) -> Answer<JobView> {
    let (caller, body) = admit_body(&shared, request).await?;
    let view = shared.stores.attach(&caller, id, read_json(&body)?).await?;
    Ok(Json(view))
}

/// Asks for a checkpoint of a task that an agent holds. The task as it is now comes back; its
/// `checkpoints` show the new one once another peer holds it.
#[utoipa::path(
    post, path = "/api/tasks/{id}/checkpoint", tag = "tasks", security(("token" = [])),
    params(("id" = uuid::Uuid, Path)),
    responses(
        (status = 202, description = "Asked", body = Task),
        (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 409, description = "No agent holds it", body = ErrorBody)
    )
)]
async fn checkpoint(
    State(shared): Served,
    TaskId(id): TaskId,
    request: Request,
) -> Result<(StatusCode, Json<JobView>), Problem> {
    let caller = admit(&shared, &request.into_parts().0)?;
    let view = shared.stores.request_checkpoint(&caller, id).await?;
    Ok((StatusCode::ACCEPTED, Json(view)))
}

/// Says which agents have a task's log, with a short-lived token for each.
#[utoipa::path(
    get, path = "/api/tasks/{id}/logs", tag = "tasks", security(("token" = [])),
    params(("id" = uuid::Uuid, Path)),
    responses(
        (status = 200, body = LogAccess),
        (status = 401, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 409, description = "No agent has held it yet", body = ErrorBody)
    )
)]
async fn logs(State(shared): Served, TaskId(id): TaskId, request: Request) -> Answer<LogAccess> {
    let caller = admit(&shared, &request.into_parts().0)?;
    let (_, view) = shared.stores.find(&caller, id).await?;
    log_access(&view, &shared.deps.signer).map(Json)
}

/// Says why a task is where it is: what the store knows, and why agents left it.
#[utoipa::path(
    get, path = "/api/tasks/{id}/explain", tag = "tasks", security(("token" = [])),
    params(("id" = uuid::Uuid, Path)),
    responses(
        (status = 200, body = Explanation),
        (status = 401, body = ErrorBody),
        (status = 404, body = ErrorBody)
    )
)]
async fn explain(
    State(shared): Served,
    TaskId(id): TaskId,
    request: Request,
) -> Answer<Explanation> {
    let caller = admit(&shared, &request.into_parts().0)?;
    let (_, view) = shared.stores.find(&caller, id).await?;
    Ok(Json(explanation(view, &shared.offerer).await))
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    /// Only this namespace.
    #[param(value_type = Option<String>)]
    namespace: Option<Namespace>,
    /// Where to go on, for clients that cannot send `Last-Event-ID`; the id `0` is the beginning
    /// if there is one store.
    after: Option<String>,
}

type Events = Sse<axum::response::sse::KeepAliveStream<BoxedEvents>>;
type BoxedEvents = std::pin::Pin<Box<dyn Stream<Item = Result<Event, Infallible>> + Send>>;

/// How often an idle stream shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

fn subscribe(
    shared: &Shared,
    caller: &Caller,
    wanted: Wanted,
    after: Option<&str>,
) -> Result<Events, Problem> {
    if !caller.who.rights.contains(&Right::Read) {
        let message = "the token does not hold the right read";
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", message));
    }
    let permit = Arc::clone(&shared.streams)
        .try_acquire_owned()
        .map_err(|_| {
            let message = "too many event streams are open here: try again or ask another control";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message)
        })?;
    let stores = shared.stores.for_caller(caller);
    let cursor = after
        .map(|text| Cursor::parse(text, stores.len()))
        .transpose()?;
    let stream = Subscription::new(stores, wanted, cursor, permit).into_stream();
    let stream: BoxedEvents = Box::pin(stream);
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// The id to go on from: the header, which browsers send by themselves, before the query.
fn resume_from(headers: &HeaderMap, query: Option<String>) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(query);
    };
    let text = value.to_str().map_err(|_| {
        Problem::invalid(
            "Last-Event-ID",
            "not ASCII",
            "send back the last id received",
        )
    })?;
    Ok(Some(text.to_owned()))
}

/// One task's changes as server-sent events, from its beginning or after `Last-Event-ID`; the
/// stream ends with the task.
#[utoipa::path(
    get, path = "/api/tasks/{id}/events", tag = "events", security(("token" = [])),
    params(("id" = uuid::Uuid, Path), EventsQuery, ("Last-Event-ID" = Option<String>, Header)),
    responses(
        (status = 200, description = "Events named `state`", content_type = "text/event-stream"),
        (status = 401, body = ErrorBody),
        (status = 404, body = ErrorBody)
    )
)]
async fn task_events(
    State(shared): Served,
    TaskId(id): TaskId,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Events, Problem> {
    let parts = request.into_parts().0;
    let caller = admit(&shared, &parts)?;
    shared.stores.find(&caller, id).await?;
    let after = resume_from(&parts.headers, query::<EventsQuery>(raw)?.after)?;
    subscribe(&shared, &caller, Wanted::Task(id), after.as_deref())
}

/// All changes that the caller may see as server-sent events, from now on or after
/// `Last-Event-ID`.
#[utoipa::path(
    get, path = "/api/events", tag = "events", security(("token" = [])),
    params(EventsQuery, ("Last-Event-ID" = Option<String>, Header)),
    responses(
        (status = 200, description = "Events named `state`", content_type = "text/event-stream"),
        (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody)
    )
)]
async fn events(
    State(shared): Served,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Events, Problem> {
    let parts = request.into_parts().0;
    let caller = admit(&shared, &parts)?;
    let asked = query::<EventsQuery>(raw)?;
    let after = resume_from(&parts.headers, asked.after)?;
    let wanted = Wanted::Namespace(asked.namespace);
    subscribe(&shared, &caller, wanted, after.as_deref())
}

/// Lists the nodes known in the caller's namespaces.
#[utoipa::path(
    get, path = "/api/nodes", tag = "cloud", security(("token" = [])),
    responses((status = 200, body = Vec<NodeView>), (status = 401, body = ErrorBody))
)]
async fn nodes(State(shared): Served, request: Request) -> Answer<Vec<NodeView>> {
    let caller = admit(&shared, &request.into_parts().0)?;
    let nodes = known_nodes(&shared.offerer, &caller.who.namespaces).await;
    Ok(Json(nodes))
}

/// Shows the demand stores behind this control.
#[utoipa::path(
    get, path = "/api/store", tag = "cloud", security(("token" = [])),
    responses((status = 200, body = Vec<StoreView>), (status = 401, body = ErrorBody))
)]
async fn store(State(shared): Served, request: Request) -> Answer<Vec<StoreView>> {
    let caller = admit(&shared, &request.into_parts().0)?;
    let infos = shared.stores.infos(&caller).await;
    let shown = infos.into_iter().map(|(url, info)| StoreView {
        url,
        problem: info.as_ref().err().map(ToString::to_string),
        info: info.ok(),
    });
    Ok(Json(shown.collect()))
}

/// Says that this process works. Needs no token.
#[utoipa::path(get, path = "/healthz", tag = "cloud", responses((status = 200, body = Health)))]
async fn health() -> Json<Health> {
    Json(Health {
        status: "ok",
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// Counters and histograms for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "cloud", security(("token" = [])),
    responses(
        (status = 200, description = "OpenMetrics text", content_type = "text/plain", body = String),
        (status = 401, body = ErrorBody)
    )
)]
async fn metrics(State(shared): Served, request: Request) -> Result<Response, Problem> {
    let parts = request.into_parts().0;
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    shared
        .deps
        .gate
        .check(&parts.method, path, &parts.headers, b"")?;
    Ok(rendered(&shared.counts))
}
