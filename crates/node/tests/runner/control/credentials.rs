//! Every endpoint with every kind of credential.

use std::time::Duration;

use mutual_demand::Right;
use mutual_model::identity::Role;
use mutual_model::time::UnixMillis;
use mutual_node::auth::{Attenuation, UserGrant, UserToken, unix_now};
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::cloud::{Cloud, Served, read, task};
use crate::auth::fixture::{Organisation, names};

/// Every endpoint that needs a token, and the right it takes.
fn endpoints(job: &str) -> Vec<(Method, String, Right)> {
    let of_task = |rest: &str| format!("/api/tasks/{job}{rest}");
    vec![
        (Method::POST, "/api/tasks".into(), Right::Submit),
        (Method::GET, "/api/tasks".into(), Right::Read),
        (Method::GET, of_task(""), Right::Read),
        (Method::DELETE, of_task(""), Right::Submit),
        (Method::POST, of_task("/manifest"), Right::Submit),
        (Method::GET, of_task("/logs"), Right::Read),
        (Method::GET, of_task("/explain"), Right::Read),
        (Method::GET, of_task("/events"), Right::Read),
        (Method::GET, "/api/events".into(), Right::Read),
        (Method::GET, "/api/nodes".into(), Right::Read),
        (Method::GET, "/api/store".into(), Right::Read),
        (Method::GET, "/metrics".into(), Right::Read),
    ]
}

async fn check(cloud: &Cloud, control: &Served, authorization: Option<&str>, code: &str) {
    let job = "01930000-0000-7000-8000-000000000000";
    for (method, path, _) in endpoints(job) {
        let mut request = cloud
            .request(control, method.clone(), &path)
            .json(&task("x"));
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let (status, answer) = read(request.send().await.unwrap()).await;
        let found = (status, answer["error"]["code"].as_str());
        assert_eq!(
            found,
            (StatusCode::UNAUTHORIZED, Some(code)),
            "{method} {path}"
        );
        assert!(
            answer["error"]["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
    }
}

#[tokio::test]
async fn no_endpoint_answers_without_a_valid_credential() {
    let cloud = Cloud::new().await;
    let control = cloud.control(10).await;
    check(&cloud, &control, None, "credential_missing").await;
    check(&cloud, &control, Some("Basic YTpi"), "credential_malformed").await;
    check(&cloud, &control, Some("Bearer AAAA"), "credential_invalid").await;
    let foreign = Organisation::at(9, unix_now()).user(&["lab"], &[Right::Read, Right::Submit]);
    let foreign = format!("Bearer {}", foreign.as_str());
    check(&cloud, &control, Some(&foreign), "credential_foreign").await;
    let grant = UserGrant {
        expires: UnixMillis(unix_now().0 - 5_000),
        ..cloud
            .organisation
            .grant(&["lab"], &[Right::Read, Right::Submit])
    };
    let expired = UserToken::mint(&cloud.organisation.key, &grant).unwrap();
    let expired = format!("Bearer {}", expired.as_str());
    check(&cloud, &control, Some(&expired), "credential_expired").await;
}

#[tokio::test]
async fn attenuated_tokens_do_what_is_left_to_them() {
    let cloud = Cloud::new().await;
    let control = cloud.control(10).await;
    let job = cloud.submit(&control, "one").await;
    for kept in [Right::Read, Right::Submit] {
        let weaker = cloud.user().attenuate(&Attenuation {
            rights: Some(vec![kept]),
            expires: Some(unix_now().after(Duration::from_secs(60))),
            ..Attenuation::default()
        });
        let weaker = weaker.unwrap();
        for (method, path, needed) in endpoints(&job.to_string()) {
            // What only tells of this process and its stores needs no right but a valid token.
            let needs_no_right = ["/metrics", "/api/nodes", "/api/store"].contains(&path.as_str());
            if kept == needed || needs_no_right {
                continue;
            }
            let request = cloud
                .request(&control, method.clone(), &path)
                .json(&task("two"));
            let answer = request.bearer_auth(weaker.as_str()).send().await.unwrap();
            let (status, answer) = read(answer).await;
            let found = (status, answer["error"]["code"].as_str());
            let expected = (StatusCode::FORBIDDEN, Some("forbidden"));
            // A manifest that is none is refused before its right is looked at.
            if !path.ends_with("/manifest") {
                assert_eq!(found, expected, "{kept:?} at {method} {path}: {answer}");
            }
        }
    }
}

#[tokio::test]
async fn namespaces_do_not_see_each_other() {
    let cloud = Cloud::new().await;
    let control = cloud.control(10).await;
    let job = cloud.submit(&control, "one").await;
    let outsider = cloud
        .organisation
        .user(&["other"], &[Right::Read, Right::Submit]);
    for (method, rest) in [
        (Method::GET, ""),
        (Method::DELETE, ""),
        (Method::GET, "/logs"),
        (Method::GET, "/explain"),
        (Method::GET, "/events"),
    ] {
        let path = format!("/api/tasks/{job}{rest}");
        let request = cloud.request(&control, method.clone(), &path);
        let answer = request.bearer_auth(outsider.as_str()).send().await.unwrap();
        let (status, answer) = read(answer).await;
        let found = (status, &answer["error"]["code"]);
        assert_eq!(
            found,
            (StatusCode::NOT_FOUND, &json!("not_found")),
            "{method} {path}"
        );
    }
    let request = cloud.request(&control, Method::GET, "/api/tasks");
    let answer = request.bearer_auth(outsider.as_str()).send().await.unwrap();
    assert_eq!(read(answer).await.1["tasks"], json!([]));
    let request = cloud
        .request(&control, Method::POST, "/api/tasks")
        .json(&task("two"));
    let answer = request.bearer_auth(outsider.as_str()).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    let both = cloud.organisation.user(&["lab", "other"], &[Right::Read]);
    let narrowed = both.attenuate(&Attenuation {
        namespaces: Some(names(&["other"])),
        ..Attenuation::default()
    });
    let request = cloud.request(&control, Method::GET, &format!("/api/tasks/{job}"));
    let answer = request
        .bearer_auth(narrowed.unwrap().as_str())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn nodes_are_sent_to_the_store() {
    let cloud = Cloud::new().await;
    let control = cloud.control(10).await;
    let agent = cloud.organisation.node(20, &["lab"], &[Role::Agent]);
    let value = agent.authorization(&Method::GET, "/api/tasks", b"");
    let request = cloud.request(&control, Method::GET, "/api/tasks");
    let answer = request.header("authorization", value).send().await.unwrap();
    let (status, answer) = read(answer).await;
    let found = (status, &answer["error"]["code"]);
    assert_eq!(found, (StatusCode::FORBIDDEN, &json!("users_only")));
}
