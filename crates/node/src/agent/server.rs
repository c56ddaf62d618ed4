//! The agent's HTTP interface: health, metrics, logs and offers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures::stream;
use mutual_model::identity::{NodeId, PublicKey};
use mutual_model::ids::JobId;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::logs::{Library, LogReader};
use super::metrics::Metrics;
use super::offers::OfferDesk;
use crate::auth::{LogToken, unix_now};

/// Longest offer: 16 jobs, a certificate and a user's token.
const OFFER_BYTES_MAX: usize = 64 * 1024;
/// How long a WebSocket may take to show its token.
const TOKEN_WITHIN: Duration = Duration::from_secs(5);

/// What the handlers need.
#[derive(Debug, Clone)]
pub(super) struct Doors {
    pub(super) node: NodeId,
    pub(super) trusted: Arc<[PublicKey]>,
    pub(super) logs: Library,
    pub(super) metrics: Metrics,
    pub(super) desk: OfferDesk,
}

/// Serves until `closed`.
pub(super) async fn serve(
    listener: TcpListener,
    doors: Doors,
    closed: CancellationToken,
) -> io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics))
        .route("/v1/jobs/{job}/logs", get(logs))
        .route("/v1/offer", post(offer))
        .layer(DefaultBodyLimit::max(OFFER_BYTES_MAX))
        .with_state(doors);
    axum::serve(listener, router)
        .with_graceful_shutdown(closed.cancelled_owned())
        .await
}

async fn metrics(State(doors): State<Doors>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], doors.metrics.text()).into_response()
}

async fn offer(State(doors): State<Doors>, body: Bytes) -> Response {
    match doors.desk.answer(&body).await {
        Ok(reply) => reply.into_response(),
        Err(error) => Refusal::new(StatusCode::FORBIDDEN, error.to_string()).into_response(),
    }
}

/// Why a request was refused, as JSON.
#[derive(Debug, Serialize)]
struct Refusal {
    #[serde(skip)]
    status: StatusCode,
    error: String,
}

impl Refusal {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self)).into_response()
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    /// Which attempt; the last one here if absent.
    attempt: Option<u32>,
}

async fn logs(
    State(doors): State<Doors>,
    Path(job): Path<JobId>,
    Query(query): Query<LogQuery>,
    headers: HeaderMap,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let pass = match bearer(&headers) {
        Some(token) => match doors.admit(token, job) {
            Ok(()) => Some(()),
            Err(refusal) => return refusal.into_response(),
        },
        None => None,
    };
    match (socket, pass) {
        (Ok(socket), pass) => socket
            .max_message_size(OFFER_BYTES_MAX)
            .on_upgrade(move |socket| talk(socket, doors, job, query.attempt, pass)),
        (Err(_), Some(())) => match doors.logs.read(job, query.attempt) {
            Ok(reader) => json_lines(reader),
            Err(error) => no_log(&error).into_response(),
        },
        (Err(_), None) => {
            let fix = "send a log token: `authorization: Bearer …`";
            Refusal::new(StatusCode::UNAUTHORIZED, fix).into_response()
        }
    }
}

fn no_log(error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::NotFound => Refusal::new(
            StatusCode::NOT_FOUND,
            "this agent has no log of that attempt",
        ),
        _ => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::trim)
}

impl Doors {
    fn admit(&self, token: &str, job: JobId) -> Result<(), Refusal> {
        let token = LogToken::verify(token, &self.node, &self.trusted, unix_now());
        let token =
            token.map_err(|error| Refusal::new(StatusCode::FORBIDDEN, error.to_string()))?;
        match token.job == job {
            true => Ok(()),
            false => Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "the token is for another job",
            )),
        }
    }
}

fn json_lines(reader: LogReader) -> Response {
    let lines = stream::unfold(reader, |mut reader| async move {
        let lines = reader.next().await.transpose()?;
        Some((lines, reader))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (kind, Body::from_stream(lines)).into_response()
}

/// Sends a log over a WebSocket, one message each, after the token was shown.
async fn talk(
    mut socket: WebSocket,
    doors: Doors,
    job: JobId,
    attempt: Option<u32>,
    pass: Option<()>,
) {
    let shown = match pass {
        Some(()) => Ok(()),
        None => ask_token(&mut socket, &doors, job).await,
    };
    let opened = shown.and_then(|()| {
        let reader = doors.logs.read(job, attempt);
        reader.map_err(|error| no_log(&error))
    });
    let sent = match opened {
        Ok(reader) => send_log(&mut socket, reader).await,
        Err(refusal) => {
            let text = serde_json::json!({"type": "error", "error": refusal.error});
            socket.send(Message::text(text.to_string())).await
        }
    };
    if sent.is_ok() {
        let _ = socket.send(Message::Close(None)).await;
    }
}

async fn ask_token(socket: &mut WebSocket, doors: &Doors, job: JobId) -> Result<(), Refusal> {
    let missing = || Refusal::new(StatusCode::UNAUTHORIZED, "send the log token first");
    let first = tokio::time::timeout(TOKEN_WITHIN, socket.recv()).await;
    match first {
        Ok(Some(Ok(Message::Text(token)))) => doors.admit(token.trim(), job),
        _ => Err(missing()),
    }
}

async fn send_log(socket: &mut WebSocket, mut reader: LogReader) -> Result<(), axum::Error> {
    loop {
        let lines = tokio::select! {
            lines = reader.next() => lines,
            said = socket.recv() => match said {
                // Pings are answered below us; anything else is ignored.
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
                Some(Ok(_)) => continue,
            },
        };
        let Ok(Some(lines)) = lines else {
            return Ok(());
        };
        for line in lines.lines() {
            socket.send(Message::text(line)).await?;
        }
    }
}
