//! Offers, and agents that go for the same job.

use std::time::Duration;

use mutual_model::identity::Role;
use mutual_model::job::JobState;
use mutual_node::agent::{AgentConfig, AgentNode};

use super::cloud::{Cloud, WITHIN, script};

fn never_polls(config: &mut AgentConfig) {
    config.poll_min = Duration::from_secs(3_600);
    config.poll_max = config.poll_min;
}

/// An agent that works for the store and claims only what it is offered from now on: its one poll,
/// right after it got to know the store, found a first job.
async fn waiting_agent(cloud: &Cloud, seed: u8) -> AgentNode {
    let first = cloud.submit(script("true")).await;
    let agent = cloud.agent_with(seed, never_polls, |store| store).await;
    cloud.ended(first).await;
    let mut status = agent.status();
    let idle = status.wait_for(|status| status.runs.is_empty() && status.free.slots == 2);
    tokio::time::timeout(WITHIN, idle).await.unwrap().unwrap();
    agent
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offered_job_is_claimed_without_waiting_for_a_poll() {
    let cloud = Cloud::start().await;
    let agent = waiting_agent(&cloud, 20).await;
    let job = cloud.submit(script("true")).await;
    assert_eq!(cloud.offer(&agent, 20, job).await, [job]);
    assert_eq!(cloud.ended(job).await.state, JobState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_agents_offered_the_same_job_one_runs_it() {
    let cloud = Cloud::start().await;
    let first = waiting_agent(&cloud, 20).await;
    let second = waiting_agent(&cloud, 21).await;
    for _ in 0..10 {
        let job = cloud.submit(script("true")).await;
        tokio::join!(cloud.offer(&first, 20, job), cloud.offer(&second, 21, job));
        let view = cloud.ended(job).await;
        assert_eq!(view.state, JobState::Succeeded, "{view:#?}");
        assert_eq!(view.attempts.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offers_of_strangers_and_for_others_are_refused() {
    let cloud = Cloud::start().await;
    let agent = cloud.agent(20).await;
    assert!(agent.offers().answer(b"").await.is_err());
    let control = cloud.signer(9, "control", &[Role::Control]);
    let plain = cloud.signer(8, "plain", &[Role::Seeder]);
    let offer = cloud.offer_to(21, cloud.submit(script("true")).await).await;
    assert!(agent.offers().answer(&offer.sign(&control)).await.is_err());
    let offer = cloud.offer_to(20, cloud.submit(script("true")).await).await;
    assert!(agent.offers().answer(&offer.sign(&plain)).await.is_err());
    assert!(agent.offers().answer(&offer.sign(&control)).await.is_ok());
}
