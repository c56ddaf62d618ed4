//! Guardians found through the DHT and asked over discovery's port.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mutual_model::ids::Namespace;
use mutual_model::kademlia::Contact;
use mutual_model::record::NodeRecord;

use super::NodeError;
use crate::agent::AgentNode;
use crate::config::AgentConfig;
use crate::discovery::{Caller, Discovery};
use crate::liveness::{Candidate, Vicinity};

/// Kind of the datagram by which an agent asks to be watched.
const GUARD_KIND: u8 = 2;
/// How long a look-up of agents may take.
const LOOK_UP: Duration = Duration::from_millis(500);
/// How long a node may take to answer.
const ASK: Duration = Duration::from_millis(800);

/// The agents of this node's namespaces.
#[derive(Debug)]
struct Roster {
    discovery: Discovery,
    namespaces: Vec<Namespace>,
}

fn candidate(node: &NodeRecord) -> Option<Candidate> {
    let runs_tasks = !node.isolation.is_empty();
    let address = *node.udp.first().filter(|_| runs_tasks)?;
    Some(Candidate {
        key: node.node,
        address,
    })
}

#[async_trait]
impl Vicinity for Roster {
    async fn agents(&self) -> Vec<Candidate> {
        let mut found = BTreeMap::new();
        for namespace in &self.namespaces {
            let nodes = self.discovery.nodes(namespace, LOOK_UP).await;
            let agents = nodes.iter().filter_map(candidate);
            found.extend(agents.map(|agent| (agent.key.node_id(), agent)));
        }
        found.into_values().collect()
    }

    async fn ask(&self, candidate: Candidate, question: Vec<u8>) -> Option<Vec<u8>> {
        let contact = Contact::new(candidate.key, candidate.address);
        let asked = self.discovery.request(contact, GUARD_KIND, question, ASK);
        asked.await.ok()
    }
}

/// Lets the agent be watched and watch others for as long as the returned future lives.
///
/// # Errors
/// [`NodeError::Heartbeats`], [`NodeError::Discovery`].
pub(super) async fn guard(
    agent: &AgentNode,
    config: &AgentConfig,
    discovery: &Discovery,
    namespaces: &[Namespace],
) -> Result<impl Future<Output = ()> + Send + use<>, NodeError> {
    let roster = Roster {
        discovery: discovery.clone(),
        namespaces: namespaces.to_vec(),
    };
    let wanted = usize::try_from(config.guardians).unwrap_or(usize::MAX);
    let guarding = agent.guard(config.silence(), wanted, Arc::new(roster));
    let guardianship = Arc::new(guarding.await.map_err(NodeError::Heartbeats)?);
    let desk = Arc::downgrade(&guardianship);
    let answer = move |caller: Caller, question: Vec<u8>| {
        let desk = desk.upgrade();
        async move {
            let from = caller.contact();
            desk?.answer(from.node_id(), from.addr(), &question).await
        }
    };
    discovery.serve(GUARD_KIND, answer).await?;
    Ok(async move {
        let _guardianship = guardianship;
        std::future::pending::<()>().await;
    })
}
