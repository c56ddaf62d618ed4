//! Lists, events and what a store says of itself.

use std::sync::Arc;

use mutual_model::job::JobState;

use super::cases;
use crate::conformance::world::World;
use crate::{DemandStore, JobFilter, StoreError};

cases![
    a_store_says_what_it_is,
    lists_are_filtered_and_paged,
    events_tell_every_change_in_order,
    events_are_paged,
    changes_are_announced,
];

async fn a_store_says_what_it_is(world: Arc<World>) {
    let info = world.store.info().await.unwrap();
    assert_eq!(info.terms, crate::conformance::config().terms);
    assert_eq!(info.store, world.restart().await.store);
}

async fn lists_are_filtered_and_paged(world: Arc<World>) {
    let mut jobs = Vec::new();
    for number in 0..7 {
        jobs.push(
            world
                .submit_as(|spec| spec.name = format!("render-{number}"))
                .await,
        );
    }
    let other = world.submit_as(|spec| spec.name = "count".into()).await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    let mut filter = JobFilter {
        name_prefix: Some("render-".into()),
        limit: 3,
        ..JobFilter::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = world.store.jobs(&world.user, &filter).await.unwrap();
        seen.extend(page.jobs.iter().map(|job| job.id));
        filter.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    seen.sort();
    jobs.sort();
    assert_eq!(seen, jobs);
    let held = JobFilter {
        states: vec![JobState::Assigned],
        holder: agent.who.node,
        ..JobFilter::default()
    };
    let page = world.store.jobs(&world.user, &held).await.unwrap();
    assert_eq!(
        page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(),
        [claim.job]
    );
    let named = JobFilter {
        name_prefix: Some("count".into()),
        namespace: Some("lab".parse().unwrap()),
        ..JobFilter::default()
    };
    let page = world.store.jobs(&world.user, &named).await.unwrap();
    assert_eq!(page.jobs[0].id, other);
    let absurd = JobFilter {
        limit: 1_001,
        ..JobFilter::default()
    };
    let refused = world.store.jobs(&world.user, &absurd).await;
    assert!(
        matches!(refused, Err(StoreError::Invalid(_))),
        "{refused:?}"
    );
}

async fn events_tell_every_change_in_order(world: Arc<World>) {
    let job = world.submit().await;
    let agent = world.agent(1);
    let claim = world.claim_one(&agent).await.claim;
    world.release(&agent, claim).await.unwrap();
    let claim = world.claim_one(&agent).await.claim;
    world.finish(&agent, &world.success(claim)).await.unwrap();
    let page = world.store.events(&world.user, 0, 100).await.unwrap();
    let states: Vec<_> = page.events.iter().map(|event| event.state).collect();
    use JobState::{Assigned, Queued, Succeeded};
    assert_eq!(states, [Queued, Assigned, Queued, Assigned, Succeeded]);
    assert!(page.events.is_sorted_by_key(|event| event.sequence));
    assert!(page.events.iter().all(|event| event.job == job));
    let last = page.events.last().unwrap();
    assert_eq!((last.claim, last.agent), (Some(claim), agent.who.node));
    let rest = world
        .store
        .events(&world.user, page.next, 100)
        .await
        .unwrap();
    assert!(rest.events.is_empty() && rest.next >= page.next);
}

async fn events_are_paged(world: Arc<World>) {
    for _ in 0..7 {
        world.submit().await;
    }
    let (mut after, mut seen) = (0, Vec::new());
    loop {
        let page = world.store.events(&world.user, after, 2).await.unwrap();
        assert!(page.events.len() <= 2);
        after = page.next;
        if page.events.is_empty() {
            break;
        }
        seen.extend(page.events.into_iter().map(|event| event.job));
    }
    assert_eq!(seen.len(), 7);
    let refused = world.store.events(&world.user, 0, 0).await;
    assert!(
        matches!(refused, Err(StoreError::Invalid(_))),
        "{refused:?}"
    );
}

async fn changes_are_announced(world: Arc<World>) {
    let Some(mut changes) = world.store.changes() else {
        return;
    };
    changes.mark_unchanged();
    world.submit().await;
    assert!(changes.has_changed().unwrap_or(false));
}
