//! Submitting, inputs and namespaces (DESIGN §3.5, 3.8, 3.13).

use std::sync::Arc;

use mutual_model::job::JobState;

use super::cases;
use crate::conformance::world::World;
use crate::{DemandStore, Right, StoreError};

cases![
    a_repeated_submission_is_the_same_job,
    another_payload_under_a_key_is_a_conflict,
    a_batch_is_all_or_none,
    an_input_is_attached_once,
    an_input_needs_a_receipt,
    namespaces_do_not_touch,
    rights_are_needed,
    absurd_tasks_are_refused,
];

async fn a_repeated_submission_is_the_same_job(world: Arc<World>) {
    let task = world.submission(world.task());
    let first = world
        .store
        .submit(&world.user, vec![task.clone()])
        .await
        .unwrap();
    let again = world
        .store
        .submit(&world.user, vec![task.clone(), task])
        .await
        .unwrap();
    assert!(!first[0].repeated && again[0].repeated && again[1].repeated);
    assert_eq!((again[0].job, again[1].job), (first[0].job, first[0].job));
    assert_eq!(first[0].state, JobState::Queued);
}

async fn another_payload_under_a_key_is_a_conflict(world: Arc<World>) {
    let task = world.submission(world.task());
    let job = world
        .store
        .submit(&world.user, vec![task.clone()])
        .await
        .unwrap()[0]
        .job;
    let mut other = task;
    other.spec.command.push("more".into());
    let refused = world.store.submit(&world.user, vec![other]).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict(_))),
        "{refused:?}"
    );
    assert_eq!(world.view(job).await.spec.command, ["true"]);
}

async fn a_batch_is_all_or_none(world: Arc<World>) {
    let known = world.submission(world.task());
    world
        .store
        .submit(&world.user, vec![known.clone()])
        .await
        .unwrap();
    let fresh = world.submission(world.task());
    let mut clash = known;
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

async fn an_input_is_attached_once(world: Arc<World>) {
    let job = world.submit_as(|spec| spec.has_input = true).await;
    world.check_state(job, JobState::AwaitingInput).await;
    let agent = world.agent(1);
    assert!(world.claim(&agent, 1).await.is_empty());
    let input = world.input("bafyinput");
    for _ in 0..2 {
        let view = world
            .store
            .attach_manifest(&world.user, job, input.clone())
            .await
            .unwrap();
        assert_eq!(view.state, JobState::Queued);
    }
    let other = world.input("bafyother");
    let refused = world.store.attach_manifest(&world.user, job, other).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict(_))),
        "{refused:?}"
    );
    let grant = world.claim_one(&agent).await;
    assert_eq!(grant.input.map(|input| input.root), Some(input.root));
}

async fn an_input_needs_a_receipt(world: Arc<World>) {
    let job = world.submit_as(|spec| spec.has_input = true).await;
    let mut input = world.input("bafyinput");
    input.receipts.clear();
    let refused = world
        .store
        .attach_manifest(&world.user, job, input.clone())
        .await;
    assert!(
        matches!(refused, Err(StoreError::Invalid(_))),
        "{refused:?}"
    );
    world.check_state(job, JobState::AwaitingInput).await;
    let alone = world
        .submit_as(|spec| {
            spec.has_input = true;
            spec.result_copies = 0;
        })
        .await;
    let taken = world.store.attach_manifest(&world.user, alone, input).await;
    assert_eq!(taken.unwrap().state, JobState::Queued);
}

async fn namespaces_do_not_touch(world: Arc<World>) {
    let job = world.submit().await;
    let stranger = &world.stranger;
    assert_eq!(
        world.store.job(stranger, job).await,
        Err(StoreError::NotFound)
    );
    assert_eq!(
        world.store.cancel(stranger, job, "").await,
        Err(StoreError::NotFound)
    );
    let asked = world.store.request_checkpoint(stranger, job).await;
    assert_eq!(asked, Err(StoreError::NotFound));
    let listed = world
        .store
        .jobs(stranger, &crate::JobFilter::default())
        .await
        .unwrap();
    assert!(listed.jobs.is_empty());
    let events = world.store.events(stranger, 0, 100).await.unwrap();
    assert!(events.events.is_empty());
    let foreign = world
        .store
        .submit(stranger, vec![world.submission(world.task())])
        .await;
    assert!(matches!(foreign, Err(StoreError::NotFound)), "{foreign:?}");
    let mut agent = world.agent(1);
    agent.who.namespaces = stranger.namespaces.clone();
    assert!(world.claim(&agent, 4).await.is_empty());
    let mine = world.agent(2);
    let claim = world.claim_one(&mine).await.claim;
    let foreign = world.finish(&agent, &world.success(claim)).await;
    assert_eq!(foreign, Err(StoreError::NotFound));
    world.check_state(job, JobState::Assigned).await;
}

async fn rights_are_needed(world: Arc<World>) {
    let job = world.submit().await;
    let mut nobody = world.agent(1).who;
    nobody.rights.clear();
    let forbidden = |error: Option<StoreError>| {
        assert!(matches!(error, Some(StoreError::Forbidden(_))), "{error:?}");
    };
    let agent = crate::conformance::world::Agent {
        who: nobody.clone(),
        incarnation: world.agent(1).incarnation,
    };
    let request = world.claim_request(&agent, 1);
    forbidden(world.store.submit(&nobody, vec![]).await.err());
    forbidden(world.store.job(&nobody, job).await.err());
    forbidden(world.store.cancel(&nobody, job, "").await.err());
    forbidden(world.store.try_claim(&nobody, request.clone()).await.err());
    forbidden(world.renew(&agent, &[], true).await.err());
    forbidden(world.store.requeue(&nobody, 1).await.err());
    forbidden(world.store.events(&nobody, 0, 1).await.err());
    forbidden(world.store.new_epoch(&nobody).await.err());
    forbidden(
        world
            .revoke(&nobody, &agent, crate::Verdict::Closed, 0)
            .await
            .err(),
    );
    let mut no_node = nobody;
    no_node.node = None;
    no_node.rights = vec![Right::Work];
    forbidden(world.store.try_claim(&no_node, request).await.err());
}

async fn absurd_tasks_are_refused(world: Arc<World>) {
    let mut absurd = world.submission(world.task());
    absurd.spec.resources.cpu_millis = 0;
    let refused = world.store.submit(&world.user, vec![absurd]).await;
    let Err(StoreError::Invalid(error)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(error.field, "cpus");
    let mut inputless = world.submission(world.task());
    inputless.input = Some(world.input("bafyinput"));
    let refused = world.store.submit(&world.user, vec![inputless]).await;
    assert!(
        matches!(refused, Err(StoreError::Invalid(_))),
        "{refused:?}"
    );
    let many = vec![world.submission(world.task()); 1_001];
    let refused = world.store.submit(&world.user, many).await;
    assert!(
        matches!(refused, Err(StoreError::Invalid(_))),
        "{refused:?}"
    );
}
