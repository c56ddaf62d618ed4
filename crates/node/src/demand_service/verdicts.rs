//! From a lost session to a verdict: the store's own watch ends a dead run's claims at once.

use std::sync::Arc;
use std::time::Duration;

use mutual_demand::{DemandStore, Principal, Revocation, RevocationReply, StoreResult, Verdict};
use mutual_model::ids::Nonce;
use tokio::sync::{Notify, mpsc};

use crate::control::counts::{Counts, Recovery};
use crate::control::offer::Offerer;
use crate::liveness::{Loss, Notice, Peer};

/// Tries to record a verdict, should the store be away just then; afterwards leases decide.
const TRIES: u32 = 5;
/// Pause before the second try; doubled each time.
const PAUSE: Duration = Duration::from_millis(20);

/// Passes verdicts in the server's own name.
#[derive(Debug, Clone)]
pub(super) struct Judge {
    pub(super) store: Arc<dyn DemandStore>,
    pub(super) who: Principal,
    pub(super) counts: Counts,
    /// Offers nothing to the dead.
    pub(super) offerer: Arc<Offerer>,
    /// Wakes the sweeper: something may have expired with the agent.
    pub(super) alarm: Arc<Notify>,
}

/// Judges every loss, each in a task of its own: one that waits for the store delays no other.
pub(super) async fn run(mut notices: mpsc::Receiver<Notice>, judge: Judge) {
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::Opened(peer) => {
                judge.offerer.returned(&peer.agent);
                tracing::debug!(agent = %peer.agent, name = peer.name, "an agent's session opened");
            }
            Notice::Lost { peer, loss, after } if loss.is_closed() => {
                judge.counts.death_detected(after);
                judge.offerer.gone(&peer.agent);
                tokio::spawn(judge.clone().pass(peer, loss));
            }
            Notice::Lost { peer, loss, .. } => {
                // Its leases decide: it may live behind a broken network.
                tracing::info!(agent = %peer.agent, name = peer.name, ?loss, "an agent's session ended");
                judge.alarm.notify_one();
            }
        }
    }
}

impl Judge {
    async fn pass(self, peer: Peer, loss: Loss) {
        match self.revoke(&peer).await {
            Ok(reply) => self.note(&peer, loss, &reply),
            Err(error) => {
                tracing::warn!(agent = %peer.agent, %error, "a verdict was not recorded; leases decide");
            }
        }
        self.alarm.notify_one();
    }

    async fn revoke(&self, peer: &Peer) -> StoreResult<RevocationReply> {
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            match self.store.revoke(&self.who, verdict_on(peer)).await {
                Err(error) if error.is_retryable() => {
                    tracing::debug!(%error, "recording a verdict again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                settled => return settled,
            }
        }
        self.store.revoke(&self.who, verdict_on(peer)).await
    }

    fn note(&self, peer: &Peer, loss: Loss, reply: &RevocationReply) {
        self.counts
            .recovered(Recovery::Revoked, reply.requeued.len());
        self.counts.recovered(Recovery::Buried, reply.buried.len());
        tracing::info!(
            agent = %peer.agent,
            name = peer.name,
            ?loss,
            requeued = reply.requeued.len(),
            buried = reply.buried.len(),
            "an agent died"
        );
    }
}

/// A verdict under a fresh number. One whose outcome is unknown may be given again: it only ends
/// what has not ended.
fn verdict_on(peer: &Peer) -> Revocation {
    Revocation {
        agent: peer.agent,
        incarnation: peer.incarnation,
        verdict: Verdict::Closed,
        silent_ms: 0,
        nonce: Nonce(rand::random()),
    }
}
