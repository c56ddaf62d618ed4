//! Offers: who is asked, what becomes of it, and what is announced.

use std::sync::Arc;

use mutual_model::identity::Role;
use mutual_model::job::JobState;
use mutual_node::control::offer::JobNotice;
use reqwest::{Method, StatusCode};

use super::agents::{Listed, Taker};
use super::cloud::{Cloud, PATIENCE};

async fn with_agent(seed: u8, declines: Option<&str>) -> (Cloud, Arc<Listed>, Taker) {
    let listed = Arc::new(Listed::default());
    let cloud = Cloud::among(listed.clone()).await;
    let signer = cloud.organisation.node(seed, &["lab"], &[Role::Agent]);
    let taker = Taker {
        store: cloud.store_as(&signer),
        trusted: [cloud.organisation.key.public()],
        signer,
        declines: declines.map(str::to_owned),
    };
    (cloud, listed, taker)
}

#[tokio::test]
async fn a_submitted_task_is_offered_and_claimed_without_anyone_asking() {
    let (cloud, listed, taker) = with_agent(20, None).await;
    let agent = taker.signer.key().id();
    listed.add(taker.serve(4).await);
    let control = cloud.control(10).await;
    let job = cloud.submit(&control, "one").await;
    let view = cloud.wait_for_state(job, JobState::Assigned).await;
    assert_eq!(view.current().unwrap().holder.agent, agent);
}

#[tokio::test]
async fn a_job_submitted_to_the_demand_server_itself_is_offered_too() {
    let (cloud, listed, taker) = with_agent(20, None).await;
    listed.add(taker.serve(4).await);
    let user = cloud.user();
    let store = cloud.store_as(&cloud.organisation.node(20, &["lab"], &[Role::Agent]));
    let store = store.with_credentials(Arc::new(user));
    let job = cloud.submit_to(&store, "direct").await;
    cloud.wait_for_state(job, JobState::Assigned).await;
}

#[tokio::test]
async fn when_the_first_declines_the_next_is_asked_and_the_reason_is_kept() {
    let (cloud, listed, refuser) = with_agent(20, Some("the owner sleeps")).await;
    let taker = Taker {
        signer: cloud.organisation.node(21, &["lab"], &[Role::Agent]),
        declines: None,
        ..refuser.clone()
    };
    let taker = Taker {
        store: cloud.store_as(&taker.signer),
        ..taker
    };
    let agent = taker.signer.key().id();
    listed.add(refuser.serve(4).await);
    listed.add(taker.serve(4).await);
    let control = cloud.control(10).await;
    let job = cloud.submit(&control, "one").await;
    let view = cloud.wait_for_state(job, JobState::Assigned).await;
    assert_eq!(view.current().unwrap().holder.agent, agent);
}

#[tokio::test]
async fn explain_tells_why_agents_left_a_task() {
    let (cloud, listed, refuser) = with_agent(20, Some("the owner sleeps")).await;
    let agent = refuser.signer.key().id();
    listed.add(refuser.serve(4).await);
    let control = cloud.control(10).await;
    let job = cloud.submit(&control, "one").await;
    let path = format!("/api/tasks/{job}/explain");
    let explained = async {
        loop {
            let (status, why) = cloud.ask(&control, Method::GET, &path, None).await;
            assert_eq!(status, StatusCode::OK, "{why}");
            if let Some(declined) = why["declined"].get(0) {
                return declined.clone();
            }
            tokio::task::yield_now().await;
        }
    };
    let declined = tokio::time::timeout(PATIENCE, explained)
        .await
        .expect("a reason is kept");
    assert_eq!(declined["agent"], agent.to_string());
    assert_eq!(declined["reason"], "the owner sleeps");
}

#[tokio::test]
async fn unclaimed_jobs_are_announced_and_ends_are_mirrored() {
    let (cloud, listed, _) = with_agent(20, None).await;
    let mut published = listed.published.subscribe();
    let control = cloud.control(10).await;
    let job = cloud.submit(&control, "one").await;
    let announced = |notices: &Vec<JobNotice>| {
        let names = |notice: &JobNotice| matches!(notice, JobNotice::Open { jobs, .. } if jobs.contains(&job));
        notices.iter().any(names)
    };
    let waiting = tokio::time::timeout(PATIENCE, published.wait_for(announced)).await;
    drop(waiting.expect("the job is announced").unwrap());
    cloud
        .ask(&control, Method::DELETE, &format!("/api/tasks/{job}"), None)
        .await;
    let mirrored = |notices: &Vec<JobNotice>| {
        let is_end = |notice: &JobNotice| matches!(notice, JobNotice::Mirror(mirror) if mirror.job == job && mirror.state == JobState::Cancelled);
        notices.iter().any(is_end)
    };
    let waiting = tokio::time::timeout(PATIENCE, published.wait_for(mirrored)).await;
    waiting.expect("the end is mirrored").unwrap();
}
