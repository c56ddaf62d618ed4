//! Claiming (DESIGN §3.2, 3.9): races, order, fitting.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;
use mutual_model::ids::JobId;
use mutual_model::job::{IsolationClass, JobState};
use mutual_model::resources::Resources;

use super::cases;
use crate::conformance::world::{Agent, World};
use crate::{ClaimScope, DemandStore, StoreError};

cases![
    racing_agents_never_share_a_job,
    racing_agents_for_one_named_job,
    fences_grow_with_every_claim,
    priority_goes_first,
    equal_priority_goes_by_age,
    what_does_not_fit_is_left,
    several_jobs_are_packed_into_one_offer,
    requests_out_of_bounds_are_refused,
];

const JOBS: usize = 40;
const AGENTS: u8 = 12;

async fn racing_agents_never_share_a_job(world: Arc<World>) {
    let tasks = (0..JOBS).map(|_| world.submission(world.task())).collect();
    world.store.submit(&world.user, tasks).await.unwrap();
    let agents: Vec<Agent> = (1..=AGENTS).map(|seed| world.agent(seed)).collect();
    let races = agents.iter().map(|agent| claim_all(&world, agent));
    let taken: Vec<JobId> = join_all(races).await.into_iter().flatten().collect();
    assert_eq!(taken.len(), JOBS);
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), JOBS);
}

/// Claims by threes until nothing is left. A locked job is skipped, not waited for, so one empty
/// answer may come early while others are at work.
async fn claim_all(world: &World, agent: &Agent) -> Vec<JobId> {
    let mut taken = Vec::new();
    let mut empty = 0;
    while empty < 3 {
        let grants = world.claim(agent, 3).await;
        empty = if grants.is_empty() { empty + 1 } else { 0 };
        taken.extend(grants.into_iter().map(|grant| grant.claim.job));
    }
    taken
}

async fn racing_agents_for_one_named_job(world: Arc<World>) {
    let job = world.submit().await;
    let agents: Vec<Agent> = (1..=AGENTS).map(|seed| world.agent(seed)).collect();
    let races = agents.iter().map(|agent| {
        let mut request = world.claim_request(agent, 1);
        request.scope = ClaimScope::Jobs(vec![job, job]);
        world.store.try_claim(&agent.who, request)
    });
    let won: usize = join_all(races)
        .await
        .into_iter()
        .map(|reply| reply.unwrap().grants.len())
        .sum();
    assert_eq!(won, 1);
}

async fn fences_grow_with_every_claim(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    let mut last = None;
    for round in 1..=4 {
        let grant = world.claim_one(&agent).await;
        assert!(Some(grant.claim.fence) > last);
        assert_eq!(grant.claim.fence.epoch, world.epoch());
        assert_eq!((grant.claim.job, grant.attempt), (job, round));
        last = Some(grant.claim.fence);
        world.release(&agent, grant.claim).await.unwrap();
    }
    let view = world.view(job).await;
    assert_eq!((view.attempts.len(), view.attempts_counted), (4, 0));
}

async fn priority_goes_first(world: Arc<World>) {
    let low = world.submit_as(|spec| spec.priority = -3).await;
    let middle = world.submit().await;
    let high = world.submit_as(|spec| spec.priority = 7).await;
    let agent = world.agent(1);
    for expected in [high, middle, low] {
        assert_eq!(world.claim_one(&agent).await.claim.job, expected);
    }
}

async fn equal_priority_goes_by_age(world: Arc<World>) {
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(world.submit().await);
        world.pass(std::time::Duration::from_millis(5)).await;
    }
    let agent = world.agent(1);
    let taken = world.claim(&agent, 5).await;
    let order: Vec<_> = taken.iter().map(|grant| grant.claim.job).collect();
    assert_eq!(order, jobs);
}

async fn what_does_not_fit_is_left(world: Arc<World>) {
    let gpu = world.submit_as(|spec| spec.resources.gpus = 2).await;
    let vm = world
        .submit_as(|spec| spec.class = Some(IsolationClass::Vm))
        .await;
    let fast = world
        .submit_as(|spec| drop(spec.labels.insert("disk".into(), "fast".into())))
        .await;
    let agent = world.agent(1);
    let mut request = world.claim_request(&agent, 8);
    request.offer.free.gpus = 1;
    request.offer.classes = vec![IsolationClass::Container];
    request.offer.labels.insert("disk".into(), "slow".into());
    let none = world
        .store
        .try_claim(&agent.who, request.clone())
        .await
        .unwrap();
    assert!(none.grants.is_empty());
    request.nonce = world.nonce();
    request.offer.labels.insert("disk".into(), "fast".into());
    let reply = world.store.try_claim(&agent.who, request).await.unwrap();
    assert_eq!(reply.grants[0].claim.job, fast);
    let rest = world.claim(&agent, 8).await;
    let rest: BTreeSet<_> = rest.iter().map(|grant| grant.claim.job).collect();
    assert_eq!(rest, BTreeSet::from([gpu, vm]));
}

async fn several_jobs_are_packed_into_one_offer(world: Arc<World>) {
    for cores in [3, 3, 1, 1] {
        world
            .submit_as(|spec| spec.resources.cpu_millis = cores * 1_000)
            .await;
    }
    let agent = world.agent(1);
    let mut request = world.claim_request(&agent, 8);
    request.offer.free = Resources {
        cpu_millis: 5_000,
        ..request.offer.free
    };
    let reply = world.store.try_claim(&agent.who, request).await.unwrap();
    let cores: u32 = reply
        .grants
        .iter()
        .map(|grant| grant.spec.resources.cpu_millis)
        .sum();
    assert_eq!((reply.grants.len(), cores), (3, 5_000));
    for grant in &reply.grants {
        world.check_state(grant.claim.job, JobState::Assigned).await;
    }
}

async fn requests_out_of_bounds_are_refused(world: Arc<World>) {
    let agent = world.agent(1);
    let mut request = world.claim_request(&agent, 0);
    let refused = world.store.try_claim(&agent.who, request.clone()).await;
    assert!(
        matches!(refused, Err(StoreError::Invalid(_))),
        "{refused:?}"
    );
    request.offer.slots = 1;
    request.agent_url = "x".repeat(257);
    let refused = world.store.try_claim(&agent.who, request).await;
    assert!(
        matches!(refused, Err(StoreError::Invalid(_))),
        "{refused:?}"
    );
}
