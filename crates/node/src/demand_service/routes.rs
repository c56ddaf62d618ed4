//! What a demand server answers beside the store: liveness, logs, explanations, health, metrics.
//!
//! With these a user's program finds everything it needs here when no control is left.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use mutual_demand::{DemandStore, Principal};

use crate::auth::{Gate, NodeSigner};
use crate::control::counts::Counts;
use crate::control::offer::Offerer;
use crate::control::{LogAccess, Problem, TaskId, explanation, log_access, rendered};
use crate::liveness::SessionPlace;

#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) store: Arc<dyn DemandStore>,
    pub(super) gate: Gate,
    pub(super) signer: NodeSigner,
    pub(super) offerer: Arc<Offerer>,
    pub(super) counts: Counts,
    pub(super) liveness_port: u16,
}

pub(super) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .route("/v1/session", get(session))
        .route("/v1/nodes", get(nodes))
        .route("/jobs/{id}/logs", get(logs))
        .route("/jobs/{id}/explain", get(explain))
        .with_state(Arc::new(shared))
}

type Served = State<Arc<Shared>>;

impl Shared {
    fn admit(&self, request: &Request) -> Result<Principal, Problem> {
        let uri = request.uri();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(self
            .gate
            .check(request.method(), path, request.headers(), b"")?)
    }
}

async fn health() -> Response {
    (StatusCode::OK, Json(serde_json::json!({"status": "ok"}))).into_response()
}

async fn metrics(State(shared): Served, request: Request) -> Result<Response, Problem> {
    shared.admit(&request)?;
    Ok(rendered(&shared.counts))
}

/// Needs no credential: whoever opens a session there proves itself in its hello.
async fn session(State(shared): Served) -> Json<SessionPlace> {
    let port = shared.liveness_port;
    Json(SessionPlace { port })
}

async fn nodes(State(shared): Served, request: Request) -> Result<Response, Problem> {
    let who = shared.admit(&request)?;
    let nodes = crate::control::known_nodes(&shared.offerer, &who.namespaces).await;
    Ok(Json(nodes).into_response())
}

async fn logs(
    State(shared): Served,
    TaskId(id): TaskId,
    request: Request,
) -> Result<Json<LogAccess>, Problem> {
    let who = shared.admit(&request)?;
    let view = shared.store.job(&who, id).await?;
    log_access(&view, &shared.signer).map(Json)
}

async fn explain(
    State(shared): Served,
    TaskId(id): TaskId,
    request: Request,
) -> Result<Response, Problem> {
    let who = shared.admit(&request)?;
    let view = shared.store.job(&who, id).await?;
    Ok(Json(explanation(view, &shared.offerer).await).into_response())
}
