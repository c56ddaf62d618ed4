//! Reading the ads that others published, for an agent with room left.

use std::collections::BTreeMap;
use std::time::Duration;

use mutual_model::agent::StoreUrl;
use mutual_model::ids::{JobId, Namespace};
use mutual_model::matching::Need;
use mutual_model::resources::Resources;

use crate::agent::{AgentNode, Status};
use crate::auth::unix_now;
use crate::discovery::Discovery;
use std::sync::Arc;
use tokio::sync::watch;

/// How often an agent with room left reads ads. Offers reach it at once; ads are for what offers
/// missed.
const READ_EVERY: Duration = Duration::from_secs(2);
const LOOK_UP: Duration = Duration::from_millis(500);

/// Reads ads for ever and passes them on.
pub(super) async fn read(discovery: Discovery, namespaces: Vec<Namespace>, agent: Arc<AgentNode>) {
    let mut status: watch::Receiver<Status> = agent.status();
    loop {
        tokio::time::sleep(READ_EVERY.mul_f64(rand::random_range(0.75..1.25))).await;
        if status
            .wait_for(|status| status.free.slots > 0)
            .await
            .is_err()
        {
            return;
        }
        let free = status.borrow().free.free;
        for namespace in &namespaces {
            pass_on(&discovery, namespace, free, &agent).await;
        }
    }
}

async fn pass_on(discovery: &Discovery, namespace: &Namespace, free: Resources, agent: &AgentNode) {
    let now = unix_now();
    let found = discovery.open_ads(namespace, free.class(), LOOK_UP).await;
    let mut by_store: BTreeMap<String, Vec<JobId>> = BTreeMap::new();
    for found in found.into_iter().filter(|found| found.ad.expires > now) {
        by_store
            .entry(found.ad.demand_url)
            .or_default()
            .push(found.ad.job);
    }
    if by_store.is_empty() {
        return;
    }
    let nodes = discovery.nodes(namespace, LOOK_UP).await;
    let idle = nodes.iter().filter(|node| node.is_idle()).count();
    for (store, jobs) in by_store {
        // An ad says the class of a need, not the need; the store checks the rest at the claim.
        let need = Need {
            resources: Resources::ZERO,
            class: None,
            labels: BTreeMap::new(),
        };
        let idle = u32::try_from(idle).unwrap_or(u32::MAX).max(1);
        agent
            .advertised(&StoreUrl::from(store.as_str()), jobs, need, idle)
            .await;
    }
}
