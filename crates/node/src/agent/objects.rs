//! Objects between this machine and others: fetched from whoever has them, kept by others on
//! request.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mutual_data::transfer::{FetchOptions, KeepRequest, Series, TransferError};
use mutual_data::{BlockStore, Cid};
use mutual_model::identity::PublicKey;
use mutual_model::ids::{JobId, Namespace};
use mutual_model::receipt::StorageReceipt;

use super::images::Wish;
use crate::swarm::{PeerAddr, Swarm, SwarmError};

/// First pause before peers are asked again to hold an object; doubles up to [`ASK_PAUSE_MAX`].
const ASK_PAUSE_MIN: Duration = Duration::from_millis(100);
const ASK_PAUSE_MAX: Duration = Duration::from_secs(3);

/// Who else is there, and who has what. Implemented over the DHT, and in tests by a list.
#[async_trait]
pub trait PeerFinder: Send + Sync + Debug {
    /// Addresses of peers that may hold objects of a namespace, best first.
    async fn keepers(&self, namespace: &Namespace) -> Vec<PeerAddr>;

    /// Addresses of peers that are said to serve a job's input.
    async fn providers(&self, job: JobId) -> Vec<PeerAddr>;
}

/// A peer's word that it holds an object, and where it can be fetched from.
#[derive(Debug, Clone)]
pub(super) struct Replica {
    pub(super) receipt: StorageReceipt,
    pub(super) addresses: Vec<String>,
}

/// This machine's objects and the way to those of others.
#[derive(Debug, Clone)]
pub struct Objects {
    swarm: Swarm,
    blocks: BlockStore,
    finder: Arc<dyn PeerFinder>,
}

impl Objects {
    /// The objects in `blocks`, which `swarm` serves.
    pub fn new(swarm: Swarm, blocks: BlockStore, finder: Arc<dyn PeerFinder>) -> Self {
        Self {
            swarm,
            blocks,
            finder,
        }
    }

    pub(super) const fn blocks(&self) -> &BlockStore {
        &self.blocks
    }

    /// Where others fetch this machine's blocks.
    pub(super) fn addresses(&self) -> Vec<String> {
        let addresses = self.swarm.listen_addrs();
        addresses.iter().map(ToString::to_string).collect()
    }

    /// Brings the DAG below `root` here, from `seeders` and whoever else is said to have the job's input.
    pub(super) async fn fetch(
        &self,
        job: JobId,
        root: Cid,
        seeders: &[String],
        options: FetchOptions,
    ) -> Result<(), TransferError> {
        // An address that cannot be read is one that cannot be dialled: others remain.
        let named = seeders.iter().filter_map(|seeder| seeder.parse().ok());
        let named: Vec<PeerAddr> = named.collect();
        let others = self.finder.providers(job);
        self.fetch_from(root, &named, others, options).await
    }

    /// Brings an image here. Nobody says who has one: whoever keeps objects of the namespace is asked.
    pub(super) async fn fetch_image(&self, root: Cid, wish: Wish<'_>) -> Result<(), TransferError> {
        let mut options = FetchOptions::new("images");
        options.until = Some(wish.keep_until);
        options.namespace = Some(wish.namespace.as_str().to_owned());
        options.public_too = true;
        // Images are large as a rule.
        options.bytes_expected = u64::MAX;
        let anyone = async {
            let found = (
                self.finder.providers(wish.job),
                self.finder.keepers(wish.namespace),
            );
            let (mut peers, keepers) = tokio::join!(found.0, found.1);
            peers.extend(keepers);
            peers
        };
        self.fetch_from(root, &[], anyone, options).await
    }

    async fn fetch_from(
        &self,
        root: Cid,
        named: &[PeerAddr],
        others: impl Future<Output = Vec<PeerAddr>>,
        options: FetchOptions,
    ) -> Result<(), TransferError> {
        let fetch = self.swarm.fetch(root, named, options);
        let more = async {
            for provider in self.swarm.dialable(&others.await) {
                fetch.add(provider);
            }
            std::future::pending::<()>().await;
        };
        // A fetch without any seeder waits a little for one to be added.
        let progress = fetch.progress();
        tokio::select! {
            () = more => {}
            () = over(progress) => {}
        }
        fetch.finish().await.map(drop)
    }

    /// Gets `copies` other peers to hold an object that is complete here, `preferred` ones before
    /// others, asking again and again: the caller bounds the time. Returns early with what there is
    /// only when dropped.
    pub(super) async fn replicate(
        &self,
        request: &KeepRequest,
        namespace: &Namespace,
        copies: u32,
        preferred: &[PeerAddr],
    ) -> Vec<Replica> {
        let mut held = BTreeMap::<PublicKey, Replica>::new();
        let mut pause = ASK_PAUSE_MIN;
        loop {
            let peers = self.finder.keepers(namespace).await;
            let mut peers: Vec<_> = preferred.iter().cloned().chain(peers).collect();
            let mut seen = HashSet::new();
            peers.retain(|peer| seen.insert(peer.clone()));
            let asked = peers.iter().filter(|peer| !held.contains_key(&peer.node()));
            let asked: Vec<_> = asked.cloned().collect();
            let missing = (copies as usize).saturating_sub(held.len());
            for receipt in self.ask(request, &asked, missing).await {
                let addresses = peers.iter().filter(|peer| peer.node() == receipt.holder);
                let addresses = addresses.map(ToString::to_string).collect();
                held.insert(receipt.holder, Replica { receipt, addresses });
            }
            if held.len() >= copies as usize {
                return held.into_values().collect();
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.75..1.25))).await;
            pause = (pause * 2).min(ASK_PAUSE_MAX);
        }
    }

    /// Asks peers to let go of what they keep in a series but `roots`, without waiting for it.
    pub(super) fn retain(&self, peers: Vec<PeerAddr>, series: Series, roots: Vec<Cid>) {
        let swarm = self.swarm.clone();
        tokio::spawn(async move { swarm.retain_at(&peers, series, &roots).await });
    }

    async fn ask(
        &self,
        request: &KeepRequest,
        peers: &[PeerAddr],
        missing: usize,
    ) -> Vec<StorageReceipt> {
        let kept = self.swarm.keep_in_series_at(
            request.root,
            peers,
            missing,
            request.duration,
            request.series,
        );
        match kept.await {
            Ok(receipts) => receipts,
            Err(SwarmError::NotKept {
                receipts, reasons, ..
            }) => {
                tracing::debug!(root = %request.root, %reasons, "not kept by all that were asked");
                receipts
            }
            Err(error) => {
                tracing::warn!(root = %request.root, %error, "no copy could be asked for");
                Vec::new()
            }
        }
    }
}

/// Waits until nothing more can be added to a fetch.
async fn over(mut progress: tokio::sync::watch::Receiver<mutual_data::transfer::Progress>) {
    while progress.changed().await.is_ok() {}
}
