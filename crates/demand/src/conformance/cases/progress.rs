//! Renewals, phases and checkpoints (DESIGN §3.3, 3.11).

use std::sync::Arc;

use mutual_model::guardian::StateHash;
use mutual_model::job::JobState;
use mutual_model::lease::{LostReason, Phase};

use super::cases;
use crate::conformance::world::{World, is_fenced};
use crate::{DemandStore, StoreError};

cases![
    a_renewal_moves_a_job_forward_and_never_back,
    a_renewal_tells_what_is_lost_and_why,
    an_old_claim_beside_the_new_one_is_lost,
    a_claim_unlisted_twice_is_released,
    a_renewal_tells_of_claims_that_were_not_listed,
    an_incomplete_list_releases_nothing,
    checkpoints_are_kept_in_order,
    a_checkpoint_needs_a_receipt,
    a_user_asks_for_a_checkpoint,
];

async fn a_renewal_moves_a_job_forward_and_never_back(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    for (phase, state) in [
        (Phase::Preparing, JobState::Preparing),
        (Phase::Running, JobState::Running),
        (Phase::Preparing, JobState::Running),
        (Phase::Assigned, JobState::Running),
    ] {
        let reply = world.renew(&agent, &[(claim, phase)], true).await.unwrap();
        assert_eq!((reply.held, reply.lost), (vec![job], vec![]));
        world.check_state(job, state).await;
    }
    assert!(world.view(job).await.attempts[0].started_at.is_some());
}

async fn a_renewal_tells_what_is_lost_and_why(world: Arc<World>) {
    let agent = world.agent(1);
    for _ in 0..3 {
        world.submit().await;
    }
    let claims: Vec<_> = world
        .claim(&agent, 3)
        .await
        .iter()
        .map(|grant| grant.claim)
        .collect();
    world
        .store
        .cancel(&world.user, claims[0].job, "enough")
        .await
        .unwrap();
    world
        .finish(&agent, &world.success(claims[1]))
        .await
        .unwrap();
    let mut forged = claims[2];
    forged.nonce = world.nonce();
    let held = [
        (claims[0], Phase::Running),
        (claims[1], Phase::Running),
        (forged, Phase::Running),
    ];
    let reply = world.renew(&agent, &held, false).await.unwrap();
    assert!(reply.held.is_empty());
    let reason = |claim| {
        reply
            .lost
            .iter()
            .find(|lost| lost.claim == claim)
            .map(|lost| lost.reason)
    };
    assert_eq!(reason(claims[0]), Some(LostReason::Cancelled));
    assert_eq!(reason(claims[1]), Some(LostReason::Finished));
    assert_eq!(reason(forged), Some(LostReason::Fenced));
    world.check_state(claims[2].job, JobState::Assigned).await;
}

async fn an_old_claim_beside_the_new_one_is_lost(world: Arc<World>) {
    world.submit().await;
    let agent = world.agent(1);
    let old = world.claim_one(&agent).await.claim;
    world.release(&agent, old).await.unwrap();
    let new = world.claim_one(&agent).await.claim;
    for held in [[old, new], [new, old]] {
        let held = held.map(|claim| (claim, Phase::Running));
        let reply = world.renew(&agent, &held, true).await.unwrap();
        assert_eq!(reply.held, [new.job]);
        let lost: Vec<_> = reply.lost.iter().map(|lost| lost.claim).collect();
        assert_eq!(lost, [old]);
    }
    // An old claim in its place does not hide that the new one is missing.
    for _ in 0..2 {
        let reply = world.renew(&agent, &[(old, Phase::Running)], true).await;
        assert!(reply.unwrap().held.is_empty());
    }
    world.check_state(new.job, JobState::Queued).await;
}

async fn a_claim_unlisted_twice_is_released(world: Arc<World>) {
    let lost = world.submit().await;
    let agent = world.agent(1);
    let unheard = world.claim_one(&agent).await.claim;
    let kept = world.submit().await;
    let claim = world.claim_one(&agent).await.claim;
    world
        .renew(&agent, &[(claim, Phase::Running)], true)
        .await
        .unwrap();
    world.check_state(lost, JobState::Assigned).await;
    // Listed again in between, so it begins anew.
    world
        .renew(
            &agent,
            &[(claim, Phase::Running), (unheard, Phase::Assigned)],
            true,
        )
        .await
        .unwrap();
    world
        .renew(&agent, &[(claim, Phase::Running)], true)
        .await
        .unwrap();
    world.check_state(lost, JobState::Assigned).await;
    world
        .renew(&agent, &[(claim, Phase::Running)], true)
        .await
        .unwrap();
    let view = world.view(lost).await;
    assert_eq!((view.state, view.attempts_counted), (JobState::Queued, 0));
    world.check_state(kept, JobState::Running).await;
    assert!(is_fenced(
        &world.finish(&agent, &world.success(unheard)).await
    ));
}

async fn a_renewal_tells_of_claims_that_were_not_listed(world: Arc<World>) {
    let agent = world.agent(1);
    world.submit().await;
    let unheard = world.claim_one(&agent).await.claim;
    world.submit().await;
    let claim = world.claim_one(&agent).await.claim;
    let listed = [(claim, Phase::Running)];
    let reply = world.renew(&agent, &listed, true).await.unwrap();
    assert_eq!(reply.state, StateHash::of_claims([&unheard, &claim]));
    // The second complete list releases it, and the third finds both of one mind.
    for expected in [vec![&unheard, &claim], vec![&claim]] {
        let reply = world.renew(&agent, &listed, true).await.unwrap();
        assert_eq!(reply.state, StateHash::of_claims(expected));
    }
}

async fn an_incomplete_list_releases_nothing(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    world.claim_one(&agent).await;
    for _ in 0..4 {
        world.renew(&agent, &[], false).await.unwrap();
    }
    world.check_state(job, JobState::Assigned).await;
}

async fn checkpoints_are_kept_in_order(world: Arc<World>) {
    let job = world.submit().await;
    let first = world.agent(1);
    let claim = world.claim_one(&first).await.claim;
    for sequence in [1, 2, 5, 3, 5] {
        world.checkpoint(&first, claim, sequence).await.unwrap();
    }
    let kept: Vec<_> = world
        .view(job)
        .await
        .checkpoints
        .iter()
        .map(|kept| kept.sequence)
        .collect();
    assert_eq!(kept, [5, 2]);
    world.release(&first, claim).await.unwrap();
    let stale = world.checkpoint(&first, claim, 9).await;
    assert!(is_fenced(&stale), "{stale:?}");
    let second = world.agent(2);
    let grant = world.claim_one(&second).await;
    let offered: Vec<_> = grant
        .checkpoints
        .iter()
        .map(|kept| (kept.fence, kept.sequence))
        .collect();
    assert_eq!(offered, [(claim.fence, 5), (claim.fence, 2)]);
    world.checkpoint(&second, grant.claim, 1).await.unwrap();
    let best = &world.view(job).await.checkpoints[0];
    assert_eq!((best.fence, best.sequence), (grant.claim.fence, 1));
}

async fn a_checkpoint_needs_a_receipt(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    let mut report = world.saved(claim, 1);
    report.manifest.receipts.clear();
    let refused = world.store.checkpoint(&agent.who, report).await;
    assert!(
        matches!(refused, Err(StoreError::Invalid(_))),
        "{refused:?}"
    );
    assert!(world.view(job).await.checkpoints.is_empty());
}

async fn a_user_asks_for_a_checkpoint(world: Arc<World>) {
    let job = world.submit().await;
    let early = world.store.request_checkpoint(&world.user, job).await;
    assert!(matches!(early, Err(StoreError::Conflict(_))), "{early:?}");
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    world
        .store
        .request_checkpoint(&world.user, job)
        .await
        .unwrap();
    let reply = world
        .renew(&agent, &[(claim, Phase::Running)], true)
        .await
        .unwrap();
    assert_eq!(reply.checkpoint_wanted, [job]);
    world.checkpoint(&agent, claim, 1).await.unwrap();
    let reply = world
        .renew(&agent, &[(claim, Phase::Running)], true)
        .await
        .unwrap();
    assert!(reply.checkpoint_wanted.is_empty());
}
