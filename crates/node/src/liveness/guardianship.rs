//! Both halves of guarding at one node: the agents it watches, and those that watch its agent.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mutual_model::identity::{NodeId, NodeKey, PublicKey};
use tokio_util::task::AbortOnDropHandle;

use super::circle::{self, Vicinity, Ward};
use super::guard::{Bench, Guard};
use super::metrics::GuardianMetrics;
use super::pulse::Pulse;
use super::session::AgentDoor;

/// An agent that has guardians and is one. Dropping it ends both.
#[derive(Debug)]
pub struct Guardianship {
    guard: Guard,
    _circle: AbortOnDropHandle<()>,
}

impl Guardianship {
    /// Opens the port for heartbeats beside the agent's `door`, watches whoever asks with a
    /// certificate of a `trusted` organisation, and looks for guardians for `ward`.
    ///
    /// # Errors
    /// Whatever opening the port reports.
    pub async fn start(
        door: AgentDoor,
        key: NodeKey,
        trusted: Vec<PublicKey>,
        ward: Ward,
        bench: Bench,
        vicinity: Arc<dyn Vicinity>,
        metrics: GuardianMetrics,
    ) -> io::Result<Self> {
        let pulse = Arc::new(Pulse::open(door.address(), key).await?);
        let guard = Guard::start(Arc::clone(&pulse), trusted, bench, metrics.clone())?;
        let circle = circle::run(ward, door, pulse, vicinity, metrics);
        Ok(Self {
            guard,
            _circle: AbortOnDropHandle::new(tokio::spawn(circle)),
        })
    }

    /// Answers the question of an agent that wants to be watched; `None` to what is none.
    pub async fn answer(
        &self,
        agent: NodeId,
        from: SocketAddr,
        question: &[u8],
    ) -> Option<Vec<u8>> {
        self.guard.answer(agent, from, question).await
    }
}
