//! Many at once: every entry of a batch is answered for itself, as it would be alone (DESIGN §3.1, 3.3, 3.7, 3.8).

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join;
use mutual_model::job::{Failure, JobState};
use mutual_model::lease::Claim;

use super::cases;
use crate::conformance::world::{Agent, World, is_fenced};
use crate::{DemandStore, Disposition, FinishRequest, StoreError};

cases![
    many_finishes_at_once,
    each_finish_of_a_batch_is_judged_alone,
    twins_in_a_batch_are_one_finish,
    racing_batches_of_finishes_agree,
    a_batch_without_an_answer_is_settled_by_repeating,
    an_empty_batch_is_answered,
    twins_in_a_submission_are_one_job,
    racing_batches_of_submissions_agree,
    racing_claims_share_the_queue,
];

/// Submits so many tasks, and an agent claims them all.
async fn claimed(world: &World, count: u32) -> (Agent, Vec<Claim>) {
    let tasks = (0..count).map(|_| world.submission(world.task())).collect();
    world.store.submit(&world.user, tasks).await.unwrap();
    let agent = world.agent(1);
    let grants = world.claim(&agent, count).await;
    assert_eq!(grants.len(), count as usize, "everything is free");
    (agent, grants.iter().map(|grant| grant.claim).collect())
}

async fn many_finishes_at_once(world: Arc<World>) {
    let (agent, claims) = claimed(&world, 20).await;
    let requests = claims.iter().map(|claim| world.success(*claim)).collect();
    let outcomes = world.store.finish_many(&agent.who, requests).await;
    assert_eq!(outcomes.len(), 20);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    for claim in claims {
        world.check_state(claim.job, JobState::Succeeded).await;
    }
}

async fn each_finish_of_a_batch_is_judged_alone(world: Arc<World>) {
    let (agent, claims) = claimed(&world, 7).await;
    let before = world.success(claims[0]);
    let reply = world.finish(&agent, &before).await.unwrap();
    let mut other = world.success(claims[1]);
    world.finish(&agent, &other).await.unwrap();
    other.result = world.result("bafyother", 100);
    let mut stale = world.success(claims[2]);
    stale.claim.nonce = world.nonce();
    let mut alone = world.success(claims[3]);
    alone.result = world.result("bafyresult", 1);
    let failed = world.failure(claims[4], Failure::OutOfMemory);
    let mut oversized = world.success(claims[5]);
    oversized.result.metrics.cpu_avg = f64::NAN;
    let mut foreign = world.success(claims[6]);
    foreign.claim.job = world.missing_job();
    let requests = vec![
        before,
        other,
        stale,
        alone,
        failed,
        oversized,
        foreign,
        world.success(claims[6]),
    ];
    let outcomes = world.store.finish_many(&agent.who, requests).await;
    assert_eq!(outcomes[0], Ok(reply), "a repeat is answered alike");
    assert!(
        matches!(outcomes[1], Err(StoreError::Conflict(_))),
        "{:?}",
        outcomes[1]
    );
    assert!(is_fenced(&outcomes[2]), "{:?}", outcomes[2]);
    assert!(
        matches!(outcomes[3], Err(StoreError::Invalid(_))),
        "{:?}",
        outcomes[3]
    );
    assert_eq!(
        outcomes[4].as_ref().unwrap().disposition,
        Disposition::Retried
    );
    assert!(
        matches!(outcomes[5], Err(StoreError::Invalid(_))),
        "{:?}",
        outcomes[5]
    );
    assert_eq!(outcomes[6], Err(StoreError::NotFound));
    assert_eq!(outcomes[7].as_ref().unwrap().state, JobState::Succeeded);
    for (claim, state) in claims[2..].iter().zip([
        JobState::Assigned,
        JobState::Assigned,
        JobState::Queued,
        JobState::Assigned,
        JobState::Succeeded,
    ]) {
        world.check_state(claim.job, state).await;
    }
}

async fn twins_in_a_batch_are_one_finish(world: Arc<World>) {
    let (agent, claims) = claimed(&world, 2).await;
    let good = world.success(claims[0]);
    let mut stale = good.clone();
    stale.claim.nonce = world.nonce();
    let mut other = good.clone();
    other.result = world.result("bafyother", 100);
    let requests = vec![
        stale,
        good.clone(),
        world.success(claims[1]),
        good.clone(),
        other,
    ];
    let outcomes = world.store.finish_many(&agent.who, requests).await;
    assert!(is_fenced(&outcomes[0]), "{:?}", outcomes[0]);
    assert!(outcomes[1].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
    assert_eq!(outcomes[3], outcomes[1]);
    assert!(
        matches!(outcomes[4], Err(StoreError::Conflict(_))),
        "{:?}",
        outcomes[4]
    );
    assert_eq!(world.view(claims[0].job).await.result, Some(good.result));
}

async fn racing_batches_of_finishes_agree(world: Arc<World>) {
    let (agent, claims) = claimed(&world, 12).await;
    let batch = |root: &str, reversed: bool| {
        let finish = |claim: &Claim| FinishRequest {
            result: world.result(root, 100),
            ..world.success(*claim)
        };
        let mut batch: Vec<_> = claims.iter().map(finish).collect();
        if reversed {
            batch.reverse();
        }
        batch
    };
    let (one, mut other) = join(
        world.store.finish_many(&agent.who, batch("bafyone", false)),
        world
            .store
            .finish_many(&agent.who, batch("bafyother", true)),
    )
    .await;
    other.reverse();
    for ((claim, one), other) in claims.iter().zip(one).zip(other) {
        let (winner, loser) = if one.is_ok() {
            (one, other)
        } else {
            (other, one)
        };
        assert_eq!(winner.unwrap().state, JobState::Succeeded);
        assert!(matches!(loser, Err(StoreError::Conflict(_))), "{loser:?}");
        world.check_state(claim.job, JobState::Succeeded).await;
    }
}

async fn a_batch_without_an_answer_is_settled_by_repeating(world: Arc<World>) {
    let (agent, claims) = claimed(&world, 5).await;
    let requests: Vec<_> = claims.iter().map(|claim| world.success(*claim)).collect();
    world.lose_next_reply().await;
    let first = world.store.finish_many(&agent.who, requests.clone()).await;
    for outcome in &first {
        let is_honest = matches!(outcome, Ok(_) | Err(StoreError::Unknown(_)));
        assert!(is_honest, "{outcome:?}");
    }
    let again = world.store.finish_many(&agent.who, requests.clone()).await;
    assert!(again.iter().all(Result::is_ok), "{again:?}");
    let third = world.store.finish_many(&agent.who, requests).await;
    assert_eq!(again, third, "the same reply, however often");
    for claim in claims {
        world.check_state(claim.job, JobState::Succeeded).await;
    }
}

async fn an_empty_batch_is_answered(world: Arc<World>) {
    let agent = world.agent(1);
    let outcomes = world.store.finish_many(&agent.who, Vec::new()).await;
    assert!(outcomes.is_empty());
    assert_eq!(
        world.store.submit(&world.user, Vec::new()).await,
        Ok(Vec::new())
    );
}

async fn twins_in_a_submission_are_one_job(world: Arc<World>) {
    let (twin, single) = (
        world.submission(world.task()),
        world.submission(world.task()),
    );
    let batch = vec![twin.clone(), single, twin.clone()];
    let stored = world.store.submit(&world.user, batch).await.unwrap();
    assert_eq!((stored[0].job, stored[0].repeated), (stored[2].job, false));
    assert!(stored[2].repeated && stored[1].job != stored[0].job);
    let fresh = world.submission(world.task());
    let mut clash = fresh.clone();
    clash.spec.priority = 5;
    let refused = world
        .store
        .submit(&world.user, vec![fresh.clone(), clash])
        .await;
    assert!(
        matches!(refused, Err(StoreError::Conflict(_))),
        "{refused:?}"
    );
    let stored = world.store.submit(&world.user, vec![fresh]).await.unwrap();
    assert!(!stored[0].repeated, "the refused batch left nothing behind");
}

async fn racing_batches_of_submissions_agree(world: Arc<World>) {
    let tasks: Vec<_> = (0..30).map(|_| world.submission(world.task())).collect();
    let mut backwards = tasks.clone();
    backwards.reverse();
    let (one, other) = join(
        world.store.submit(&world.user, tasks),
        world.store.submit(&world.user, backwards),
    )
    .await;
    let (one, mut other) = (one.unwrap(), other.unwrap());
    other.reverse();
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one.job, other.job, "one key, one job");
        assert_ne!(one.repeated, other.repeated, "stored once");
    }
}

async fn racing_claims_share_the_queue(world: Arc<World>) {
    let tasks = (0..24).map(|_| world.submission(world.task())).collect();
    world.store.submit(&world.user, tasks).await.unwrap();
    let agents: Vec<_> = (1..=8).map(|seed| world.agent(seed)).collect();
    let claims = agents.iter().map(|agent| world.claim(agent, 3));
    let granted = futures::future::join_all(claims).await;
    let jobs: BTreeSet<_> = granted
        .iter()
        .flatten()
        .map(|grant| grant.claim.job)
        .collect();
    assert_eq!(
        jobs.len(),
        24,
        "no agent goes away empty while there is work for it"
    );
}
