//! Starting and stopping an agent, and getting to know demand stores.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mutual_demand::{DemandStore, Principal, StoreError};
use mutual_model::agent::{Agent, Config, Event, StoreUrl};
use mutual_model::guardian::StateHash;
use mutual_model::identity::PublicKey;
use mutual_model::ids::{JobId, Nonce};
use mutual_model::job::IsolationClass;
use mutual_model::matching::Need;
use mutual_model::resources::Resources;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use super::attempt::{RunPolicy, Workshop};
use super::deliver::deliver_leftovers;
use super::images::{Images, Puller};
use super::logs::Library;
use super::metrics::Metrics;
use super::mind::{Input, Mind, Status};
use super::objects::Objects;
use super::offers::OfferDesk;
use super::outbox::Outbox;
use super::presence::{HINT_PAUSE, Presence};
use super::runs::Incarnations;
use super::server::{self, Doors};
use super::shelf::Shelf;
use super::stores::{KnownStore, StoreLink, Stores};
use crate::auth::{NodeSigner, principal_of};
use crate::liveness::{AgentDoor, GuardianMetrics, Poke, SessionPlace, keep_session};
use crate::runtime::{Class, Runtime};

/// Inputs that wait for the loop.
const INPUTS_MAX: usize = 4_096;
const INTRODUCE_PAUSE_MIN: Duration = Duration::from_millis(100);
const INTRODUCE_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often it is asked where a store takes sessions, if it does not say.
const SESSION_PLACE_PAUSE: Duration = Duration::from_secs(10);
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);

/// What the machine's owner decides.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Where the agent keeps its state; its alone.
    pub data_dir: PathBuf,
    /// TCP address of logs, offers, health and metrics.
    pub listen: SocketAddr,
    /// TCP address at which demand servers check that it lives.
    pub liveness: SocketAddr,
    /// Base URL that others use, if it is not the listen address.
    pub url: Option<String>,
    /// All that tasks may use together.
    pub resources: Resources,
    /// Tasks at once.
    pub slots: u32,
    /// Labels of the machine.
    pub labels: BTreeMap<String, String>,
    /// Bounds on every task.
    pub policy: RunPolicy,
    /// Pause between polls of a store that had work a moment ago.
    pub poll_min: Duration,
    /// Longest pause between polls of a store that has none.
    pub poll_max: Duration,
    /// Recovered tasks that are claimed and prepared before there is room to run them.
    pub ahead: u32,
}

impl AgentConfig {
    /// Local addresses with free ports and default policies.
    pub fn new(data_dir: PathBuf, resources: Resources, slots: u32) -> Self {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            data_dir,
            listen: anywhere,
            liveness: anywhere,
            url: None,
            resources,
            slots,
            labels: BTreeMap::new(),
            policy: RunPolicy::default(),
            poll_min: Duration::from_millis(250),
            poll_max: Duration::from_secs(5),
            ahead: 2,
        }
    }
}

type Dial = dyn Fn(&StoreUrl) -> Option<KnownStore> + Send + Sync;

/// Makes the way to a demand store that an ad or an offer names; `None` refuses it.
#[derive(Clone)]
pub struct StoreDialer(Arc<Dial>);

impl StoreDialer {
    /// A dialer from a function.
    pub fn new(dial: impl Fn(&StoreUrl) -> Option<KnownStore> + Send + Sync + 'static) -> Self {
        Self(Arc::new(dial))
    }
}

impl fmt::Debug for StoreDialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreDialer")
    }
}

/// What an agent works with.
#[derive(Debug)]
pub struct AgentDeps {
    /// Its key and certificate.
    pub signer: NodeSigner,
    /// Organisations whose members are believed.
    pub trusted: Vec<PublicKey>,
    /// Runs tasks.
    pub runtime: Runtime,
    /// Moves objects.
    pub objects: Objects,
    /// Tells the DHT.
    pub presence: Arc<dyn Presence>,
    /// Pulls images from registries, if the owner wants that.
    pub puller: Option<Arc<dyn Puller>>,
    /// Stores to work for.
    pub stores: Vec<KnownStore>,
    /// How further stores are reached.
    pub dialer: StoreDialer,
}

/// Why an agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its state cannot be used.
    #[error("agent's state in {}: {source}", .dir.display())]
    State {
        /// Where.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An address cannot be listened at.
    #[error("cannot listen on {address}: {source}; choose another port or stop what uses it")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// The classes that a runtime proved, weakest first.
pub fn proved_classes(runtime: &Runtime) -> Vec<IsolationClass> {
    let offer = runtime.offer();
    let proved = IsolationClass::ALL.into_iter();
    let proved = proved.filter(|class| offer.class(Class::from(*class)).is_some());
    proved.collect()
}

/// A running agent. Dropping it kills its tasks, like the death of its process.
#[derive(Debug)]
pub struct AgentNode {
    address: SocketAddr,
    liveness: SocketAddr,
    url: String,
    desk: OfferDesk,
    pub(super) recruiter: Recruiter,
    inputs: mpsc::Sender<Input>,
    status: watch::Receiver<Status>,
    pub(super) state: watch::Receiver<StateHash>,
    pub(super) guardian_metrics: GuardianMetrics,
    pub(super) signer: NodeSigner,
    pub(super) trusted: Arc<[PublicKey]>,
    door: AgentDoor,
    _closed: DropGuard,
    _mind: AbortOnDropHandle<()>,
}

impl AgentNode {
    /// Opens the state, clears what an earlier run left, and begins to work for the stores: for
    /// each first the outbox, then the end of earlier incarnations, then the first claim.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn start(config: AgentConfig, deps: AgentDeps) -> Result<Self, AgentError> {
        let listener = listen(config.listen).await?;
        Self::start_on(listener, config, deps).await
    }

    /// As [`AgentNode::start`] on a listener that stands already, for whom the address must be known before.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn start_on(
        listener: TcpListener,
        config: AgentConfig,
        deps: AgentDeps,
    ) -> Result<Self, AgentError> {
        let (door, poked) = open_door(&config, &deps.signer).await?;
        let base = Base::open(&config, &deps, listener.local_addr(), door.clone());
        let (base, received) = base.map_err(|source| AgentError::State {
            dir: config.data_dir.clone(),
            source,
        })?;
        let trusted: Arc<[PublicKey]> = deps.trusted.clone().into();
        let desk = base.desk(&deps.signer, trusted.clone());
        let doors = Doors {
            node: deps.signer.key().id(),
            trusted: trusted.clone(),
            logs: base.shop.logs.clone(),
            metrics: base.shop.metrics.clone(),
            desk: desk.clone(),
        };
        let (mind, status, state) =
            base.mind(Agent::new(core_config(&config, &deps), rand::random()));
        let closed = &base.recruiter.closed;
        let mind = tokio::spawn(mind.run(received));
        tokio::spawn(server::serve(listener, doors, closed.clone()));
        tokio::spawn(show_capacity(deps.presence.clone(), status.clone()));
        tokio::spawn(until(closed.clone(), sweep(base.shop.clone())));
        tokio::spawn(until(
            closed.clone(),
            base.recruiter.clone().pass_pokes(poked),
        ));
        for store in deps.stores {
            base.recruiter.add(store);
        }
        Ok(Self {
            address: base.address,
            liveness: door.address(),
            url: base.url,
            desk,
            _closed: closed.clone().drop_guard(),
            inputs: base.recruiter.inputs.clone(),
            recruiter: base.recruiter,
            status,
            state,
            guardian_metrics: base.shop.metrics.guardians(),
            signer: deps.signer,
            trusted,
            door,
            _mind: AbortOnDropHandle::new(mind),
        })
    }

    /// Where HTTP is served.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where demand servers check that the agent lives.
    pub const fn liveness(&self) -> SocketAddr {
        self.liveness
    }

    /// The base URL that others use.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where offers that came by datagram are put.
    pub const fn offers(&self) -> &OfferDesk {
        &self.desk
    }

    /// Follows what is free and what is held.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// An ad was found: jobs of like need, read by about `idle` idle agents.
    pub async fn advertised(&self, store: &StoreUrl, jobs: Vec<JobId>, need: Need, idle: u32) {
        if self.recruiter.stores.get(store).is_none() {
            return self.recruiter.meet(store);
        }
        let input = Input::Ad {
            store: store.clone(),
            jobs,
            need,
            idle,
        };
        // The loop is gone only when the agent stops.
        let _ = self.inputs.send(input).await;
    }

    /// Takes nothing new from now on; what runs goes on.
    pub async fn drain(&self) {
        let _ = self.inputs.send(Input::Event(Event::Drain)).await;
    }

    /// Stops what runs, gives it back, and waits for that at most `within`. Undelivered finishes
    /// stay in the outbox. Returns whether all went in order.
    pub async fn shutdown(mut self, within: Duration) -> bool {
        let _ = self.inputs.send(Input::Event(Event::Shutdown)).await;
        let quiet = self.status.wait_for(|status| status.quiet);
        let quiet = tokio::time::timeout(within, quiet).await;
        let in_order = matches!(quiet, Ok(Ok(_)));
        self.door.close();
        // Time for a word of farewell on the sessions.
        tokio::time::sleep(Duration::from_millis(5)).await;
        in_order
    }
}

/// What the parts of a starting agent share.
struct Base {
    address: SocketAddr,
    url: String,
    shop: Arc<Workshop>,
    recruiter: Recruiter,
}

impl Base {
    fn open(
        config: &AgentConfig,
        deps: &AgentDeps,
        address: io::Result<SocketAddr>,
        door: AgentDoor,
    ) -> io::Result<(Self, mpsc::Receiver<Input>)> {
        let address = address?;
        let key = Arc::new(deps.signer.key().clone());
        let shop = Arc::new(open_shop(config, deps, key)?);
        let file = config.data_dir.join("incarnation");
        let incarnations = Incarnations::open(file, proved_classes(&deps.runtime))?;
        let (inputs, received) = mpsc::channel(INPUTS_MAX);
        let recruiter = Recruiter {
            stores: Stores::default(),
            incarnations,
            outbox: shop.outbox.clone(),
            inputs,
            principal: principal_of(deps.signer.certificate()),
            door,
            dialer: deps.dialer.clone(),
            closed: CancellationToken::new(),
        };
        let base = Self {
            address,
            url: config.url.clone().unwrap_or_else(|| url_of(address)),
            shop,
            recruiter,
        };
        Ok((base, received))
    }

    fn desk(&self, signer: &NodeSigner, trusted: Arc<[PublicKey]>) -> OfferDesk {
        let recruiter = &self.recruiter;
        OfferDesk::new(
            signer.clone(),
            trusted,
            recruiter.stores.clone(),
            recruiter.clone(),
            recruiter.inputs.clone(),
        )
    }

    fn mind(&self, core: Agent) -> (Mind, watch::Receiver<Status>, watch::Receiver<StateHash>) {
        let recruiter = &self.recruiter;
        let (told, status) = watch::channel(Status {
            free: core.capacity(recruiter.incarnations.classes()),
            runs: Vec::new(),
            quiet: false,
        });
        let (state, hashed) = watch::channel(StateHash::of([]));
        let mind = Mind {
            core,
            shop: self.shop.clone(),
            stores: recruiter.stores.clone(),
            incarnations: recruiter.incarnations.clone(),
            agent_url: self.url.clone(),
            inputs: recruiter.inputs.clone(),
            status: told,
            state,
            grants: BTreeMap::new(),
            attempts: BTreeMap::new(),
            leashes: BTreeMap::new(),
            answers: BTreeMap::new(),
            offers_seen: 0,
        };
        (mind, status, hashed)
    }
}

async fn open_door(
    config: &AgentConfig,
    signer: &NodeSigner,
) -> Result<(AgentDoor, mpsc::Receiver<Poke>), AgentError> {
    let key = Arc::new(signer.key().clone());
    let opened = AgentDoor::open(config.liveness, key, signer.certificate().clone()).await;
    opened.map_err(|source| AgentError::Listen {
        address: config.liveness,
        source,
    })
}

/// Listens for [`AgentNode::start_on`].
///
/// # Errors
/// [`AgentError::Listen`].
pub async fn listen(address: SocketAddr) -> Result<TcpListener, AgentError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| AgentError::Listen { address, source })
}

fn core_config(config: &AgentConfig, deps: &AgentDeps) -> Config {
    let mut core = Config::new(deps.signer.key().id(), config.resources, config.slots);
    core.labels = config.labels.clone();
    core.poll_min = config.poll_min;
    core.poll_max = config.poll_max;
    core.ahead = config.ahead;
    core
}

fn open_shop(
    config: &AgentConfig,
    deps: &AgentDeps,
    key: Arc<mutual_model::identity::NodeKey>,
) -> io::Result<Workshop> {
    let dir = |name: &str| config.data_dir.join(name);
    let tasks = dir("tasks");
    // The runtime has killed what ran in there; here goes what it left.
    mutual_data::tree::remove(&tasks)?;
    fs::create_dir_all(&tasks)?;
    let outbox = Outbox::open(dir("outbox"))?;
    let metrics = Metrics::default();
    metrics.outbox(outbox.len());
    Ok(Workshop {
        key,
        runtime: deps.runtime.clone(),
        objects: deps.objects.clone(),
        images: Images::open(dir("images"), deps.runtime.clone(), deps.puller.clone())?,
        shelf: Shelf::open(dir("inputs"))?,
        logs: Library::open(dir("logs"))?,
        outbox,
        presence: deps.presence.clone(),
        metrics,
        tasks: fs::canonicalize(tasks)?,
        policy: config.policy.clone(),
    })
}

fn url_of(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("http://127.0.0.1:{}", address.port()),
        false => format!("http://{address}"),
    }
}

async fn until(closed: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = closed.cancelled() => {}
        () = work => {}
    }
}

async fn show_capacity(presence: Arc<dyn Presence>, mut status: watch::Receiver<Status>) {
    let mut shown = None;
    loop {
        let free = status.borrow_and_update().free.clone();
        if shown.as_ref() != Some(&free) {
            presence.capacity(free.clone()).await;
            shown = Some(free);
        }
        if status.changed().await.is_err() {
            return;
        }
        // A hint needs no hurry, and a task that has just been claimed is being started now.
        tokio::time::sleep(HINT_PAUSE).await;
    }
}

/// Removes logs and unpacked images that nobody wants any more.
async fn sweep(shop: Arc<Workshop>) {
    loop {
        let (logs, images, keep) = (shop.logs.clone(), shop.images.clone(), shop.policy.keep);
        let sweep = move || {
            logs.sweep(keep);
            images.sweep(keep);
        };
        // A sweep that fails is tried again.
        let _ = tokio::task::spawn_blocking(sweep).await;
        tokio::time::sleep(SWEEP_EVERY).await;
    }
}

/// Gets to know stores.
#[derive(Debug, Clone)]
pub(super) struct Recruiter {
    pub(super) stores: Stores,
    pub(super) incarnations: Incarnations,
    outbox: Outbox,
    inputs: mpsc::Sender<Input>,
    pub(super) principal: Principal,
    pub(super) door: AgentDoor,
    dialer: StoreDialer,
    closed: CancellationToken,
}

impl Recruiter {
    /// The way to a store, also to one that the agent does not work for, if the owner allows it.
    pub(super) fn store(&self, url: &StoreUrl) -> Option<Arc<dyn DemandStore>> {
        let known = self.stores.get(url).map(|link| link.known.store.clone());
        known.or_else(|| Some((self.dialer.0)(url)?.store))
    }

    /// Begins to work for a store that somebody trusted has named, if the owner allows it.
    pub(super) fn meet(&self, store: &StoreUrl) {
        if let Some(known) = (self.dialer.0)(store) {
            self.add(known);
        }
    }

    fn add(&self, known: KnownStore) {
        let store = known.url.clone();
        if !self.stores.add(known, self.principal.clone()) {
            return;
        }
        let Some(link) = self.stores.get(&store) else {
            return;
        };
        let recruiter = self.clone();
        let work = async move {
            recruiter.introduce(&link).await;
            recruiter.keep_session(&link.known.url).await;
        };
        tokio::spawn(until(self.closed.clone(), work));
    }

    /// Outbox first, so that no finished work is thrown away; then the end of earlier runs; only
    /// then the first claim.
    async fn introduce(&self, link: &StoreLink) {
        let store = &link.known.url;
        let mut pause = INTRODUCE_PAUSE_MIN;
        loop {
            let ready = deliver_leftovers(&self.outbox, link).await && self.supersede(link).await;
            if ready {
                break;
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.75..1.25))).await;
            pause = (pause * 2).min(INTRODUCE_PAUSE_MAX);
        }
        let event = Event::StoreAdded {
            store: store.clone(),
            incarnation: *self.incarnations.at(store).borrow(),
            classes: link.known.classes.clone(),
        };
        tracing::info!(%store, "working for this demand store");
        // The loop is gone only when the agent stops.
        let _ = self.inputs.send(Input::Event(event)).await;
    }

    async fn supersede(&self, link: &StoreLink) -> bool {
        let store = &link.known.url;
        let incarnation = *self.incarnations.at(store).borrow();
        let Some(agent) = self.principal.node else {
            return true;
        };
        let nonce = Nonce(rand::random());
        match link.supersede(agent, incarnation, nonce).await {
            Ok(()) => true,
            Err(StoreError::IncarnationRevoked) => {
                self.incarnations.renew(store, incarnation);
                false
            }
            Err(error) => {
                tracing::warn!(%store, %error, "earlier runs cannot be ended yet");
                false
            }
        }
    }

    /// Keeps a liveness session with the store's server under the incarnation it knows.
    async fn keep_session(&self, store: &StoreUrl) {
        let mut incarnation = self.incarnations.at(store);
        let mut former = None;
        loop {
            let current = *incarnation.borrow_and_update();
            self.door.live(current, former);
            former = Some(current);
            let session = async {
                let server = session_server(store).await;
                keep_session(self.door.clone(), server, current).await;
            };
            tokio::select! {
                changed = incarnation.changed() => if changed.is_err() {
                    return;
                },
                () = session => return,
            }
        }
    }

    async fn pass_pokes(self, mut poked: mpsc::Receiver<Poke>) {
        while let Some(Poke { incarnation }) = poked.recv().await {
            for store in self.incarnations.known_as(incarnation) {
                // The loop is gone only when the agent stops.
                let _ = self.inputs.send(Input::Event(Event::Poked { store })).await;
            }
        }
    }
}

/// `host:port` of a store's liveness sessions, asked for until it tells.
async fn session_server(store: &StoreUrl) -> String {
    loop {
        match ask_session_place(store).await {
            Ok(server) => return server,
            Err(error) => tracing::debug!(%store, %error, "no liveness session"),
        }
        tokio::time::sleep(SESSION_PLACE_PAUSE).await;
    }
}

async fn ask_session_place(store: &StoreUrl) -> Result<String, reqwest::Error> {
    let base = store.as_str().trim_end_matches('/');
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(5))
        .build()?;
    let reply = client.get(format!("{base}/v1/session")).send().await?;
    let host = reply.url().host_str().unwrap_or_default().to_owned();
    let place: SessionPlace = reply.error_for_status()?.json().await?;
    Ok(format!("{host}:{}", place.port))
}
