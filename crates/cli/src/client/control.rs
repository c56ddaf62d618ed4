//! REST to whichever control server answers. Every request carries the user's own token, which
//! control forwards: it has no rights of its own over anybody's jobs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mutual_node::demand::{JobFilter, JobPage, JobView, Submission};
use mutual_node::model::ids::JobId;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Explanation, LogAccess};
use crate::failure::{Failure, Outcome};

/// How long a control server may take to be reached: the next one is tried after it.
const CONNECT: Duration = Duration::from_millis(700);
/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(15);

/// Longest answer: a page of a thousand jobs fits well within.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Control servers, tried in turn from the one that answered last.
#[derive(Debug)]
pub(super) struct Control {
    http: reqwest::Client,
    urls: Vec<String>,
    last: AtomicUsize,
    bearer: HeaderValue,
}

#[derive(Serialize)]
struct SubmitBody<'a> {
    tasks: &'a [Submission],
}

#[derive(Deserialize)]
struct SubmitReply {
    tasks: Vec<Accepted>,
}

#[derive(Deserialize)]
struct Accepted {
    job_id: JobId,
}

#[derive(Deserialize)]
struct PageReply {
    tasks: Vec<JobView>,
    next: Option<JobId>,
    possibly_old: bool,
}

#[derive(Deserialize)]
struct LogsReply {
    streams: Vec<LogStream>,
}

#[derive(Deserialize)]
struct LogStream {
    url: String,
    token: String,
}

impl LogsReply {
    /// The current or last holder's stream.
    fn first(self) -> Outcome<LogAccess> {
        let stream = self.streams.into_iter().next();
        let stream = stream.ok_or_else(|| Failure::user("no agent has a log of this job"))?;
        Ok(LogAccess {
            url: stream.url,
            token: Zeroizing::new(stream.token),
        })
    }
}

/// What a server says when it did not do it.
#[derive(Deserialize)]
struct ErrorReply {
    error: ErrorDetail,
}

#[derive(Deserialize)]
struct ErrorDetail {
    message: String,
    #[serde(default)]
    fix: Option<String>,
}

/// How one server dealt with a request.
enum Dealt<T> {
    Answered(Outcome<T>),
    /// Nobody there, or not able to serve: the next may be.
    Absent(String),
}

impl Control {
    pub(super) fn new(urls: Vec<String>, token: &str) -> Outcome<Self> {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| Failure::configuration("the token holds characters no token has"))?;
        bearer.set_sensitive(true);
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(Failure::internal)?;
        Ok(Self {
            http,
            urls,
            last: AtomicUsize::new(0),
            bearer,
        })
    }

    /// The user's credential, for other servers.
    pub(super) fn bearer(&self) -> HeaderValue {
        self.bearer.clone()
    }

    pub(super) async fn submit(&self, tasks: &[Submission]) -> Outcome<Vec<JobId>> {
        let body = serde_json::to_value(SubmitBody { tasks }).map_err(Failure::internal)?;
        let reply: SubmitReply = self
            .ask(Method::POST, "/api/tasks", &[], Some(body))
            .await?;
        Ok(reply
            .tasks
            .into_iter()
            .map(|accepted| accepted.job_id)
            .collect())
    }

    pub(super) async fn job(&self, job: JobId) -> Outcome<JobView> {
        self.ask(Method::GET, &format!("/api/tasks/{job}"), &[], None)
            .await
    }

    pub(super) async fn jobs(&self, filter: &JobFilter) -> Outcome<JobPage> {
        let mut query: Vec<(&str, String)> = vec![("limit", filter.limit.to_string())];
        query.extend(
            filter
                .namespace
                .iter()
                .map(|name| ("namespace", name.to_string())),
        );
        query.extend(
            filter
                .name_prefix
                .iter()
                .map(|name| ("name_prefix", name.clone())),
        );
        query.extend(filter.before.iter().map(|job| ("before", job.to_string())));
        let states: Vec<_> = filter.states.iter().map(ToString::to_string).collect();
        if !states.is_empty() {
            query.push(("state", states.join(",")));
        }
        let reply: PageReply = self.ask(Method::GET, "/api/tasks", &query, None).await?;
        Ok(JobPage {
            jobs: reply.tasks,
            next: reply.next,
            possibly_old: reply.possibly_old,
        })
    }

    pub(super) async fn cancel(&self, job: JobId, reason: &str) -> Outcome<JobView> {
        let words = [("reason", reason.to_owned())];
        let query = if reason.is_empty() {
            &words[..0]
        } else {
            &words[..]
        };
        self.ask(Method::DELETE, &format!("/api/tasks/{job}"), query, None)
            .await
    }

    pub(super) async fn request_checkpoint(&self, job: JobId) -> Outcome<JobView> {
        self.ask(
            Method::POST,
            &format!("/api/tasks/{job}/checkpoint"),
            &[],
            None,
        )
        .await
    }

    pub(super) async fn log_access(&self, job: JobId) -> Outcome<LogAccess> {
        let reply: LogsReply = self
            .ask(Method::GET, &format!("/api/tasks/{job}/logs"), &[], None)
            .await?;
        reply.first()
    }

    /// The same of a demand server, which answers it too.
    pub(super) async fn log_access_at(&self, servers: &[String], job: JobId) -> Outcome<LogAccess> {
        let path = format!("/jobs/{job}/logs");
        let reply: LogsReply = self
            .ask_any(servers, 0, Method::GET, &path, &[], None)
            .await?
            .1;
        reply.first()
    }

    pub(super) async fn explain(&self, job: JobId) -> Outcome<Explanation> {
        self.ask(Method::GET, &format!("/api/tasks/{job}/explain"), &[], None)
            .await
    }

    /// The same of a demand server.
    pub(super) async fn explain_at(&self, servers: &[String], job: JobId) -> Outcome<Explanation> {
        let path = format!("/jobs/{job}/explain");
        Ok(self
            .ask_any(servers, 0, Method::GET, &path, &[], None)
            .await?
            .1)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<serde_json::Value>,
    ) -> Outcome<T> {
        let first = self.last.load(Ordering::Relaxed);
        let (at, answer) = self
            .ask_any(&self.urls, first, method, path, query, body)
            .await?;
        self.last.store(at, Ordering::Relaxed);
        Ok(answer)
    }

    async fn ask_any<T: DeserializeOwned>(
        &self,
        servers: &[String],
        first: usize,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<serde_json::Value>,
    ) -> Outcome<(usize, T)> {
        let mut absent = Vec::new();
        for step in 0..servers.len() {
            let at = (first + step) % servers.len();
            let server = servers[at].trim_end_matches('/');
            let mut request = self.http.request(method.clone(), format!("{server}{path}"));
            request = request
                .query(query)
                .header(AUTHORIZATION, self.bearer.clone());
            if let Some(body) = &body {
                request = request.json(body);
            }
            match deal(request).await {
                Dealt::Answered(answer) => return Ok((at, answer?)),
                Dealt::Absent(why) => absent.push(format!("{server}: {why}")),
            }
        }
        let who = if absent.is_empty() {
            "no control server is named".to_owned()
        } else {
            absent.join("; ")
        };
        Err(Failure::unavailable(who).hint("is it running? `mutual up` starts a cloud of your own"))
    }
}

async fn deal<T: DeserializeOwned>(request: reqwest::RequestBuilder) -> Dealt<T> {
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => return Dealt::Absent(root_cause(&error)),
    };
    let status = response.status();
    let body = match body_of(response).await {
        Ok(body) => body,
        Err(why) => return Dealt::Absent(why),
    };
    if status.is_success() {
        let read = serde_json::from_slice(&body);
        return Dealt::Answered(read.map_err(|error| {
            Failure::internal(format!("the server's answer is not understood: {error}"))
        }));
    }
    match refusal(status, &body) {
        failure if failure.kind == crate::failure::Kind::Unavailable => {
            Dealt::Absent(failure.message)
        }
        failure => Dealt::Answered(Err(failure)),
    }
}

async fn body_of(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| root_cause(&error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err("its answer is too long".to_owned());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    let (message, fix) = match serde_json::from_slice::<ErrorReply>(body) {
        Ok(reply) => (reply.error.message, reply.error.fix),
        Err(_) => {
            let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
            (format!("the server answered {status}: {text}"), None)
        }
    };
    let failure = match status {
        StatusCode::UNAUTHORIZED => {
            Failure::user(message).hint("your organisation makes tokens with `mutual org token`")
        }
        StatusCode::FORBIDDEN => Failure::user(message)
            .hint("ask your organisation for a token with that right: `mutual org token`"),
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Failure::unavailable(message)
        }
        status if status.is_server_error() => Failure::internal(message),
        _ => Failure::user(message),
    };
    match fix {
        Some(fix) => failure.hint(fix),
        None => failure,
    }
}

/// What lies at the bottom of a chain of errors; the layers above only say "error sending request".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
