//! Submitting, looking, cancelling: through one control, three, and one restarted.

use mutual_demand::{ClaimScope, DemandStore as _, JobView, RenewRequest};
use mutual_model::identity::Role;
use mutual_model::job::JobState;
use mutual_model::lease::{HeldJob, Phase};
use mutual_node::auth::{LogToken, principal_of, unix_now};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::agents::{claim, incarnation};
use super::cloud::{Cloud, task};

#[tokio::test]
async fn a_task_is_stored_shown_listed_and_cancelled() {
    let cloud = Cloud::new().await;
    let control = cloud.control(10).await;
    let (status, answer) = cloud
        .ask(&control, Method::POST, "/api/tasks", Some(&task("one")))
        .await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    assert_eq!(answer["tasks"][0]["state"], "queued");
    assert_eq!(answer["tasks"][0]["repeated"], false);
    assert_eq!(answer["seeding"]["receipts"], 1);
    assert_eq!(answer["bootstrap"][0], "127.0.0.1:7000");
    assert_eq!(answer["store"]["sealing"].as_str().map(str::len), Some(64));
    let path = format!(
        "/api/tasks/{}",
        answer["tasks"][0]["job_id"].as_str().unwrap()
    );
    let (status, shown) = cloud.ask(&control, Method::GET, &path, None).await;
    assert_eq!(status, StatusCode::OK);
    let view: JobView = serde_json::from_value(shown).unwrap();
    assert_eq!(
        (view.spec.name.as_str(), view.state),
        ("one", JobState::Queued)
    );
    for _ in 0..2 {
        let (status, shown) = cloud.ask(&control, Method::DELETE, &path, None).await;
        assert_eq!(
            (status, &shown["state"]),
            (StatusCode::OK, &json!("cancelled"))
        );
    }
}

#[tokio::test]
async fn submitting_again_gives_the_same_job_and_another_payload_is_a_conflict() {
    let cloud = Cloud::new().await;
    let control = cloud.control(10).await;
    let first = cloud.submit(&control, "one").await;
    assert_eq!(cloud.submit(&control, "one").await, first);
    let mut other = task("one");
    other["spec"]["command"] = json!(["false"]);
    let (status, answer) = cloud
        .ask(&control, Method::POST, "/api/tasks", Some(&other))
        .await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (StatusCode::CONFLICT, &json!("conflict"))
    );
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let cloud = Cloud::new().await;
    let control = cloud.control(10).await;
    let tasks: Vec<Value> = (0..5).map(|n| task(&format!("sweep-{n}"))).collect();
    let body = Value::Array(tasks);
    let (status, answer) = cloud
        .ask(&control, Method::POST, "/api/tasks", Some(&body))
        .await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    cloud.submit(&control, "other").await;
    let list = async |query: &str| {
        let path = format!("/api/tasks?{query}");
        let (status, page) = cloud.ask(&control, Method::GET, &path, None).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        page
    };
    let count = |page: &Value| page["tasks"].as_array().unwrap().len();
    assert_eq!(count(&list("").await), 6);
    assert_eq!(count(&list("name=sweep").await), 5);
    assert_eq!(count(&list("state=running,succeeded").await), 0);
    assert_eq!(count(&list("state=queued&namespace=lab").await), 6);
    let first = list("name=sweep&limit=3").await;
    assert_eq!(count(&first), 3);
    let next = first["next"].as_str().unwrap();
    let second = list(&format!("name=sweep&limit=3&before={next}")).await;
    assert_eq!(count(&second), 2);
    assert!(second["next"].is_null());
}

#[tokio::test]
async fn three_controls_are_one_and_a_restart_forgets_nothing() {
    let cloud = Cloud::new().await;
    let controls = [
        cloud.control(10).await,
        cloud.control(11).await,
        cloud.control(12).await,
    ];
    let job = cloud.submit(&controls[0], "one").await;
    for control in &controls {
        assert_eq!(cloud.submit(control, "one").await, job);
    }
    drop(controls);
    let again = cloud.control(10).await;
    let path = format!("/api/tasks/{job}");
    let (status, shown) = cloud.ask(&again, Method::GET, &path, None).await;
    assert_eq!(
        (status, &shown["id"]),
        (StatusCode::OK, &json!(job.to_string()))
    );
}

#[tokio::test]
async fn logs_are_an_address_and_a_token_that_the_agent_accepts() {
    let cloud = Cloud::new().await;
    let control = cloud.control(10).await;
    let job = cloud.submit(&control, "one").await;
    let path = format!("/api/tasks/{job}/logs");
    let (status, answer) = cloud.ask(&control, Method::GET, &path, None).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (StatusCode::CONFLICT, &json!("no_log_yet"))
    );
    let agent = cloud.organisation.node(20, &["lab"], &[Role::Agent]);
    let store = cloud.store_as(&agent);
    let scope = ClaimScope::Jobs(vec![job]);
    claim(
        &store,
        &agent,
        incarnation(),
        scope,
        "http://127.0.0.1:4321",
    )
    .await;
    let (status, answer) = cloud.ask(&control, Method::GET, &path, None).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let stream = &answer["streams"][0];
    let url = format!("ws://127.0.0.1:4321/v1/jobs/{job}/logs?attempt=1");
    assert_eq!(stream["url"], url);
    let here = agent.key().id();
    let trusted = [cloud.organisation.key.public()];
    let text = stream["token"].as_str().unwrap();
    assert!(!url.contains(text));
    let token = LogToken::verify(text, &here, &trusted, unix_now()).unwrap();
    assert_eq!((token.job, token.agent), (job, here));
}

#[tokio::test]
async fn an_input_is_attached_through_control() {
    let cloud = Cloud::new().await;
    let control = cloud.control(10).await;
    let mut waiting = task("one");
    waiting["spec"]["has_input"] = json!(true);
    let (_, answer) = cloud
        .ask(&control, Method::POST, "/api/tasks", Some(&waiting))
        .await;
    assert_eq!(answer["tasks"][0]["state"], "awaiting_input");
    let path = format!(
        "/api/tasks/{}/manifest",
        answer["tasks"][0]["job_id"].as_str().unwrap()
    );
    let sealed_elsewhere = json!({
        "root": "bafytest", "bytes": 1, "seeders": [],
        "enc_meta": {"scheme": "aes-256-gcm-stream/1", "sealed_key": "00"},
    });
    let (status, answer) = cloud
        .ask(&control, Method::POST, &path, Some(&sealed_elsewhere))
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    assert_eq!(answer["error"]["field"], "body.enc_meta.sealed_key");
}

#[tokio::test]
async fn the_cloud_is_shown() {
    let cloud = Cloud::new().await;
    let control = cloud.control(10).await;
    let (status, stores) = cloud.ask(&control, Method::GET, "/api/store", None).await;
    assert_eq!(
        (status, &stores[0]["info"]["backend"]),
        (StatusCode::OK, &json!("memory"))
    );
    let (status, nodes) = cloud.ask(&control, Method::GET, "/api/nodes", None).await;
    assert_eq!((status, nodes), (StatusCode::OK, json!([])));
    let (status, health) = cloud.ask(&control, Method::GET, "/healthz", None).await;
    assert_eq!((status, &health["status"]), (StatusCode::OK, &json!("ok")));
    let job = cloud.submit(&control, "one").await;
    let path = format!("/api/tasks/{job}/explain");
    let (status, why) = cloud.ask(&control, Method::GET, &path, None).await;
    assert_eq!(
        (status, &why["task"]["state"]),
        (StatusCode::OK, &json!("queued"))
    );
    let (status, text) = cloud.ask(&control, Method::GET, "/metrics", None).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        text.as_str()
            .unwrap()
            .contains("mutual_http_request_seconds_bucket"),
        "{text}"
    );
}

#[tokio::test]
async fn a_checkpoint_is_asked_of_whoever_holds_the_task() {
    let cloud = Cloud::new().await;
    let control = cloud.control(10).await;
    let id = cloud.submit(&control, "one").await;
    let path = format!("/api/tasks/{id}/checkpoint");
    let (status, answer) = cloud.ask(&control, Method::POST, &path, None).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    let agent = cloud.organisation.node(20, &["lab"], &[Role::Agent]);
    let incarnation = incarnation();
    let store = cloud.store_as(&agent);
    let claimed = claim(&store, &agent, incarnation, ClaimScope::Any, "http://a:1").await;
    let held = claimed.grants.iter().map(|grant| HeldJob {
        claim: grant.claim,
        phase: Phase::Running,
    });
    let renewal = RenewRequest {
        incarnation,
        held: held.collect(),
        complete: true,
    };
    let who = principal_of(agent.certificate());
    let renewed = store.renew(&who, renewal.clone()).await.unwrap();
    assert!(renewed.checkpoint_wanted.is_empty());
    for _ in 0..2 {
        let (status, answer) = cloud.ask(&control, Method::POST, &path, None).await;
        assert_eq!(
            (status, &answer["state"]),
            (StatusCode::ACCEPTED, &json!("running"))
        );
    }
    let renewed = store.renew(&who, renewal).await.unwrap();
    assert_eq!(renewed.checkpoint_wanted, [claimed.grants[0].claim.job]);
}
