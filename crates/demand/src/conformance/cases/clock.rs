//! The store's clock, expiry, restarts and epochs (DESIGN §3.10, 3.15, §10).

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join, join_all};
use mutual_model::job::JobState;
use mutual_model::lease::Phase;

use super::cases;
use crate::conformance::world::{Agent, World, is_fenced};
use crate::{AttemptEnd, ClaimScope, DemandStore};

cases![
    an_expired_lease_is_requeued_and_goes_first,
    a_poll_alone_recovers_an_expired_job,
    a_renewed_lease_does_not_expire,
    a_renewal_races_the_sweep,
    racing_sweeps_count_a_loss_once,
    dying_holders_bury_a_job_in_the_end,
    nothing_expires_right_after_a_restart,
    nothing_expires_right_after_a_new_epoch,
    nothing_expires_when_the_clock_is_set,
    epochs_and_fences_outlive_restarts,
    claims_survive_a_restart,
    a_job_waits_no_longer_than_it_may,
];

const SWEEP: u32 = 1_000;

async fn an_expired_lease_is_requeued_and_goes_first(world: Arc<World>) {
    let job = world.submit_as(|spec| spec.priority = -9).await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    world.submit_as(|spec| spec.priority = 9).await;
    let early = world.store.requeue(&world.operator, SWEEP).await.unwrap();
    assert!(early.requeued.is_empty() && early.next_ms > 0);
    world.pass_lease().await;
    let due = world.store.requeue(&world.operator, SWEEP).await.unwrap();
    assert_eq!(due.requeued, [job]);
    let view = world.view(job).await;
    assert_eq!((view.state, view.attempts_counted), (JobState::Queued, 1));
    assert_eq!(view.attempts[0].end, Some(AttemptEnd::LeaseExpired));
    assert!(is_fenced(
        &world.finish(&agent, &world.success(claim)).await
    ));
    let successor = world.agent(2);
    assert_eq!(
        world.claim_one(&successor).await.claim.job,
        job,
        "the recovered one goes first"
    );
}

async fn a_poll_alone_recovers_an_expired_job(world: Arc<World>) {
    let job = world.submit().await;
    world.claim_one(&world.agent(1)).await;
    let poller = world.agent(2);
    assert!(world.claim(&poller, 1).await.is_empty());
    world.pass_lease().await;
    let mut request = world.claim_request(&poller, 1);
    request.scope = ClaimScope::Jobs(vec![job]);
    let reply = world.store.try_claim(&poller.who, request).await.unwrap();
    assert_eq!(reply.grants.len(), 1);
}

async fn a_renewed_lease_does_not_expire(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    for _ in 0..3 {
        world.pass(Duration::from_millis(1_200)).await;
        world
            .renew(&agent, &[(claim, Phase::Running)], true)
            .await
            .unwrap();
        let swept = world.store.requeue(&world.operator, SWEEP).await.unwrap();
        assert!(swept.requeued.is_empty());
    }
    world.check_state(job, JobState::Running).await;
}

async fn a_renewal_races_the_sweep(world: Arc<World>) {
    for _ in 0..5 {
        let job = world.submit().await;
        let agent = world.agent(1);
        let claim = world.claim_one(&agent).await.claim;
        world.pass_lease().await;
        let held = [(claim, Phase::Running)];
        let renewal = world.renew(&agent, &held, true);
        let sweep = world.store.requeue(&world.operator, SWEEP);
        let (renewed, swept) = join(renewal, sweep).await;
        let (is_held, is_swept) = (
            renewed.unwrap().held.contains(&job),
            swept.unwrap().requeued.contains(&job),
        );
        assert!(!(is_held && is_swept), "held and requeued at once");
        let expected = if is_swept {
            JobState::Queued
        } else {
            JobState::Running
        };
        world.check_state(job, expected).await;
        world
            .store
            .cancel(&world.user, job, "next round")
            .await
            .unwrap();
    }
}

async fn racing_sweeps_count_a_loss_once(world: Arc<World>) {
    let job = world.submit().await;
    world.claim_one(&world.agent(1)).await;
    world.pass_lease().await;
    let sweeps = (0..8).map(|_| world.store.requeue(&world.operator, SWEEP));
    let swept = join_all(sweeps).await;
    let times: usize = swept
        .into_iter()
        .map(|report| report.unwrap().requeued.len())
        .sum();
    assert_eq!((times, world.view(job).await.attempts_counted), (1, 1));
}

async fn dying_holders_bury_a_job_in_the_end(world: Arc<World>) {
    let job = world.submit_as(|spec| spec.retries = 1).await;
    for expected in [JobState::Queued, JobState::Dead] {
        let agent: Agent = world.agent(1);
        world.claim_one(&agent).await;
        world.pass_lease().await;
        let swept = world.store.requeue(&world.operator, SWEEP).await.unwrap();
        assert_eq!(swept.buried.contains(&job), expected == JobState::Dead);
        world.check_state(job, expected).await;
    }
    assert!(world.claim(&world.agent(2), 1).await.is_empty());
    assert_eq!(world.view(job).await.attempts_counted, 2);
}

async fn nothing_expires_right_after_a_restart(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    world.pass_lease().await;
    world.restart().await;
    let swept = world.store.requeue(&world.operator, SWEEP).await.unwrap();
    assert!(swept.requeued.is_empty());
    assert!(world.claim(&world.agent(2), 1).await.is_empty());
    let reply = world
        .renew(&agent, &[(claim, Phase::Running)], true)
        .await
        .unwrap();
    assert_eq!(reply.held, [job]);
    world.pass_lease().await;
    let swept = world.store.requeue(&world.operator, SWEEP).await.unwrap();
    assert_eq!(swept.requeued, [job]);
}

async fn nothing_expires_right_after_a_new_epoch(world: Arc<World>) {
    let job = world.submit().await;
    world.claim_one(&world.agent(1)).await;
    world.pass_lease().await;
    let epoch = world.store.new_epoch(&world.operator).await.unwrap();
    assert!(epoch > world.epoch());
    assert_eq!(world.store.info().await.unwrap().epoch, epoch);
    let swept = world.store.requeue(&world.operator, SWEEP).await.unwrap();
    assert!(swept.requeued.is_empty());
    world.pass_lease().await;
    let swept = world.store.requeue(&world.operator, SWEEP).await.unwrap();
    assert_eq!(swept.requeued, [job]);
}

async fn nothing_expires_when_the_clock_is_set(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    world.set_clock_forward(Duration::from_secs(3_600)).await;
    let swept = world.store.requeue(&world.operator, SWEEP).await.unwrap();
    assert!(swept.requeued.is_empty(), "{swept:?}");
    let reply = world
        .renew(&agent, &[(claim, Phase::Running)], true)
        .await
        .unwrap();
    assert_eq!(reply.held, [job]);
}

async fn epochs_and_fences_outlive_restarts(world: Arc<World>) {
    world.submit().await;
    let agent = world.agent(1);
    let (mut epoch, mut fence) = (world.epoch(), None);
    for _ in 0..3 {
        let claim = world.claim_one(&agent).await.claim;
        assert!(Some(claim.fence) > fence);
        assert_eq!(claim.fence.epoch, epoch);
        fence = Some(claim.fence);
        world.release(&agent, claim).await.unwrap();
        let info = world.restart().await;
        assert!(info.epoch >= epoch);
        epoch = info.epoch;
    }
}

async fn claims_survive_a_restart(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    world.checkpoint(&agent, claim, 1).await.unwrap();
    world.restart().await;
    world.checkpoint(&agent, claim, 2).await.unwrap();
    world.finish(&agent, &world.success(claim)).await.unwrap();
    world.check_state(job, JobState::Succeeded).await;
}

async fn a_job_waits_no_longer_than_it_may(world: Arc<World>) {
    let awaiting = world
        .submit_as(|spec| {
            spec.has_input = true;
            spec.expires_ms = 1_000;
        })
        .await;
    let queued = world.submit_as(|spec| spec.expires_ms = 1_000).await;
    let patient = world.submit().await;
    world.pass(Duration::from_millis(1_100)).await;
    let agent = world.agent(1);
    let taken: Vec<_> = world
        .claim(&agent, 8)
        .await
        .iter()
        .map(|grant| grant.claim.job)
        .collect();
    assert_eq!(taken, [patient]);
    let swept = world.store.requeue(&world.operator, SWEEP).await.unwrap();
    assert_eq!(swept.expired.len(), 2);
    for job in [awaiting, queued] {
        world.check_state(job, JobState::Expired).await;
    }
}
