//! Lost replies and unknown outcomes (DESIGN §3.7, 3.8, 3.12).

use std::sync::Arc;

use mutual_model::job::JobState;
use mutual_model::lease::Phase;

use super::cases;
use crate::conformance::world::World;
use crate::{DemandStore, Disposition};

cases![
    a_repeated_claim_gives_back_what_it_took,
    a_repeated_claim_takes_nothing_new,
    a_lost_reply_to_a_submission_is_settled,
    a_lost_reply_to_a_claim_is_settled,
    a_lost_reply_to_a_finish_is_settled,
    a_lost_reply_to_a_release_is_settled,
    a_lost_reply_to_a_checkpoint_is_settled,
    a_lost_reply_to_a_cancellation_is_settled,
    a_lost_reply_to_a_renewal_is_settled,
];

async fn a_repeated_claim_gives_back_what_it_took(world: Arc<World>) {
    for _ in 0..5 {
        world.submit().await;
    }
    let agent = world.agent(1);
    let request = world.claim_request(&agent, 3);
    let first = world
        .store
        .try_claim(&agent.who, request.clone())
        .await
        .unwrap()
        .grants;
    assert_eq!(first.len(), 3);
    let again = world
        .store
        .try_claim(&agent.who, request.clone())
        .await
        .unwrap()
        .grants;
    let claims = |grants: &[crate::ClaimGrant]| {
        let mut claims: Vec<_> = grants.iter().map(|grant| grant.claim).collect();
        claims.sort();
        claims
    };
    assert_eq!(claims(&again), claims(&first));
    world.release(&agent, first[0].claim).await.unwrap();
    let rest = world
        .store
        .try_claim(&agent.who, request)
        .await
        .unwrap()
        .grants;
    assert_eq!(claims(&rest), claims(&first[1..]));
}

async fn a_repeated_claim_takes_nothing_new(world: Arc<World>) {
    let agent = world.agent(1);
    world.submit().await;
    let request = world.claim_request(&agent, 1);
    let grant = world
        .store
        .try_claim(&agent.who, request.clone())
        .await
        .unwrap()
        .grants
        .remove(0);
    world
        .finish(&agent, &world.success(grant.claim))
        .await
        .unwrap();
    let other = world.submit().await;
    let late = world.store.try_claim(&agent.who, request).await.unwrap();
    assert!(late.grants.is_empty());
    world.check_state(other, JobState::Queued).await;
}

async fn a_lost_reply_to_a_submission_is_settled(world: Arc<World>) {
    let task = world.submission(world.task());
    world.lose_next_reply().await;
    let settled = world
        .settle(|| world.store.submit(&world.user, vec![task.clone()]))
        .await
        .unwrap();
    let again = world.store.submit(&world.user, vec![task]).await.unwrap();
    assert_eq!((again[0].job, again[0].repeated), (settled[0].job, true));
    let all = world
        .store
        .jobs(&world.user, &crate::JobFilter::default())
        .await
        .unwrap();
    assert_eq!(all.jobs.len(), 1);
}

async fn a_lost_reply_to_a_claim_is_settled(world: Arc<World>) {
    for _ in 0..4 {
        world.submit().await;
    }
    let agent = world.agent(1);
    // Of one, and then of two of the other three.
    for slots in [1, 2] {
        let request = world.claim_request(&agent, slots);
        world.lose_next_reply().await;
        let claim = || world.store.try_claim(&agent.who, request.clone());
        let grants = world.settle(claim).await.unwrap().grants;
        assert_eq!(grants.len(), slots as usize);
    }
    let left = world.claim(&agent, 4).await.len();
    assert_eq!(left, 1, "a lost reply took no more");
}

async fn a_lost_reply_to_a_finish_is_settled(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    let request = world.success(claim);
    world.lose_next_reply().await;
    let reply = world
        .settle(|| world.finish(&agent, &request))
        .await
        .unwrap();
    assert_eq!(
        (reply.disposition, reply.state),
        (Disposition::Ended, JobState::Succeeded)
    );
    assert_eq!(world.view(job).await.result, Some(request.result));
}

async fn a_lost_reply_to_a_release_is_settled(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    world.lose_next_reply().await;
    world.settle(|| world.release(&agent, claim)).await.unwrap();
    let view = world.view(job).await;
    assert_eq!((view.state, view.attempts_counted), (JobState::Queued, 0));
}

async fn a_lost_reply_to_a_checkpoint_is_settled(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    let report = world.saved(claim, 1);
    world.lose_next_reply().await;
    world
        .settle(|| world.store.checkpoint(&agent.who, report.clone()))
        .await
        .unwrap();
    assert_eq!(world.view(job).await.checkpoints.len(), 1);
}

async fn a_lost_reply_to_a_cancellation_is_settled(world: Arc<World>) {
    let job = world.submit().await;
    world.lose_next_reply().await;
    let cancel = || world.store.cancel(&world.user, job, "enough");
    let view = world.settle(cancel).await.unwrap();
    assert_eq!(view.state, JobState::Cancelled);
}

async fn a_lost_reply_to_a_renewal_is_settled(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    world.lose_next_reply().await;
    let held = [(claim, Phase::Running)];
    let reply = world
        .settle(|| world.renew(&agent, &held, true))
        .await
        .unwrap();
    assert_eq!(reply.held, [job]);
    world.check_state(job, JobState::Running).await;
}
