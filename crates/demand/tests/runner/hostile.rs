//! What bad input gets from the service: a status, a message that names field and fix, and nothing stored.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::{Method, StatusCode, header};
use mutual_demand::memory::MemoryStore;
use mutual_demand::*;
use mutual_model::job::{Failure, JobState};
use mutual_model::lease::Claim;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::failover::{claim_request, memory, submission, worker};
use super::http::serve;

/// A served store and somebody who asks it badly.
struct Victim {
    store: Arc<MemoryStore>,
    address: SocketAddr,
    http: reqwest::Client,
}

impl Victim {
    async fn new() -> Self {
        let store = memory(1);
        Self {
            address: serve(store.clone()).await,
            store,
            http: reqwest::Client::new(),
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> (u16, Value) {
        let request = self
            .http
            .request(method, format!("http://{}{path}", self.address))
            .header(
                header::AUTHORIZATION,
                serde_json::to_string(&worker()).unwrap(),
            )
            .body(body);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (status, value)
    }

    /// Asks, and checks the status, the field, and what the message says of it and of the fix.
    async fn check(&self, ask: (Method, &str, Vec<u8>), status: u16, field: &str, said: &str) {
        let (method, path, body) = ask;
        let (found, answer) = self.ask(method, path, body).await;
        let error = &answer["error"];
        assert_eq!(found, status, "{path} {field}: {answer}");
        assert_eq!(error["field"], field, "{path}: {answer}");
        let message = error["message"].as_str().unwrap();
        let fix = error["fix"].as_str().unwrap();
        assert!(!fix.is_empty() && message.ends_with(fix), "{message}");
        assert!(
            message.starts_with(field) && message.contains(said),
            "{message}"
        );
    }

    async fn stored(&self) -> Vec<JobView> {
        let everything = JobFilter::default();
        self.store.jobs(&worker(), &everything).await.unwrap().jobs
    }

    /// A job that the worker holds.
    async fn held(&self) -> Claim {
        let who = worker();
        self.store
            .submit(&who, vec![submission("held")])
            .await
            .unwrap();
        let reply = self.store.try_claim(&who, claim_request()).await.unwrap();
        reply.grants[0].claim
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

fn post(path: &str, body: &Value) -> (Method, String, Vec<u8>) {
    (Method::POST, path.to_owned(), bytes(body))
}

fn task(pointer: &str, value: Value) -> Value {
    let mut task = serde_json::to_value(submission("bad")).unwrap();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    task.pointer_mut(parent).unwrap()[name] = value;
    json!({"tasks": [task]})
}

#[tokio::test]
async fn bad_submissions_are_named_and_none_is_stored() {
    let victim = Victim::new().await;
    for (pointer, value, field, said) in [
        ("/colour", json!("red"), "tasks[0].colour", "unknown field"),
        (
            "/spec/colour",
            json!("red"),
            "tasks[0].spec.colour",
            "unknown field",
        ),
        (
            "/namespace",
            json!("Lab"),
            "tasks[0].namespace",
            "namespace",
        ),
        (
            "/client_key",
            json!("a b"),
            "tasks[0].client_key",
            "client_key",
        ),
        ("/spec/resources/cpu_millis", json!(0), "cpus", "0"),
        (
            "/spec/resources/cpu_millis",
            json!(-1),
            "tasks[0].spec.resources.cpu_millis",
            "-1",
        ),
        (
            "/spec/resources/cpu_millis",
            json!(4_000_000_000_u64),
            "cpus",
            "4000000000",
        ),
        ("/spec/resources/memory_bytes", json!(0), "memory", "0"),
        (
            "/spec/resources/memory_bytes",
            json!(u64::MAX),
            "memory",
            "18446744073709551615",
        ),
        ("/spec/resources/gpus", json!(5_000), "gpus", "5000"),
        (
            "/spec/resources/scratch_bytes",
            json!(u64::MAX),
            "scratch",
            "18446744073709551615",
        ),
        ("/spec/timeout_ms", json!(0), "timeout", "0"),
        ("/spec/retries", json!(101), "retries", "101"),
        ("/spec/command", json!(["a\0b"]), "command", ""),
        (
            "/spec/env",
            json!({"MUTUAL_JOB": "1"}),
            "env.MUTUAL_JOB",
            "",
        ),
    ] {
        let body = bytes(&task(pointer, value));
        victim
            .check((Method::POST, "/jobs", body), 422, field, said)
            .await;
    }
    for (body, field, said) in [
        (b"".to_vec(), "body", ""),
        (b"{".to_vec(), "body", ""),
        (b"\xff\xfe{}".to_vec(), "body", "UTF-8"),
        (b"{\"tasks\":[\"\xff\"]}".to_vec(), "body", "byte 11"),
        (b"{\"tasks\": []} {}".to_vec(), "body", "trailing"),
        (
            b"{\"tasks\": [], \"colour\": 1}".to_vec(),
            "colour",
            "unknown field",
        ),
    ] {
        victim
            .check((Method::POST, "/jobs", body), 422, field, said)
            .await;
    }
    let good = serde_json::to_value(submission("good")).unwrap();
    let many = bytes(&json!({"tasks": vec![good; 1_001]}));
    victim
        .check((Method::POST, "/jobs", many), 422, "tasks", "1001")
        .await;
    assert!(victim.stored().await.is_empty());
}

#[tokio::test]
async fn one_bad_task_of_many_stores_none() {
    let victim = Victim::new().await;
    let mut body = json!({"tasks": [submission("one"), submission("two")]});
    body["tasks"][1]["spec"]["resources"]["cpu_millis"] = json!(0);
    victim
        .check((Method::POST, "/jobs", bytes(&body)), 422, "cpus", "0")
        .await;
    assert!(victim.stored().await.is_empty());
}

#[tokio::test]
async fn bad_requests_about_a_job_change_nothing() {
    let victim = Victim::new().await;
    let claim = victim.held().await;
    let at = |what: &str| format!("/jobs/{}/{what}", claim.job);
    let ask = serde_json::to_value(claim_request()).unwrap();
    let asked = |pointer: &str, value: Value| {
        let mut ask = ask.clone();
        *ask.pointer_mut(pointer).unwrap() = value;
        ask
    };
    let elsewhere = format!("/jobs/{}/release", uuid::Uuid::nil());
    let release = |reason: String| json!({"claim": claim, "reason": reason});
    let held = json!({"claim": claim, "phase": "running"});
    let renewal = json!({"incarnation": claim_request().incarnation, "held": vec![held; 4_097], "complete": false});
    let jobs = vec![claim.job; 257];
    for ((method, path, body), field, said) in [
        (
            post("/try-claim", &asked("/offer/slots", json!(0))),
            "offer.slots",
            "0",
        ),
        (
            post("/try-claim", &asked("/offer/slots", json!(-1))),
            "offer.slots",
            "-1",
        ),
        (
            post("/try-claim", &asked("/offer/slots", json!(1_000_000))),
            "offer.slots",
            "1000000",
        ),
        (
            post("/try-claim", &asked("/scope", json!({"jobs": jobs}))),
            "scope.jobs",
            "257",
        ),
        (
            post("/try-claim", &asked("/agent_url", json!("x".repeat(300)))),
            "agent_url",
            "300",
        ),
        (
            post("/try-claim", &asked("/nonce", json!("zz"))),
            "nonce",
            "",
        ),
        (post("/renew", &renewal), "held", "4097"),
        (
            post(&at("release"), &release("x".repeat(2_000))),
            "reason",
            "2000",
        ),
        (
            post(&elsewhere, &release("mine".into())),
            "claim.job",
            "another job",
        ),
        (
            post(&at("cancel"), &json!({"reason": "x".repeat(2_000)})),
            "reason",
            "2000",
        ),
        (post("/requeue", &json!({"limit": 0})), "limit", "0"),
        (
            post("/revoke", &json!({"colour": 1})),
            "colour",
            "unknown field",
        ),
    ] {
        victim.check((method, &path, body), 422, field, said).await;
    }
    let view = &victim.stored().await[0];
    assert_eq!((view.state, view.attempts_counted), (JobState::Assigned, 0));
}

fn finish(claim: Claim, outcome: Outcome) -> FinishRequest {
    FinishRequest {
        claim,
        outcome,
        result: ResultView {
            output: None,
            artifacts: Vec::new(),
            log: None,
            metrics: Metrics::default(),
        },
    }
}

#[tokio::test]
async fn stale_fences_and_second_finishes_change_nothing() {
    let victim = Victim::new().await;
    let claim = victim.held().await;
    let path = format!("/jobs/{}/finish", claim.job);
    let send = async |request: &FinishRequest| {
        let body = serde_json::to_vec(request).unwrap();
        let (status, answer) = victim.ask(Method::POST, &path, body).await;
        (status, answer["error"]["code"].as_str().map(str::to_owned))
    };
    let mut stale = finish(claim, Outcome::Success);
    stale.claim.fence.sequence += 1;
    assert_eq!(send(&stale).await, (412, Some("fenced".into())));
    assert_eq!(victim.stored().await[0].state, JobState::Assigned);
    let good = finish(claim, Outcome::Success);
    assert_eq!(send(&good).await, (200, None));
    let other = finish(claim, Outcome::Failure(Failure::OutOfMemory));
    assert_eq!(send(&other).await, (409, Some("conflict".into())));
    assert_eq!(
        send(&good).await,
        (200, None),
        "the same again is answered alike"
    );
    let view = &victim.stored().await[0];
    assert_eq!(
        (view.state, view.attempts_counted),
        (JobState::Succeeded, 0)
    );
}

#[tokio::test]
async fn one_unreadable_finish_of_many_is_refused_alone() {
    let victim = Victim::new().await;
    let claim = victim.held().await;
    let good = serde_json::to_value(finish(claim, Outcome::Success)).unwrap();
    let mut bad = good.clone();
    bad["result"]["metrics"]["cpu_avg"] = Value::Null;
    let body = bytes(&json!({"finishes": [bad, "nonsense", good]}));
    let (status, answer) = victim.ask(Method::POST, "/finish", body).await;
    assert_eq!(status, 200, "{answer}");
    let refused = |place: usize| {
        answer["replies"][place]["refused"]["field"]
            .as_str()
            .unwrap()
    };
    assert_eq!(refused(0), "finishes[0].result.metrics.cpu_avg");
    assert_eq!(refused(1), "finishes[1]");
    assert_eq!(answer["replies"][2]["finished"]["state"], "succeeded");
    let many = bytes(&json!({"finishes": vec![good; 1_001]}));
    victim
        .check((Method::POST, "/finish", many), 422, "finishes", "1001")
        .await;
    let none = bytes(&json!({"finishes": {}}));
    victim
        .check((Method::POST, "/finish", none), 422, "finishes", "sequence")
        .await;
}

#[tokio::test]
async fn path_tricks_and_bad_queries_are_named() {
    let victim = Victim::new().await;
    victim.held().await;
    for (path, status, field) in [
        ("/jobs/nonsense", 422, "id"),
        ("/jobs/%ff", 422, "id"),
        ("/jobs/%2e%2e%2fstore", 422, "id"),
        ("/jobs/..%2f..%2fetc%2fpasswd", 422, "id"),
        ("/jobs/%00", 422, "id"),
        ("/jobs?limit=1001", 422, "limit"),
        ("/jobs?limit=x", 422, "query"),
        ("/jobs?colour=red", 422, "query"),
        ("/jobs?state=done", 422, "state"),
        ("/events?limit=0", 422, "limit"),
        ("/events?after=-1", 422, "query"),
        ("//jobs", 404, "path"),
        ("/jobs/", 404, "path"),
        ("/elsewhere", 404, "path"),
        ("/finish", 405, "method"),
    ] {
        victim
            .check((Method::GET, path, Vec::new()), status, field, "")
            .await;
    }
    assert_eq!(victim.stored().await.len(), 1);
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_read_to_its_end() {
    let victim = Victim::new().await;
    let body = vec![b' '; (8 << 20) + 1];
    victim
        .check((Method::POST, "/jobs", body), 413, "body", "8388608")
        .await;
    let path = format!("/jobs?name_prefix={}", "x".repeat(40 << 10));
    victim
        .check((Method::GET, &path, Vec::new()), 414, "path", "32768")
        .await;
    let request = victim.http.get(format!("http://{}/store", victim.address));
    let answer = request
        .header("x-long", "x".repeat(40 << 10))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(answer["error"]["code"], "headers_too_large");
    assert_eq!(answer["error"]["field"], "headers");
    for flood in [
        "x: y\r\n".repeat(200),
        format!("x: {}\r\n", "y".repeat(1 << 20)),
    ] {
        assert_eq!(status_of(victim.address, &flood).await, "431");
    }
    assert!(victim.stored().await.is_empty());
}

/// The status that a request with these headers gets.
async fn status_of(address: SocketAddr, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /store HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
    // The server may answer and close before it has taken all of it.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[9..]).into_owned()
}

#[tokio::test]
async fn without_a_credential_nothing_is_answered() {
    let victim = Victim::new().await;
    for (method, path) in [
        (Method::GET, "/store"),
        (Method::POST, "/finish"),
        (Method::POST, "/jobs"),
    ] {
        let url = format!("http://{}{path}", victim.address);
        let answer = victim.http.request(method, url).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
}
