//! The demand role: a store served over HTTP, its agents' liveness watched, its jobs offered.
//!
//! Three things happen beside serving. Newly queued jobs are offered to idle agents the moment they
//! are committed, so that work is found even with every control dead. Each agent keeps a session
//! here; when the kernel closes it and the agent's own port refuses, the agent is declared dead in
//! one statement (DESIGN §7); requeueing makes events like any other change, so the recovered jobs
//! are offered within the same few milliseconds. And what expires is swept up.

mod open;
mod routes;
mod verdicts;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use mutual_demand::http::{Limits, Service, StoreKey};
use mutual_demand::{DemandStore, Principal, StoreError};
use mutual_model::identity::NodeId;
use mutual_model::ids::Incarnation;
use mutual_model::lease::LeaseTerms;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::auth::{Gate, NodeSigner, principal_of};
use crate::control::counts::Counts;
use crate::control::feed::{Feed, Follow, Source};
use crate::control::offer::{Neighbours, Offerer, Voucher};
use crate::control::sweep;
use crate::liveness::{Watch, WatchConfig};

/// Agents waiting to be told of changes.
const TOUCHED_MAX: usize = 1_024;

/// Which store is served.
#[derive(Debug, Clone)]
pub enum StoreKind {
    /// One file on this machine.
    Sqlite(PathBuf),
    /// A PostgreSQL server or set of servers, by connection string.
    Postgres(String),
}

/// How a demand server is set up.
#[derive(Debug, Clone)]
pub struct DemandServerConfig {
    /// The store.
    pub kind: StoreKind,
    /// TCP address of the HTTP interface.
    pub listen: SocketAddr,
    /// TCP address of liveness sessions.
    pub liveness: SocketAddr,
    /// Base URL that others use, if it does not follow from the listen address.
    pub url: Option<String>,
    /// The address that others dial if `listen` is every interface.
    pub reach: IpAddr,
    /// Lease terms.
    pub terms: LeaseTerms,
    /// How many guardians must agree before a run is ended by their votes.
    pub quorum: u32,
    /// Whether a set of servers that may lose acknowledged commits is accepted.
    pub accept_data_loss: bool,
    /// Whether the server itself offers and announces queued jobs.
    pub offers: bool,
}

/// What a demand server works with.
#[derive(Debug)]
pub struct DemandServerDeps {
    /// Its key and certificate.
    pub signer: NodeSigner,
    /// Checks callers.
    pub gate: Gate,
    /// What data keys are sealed to; the same for all servers of one store.
    pub key: StoreKey,
    /// The way to agents and to the DHT.
    pub neighbours: Arc<dyn Neighbours>,
}

/// Why a demand server did not start.
#[derive(Debug, thiserror::Error)]
pub enum DemandServiceError {
    /// The store cannot be opened.
    #[error("demand: {0}")]
    Store(#[from] StoreError),
    /// An address cannot be listened at.
    #[error(
        "{field}: cannot listen on {address}: {source}; choose another port or stop what uses it"
    )]
    Listen {
        /// The setting.
        field: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

fn listen_error(
    field: &'static str,
    address: SocketAddr,
) -> impl FnOnce(io::Error) -> DemandServiceError {
    move |source| DemandServiceError::Listen {
        field,
        address,
        source,
    }
}

/// A running demand server. Dropping it ends it at once; the store survives anything.
#[derive(Debug)]
pub struct DemandServer {
    url: String,
    store: Arc<dyn DemandStore>,
    watch: Watch,
    counts: Counts,
    _tasks: JoinSet<()>,
}

impl DemandServer {
    /// Opens the store and serves it.
    ///
    /// # Errors
    /// [`DemandServiceError`].
    pub async fn start(
        config: DemandServerConfig,
        deps: DemandServerDeps,
    ) -> Result<Self, DemandServiceError> {
        // The ports first: a second server must fail before it takes hold of the store's file.
        let ports = Ports::open(&config, &deps).await?;
        let store = open::store(&config).await?;
        Ok(ports.serve(store, deps))
    }

    /// Serves a store that is open already; `config.kind` is ignored.
    ///
    /// # Errors
    /// [`DemandServiceError::Listen`].
    pub async fn serve(
        store: Arc<dyn DemandStore>,
        config: DemandServerConfig,
        deps: DemandServerDeps,
    ) -> Result<Self, DemandServiceError> {
        Ok(Ports::open(&config, &deps).await?.serve(store, deps))
    }

    /// The base URL of the store.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where agents keep their sessions.
    pub const fn liveness(&self) -> SocketAddr {
        self.watch.address()
    }

    /// The store itself.
    pub fn store(&self) -> &Arc<dyn DemandStore> {
        &self.store
    }

    /// Agents with an open session.
    pub fn present(&self) -> Vec<(NodeId, Incarnation)> {
        self.watch.present()
    }

    /// What it counts.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// Open ports that nobody serves yet.
#[derive(Debug)]
struct Ports {
    listener: TcpListener,
    url: String,
    offers: bool,
    watch: Watch,
    notices: mpsc::Receiver<crate::liveness::Notice>,
}

impl Ports {
    async fn open(
        config: &DemandServerConfig,
        deps: &DemandServerDeps,
    ) -> Result<Self, DemandServiceError> {
        let failed = || listen_error("demand.listen", config.listen);
        let listener = TcpListener::bind(config.listen).await.map_err(failed())?;
        let mut address = listener.local_addr().map_err(failed())?;
        if address.ip().is_unspecified() {
            address.set_ip(config.reach);
        }
        let watched = WatchConfig::new(deps.gate.trusted().to_vec());
        let (watch, notices) = Watch::open(config.liveness, watched)
            .await
            .map_err(listen_error("demand.liveness", config.liveness))?;
        let url = config.url.clone();
        Ok(Self {
            listener,
            url: url.unwrap_or_else(|| format!("http://{address}")),
            offers: config.offers,
            watch,
            notices,
        })
    }

    fn serve(self, store: Arc<dyn DemandStore>, deps: DemandServerDeps) -> DemandServer {
        let parts = Parts::new(Arc::clone(&store), deps, self.url.clone(), self.offers);
        let counts = parts.counts.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(verdicts::run(self.notices, parts.judge()));
        let (touched, touches) = mpsc::channel(TOUCHED_MAX);
        tasks.spawn(poke(self.watch.clone(), touches));
        parts.follow(&mut tasks, touched.clone());
        let router = parts.router(self.watch.address(), touched);
        tasks.spawn(serve(self.listener, router));
        DemandServer {
            url: self.url,
            store,
            watch: self.watch,
            counts,
            _tasks: tasks,
        }
    }
}

/// What the tasks of one server share.
#[derive(Debug)]
struct Parts {
    store: Arc<dyn DemandStore>,
    changes: Option<watch::Receiver<u64>>,
    deps: DemandServerDeps,
    url: String,
    offers: bool,
    who: Principal,
    offerer: Arc<Offerer>,
    counts: Counts,
    alarm: Arc<Notify>,
}

impl Parts {
    fn new(store: Arc<dyn DemandStore>, deps: DemandServerDeps, url: String, offers: bool) -> Self {
        let counts = Counts::default();
        let offerer = Offerer::new(
            Voucher::Node(deps.signer.clone()),
            deps.gate.trusted().to_vec(),
            Arc::clone(&deps.neighbours),
            counts.clone(),
        );
        Self {
            who: principal_of(deps.signer.certificate()),
            offerer: Arc::new(offerer),
            alarm: Arc::default(),
            changes: store.changes(),
            store,
            deps,
            url,
            offers,
            counts,
        }
    }

    fn router(self, liveness: SocketAddr, touched: mpsc::Sender<NodeId>) -> Router {
        let extra = routes::Shared {
            store: Arc::clone(&self.store),
            gate: self.deps.gate.clone(),
            signer: self.deps.signer.clone(),
            offerer: self.offerer,
            counts: self.counts,
            liveness_port: liveness.port(),
        };
        let service = Service::new(
            self.store,
            Arc::new(self.deps.gate),
            Arc::new(self.deps.key),
            self.deps.signer.key().public(),
            self.changes,
            Limits::default(),
        );
        let service = service.with_touched(touched);
        service.router().merge(routes::router(extra))
    }

    fn judge(&self) -> verdicts::Judge {
        verdicts::Judge {
            store: Arc::clone(&self.store),
            who: self.who.clone(),
            counts: self.counts.clone(),
            offerer: Arc::clone(&self.offerer),
            alarm: Arc::clone(&self.alarm),
        }
    }

    /// Starts what follows the store's events and what sweeps it.
    fn follow(&self, tasks: &mut JoinSet<()>, touched: mpsc::Sender<NodeId>) {
        let source = Source::Local(Arc::clone(&self.store), self.changes.clone());
        let feed = Feed::new(source, self.who.clone()).with_touched(touched);
        let follow = Follow {
            offerer: Arc::clone(&self.offerer),
            counts: self.counts.clone(),
            demand_url: self.url.clone(),
            patience: self.offers.then_some(Duration::ZERO),
        };
        tasks.spawn(feed.clone().run(follow.clone()));
        if self.offers {
            tasks.spawn(feed.announce(follow));
        }
        let member = self.deps.signer.certificate().membership();
        tasks.spawn(Arc::clone(&self.offerer).keep_roster(member.namespaces.clone()));
        let (who, counts) = (self.who.clone(), self.counts.clone());
        let alarm = Some(Arc::clone(&self.alarm));
        tasks.spawn(sweep::run(Arc::clone(&self.store), who, counts, alarm));
    }
}

async fn serve(listener: TcpListener, router: Router) {
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        // Answers are small and awaited; a socket that refuses the option still works.
        let _ = stream.set_nodelay(true);
    });
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the demand store is served no more");
    }
}

/// Tells agents over their sessions that something about their jobs changed.
async fn poke(watch: Watch, mut touched: mpsc::Receiver<NodeId>) {
    while let Some(agent) = touched.recv().await {
        watch.poke(&agent);
    }
}
