//! What bad input gets: status, code, field, and nothing half-stored.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::cloud::{Cloud, read, task};

fn changed(pointer: &str, value: Value) -> Vec<u8> {
    let mut body = task("bad");
    match body.pointer_mut(pointer) {
        Some(place) => *place = value,
        None => {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            body.pointer_mut(parent).unwrap()[name] = value;
        }
    }
    serde_json::to_vec(&body).unwrap()
}

/// Body, status, code and field.
type Case = (Vec<u8>, u16, &'static str, &'static str);

fn cases() -> Vec<Case> {
    let invalid = |pointer, value, field| (changed(pointer, value), 422, "invalid", field);
    vec![
        (b"".to_vec(), 400, "malformed", "body"),
        (b"{".to_vec(), 400, "malformed", "body"),
        (b"\xff\xfe".to_vec(), 400, "malformed", "body"),
        (b"{} {}".to_vec(), 422, "invalid", "body"),
        (b"[]".to_vec(), 422, "invalid", "body"),
        (b"7".to_vec(), 422, "invalid", "body"),
        invalid("/colour", json!("red"), "colour"),
        invalid("/spec/colour", json!("red"), "spec.colour"),
        invalid("/namespace", json!("Lab"), "namespace"),
        invalid("/namespace", json!("x".repeat(64)), "namespace"),
        invalid("/client_key", json!("a b"), "client_key"),
        invalid(
            "/spec/resources/cpu_millis",
            json!(-1),
            "spec.resources.cpu_millis",
        ),
        invalid("/spec/resources/cpu_millis", json!(0), "cpus"),
        invalid(
            "/spec/resources/cpu_millis",
            json!(4_000_000_000_u64),
            "cpus",
        ),
        invalid("/spec/resources/memory_bytes", json!(0), "memory"),
        invalid("/spec/resources/memory_bytes", json!(u64::MAX), "memory"),
        invalid("/spec/resources/gpus", json!(5_000), "gpus"),
        invalid("/spec/timeout_ms", json!(0), "timeout"),
        invalid("/spec/expires_ms", json!(u64::MAX), "expires"),
        invalid("/spec/retries", json!(101), "retries"),
        invalid("/spec/priority", json!(-101), "priority"),
        invalid("/spec/command", json!([]), "command"),
        invalid("/spec/command", json!(["a\0b"]), "command"),
        invalid("/spec/image", json!("docker"), "spec.image"),
        invalid("/spec/env", json!({"MUTUAL_JOB": "1"}), "env.MUTUAL_JOB"),
        invalid(
            "/spec/array",
            json!({"index": 3, "count": 2}),
            "array.index",
        ),
        invalid("/result_key", json!("00"), "result_key"),
    ]
}

#[tokio::test]
async fn each_bad_body_gets_status_code_field_and_fix() {
    let cloud = Cloud::new().await;
    let control = cloud.control(10).await;
    for (body, status, code, field) in cases() {
        let shown = String::from_utf8_lossy(&body).into_owned();
        let request = cloud.request(&control, Method::POST, "/api/tasks");
        let request = request.bearer_auth(cloud.user().as_str()).body(body);
        let (found, answer) = read(request.send().await.unwrap()).await;
        let error = &answer["error"];
        assert_eq!(found.as_u16(), status, "{shown}: {answer}");
        assert_eq!(error["code"], code, "{shown}: {answer}");
        let named = error["field"].as_str().unwrap_or_default();
        assert!(
            named == field || named.ends_with(&format!(".{field}")),
            "{shown}: {answer}"
        );
        assert!(
            error["fix"].as_str().is_some_and(|fix| !fix.is_empty()),
            "{answer}"
        );
    }
    let (_, page) = cloud.ask(&control, Method::GET, "/api/tasks", None).await;
    assert_eq!(page["tasks"], json!([]));
}

#[tokio::test]
async fn one_bad_task_of_many_stores_none() {
    let cloud = Cloud::new().await;
    let control = cloud.control(10).await;
    let mut tasks: Vec<Value> = (0..3).map(|n| task(&format!("t{n}"))).collect();
    tasks[2]["spec"]["resources"]["cpu_millis"] = json!(0);
    let body = Value::Array(tasks);
    let (status, answer) = cloud
        .ask(&control, Method::POST, "/api/tasks", Some(&body))
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    let (_, page) = cloud.ask(&control, Method::GET, "/api/tasks", None).await;
    assert_eq!(page["tasks"], json!([]));
    let many: Vec<Value> = (0..1_001).map(|n| task(&format!("m{n}"))).collect();
    let body = Value::Array(many);
    let (status, answer) = cloud
        .ask(&control, Method::POST, "/api/tasks", Some(&body))
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
}

#[tokio::test]
async fn bad_paths_and_queries_are_named() {
    let cloud = Cloud::new().await;
    let control = cloud.control(10).await;
    for (path, status, code, field) in [
        ("/api/tasks/nonsense", 422, "invalid", Some("id")),
        ("/api/tasks/%ff", 422, "invalid", Some("id")),
        ("/api/tasks/nonsense/logs", 422, "invalid", Some("id")),
        (
            "/api/tasks/01930000-0000-7000-8000-000000000000",
            404,
            "not_found",
            None,
        ),
        ("/api/tasks?limit=1001", 422, "invalid", Some("limit")),
        ("/api/tasks?limit=x", 422, "invalid", Some("query")),
        ("/api/tasks?colour=red", 422, "invalid", Some("query")),
        ("/api/tasks?state=done", 422, "invalid", Some("state")),
        (
            "/api/events?after=x.y",
            422,
            "invalid",
            Some("Last-Event-ID"),
        ),
        ("/api/elsewhere", 404, "no_such_path", None),
    ] {
        let (found, answer) = cloud.ask(&control, Method::GET, path, None).await;
        let error = &answer["error"];
        assert_eq!(found.as_u16(), status, "{path}: {answer}");
        assert_eq!(error["code"], code, "{path}: {answer}");
        assert_eq!(error["field"].as_str(), field, "{path}: {answer}");
    }
    let (status, answer) = cloud.ask(&control, Method::PATCH, "/api/tasks", None).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{answer}");
    assert_eq!(answer["error"]["code"], "method_not_allowed");
}

#[tokio::test]
async fn oversized_bodies_and_headers_are_refused() {
    let cloud = Cloud::new().await;
    let control = cloud.control(10).await;
    let request = cloud.request(&control, Method::POST, "/api/tasks");
    let request = request
        .bearer_auth(cloud.user().as_str())
        .body(vec![b' '; (8 << 20) + 1]);
    let (status, answer) = read(request.send().await.unwrap()).await;
    let found = (status, &answer["error"]["code"]);
    assert_eq!(
        found,
        (StatusCode::PAYLOAD_TOO_LARGE, &json!("body_too_large"))
    );
    let request = cloud.request(&control, Method::GET, "/api/tasks");
    let request = request.bearer_auth(cloud.user().as_str());
    let request = request.header("x-long", "x".repeat(20 << 10));
    let (status, answer) = read(request.send().await.unwrap()).await;
    let found = (status, &answer["error"]["code"]);
    let expected = (
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        &json!("headers_too_large"),
    );
    assert_eq!(found, expected);
}
