//! A whole node: the roles of one configuration, wired together in one process.
//!
//! Parts are started in the order in which they need each other: discovery and the block exchange,
//! then the demand store, control and the agent. Everything that one part needs of another is
//! handed over here and nowhere else, so this is the place to read how the parts connect. The
//! adapters beside it put discovery and the swarm into the words that the roles use.

mod addresses;
mod ads;
mod dht;
mod guardians;
mod roles;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mutual_data::BlockStore;
use mutual_data::store::Options;
use mutual_model::identity::{IdentityError, NodeKey, Role};
use mutual_model::ids::Incarnation;
use mutual_model::record::{NodeRecord, Trust};
use tokio::task::JoinSet;

use crate::agent::{AgentError, AgentNode};
use crate::auth::{AuthError, Gate, NodeSigner, unix_now};
use crate::config::NodeConfig;
use crate::config::keys::{KeyFileError, load_certificate, load_key};
use crate::config::ready::{MissingClass, NodeReady};
use crate::control::Control;
use crate::demand_service::{DemandServer, DemandServiceError};
use crate::discovery::{Bootstrap, Discovery, DiscoveryConfig, DiscoveryError, Presence};
use crate::swarm::{Members, Swarm, SwarmConfig, SwarmError};

use addresses::{Reach, multiaddrs};
pub use dht::neighbours;

/// How often blocks that nobody pins any more are cleared away.
const COLLECT_EVERY: Duration = Duration::from_secs(600);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Key, certificate or `node.json` cannot be used.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The certificate is not valid here.
    #[error("this node's certificate: {0}; get a new one with `mutual org join`")]
    Certificate(#[from] IdentityError),
    /// The certificate is another node's.
    #[error(transparent)]
    Signer(#[from] AuthError),
    /// A role in the configuration is not in the certificate.
    #[error(
        "roles: the certificate does not name the role {0:?}; ask your organisation for one that does"
    )]
    Role(Role),
    /// Discovery cannot take part.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The block store cannot be opened.
    #[error("block store: {0}")]
    Blocks(#[from] mutual_data::store::StoreError),
    /// The block exchange cannot listen.
    #[error(transparent)]
    Swarm(#[from] SwarmError),
    /// The demand store cannot be served.
    #[error(transparent)]
    Demand(#[from] DemandServiceError),
    /// A demand store's address is wrong.
    #[error("known_stores: {0}")]
    KnownStore(#[from] mutual_demand::http::HttpStoreError),
    /// Tasks cannot be run.
    #[error(transparent)]
    Runtime(#[from] crate::runtime::OpenError),
    /// A name that is no container runtime.
    #[error("agent.runtime: {0:?} is not known; write embedded or runc")]
    RuntimeName(String),
    /// The agent cannot start.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Heartbeats cannot be sent or heard.
    #[error("agent.liveness: no UDP port for heartbeats: {0}")]
    Heartbeats(io::Error),
    /// Control's address cannot be listened at.
    #[error(
        "control.listen: cannot listen on {address}: {source}; choose another port or stop what uses it"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A running node. Dropping it ends every role at once, as a kill would.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    ready: NodeReady,
    discovery: Discovery,
    swarm: Swarm,
    agent: Option<Arc<AgentNode>>,
    _demand: Option<DemandServer>,
    _control: Option<Control>,
    tasks: JoinSet<()>,
}

/// What every role is built from.
#[derive(Debug)]
struct Core {
    signer: NodeSigner,
    gate: Gate,
    discovery: Discovery,
    swarm: Swarm,
    blocks: BlockStore,
    reach: Reach,
}

impl Core {
    async fn start(config: &NodeConfig) -> Result<Self, NodeError> {
        let signer = credentials(config)?;
        let gate = Gate::new(config.trusted_organisations.clone());
        let reach = Reach::of(&config.network).await;
        let discovery =
            Discovery::start(discovery_config(config), identity(config, &signer)).await?;
        let options = Options {
            quota_bytes: config.storage.quota.0,
            ..Options::default()
        };
        let blocks = BlockStore::open(config.data_dir.join("blocks"), options)?;
        let swarm_config = SwarmConfig {
            listen: multiaddrs(config.network.p2p),
            lanes: Some(SocketAddr::new(config.network.p2p.ip(), 0)),
            ..SwarmConfig::default()
        };
        let members = Members {
            keep_max: config.storage.keep.0,
            ..Members::of(config.trusted_organisations.clone())
        };
        let key = Arc::new(signer.key().clone());
        let certificate = signer.certificate();
        let swarm = Swarm::start(
            swarm_config,
            key,
            certificate,
            blocks.clone(),
            Arc::new(members),
        )
        .await?;
        Ok(Self {
            signer,
            gate,
            discovery,
            swarm,
            blocks,
            reach,
        })
    }

    /// What this node says of itself as long as no agent says more.
    fn record(&self) -> NodeRecord {
        NodeRecord {
            udp: vec![self.reach.at(self.discovery.local_addr())],
            p2p: self.reach.peers(&self.swarm),
            ..NodeRecord::new(self.signer.key().public())
        }
    }

    fn presence(&self, node: NodeRecord) -> Presence {
        let namespaces = self.signer.certificate().membership().namespaces.clone();
        Presence { node, namespaces }
    }
}

impl Node {
    /// Starts every role of `config` and writes `node.json` once all of them are ready.
    ///
    /// # Errors
    /// [`NodeError`]; nothing is left running.
    pub async fn start(config: NodeConfig) -> Result<Self, NodeError> {
        let core = Core::start(&config).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(collect(core.blocks.clone()));
        core.discovery.announce(core.presence(core.record()));
        let demand = match config.has(Role::Demand) {
            true => Some(roles::demand(&config, &core).await?),
            false => None,
        };
        let stores = roles::stores(&config, &core.signer, demand.as_ref())?;
        let mut ready = ready(&config, &core, demand.as_ref());
        let control = match config.has(Role::Control) {
            true => {
                let (control, url) = roles::control(&config, &core, &stores, &mut tasks).await?;
                ready.control_url = Some(url);
                Some(control)
            }
            false => None,
        };
        let agent = match config.has(Role::Agent) {
            true => {
                let (agent, runtime) = roles::agent(&config, &core, &stores, &mut tasks).await?;
                ready.agent_url = Some(agent.url().to_owned());
                ready.liveness.push(agent.liveness());
                ready.classes = crate::agent::proved_classes(&runtime);
                ready.missing_classes = missing_classes(&runtime, &ready);
                Some(agent)
            }
            false => None,
        };
        ready.write(&config.data_dir)?;
        Ok(Self {
            config,
            ready,
            discovery: core.discovery,
            swarm: core.swarm,
            agent,
            _demand: demand,
            _control: control,
            tasks,
        })
    }

    /// What the node opened.
    pub const fn ready(&self) -> &NodeReady {
        &self.ready
    }

    /// Its part in the DHT.
    pub const fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// Its part in the data plane.
    pub const fn swarm(&self) -> &Swarm {
        &self.swarm
    }

    /// Ends in order, within about `within`: the agent gives back what it holds.
    pub async fn shutdown(mut self, within: Duration) {
        // The tasks hold the agent too; without them it is this node's alone.
        self.tasks.shutdown().await;
        if let Some(agent) = self.agent.and_then(Arc::into_inner) {
            agent.shutdown(within).await;
        }
        self.swarm.shutdown().await;
        self.discovery.shutdown().await;
        NodeReady::remove(&self.config.data_dir);
    }
}

/// Reads the node's key and certificate and checks that they belong together and are valid.
fn credentials(config: &NodeConfig) -> Result<NodeSigner, NodeError> {
    let key: NodeKey = load_key(&config.key_path())?;
    let certificate = load_certificate(&config.certificate_path())?;
    certificate.verify(&config.trusted_organisations, unix_now())?;
    let named = &certificate.membership().roles;
    if let Some(role) = config.roles.iter().find(|role| !named.contains(role)) {
        return Err(NodeError::Role(*role));
    }
    Ok(NodeSigner::new(key, certificate)?)
}

fn identity(config: &NodeConfig, signer: &NodeSigner) -> mutual_model::kademlia::Identity {
    mutual_model::kademlia::Identity {
        key: signer.key().clone(),
        certificate: signer.certificate().clone(),
        trust: Trust {
            organisations: config.trusted_organisations.clone(),
            namespaces: BTreeMap::new(),
        },
        incarnation: Incarnation::new(unix_now(), rand::random()),
    }
}

fn discovery_config(config: &NodeConfig) -> DiscoveryConfig {
    let bootstrap = config.network.bootstrap.iter().map(|peer| Bootstrap {
        key: Some(peer.key),
        address: peer.address.clone(),
    });
    let mut discovery = DiscoveryConfig::new(config.network.discovery, bootstrap.collect());
    discovery.peers_file = Some(config.data_dir.join("peers"));
    discovery.kademlia.client = config.network.client_only;
    discovery
}

fn ready(config: &NodeConfig, core: &Core, demand: Option<&DemandServer>) -> NodeReady {
    NodeReady {
        pid: std::process::id(),
        name: config.name.clone(),
        node: core.signer.key().id(),
        public: core.signer.key().public(),
        roles: config.roles.clone(),
        discovery: core.reach.at(core.discovery.local_addr()),
        p2p: core.reach.peers(&core.swarm),
        control_url: None,
        demand_url: demand.map(|demand| demand.url().to_owned()),
        agent_url: None,
        liveness: demand.map(DemandServer::liveness).into_iter().collect(),
        classes: Vec::new(),
        missing_classes: Vec::new(),
    }
}

fn missing_classes(runtime: &crate::runtime::Runtime, ready: &NodeReady) -> Vec<MissingClass> {
    let missing = mutual_model::job::IsolationClass::ALL.into_iter();
    let missing = missing.filter(|class| !ready.classes.contains(class));
    let described = missing.map(|class| MissingClass {
        class,
        why: runtime.offer().reason(class.into()).to_owned(),
    });
    described.collect()
}

/// Clears away unpinned blocks now and then, for ever.
async fn collect(blocks: BlockStore) {
    loop {
        tokio::time::sleep(COLLECT_EVERY).await;
        let blocks = blocks.clone();
        match tokio::task::spawn_blocking(move || blocks.collect()).await {
            Ok(Ok(collected)) => tracing::debug!(?collected, "blocks cleared away"),
            Ok(Err(error)) => tracing::warn!(%error, "blocks cannot be cleared away"),
            Err(error) => tracing::warn!(%error, "clearing blocks away failed"),
        }
    }
}
