//! Verdicts of death (DESIGN §3.10, §7).

use std::sync::Arc;

use mutual_model::job::JobState;
use mutual_model::lease::Phase;

use super::cases;
use crate::conformance::world::{World, is_fenced};
use crate::{AttemptEnd, DemandStore, Revocation, StoreError, Verdict};

cases![
    a_closed_agent_loses_everything_at_once,
    silence_spares_exclusive_jobs_until_expiry,
    a_later_run_ends_the_earlier_ones,
    nobody_else_supersedes_a_node,
    votes_need_a_quorum,
    a_verdict_against_the_lively_is_refused,
    a_verdict_is_passed_once,
    a_verdict_buries_what_has_no_retries,
    a_verdict_races_a_finish,
];

async fn a_closed_agent_loses_everything_at_once(world: Arc<World>) {
    let (first, second) = (world.submit().await, world.submit().await);
    let agent = world.agent(1);
    let claims = world.claim(&agent, 2).await;
    let later = world.submit_as(|spec| spec.priority = 50).await;
    let reply = world
        .revoke(&world.operator, &agent, Verdict::Closed, 0)
        .await
        .unwrap();
    assert!(reply.revoked && reply.waiting.is_empty());
    let mut requeued = reply.requeued;
    requeued.sort();
    // Two ids of one millisecond are in any order.
    let mut expected = [first, second];
    expected.sort();
    assert_eq!(requeued, expected);
    for grant in &claims {
        assert!(is_fenced(
            &world.finish(&agent, &world.success(grant.claim)).await
        ));
        let view = world.view(grant.claim.job).await;
        assert_eq!(view.attempts[0].end, Some(AttemptEnd::Revoked));
        assert_eq!((view.state, view.attempts_counted), (JobState::Queued, 1));
    }
    let dead = world
        .renew(&agent, &[(claims[0].claim, Phase::Running)], true)
        .await;
    assert_eq!(dead, Err(StoreError::IncarnationRevoked));
    let request = world.claim_request(&agent, 1);
    let dead = world.store.try_claim(&agent.who, request).await;
    assert!(
        matches!(dead, Err(StoreError::IncarnationRevoked)),
        "{dead:?}"
    );
    let reborn = world.agent(1);
    let taken: Vec<_> = world
        .claim(&reborn, 3)
        .await
        .iter()
        .map(|grant| grant.claim.job)
        .collect();
    assert_eq!(taken.len(), 3);
    assert_eq!(taken[2], later, "recovered jobs go first");
}

async fn silence_spares_exclusive_jobs_until_expiry(world: Arc<World>) {
    let plain = world.submit().await;
    let exclusive = world.submit_as(|spec| spec.exclusive = true).await;
    let agent = world.agent(1);
    world.claim(&agent, 2).await;
    let reply = world
        .revoke(&world.operator, &agent, Verdict::Silent, 0)
        .await
        .unwrap();
    assert_eq!(
        (reply.requeued, reply.waiting),
        (vec![plain], vec![exclusive])
    );
    world.check_state(exclusive, JobState::Assigned).await;
    let early = world.store.requeue(&world.operator, 10).await.unwrap();
    assert!(early.requeued.is_empty());
    world.pass_lease().await;
    let due = world.store.requeue(&world.operator, 10).await.unwrap();
    assert_eq!(due.requeued, [exclusive]);
}

async fn a_later_run_ends_the_earlier_ones(world: Arc<World>) {
    let job = world.submit_as(|spec| spec.exclusive = true).await;
    let old = world.agent(1);
    let claim = world.claim_one(&old).await.claim;
    let idle = world.agent(1);
    let new = world.agent(1);
    let reply = world
        .revoke(&new.who, &new, Verdict::Superseded, 0)
        .await
        .unwrap();
    assert_eq!((reply.revoked, reply.requeued), (true, vec![job]));
    assert!(is_fenced(&world.finish(&old, &world.success(claim)).await));
    let request = world.claim_request(&idle, 1);
    let dead = world.store.try_claim(&idle.who, request).await;
    assert!(
        matches!(dead, Err(StoreError::IncarnationRevoked)),
        "{dead:?}"
    );
    assert_eq!(world.claim_one(&new).await.claim.job, job);
}

async fn nobody_else_supersedes_a_node(world: Arc<World>) {
    let (victim, other) = (world.agent(1), world.agent(2));
    let refused = world
        .revoke(&other.who, &victim, Verdict::Superseded, 0)
        .await;
    assert!(
        matches!(refused, Err(StoreError::Forbidden(_))),
        "{refused:?}"
    );
}

async fn votes_need_a_quorum(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    world.claim_one(&agent).await;
    let (one, two) = (world.agent(2), world.agent(3));
    for _ in 0..2 {
        let reply = world
            .revoke(&one.who, &agent, Verdict::Closed, 0)
            .await
            .unwrap();
        assert!(!reply.revoked, "one guardian votes once");
    }
    world.check_state(job, JobState::Assigned).await;
    let reply = world
        .revoke(&two.who, &agent, Verdict::Closed, 0)
        .await
        .unwrap();
    assert_eq!((reply.revoked, reply.requeued), (true, vec![job]));
}

async fn a_verdict_against_the_lively_is_refused(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    world
        .renew(&agent, &[(claim, Phase::Running)], true)
        .await
        .unwrap();
    let refused = world
        .revoke(&world.operator, &agent, Verdict::Silent, 1_500)
        .await;
    assert!(
        matches!(refused, Err(StoreError::HeardFrom { .. })),
        "{refused:?}"
    );
    world.check_state(job, JobState::Running).await;
    world.pass(std::time::Duration::from_millis(1_600)).await;
    let reply = world
        .revoke(&world.operator, &agent, Verdict::Silent, 1_500)
        .await
        .unwrap();
    assert_eq!(reply.requeued, [job]);
}

async fn a_verdict_is_passed_once(world: Arc<World>) {
    let agent = world.agent(1);
    world.submit().await;
    world.claim_one(&agent).await;
    let revocation = Revocation {
        agent: agent.who.node.unwrap(),
        incarnation: agent.incarnation,
        verdict: Verdict::Closed,
        silent_ms: 0,
        nonce: world.nonce(),
    };
    world
        .store
        .revoke(&world.operator, revocation.clone())
        .await
        .unwrap();
    let again = world.store.revoke(&world.operator, revocation).await;
    assert!(matches!(again, Err(StoreError::Conflict(_))), "{again:?}");
}

async fn a_verdict_buries_what_has_no_retries(world: Arc<World>) {
    let job = world.submit_as(|spec| spec.retries = 0).await;
    let agent = world.agent(1);
    world.claim_one(&agent).await;
    let reply = world
        .revoke(&world.operator, &agent, Verdict::Closed, 0)
        .await
        .unwrap();
    assert_eq!((reply.requeued, reply.buried), (vec![], vec![job]));
    world.check_state(job, JobState::Dead).await;
}

async fn a_verdict_races_a_finish(world: Arc<World>) {
    for _ in 0..5 {
        let job = world.submit().await;
        let agent = world.agent(1);
        let claim = world.claim_one(&agent).await.claim;
        let request = world.success(claim);
        let (finished, judged) = futures::future::join(
            world.finish(&agent, &request),
            world.revoke(&world.operator, &agent, Verdict::Closed, 0),
        )
        .await;
        let requeued = judged.unwrap().requeued;
        assert_eq!(
            finished.is_ok(),
            requeued.is_empty(),
            "exactly one of both wins"
        );
        let expected = if finished.is_ok() {
            JobState::Succeeded
        } else {
            JobState::Queued
        };
        world.check_state(job, expected).await;
        world
            .store
            .cancel(&world.user, job, "next round")
            .await
            .unwrap();
    }
}
