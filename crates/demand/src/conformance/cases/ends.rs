//! Finishing, failing, cancelling (DESIGN §3.1, 3.4, 3.6, 3.7, 3.15, 3.16).

use std::sync::Arc;

use futures::future::join_all;
use mutual_model::job::{Failure, JobState};
use mutual_model::lease::Phase;

use super::cases;
use crate::conformance::world::{World, is_fenced};
use crate::{AttemptEnd, DemandStore, Disposition, StoreError};

cases![
    a_finish_is_kept_and_repeated_alike,
    another_result_is_a_conflict,
    racing_repeats_of_a_finish_agree,
    a_stale_fence_changes_nothing,
    a_finish_after_expiry_counts_while_its_fence_is_current,
    a_success_needs_receipts_of_others,
    a_failure_with_retries_left_is_queued_again,
    each_failed_attempt_keeps_its_log,
    the_last_failure_ends_the_job,
    a_hopeless_failure_is_not_retried,
    a_repeated_failure_is_answered_alike_after_another_claim,
    cancelling_ends_it_for_good,
];

async fn a_finish_is_kept_and_repeated_alike(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    let request = world.success(claim);
    let first = world.finish(&agent, &request).await.unwrap();
    assert_eq!(
        (first.disposition, first.state),
        (Disposition::Ended, JobState::Succeeded)
    );
    for _ in 0..3 {
        assert_eq!(world.finish(&agent, &request).await, Ok(first));
    }
    world.restart().await;
    assert_eq!(world.finish(&agent, &request).await, Ok(first));
    let view = world.view(job).await;
    assert_eq!(view.result, Some(request.result));
    assert_eq!(view.attempts[0].end, Some(AttemptEnd::Succeeded));
    assert!(view.finished_at.is_some() && view.attempts_counted == 0);
}

async fn another_result_is_a_conflict(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    let request = world.success(claim);
    world.finish(&agent, &request).await.unwrap();
    let mut other = request.clone();
    other.result = world.result("bafyother", 100);
    let refused = world.finish(&agent, &other).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict(_))),
        "{refused:?}"
    );
    let failure = world.failure(claim, Failure::OutOfMemory);
    let refused = world.finish(&agent, &failure).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict(_))),
        "{refused:?}"
    );
    assert_eq!(world.view(job).await.result, Some(request.result));
}

async fn racing_repeats_of_a_finish_agree(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    let (one, mut other) = (world.success(claim), world.success(claim));
    other.result = world.result("bafyother", 100);
    let calls = (0..12).map(|number| {
        let request = if number % 2 == 0 { &one } else { &other };
        world.finish(&agent, request)
    });
    let outcomes = join_all(calls).await;
    assert_eq!(
        outcomes.iter().filter(|outcome| outcome.is_ok()).count(),
        6,
        "{outcomes:?}"
    );
    world.check_state(job, JobState::Succeeded).await;
}

async fn a_stale_fence_changes_nothing(world: Arc<World>) {
    let job = world.submit().await;
    let (old, new) = (world.agent(1), world.agent(2));
    let stale = world.claim_one(&old).await.claim;
    world.pass_lease().await;
    let current = world.claim_one(&new).await.claim;
    assert!(current.fence > stale.fence);
    assert!(is_fenced(&world.finish(&old, &world.success(stale)).await));
    assert!(is_fenced(&world.checkpoint(&old, stale, 1).await));
    assert!(is_fenced(&world.release(&old, stale).await));
    let renewed = world
        .renew(&old, &[(stale, Phase::Running)], true)
        .await
        .unwrap();
    assert!(renewed.held.is_empty());
    let mut forged = stale;
    forged.fence = current.fence;
    assert!(is_fenced(&world.finish(&old, &world.success(forged)).await));
    let view = world.view(job).await;
    assert_eq!((view.state, view.attempts_counted), (JobState::Assigned, 1));
    assert!(view.checkpoints.is_empty() && view.result.is_none());
    world.finish(&new, &world.success(current)).await.unwrap();
}

async fn a_finish_after_expiry_counts_while_its_fence_is_current(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    world.pass_lease().await;
    world.finish(&agent, &world.success(claim)).await.unwrap();
    world.check_state(job, JobState::Succeeded).await;
}

async fn a_success_needs_receipts_of_others(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    let mut own = world.success(claim);
    own.result = world.result("bafyresult", 1);
    let mut none = world.success(claim);
    none.result.output = None;
    let mut forged = world.success(claim);
    if let Some(output) = &mut forged.result.output {
        output.receipts[0].bytes += 1;
    }
    for request in [own, none, forged] {
        let refused = world.finish(&agent, &request).await;
        assert!(
            matches!(refused, Err(StoreError::Invalid(_))),
            "{refused:?}"
        );
    }
    world.check_state(job, JobState::Assigned).await;
    world.finish(&agent, &world.success(claim)).await.unwrap();
}

async fn a_failure_with_retries_left_is_queued_again(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    let failure = world.failure(claim, Failure::ExitCode { code: 3 });
    let reply = world.finish(&agent, &failure).await.unwrap();
    assert_eq!(
        (reply.disposition, reply.state),
        (Disposition::Retried, JobState::Queued)
    );
    let view = world.view(job).await;
    assert_eq!(
        (view.attempts_counted, view.attempts[0].end),
        (1, Some(AttemptEnd::Failed))
    );
    let again = world.claim_one(&agent).await;
    world
        .finish(&agent, &world.success(again.claim))
        .await
        .unwrap();
    world.check_state(job, JobState::Succeeded).await;
}

async fn each_failed_attempt_keeps_its_log(world: Arc<World>) {
    let job = world.submit_as(|spec| spec.retries = 2).await;
    let agent = world.agent(1);
    let mut logs = Vec::new();
    for name in ["bafyfirst", "bafysecond"] {
        let claim = world.claim_one(&agent).await.claim;
        let mut request = world.failure(claim, Failure::OutOfMemory);
        request.result.log = Some(world.object(name, "result key v1", 100));
        world.finish(&agent, &request).await.unwrap();
        logs.push(request.result.log);
    }
    let claim = world.claim_one(&agent).await.claim;
    let mut request = world.success(claim);
    request.result.log = Some(world.object("bafylast", "result key v1", 100));
    world.finish(&agent, &request).await.unwrap();
    let view = world.view(job).await;
    // A success's log is in the result: once is enough.
    logs.push(None);
    let kept: Vec<_> = view.attempts.into_iter().map(|past| past.log).collect();
    assert_eq!(kept, logs);
    assert_eq!(view.result, Some(request.result));
}

async fn the_last_failure_ends_the_job(world: Arc<World>) {
    for (failure, expected) in [
        (Failure::ExitCode { code: 1 }, JobState::Failed),
        (Failure::TimeLimit, JobState::TimedOut),
    ] {
        let job = world.submit_as(|spec| spec.retries = 1).await;
        let agent = world.agent(1);
        for last in [false, true] {
            let claim = world.claim_one(&agent).await.claim;
            let request = world.failure(claim, failure.clone());
            let reply = world.finish(&agent, &request).await.unwrap();
            assert_eq!(reply.disposition == Disposition::Ended, last);
        }
        let view = world.view(job).await;
        assert_eq!((view.state, view.attempts_counted), (expected, 2));
        assert!(world.claim(&agent, 1).await.is_empty());
    }
}

async fn a_hopeless_failure_is_not_retried(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    let hopeless = Failure::NotStarted {
        reason: "no such command".into(),
        retryable: false,
    };
    let reply = world
        .finish(&agent, &world.failure(claim, hopeless))
        .await
        .unwrap();
    assert_eq!(reply.state, JobState::Failed);
    world.check_state(job, JobState::Failed).await;
}

async fn a_repeated_failure_is_answered_alike_after_another_claim(world: Arc<World>) {
    let job = world.submit().await;
    let (first, second) = (world.agent(1), world.agent(2));
    let claim = world.claim_one(&first).await.claim;
    let failure = world.failure(claim, Failure::Signal { signal: 9 });
    let reply = world.finish(&first, &failure).await.unwrap();
    let next = world.claim_one(&second).await.claim;
    assert_eq!(world.finish(&first, &failure).await, Ok(reply));
    let view = world.view(job).await;
    assert_eq!((view.state, view.attempts_counted), (JobState::Assigned, 1));
    world.finish(&second, &world.success(next)).await.unwrap();
    assert_eq!(world.finish(&first, &failure).await, Ok(reply));
    world.check_state(job, JobState::Succeeded).await;
}

async fn cancelling_ends_it_for_good(world: Arc<World>) {
    let waiting = world.submit_as(|spec| spec.has_input = true).await;
    let queued = world.submit().await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    for job in [waiting, queued, queued] {
        let view = world
            .store
            .cancel(&world.user, job, "changed my mind")
            .await
            .unwrap();
        assert_eq!(view.state, JobState::Cancelled);
    }
    assert!(is_fenced(
        &world.finish(&agent, &world.success(claim)).await
    ));
    assert!(is_fenced(&world.release(&agent, claim).await));
    let late = world
        .store
        .attach_manifest(&world.user, waiting, world.input("bafyinput"))
        .await;
    assert!(matches!(late, Err(StoreError::Conflict(_))), "{late:?}");
    let view = world.view(queued).await;
    assert_eq!(view.attempts[0].end, Some(AttemptEnd::Cancelled));
    let done = world.submit().await;
    let claim = world.claim_one(&agent).await.claim;
    world.finish(&agent, &world.success(claim)).await.unwrap();
    let view = world
        .store
        .cancel(&world.user, done, "too late")
        .await
        .unwrap();
    assert_eq!(view.state, JobState::Succeeded);
}
