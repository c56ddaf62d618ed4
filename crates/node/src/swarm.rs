//! The data plane's connections: blocks between nodes over libp2p, QUIC first, TCP beside it.
//!
//! [`Swarm`] carries the block protocol of [`mutual_data::transfer`]. It listens, serves the node's store to members,
//! [fetches](Swarm::fetch) from many peers at once, and [asks peers to keep](Swarm::keep_at) objects. Everything about
//! blocks themselves (verifying, resuming, choosing) is decided there; here are addresses, connections and who may in.
//!
//! # Identity
//! A node's libp2p identity is its own Ed25519 key, so a connection proves which node is at the other end. What that
//! node may do is said by its membership certificate, which whoever opens a stream sends first (`hello`); a
//! [`Gatekeeper`] judges it. A fetcher need not judge the provider: blocks are verified, and receipts are signed.
//!
//! # Behind NAT
//! Given relays, a node reserves a place at each and is dialled through them; hole punching (DCUtR) then replaces the
//! relayed connection where it can. A node may itself relay for others, with limits fit for blocks (libp2p's defaults
//! are 2 minutes and 128 KiB).

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use mutual_data::store::StoreError;
use mutual_data::transfer::{
    Dial, Fetch, FetchOptions, KeepRequest, Series, TransferError, fetch, keep, retain,
};
use mutual_data::{BlockStore, Cid};
use mutual_model::identity::{Certificate, NodeKey, PublicKey};
use mutual_model::receipt::StorageReceipt;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

mod address;
mod driver;
mod gate;
mod hello;
mod lane;
mod provider;
#[cfg(test)]
mod tests;

pub use address::{PeerAddr, PeerAddrError};
pub use gate::{Gatekeeper, Members};

use driver::Command;
use provider::Provider;

/// How long a peer that is asked to keep something may take to be reached: others will do as well.
const REACH_TO_KEEP: Duration = Duration::from_secs(1);

/// How long a peer may take to keep something before another is asked beside it.
const SPARE_AFTER: Duration = Duration::from_secs(5);

/// How long a peer may take to let go of something.
const RETAIN_WITHIN: Duration = Duration::from_secs(5);

/// Limits of what this node relays for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayLimits {
    /// Longest relayed connection.
    pub duration: Duration,
    /// Most bytes through one relayed connection.
    pub bytes: u64,
}

impl Default for RelayLimits {
    /// An hour and 16 GiB.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(3600),
            bytes: 16 << 30,
        }
    }
}

/// How a node takes part.
#[derive(Debug, Clone)]
pub struct SwarmConfig {
    /// Where to listen, for example `/ip4/0.0.0.0/udp/0/quic-v1`.
    pub listen: Vec<Multiaddr>,
    /// Addresses at which others reach this node, if they differ from those it listens on.
    pub external: Vec<Multiaddr>,
    /// Nodes that relay for this one, if it is behind NAT.
    pub relays: Vec<PeerAddr>,
    /// Whether this node relays for others, and how much.
    pub relay: Option<RelayLimits>,
    /// How long a dial may take.
    pub dial_timeout: Duration,
    /// Where lanes are served, by plain TCP: any port will do. None serves and asks for none.
    pub lanes: Option<SocketAddr>,
}

impl Default for SwarmConfig {
    /// Any port of every IPv4 interface over QUIC and TCP; no relays.
    fn default() -> Self {
        let any = ["/ip4/0.0.0.0/udp/0/quic-v1", "/ip4/0.0.0.0/tcp/0"];
        Self {
            listen: any
                .map(|a| a.parse().expect("a constant address parses"))
                .into(),
            external: Vec::new(),
            relays: Vec::new(),
            relay: None,
            dial_timeout: Duration::from_secs(10),
            lanes: Some(SocketAddr::from(([0, 0, 0, 0], 0))),
        }
    }
}

impl SwarmConfig {
    /// Any port of the loopback interface: for tests and demonstrations on one machine.
    pub fn loopback() -> Self {
        let local = ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"];
        Self {
            listen: local
                .map(|a| a.parse().expect("a constant address parses"))
                .into(),
            lanes: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            ..Self::default()
        }
    }
}

/// Why the swarm could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwarmError {
    /// The node cannot listen at an address.
    #[error("cannot listen at {address}: {reason}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        reason: String,
    },
    /// The transports could not be set up.
    #[error("cannot set up the transport: {0}")]
    Transport(String),
    /// The certificate is another node's.
    #[error("the membership certificate is not this node's")]
    Certificate,
    /// The object is not whole in this node's store.
    #[error("object {0} is not complete in this node's store")]
    Incomplete(Cid),
    /// Too few peers keep the object.
    #[error("{} of {wanted} peers keep the object: {reasons}", receipts.len())]
    NotKept {
        /// How many were asked for.
        wanted: usize,
        /// The receipts there are.
        receipts: Vec<StorageReceipt>,
        /// Why the others did not.
        reasons: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A transfer failed.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The swarm was shut down.
    #[error("the swarm is shut down")]
    Closed,
}

/// A node's part in the data plane. Cheap to clone; clones share everything. It ends with [`Swarm::shutdown`] or when
/// the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Swarm {
    inner: Arc<Inner>,
}

struct Inner {
    id: PeerId,
    store: BlockStore,
    commands: mpsc::Sender<Command>,
    streams: libp2p_stream::Control,
    hello: Arc<[u8]>,
    addresses: watch::Receiver<Vec<PeerAddr>>,
    dial_timeout: Duration,
    /// None if lanes are not used.
    lanes: Option<lane::Avoided>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Swarm")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Swarm {
    /// Listens, and serves `store` to whom `gate` lets in. Returns once every address listens.
    ///
    /// # Errors
    /// [`SwarmError::Listen`], [`SwarmError::Transport`], [`SwarmError::Certificate`].
    pub async fn start(
        config: SwarmConfig,
        key: Arc<NodeKey>,
        certificate: &Certificate,
        store: BlockStore,
        gate: Arc<dyn Gatekeeper>,
    ) -> Result<Self, SwarmError> {
        if certificate.membership().node != key.public() {
            return Err(SwarmError::Certificate);
        }
        let (driver, control) = driver::Driver::new(&config, &key)?;
        let id = driver.id();
        let (commands, inbox) = mpsc::channel(64);
        let addresses = driver.start(config.listen.len(), inbox).await?;
        let swarm = Self {
            inner: Arc::new(Inner {
                id,
                store: store.clone(),
                commands,
                streams: control.clone(),
                hello: certificate.to_bytes().into(),
                addresses,
                dial_timeout: config.dial_timeout,
                lanes: config.lanes.map(|_| lane::Avoided::default()),
            }),
        };
        let (host, places) = (provider::Host { store, key, gate }, provider::places());
        if let Some(address) = config.lanes {
            lane::serve_all(control.clone(), address, host.clone(), places.clone()).await?;
        }
        provider::serve_all(control, host, places)?;
        swarm.warm_up();
        Ok(swarm)
    }

    /// The addresses at which this node listens, each with its peer id; relayed ones included once they stand.
    pub fn listen_addrs(&self) -> Vec<PeerAddr> {
        self.inner.addresses.borrow().clone()
    }

    /// This node's libp2p id.
    pub fn peer_id(&self) -> PeerId {
        self.inner.id
    }

    /// Starts to fetch the DAG below `root` from `providers` (several addresses of one peer count as one provider).
    pub fn fetch(&self, root: Cid, providers: &[PeerAddr], options: FetchOptions) -> Fetch {
        fetch(&self.inner.store, root, self.dialable(providers), options)
    }

    /// Providers for [`Fetch::add`], one for each peer that has an address here, this node left out.
    pub fn dialable(&self, addresses: &[PeerAddr]) -> Vec<Arc<dyn Dial>> {
        let providers = self.providers(addresses).into_iter();
        providers.map(|(_, provider)| provider as _).collect()
    }

    /// One provider for [`Fetch::add`], from the addresses of one peer; `None` if there is none, or it is this node.
    pub fn provider(&self, addresses: &[PeerAddr]) -> Option<Arc<dyn Dial>> {
        self.dialable(addresses).into_iter().next()
    }

    /// In the order in which the peers were first named.
    fn providers(&self, addresses: &[PeerAddr]) -> Vec<(PublicKey, Arc<Provider>)> {
        let mut places = HashMap::new();
        let mut peers: Vec<(PeerId, Vec<Multiaddr>)> = Vec::new();
        for address in addresses.iter().filter(|a| a.peer() != self.inner.id) {
            let place = *places.entry(address.peer()).or_insert_with(|| {
                peers.push((address.peer(), Vec::new()));
                peers.len() - 1
            });
            peers[place].1.push(address.multiaddr().clone());
        }
        let provider = |(peer, addresses)| {
            let key = address::public_key(&peer)?;
            let inner = Arc::clone(&self.inner);
            Some((key, Arc::new(Provider::new(inner, peer, addresses))))
        };
        peers.into_iter().filter_map(provider).collect()
    }

    /// Asks `peers` to keep the object below `root`, which is complete here, until `count` of them have signed for it.
    /// So many are asked at a time as receipts are missing, in the order given; when one refuses, the next is asked, and
    /// one more if they take long.
    ///
    /// # Errors
    /// [`SwarmError::NotKept`] with the receipts there are, [`SwarmError::Incomplete`], [`SwarmError::Store`].
    pub async fn keep_at(
        &self,
        root: Cid,
        peers: &[PeerAddr],
        count: usize,
        duration: Duration,
    ) -> Result<Vec<StorageReceipt>, SwarmError> {
        self.keep_in_series_at(root, peers, count, duration, None)
            .await
    }

    /// As [`Swarm::keep_at`], in a series if one is given.
    ///
    /// # Errors
    /// As there.
    pub async fn keep_in_series_at(
        &self,
        root: Cid,
        peers: &[PeerAddr],
        count: usize,
        duration: Duration,
        series: Option<Series>,
    ) -> Result<Vec<StorageReceipt>, SwarmError> {
        let mut request = self.keep_request(root, duration).await?;
        request.series = series;
        let mut waiting = self.providers(peers).into_iter();
        let mut spare = 0;
        let mut asked = JoinSet::new();
        let (mut receipts, mut reasons) = (Vec::new(), Vec::new());
        while receipts.len() < count {
            while receipts.len() + asked.len() < count + spare
                && let Some((key, provider)) = waiting.next()
            {
                asked.spawn(ask(
                    self.inner.store.clone(),
                    provider,
                    key,
                    request.clone(),
                ));
            }
            match tokio::time::timeout(SPARE_AFTER, asked.join_next()).await {
                Ok(None) => break,
                Ok(Some(Ok(Ok(receipt)))) => receipts.push(receipt),
                Ok(Some(Ok(Err(reason)))) => reasons.push(reason),
                Ok(Some(Err(failed))) => reasons.push(failed.to_string()),
                // It may have died without a word: one more is asked beside it.
                Err(_) => spare = 1,
            }
        }
        if receipts.len() >= count {
            return Ok(receipts);
        }
        Err(SwarmError::NotKept {
            wanted: count,
            receipts,
            reasons: describe(&reasons),
        })
    }

    /// Asks `peers` to let go of what they keep in `series` but `roots`. Whoever does not answer keeps it until its time
    /// is over.
    pub async fn retain_at(&self, peers: &[PeerAddr], series: Series, roots: &[Cid]) {
        let asks = self
            .providers(peers)
            .into_iter()
            .map(|(_, provider)| async move {
                let asked = retain(provider.as_ref(), series, roots.to_vec());
                match tokio::time::timeout(RETAIN_WITHIN, asked).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::debug!(peer = provider.name(), %error, "lets go of nothing")
                    }
                    Err(_) => tracing::debug!(peer = provider.name(), "does not answer"),
                }
            });
        futures::future::join_all(asks).await;
    }

    async fn keep_request(&self, root: Cid, duration: Duration) -> Result<KeepRequest, SwarmError> {
        let store = self.inner.store.clone();
        let look = move || -> Result<KeepRequest, SwarmError> {
            let bytes = store.complete(&root)?.ok_or(SwarmError::Incomplete(root))?;
            let node =
                mutual_data::dag::Node::decode(&store.get(&root)?).map_err(StoreError::Dag)?;
            Ok(KeepRequest {
                root,
                namespace: node.namespace().map(str::to_owned),
                bytes,
                duration,
                series: None,
            })
        };
        tokio::task::spawn_blocking(look)
            .await
            .map_err(|_| SwarmError::Closed)?
    }

    /// Closes every connection and stops listening.
    pub async fn shutdown(&self) {
        let (done, ended) = oneshot::channel();
        if self
            .inner
            .commands
            .send(Command::Shutdown(done))
            .await
            .is_ok()
        {
            let _ = ended.await;
        }
    }

    /// The first QUIC dial of a process takes 60–200 ms (measured); so it is done now, to a listener of our own.
    fn warm_up(&self) {
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let warm = async {
                let (peer, address) = driver::throwaway_listener().await?;
                inner.connect(peer, vec![address]).await.ok()
            };
            let _ = tokio::time::timeout(Duration::from_secs(5), warm).await;
        });
    }
}

async fn ask(
    store: BlockStore,
    provider: Arc<Provider>,
    key: PublicKey,
    request: KeepRequest,
) -> Result<StorageReceipt, String> {
    // The dead stay listed for a while, and nothing tells a QUIC dial that nobody is there.
    if let Err(error) = provider.reach(REACH_TO_KEEP).await {
        return Err(format!("{}: {error}", provider.name()));
    }
    let kept = keep(&store, provider.as_ref(), &key, &request).await;
    kept.map_err(|error| format!("{}: {error}", provider.name()))
}

fn describe(reasons: &[String]) -> String {
    match reasons {
        [] => "no other peer was given".into(),
        reasons => reasons.join("; "),
    }
}

impl Inner {
    /// Makes sure that there is a connection to `peer`.
    async fn connect(&self, peer: PeerId, addresses: Vec<Multiaddr>) -> io::Result<()> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Connect {
            peer,
            addresses,
            reply,
        };
        let closed = || io::Error::new(io::ErrorKind::NotConnected, SwarmError::Closed);
        self.commands.send(command).await.map_err(|_| closed())?;
        match tokio::time::timeout(self.dial_timeout, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(closed()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}
