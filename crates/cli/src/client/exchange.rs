//! The short-lived node that a client is while it seeds or fetches: a block store in a temporary
//! directory, a swarm, and a client's place in the DHT.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use mutual_node::auth::unix_now;
use mutual_node::data::BlockStore;
use mutual_node::data::store::Options;
use mutual_node::discovery::{Bootstrap, Discovery, DiscoveryConfig};
use mutual_node::model::identity::{Certificate, NodeId, NodeKey};
use mutual_node::model::ids::{Incarnation, JobId, Namespace};
use mutual_node::model::kademlia::Identity;
use mutual_node::model::record::{NodeRecord, StatusMirror, Trust};
use mutual_node::swarm::{Members, PeerAddr, Swarm, SwarmConfig};
use tokio::sync::OnceCell;

use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::scratch::Scratch;

/// How long the DHT is asked for peers.
pub(super) const LOOK_UP: Duration = Duration::from_secs(3);

/// How long leaving may take.
const LEAVE: Duration = Duration::from_secs(1);

/// Places in the DHT that this run of the program took. Leaving one in order keeps the peers it met
/// for the next run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Arc<Mutex<Vec<Discovery>>>);

impl Places {
    fn taken(&self) -> MutexGuard<'_, Vec<Discovery>> {
        // What a panicking thread left is still a list.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves them all.
    pub(crate) async fn leave(&self) {
        let taken = std::mem::take(&mut *self.taken());
        let leaving = taken.iter().map(Discovery::shutdown);
        // Peers that were not kept are found again.
        let _ = tokio::time::timeout(LEAVE, join_all(leaving)).await;
    }
}

/// One client's node. The directory goes with it.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) blocks: BlockStore,
    pub(super) swarm: Swarm,
    pub(super) key: Arc<NodeKey>,
    context: Context,
    certificate: Certificate,
    places: Places,
    discovery: OnceCell<Discovery>,
    dir: Scratch,
}

impl Exchange {
    /// Opens ports of its own choice.
    pub(super) async fn start(context: &Context, places: &Places) -> Outcome<Self> {
        let key = Arc::new(context.key()?);
        let certificate = context.certificate()?.ok_or_else(|| {
            Failure::configuration("the context names no certificate, so no peer would talk to you")
                .hint("your organisation makes one with `mutual org token`")
        })?;
        let dir = Scratch::new("mutual-client-")?;
        let options = Options {
            durable: false,
            ..Options::default()
        };
        let blocks =
            BlockStore::open(dir.path().join("blocks"), options).map_err(Failure::internal)?;
        let mut gate = Members::of(context.file.trusted_organisations.clone());
        gate.keep_bytes_max = 0;
        let swarm = Swarm::start(
            swarm_config(context),
            key.clone(),
            &certificate,
            blocks.clone(),
            Arc::new(gate),
        )
        .await
        .map_err(Failure::configuration)?;
        Ok(Self {
            blocks,
            swarm,
            key,
            context: context.clone(),
            certificate,
            places: places.clone(),
            discovery: OnceCell::new(),
            dir,
        })
    }

    /// A directory for whatever stands in between.
    pub(super) fn scratch(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// This client's place in the DHT, taken when it is first needed.
    pub(super) async fn discovery(&self) -> Outcome<&Discovery> {
        self.discovery.get_or_try_init(|| self.join()).await
    }

    async fn join(&self) -> Outcome<Discovery> {
        let bootstrap = self.context.file.bootstrap.iter().map(|peer| Bootstrap {
            key: Some(peer.key),
            address: peer.address.clone(),
        });
        let any = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
        let mut config = DiscoveryConfig::new(any, bootstrap.collect());
        config.kademlia.client = true;
        config.peers_file = Some(self.context.peers_path());
        let identity = Identity {
            key: self.key.as_ref().clone(),
            certificate: self.certificate.clone(),
            trust: Trust {
                organisations: self.context.file.trusted_organisations.clone(),
                namespaces: std::collections::BTreeMap::new(),
            },
            incarnation: Incarnation::new(unix_now(), rand::random()),
        };
        let discovery = Discovery::start(config, identity)
            .await
            .map_err(Failure::configuration)?;
        self.places.taken().push(discovery.clone());
        discovery.wait_for_peers(1, LOOK_UP).await;
        Ok(discovery)
    }

    /// What the DHT remembers of a job.
    pub(super) async fn mirror(&self, job: JobId) -> Outcome<Option<StatusMirror>> {
        Ok(self.discovery().await?.mirror(job, LOOK_UP).await)
    }

    /// Members of a namespace by their own records.
    pub(super) async fn nodes(&self, namespace: &Namespace) -> Outcome<Vec<NodeRecord>> {
        Ok(self.discovery().await?.nodes(namespace, LOOK_UP).await)
    }

    /// Block addresses of the members that serve a namespace, this client not among them.
    pub(super) async fn peers(&self, namespace: &Namespace) -> Outcome<Vec<PeerAddr>> {
        let nodes = self.nodes(namespace).await?;
        let own = self.key.public();
        let others = nodes.into_iter().filter(|node| node.node != own);
        Ok(others.flat_map(|node| addresses(&node.p2p)).collect())
    }

    /// Block addresses of one node.
    pub(super) async fn addresses_of(&self, node: NodeId) -> Outcome<Vec<PeerAddr>> {
        let found = self.discovery().await?.find_node(node, LOOK_UP).await;
        Ok(found.map(|node| addresses(&node.p2p)).unwrap_or_default())
    }
}

/// Addresses that read as such; others are left out.
pub(super) fn addresses(texts: &[String]) -> Vec<PeerAddr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// A cloud whose bootstrap peers are all on this machine gets a client that listens only here.
fn swarm_config(context: &Context) -> SwarmConfig {
    let is_local = |address: &str| address.starts_with("127.") || address.starts_with("[::1]");
    match context
        .file
        .bootstrap
        .iter()
        .all(|peer| is_local(&peer.address))
    {
        true => SwarmConfig::loopback(),
        false => SwarmConfig::default(),
    }
}
