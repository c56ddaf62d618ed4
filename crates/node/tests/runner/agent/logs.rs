//! Logs over HTTP and WebSocket, while they grow and after the end.

use futures::{SinkExt as _, StreamExt as _};
use mutual_model::identity::{NodeKey, Role};
use mutual_model::ids::JobId;
use mutual_model::job::JobState;
use mutual_node::agent::{AgentNode, LogMessage};
use mutual_node::auth::{LogToken, NodeSigner};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use super::cloud::{Cloud, WITHIN, namespace, script};

const SEED: u8 = 20;

fn token(signer: &NodeSigner, job: JobId) -> String {
    let agent = NodeKey::from_seed(&[SEED; 32]).id();
    LogToken::new(job, namespace(), agent).sign(signer)
}

fn place(agent: &AgentNode, scheme: &str, job: JobId) -> String {
    format!("{scheme}://{}/v1/jobs/{job}/logs", agent.address())
}

fn words(message: &LogMessage) -> String {
    match message {
        LogMessage::Line { data, .. } => data.trim_end().to_owned(),
        LogMessage::State { state, .. } => format!("({state})"),
        LogMessage::End { outcome, .. } => format!("(end: {outcome})"),
    }
}

/// Every message of a WebSocket until it closes.
async fn follow(url: &str, token: &str) -> Vec<String> {
    let (mut socket, _) = connect_async(url).await.unwrap();
    socket.send(Message::text(token)).await.unwrap();
    let mut heard = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Text(text) = message {
            match serde_json::from_str::<LogMessage>(&text) {
                Ok(message) => heard.push(words(&message)),
                Err(_) => heard.push(text.to_string()),
            }
        }
    }
    heard
}

async fn get(url: &str, token: Option<&str>) -> (u16, String) {
    let mut request = reqwest::Client::new().get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let reply = request.send().await.unwrap();
    (reply.status().as_u16(), reply.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_live_and_read_after_the_end() {
    let cloud = Cloud::start().await;
    let agent = cloud.agent(SEED).await;
    let control = cloud.signer(9, "control", &[Role::Control]);
    let text = "echo one; until test -e \"$MUTUAL_OUTPUT/go\"; do sleep 0.02; done; echo two >&2";
    let job = cloud.submit(script(text)).await;
    let running = cloud
        .until(job, |view| view.state == JobState::Running)
        .await;
    let url = place(&agent, "ws", job);
    let pass = token(&control, job);
    let live = tokio::spawn(async move { follow(&url, &pass).await });
    let fence = running.current().unwrap().fence;
    cloud.touch_output(SEED, job, fence, "go");
    let live = tokio::time::timeout(WITHIN, live).await.unwrap().unwrap();
    let said = ["(preparing)", "(running)", "one", "two", "(end: succeeded)"];
    assert_eq!(live, said);
    cloud.ended(job).await;
    assert_eq!(
        follow(&place(&agent, "ws", job), &token(&control, job)).await,
        said
    );
    let lines = get(&place(&agent, "http", job), Some(&token(&control, job))).await;
    let lines = lines
        .1
        .lines()
        .map(|line| words(&serde_json::from_str(line).unwrap()));
    assert_eq!(lines.collect::<Vec<_>>(), said);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_open_only_to_a_token_for_that_job_from_who_may_give_it() {
    let cloud = Cloud::start().await;
    let agent = cloud.agent(SEED).await;
    let control = cloud.signer(9, "control", &[Role::Control]);
    let seeder = cloud.signer(8, "seeder", &[Role::Seeder]);
    let job = cloud.submit(script("true")).await;
    let other = cloud.submit(script("true")).await;
    cloud.ended(job).await;
    let url = place(&agent, "http", job);
    assert_eq!(get(&url, None).await.0, 401);
    assert_eq!(get(&url, Some("nonsense")).await.0, 403);
    assert_eq!(get(&url, Some(&token(&control, other))).await.0, 403);
    assert_eq!(get(&url, Some(&token(&seeder, job))).await.0, 403);
    assert_eq!(get(&url, Some(&token(&control, job))).await.0, 200);
    let missing = format!("{url}?attempt=9");
    assert_eq!(get(&missing, Some(&token(&control, job))).await.0, 404);
    let heard = follow(&place(&agent, "ws", job), "nonsense").await;
    assert_eq!(heard.len(), 1);
    assert!(heard[0].contains("\"error\""), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_open() {
    let cloud = Cloud::start().await;
    let agent = cloud.agent(SEED).await;
    let job = cloud.submit(script("true")).await;
    cloud.ended(job).await;
    let mut status = agent.status();
    let idle = status.wait_for(|status| status.runs.is_empty());
    drop(tokio::time::timeout(WITHIN, idle).await.unwrap().unwrap());
    assert_eq!(get(&format!("{}/healthz", agent.url()), None).await.0, 200);
    let (_, text) = get(&format!("{}/metrics", agent.url()), None).await;
    for line in [
        "mutual_agent_claims_won_total 1",
        "mutual_agent_attempts_total{kind=\"succeeded\"} 1",
        "mutual_agent_outbox_entries 0",
        "mutual_agent_running_seconds_count 1",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}
