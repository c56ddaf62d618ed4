//! Each role, built from the configuration and what every role shares.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::available_parallelism;

use mutual_demand::http::{HttpStore, HttpStoreConfig, StoreKey};
use mutual_model::agent::StoreUrl;
use mutual_model::ids::Namespace;
use mutual_model::job::IsolationClass;
use mutual_model::resources::Resources;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::dht::{Dht, OFFER_KIND};
use super::{Core, NodeError, ads, guardians};
use crate::agent::{
    AgentConfig, AgentDeps, AgentError, AgentNode, KnownStore, Objects, RegistryPuller,
    StoreDialer, proved_classes,
};
use crate::auth::NodeSigner;
use crate::config::NodeConfig;
use crate::config::keys::load_or_create_key;
use crate::control::{Control, ControlDeps, PATIENCE_DEFAULT, Seeding};
use crate::demand_service::{DemandServer, DemandServerConfig, DemandServerDeps, StoreKind};
use crate::runtime::{self, Backend, Runtime};

/// Share of the machine's memory that is offered if the owner names no amount.
const MEMORY_SHARE: (u64, u64) = (3, 4);
/// Scratch disk offered if the owner names no amount.
const SCRATCH_BYTES_DEFAULT: u64 = 64 << 30;

/// Opens and serves the demand store.
pub(super) async fn demand(config: &NodeConfig, core: &Core) -> Result<DemandServer, NodeError> {
    let role = &config.demand;
    let kind = match (&role.postgres, &role.sqlite) {
        (Some(url), _) => StoreKind::Postgres(url.clone()),
        (None, Some(path)) => StoreKind::Sqlite(path.clone()),
        (None, None) => StoreKind::Sqlite(config.data_dir.join("demand.sqlite")),
    };
    let key_file = role.store_key_file.clone();
    let key_file = key_file.unwrap_or_else(|| config.data_dir.join("store.key"));
    let server = DemandServerConfig {
        kind,
        listen: role.listen,
        liveness: role.liveness,
        url: role.url.clone(),
        reach: core.reach.at(SocketAddr::from(([0, 0, 0, 0], 0))).ip(),
        terms: role.terms(),
        quorum: role.quorum,
        accept_data_loss: role.accept_data_loss,
        offers: role.offers,
    };
    let deps = DemandServerDeps {
        signer: core.signer.clone(),
        gate: core.gate.clone(),
        key: StoreKey::new(load_or_create_key(&key_file)?),
        neighbours: Arc::new(dht(core)),
    };
    Ok(DemandServer::start(server, deps).await?)
}

fn dht(core: &Core) -> Dht {
    Dht::new(core.discovery.clone(), core.presence(core.record()))
}

/// The demand stores this node works with, its own first.
pub(super) fn stores(
    config: &NodeConfig,
    signer: &NodeSigner,
    own: Option<&DemandServer>,
) -> Result<Vec<HttpStore>, NodeError> {
    let own = own.map(|demand| demand.url().to_owned());
    let known = config
        .known_stores
        .iter()
        .map(|url| url.trim_end_matches('/').to_owned());
    let mut stores: Vec<HttpStore> = Vec::new();
    for url in own.into_iter().chain(known) {
        if !stores.iter().any(|store| store.bases().contains(&url)) {
            stores.push(open(&url, signer)?);
        }
    }
    Ok(stores)
}

fn open(url: &str, signer: &NodeSigner) -> Result<HttpStore, mutual_demand::http::HttpStoreError> {
    let credentials = Arc::new(signer.clone());
    HttpStore::new(&[url.to_owned()], credentials, HttpStoreConfig::default())
}

/// Serves the REST interface. Returns its base URL.
pub(super) async fn control(
    config: &NodeConfig,
    core: &Core,
    stores: &[HttpStore],
    tasks: &mut JoinSet<()>,
) -> Result<(Control, String), NodeError> {
    let address = config.control.listen;
    let failed = |source| NodeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let url = core.reach.url(listener.local_addr().map_err(failed)?);
    let own = core.discovery.contact();
    let own = format!(
        "{}@{}",
        core.signer.key().public(),
        core.reach.at(own.addr())
    );
    let others = config.network.bootstrap.iter().map(ToString::to_string);
    let control = Control::start(ControlDeps {
        gate: core.gate.clone(),
        signer: core.signer.clone(),
        stores: stores.to_vec(),
        neighbours: Arc::new(dht(core)),
        seeding: Seeding {
            seeders: core.reach.peers(&core.swarm),
            ..Seeding::default()
        },
        bootstrap: std::iter::once(own).chain(others).collect(),
        patience: PATIENCE_DEFAULT,
    });
    let router = control.router();
    tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "control stopped serving");
        }
    });
    Ok((control, url))
}

/// Starts the agent and brings it offers and ads.
pub(super) async fn agent(
    config: &NodeConfig,
    core: &Core,
    stores: &[HttpStore],
    tasks: &mut JoinSet<()>,
) -> Result<(Arc<AgentNode>, Runtime), NodeError> {
    let namespaces = core.signer.certificate().membership().namespaces.clone();
    let runtime = open_runtime(config, &namespaces).await?;
    let mut settings = settings(config);
    let classes = proved_classes(&runtime);
    // Others must be told the address before it is served.
    let listener = crate::agent::listen(settings.listen).await?;
    let url = match (&config.agent.url, listener.local_addr()) {
        (Some(url), _) => url.clone(),
        (None, Ok(address)) => core.reach.url(address),
        (None, Err(source)) => {
            let address = settings.listen;
            return Err(AgentError::Listen { address, source }.into());
        }
    };
    settings.url = Some(url.clone());
    let dht = Dht::new(
        core.discovery.clone(),
        announcement(core, &settings, &classes, &url),
    );
    let known = stores
        .iter()
        .filter_map(|store| known(store, &classes))
        .collect();
    let deps = AgentDeps {
        signer: core.signer.clone(),
        trusted: config.trusted_organisations.clone(),
        runtime: runtime.clone(),
        objects: Objects::new(
            core.swarm.clone(),
            core.blocks.clone(),
            Arc::new(dht.clone()),
        ),
        presence: Arc::new(dht),
        puller: Some(Arc::new(RegistryPuller)),
        stores: known,
        dialer: dialer(core.signer.clone(), classes),
    };
    let agent = Arc::new(AgentNode::start_on(listener, settings, deps).await?);
    let desk = agent.offers().clone();
    let answer = move |_, offer: Vec<u8>| {
        let desk = desk.clone();
        async move { desk.answer(&offer).await.ok() }
    };
    core.discovery.serve(OFFER_KIND, answer).await?;
    if config.agent.guardians > 0 {
        let guarding = guardians::guard(&agent, &config.agent, &core.discovery, &namespaces);
        tasks.spawn(guarding.await?);
    }
    tasks.spawn(ads::read(
        core.discovery.clone(),
        namespaces,
        Arc::clone(&agent),
    ));
    Ok((agent, runtime))
}

async fn open_runtime(config: &NodeConfig, namespaces: &[Namespace]) -> Result<Runtime, NodeError> {
    let mut settings = runtime::Config::new(config.data_dir.join("runtime"));
    // Class `process` is only for namespaces that the owner names, and a node serves all of its
    // namespaces alike.
    settings.allow_process = namespaces
        .iter()
        .all(|namespace| config.agent.process_for.contains(namespace));
    settings.backend = match config.agent.runtime.as_str() {
        "embedded" => Backend::Embedded,
        "runc" => Backend::Runc,
        other => return Err(NodeError::RuntimeName(other.to_owned())),
    };
    Ok(Runtime::open(settings).await?)
}

fn settings(config: &NodeConfig) -> AgentConfig {
    let role = &config.agent;
    let cores = available_parallelism().map_or(1, usize::from);
    let cores = u32::try_from(cores).unwrap_or(u32::MAX);
    let cpu_millis = role.cpu_millis().unwrap_or(cores.saturating_mul(1_000));
    let resources = Resources {
        cpu_millis,
        memory_bytes: role.memory.map_or_else(memory_default, |size| size.0),
        gpus: role.gpus,
        scratch_bytes: role.scratch.map_or(SCRATCH_BYTES_DEFAULT, |size| size.0),
    };
    let slots = role
        .tasks
        .unwrap_or_else(|| cpu_millis.div_ceil(1_000).max(1));
    let mut settings = AgentConfig::new(config.data_dir.join("agent"), resources, slots);
    settings.listen = role.listen;
    settings.liveness = role.liveness;
    settings.labels = role.labels.clone();
    settings.ahead = role.ahead;
    settings.poll_max = settings.poll_max.max(role.poll.0);
    settings.policy.keep = config.storage.keep.0;
    settings.policy.checkpoint_bytes_max = role.checkpoint_max.0;
    settings
}

fn memory_default() -> u64 {
    let total = rustix::system::sysinfo();
    let total = u64::from(total.mem_unit) * total.totalram;
    total / MEMORY_SHARE.1 * MEMORY_SHARE.0
}

fn announcement(
    core: &Core,
    settings: &AgentConfig,
    classes: &[IsolationClass],
    url: &str,
) -> crate::discovery::Presence {
    let mut record = core.record();
    record.http = vec![url.to_owned()];
    record.total = settings.resources;
    record.free = settings.resources;
    record.slots = u16::try_from(settings.slots).unwrap_or(u16::MAX);
    record.slots_free = record.slots;
    record.isolation = classes.to_vec();
    record.labels = settings.labels.clone();
    core.presence(record)
}

fn known(store: &HttpStore, classes: &[IsolationClass]) -> Option<KnownStore> {
    Some(KnownStore {
        url: StoreUrl::from(store.bases().first()?.as_str()),
        store: Arc::new(store.clone()),
        classes: classes.to_vec(),
    })
}

/// Stores that ads and offers name, and that the owner did not, get containers at least.
fn dialer(signer: NodeSigner, classes: Vec<IsolationClass>) -> StoreDialer {
    let foreign = classes
        .into_iter()
        .filter(|class| *class != IsolationClass::Process);
    let foreign: Vec<IsolationClass> = foreign.collect();
    StoreDialer::new(move |url| known(&open(url.as_str(), &signer).ok()?, &foreign))
}
