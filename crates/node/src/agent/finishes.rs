//! Finishes that travel together: while one batch is under way, what ends meanwhile gathers for the next.
//!
//! Alone, a finish leaves at once. On a busy machine or a slow way to the store, many share one request and one commit,
//! so the store's commits do not bound how fast an agent works. Each is answered for itself.

use std::sync::{Mutex, PoisonError};

use mutual_demand::{FinishReply, FinishRequest, StoreError, StoreResult};
use tokio::sync::oneshot;

use super::stores::StoreLink;

/// Finishes in one batch: bounds how long the first of them waits for the last.
const BATCH_MAX: usize = 256;

#[derive(Debug)]
struct Waiting {
    finish: FinishRequest,
    answer: oneshot::Sender<StoreResult<FinishReply>>,
}

/// Those that wait for their turn, and whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Finishes {
    waiting: Mutex<Vec<Waiting>>,
    turn: tokio::sync::Mutex<()>,
}

impl Finishes {
    /// Brings a finish to the store, taking along what waits with it. Dropped halfway, it may or may not have been
    /// delivered; the others of its batch are told that their outcome is unknown.
    pub(super) async fn deliver(
        &self,
        finish: FinishRequest,
        link: &StoreLink,
    ) -> StoreResult<FinishReply> {
        let (answer, mut reply) = oneshot::channel();
        self.lock().push(Waiting { finish, answer });
        let _turn = self.turn.lock().await;
        loop {
            match reply.try_recv() {
                Ok(reply) => return reply,
                Err(oneshot::error::TryRecvError::Closed) => return Err(abandoned()),
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            let (finishes, answers) = self.next_batch();
            let replies = link.finish_many(finishes).await;
            for (answer, reply) in answers.into_iter().zip(replies) {
                // Whoever no longer waits repeats it.
                let _ = answer.send(reply);
            }
        }
    }

    fn next_batch(
        &self,
    ) -> (
        Vec<FinishRequest>,
        Vec<oneshot::Sender<StoreResult<FinishReply>>>,
    ) {
        let mut waiting = self.lock();
        waiting.retain(|one| !one.answer.is_closed());
        let count = waiting.len().min(BATCH_MAX);
        let batch = waiting.drain(..count);
        batch.map(|one| (one.finish, one.answer)).unzip()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn abandoned() -> StoreError {
    StoreError::Unknown("the request it travelled with was given up".into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mutual_demand::memory::MemoryStore;
    use mutual_demand::{DemandStore, Metrics, Outcome, Principal, ResultView, Right, StoreConfig};
    use mutual_model::agent::StoreUrl;
    use mutual_model::identity::NodeKey;
    use mutual_model::ids::{JobId, Nonce};
    use mutual_model::lease::{Claim, Fence};

    use super::*;
    use crate::agent::KnownStore;
    use crate::agent::stores::Stores;

    fn link() -> Arc<StoreLink> {
        let key = NodeKey::from_seed(&[1; 32]);
        let principal = Principal {
            subject: "agent".into(),
            node: Some(key.id()),
            sealing: key.sealing_public(),
            namespaces: Vec::new(),
            rights: vec![Right::Work],
        };
        let store: Arc<dyn DemandStore> =
            Arc::new(MemoryStore::new(StoreConfig::default(), 1).unwrap());
        let url = StoreUrl::from("http://store");
        let known = KnownStore {
            url: url.clone(),
            store,
            classes: Vec::new(),
        };
        let stores = Stores::default();
        assert!(stores.add(known, principal));
        stores.get(&url).unwrap()
    }

    fn finish(number: u128) -> FinishRequest {
        FinishRequest {
            claim: Claim {
                job: JobId(uuid::Uuid::from_u128(number)),
                fence: Fence {
                    epoch: 1,
                    sequence: 1,
                },
                nonce: Nonce([1; 16]),
            },
            outcome: Outcome::Success,
            result: ResultView {
                output: None,
                artifacts: Vec::new(),
                log: None,
                metrics: Metrics::default(),
            },
        }
    }

    #[tokio::test]
    async fn everyone_is_answered_however_many_wait() {
        let link = link();
        let finishes = (0..2 * BATCH_MAX as u128 + 3).map(|number| link.finish(finish(number)));
        for answer in futures::future::join_all(finishes).await {
            assert_eq!(answer, Err(StoreError::NotFound));
        }
    }

    #[tokio::test]
    async fn what_gathers_meanwhile_is_one_batch() {
        let (link, finishes) = (link(), Finishes::default());
        let held = finishes.turn.lock().await;
        let mut waiting: Vec<_> = (0..5)
            .map(|number| Box::pin(finishes.deliver(finish(number), &link)))
            .collect();
        for one in &mut waiting {
            assert!(futures::poll!(one).is_pending());
        }
        drop(waiting.pop());
        let (batch, answers) = finishes.next_batch();
        assert_eq!(batch.len(), 4, "nobody waits for the fifth any more");
        drop(answers);
        drop(held);
        for one in waiting {
            assert_eq!(one.await, Err(abandoned()));
        }
    }
}
