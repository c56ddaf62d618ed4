//! A small cloud in one process: one demand server, one keeper of copies, as many agents as wanted.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mutual_data::store::Options;
use mutual_data::transfer::FetchOptions;
use mutual_data::tree::{self, PackOptions, Tree};
use mutual_data::{BlockStore, Cid, DataKey, address, image};
use mutual_demand::http::{HttpStore, HttpStoreConfig, Limits, Service, StoreKey};
use mutual_demand::sqlite::SqliteStore;
use mutual_demand::{
    DemandStore, EncMeta, JobView, Manifest, Principal, Right, StoreConfig, Submission,
};
use mutual_model::agent::StoreUrl;
use mutual_model::identity::{Certificate, Membership, NodeKey, Role};
use mutual_model::ids::{JobId, Namespace};
use mutual_model::job::{IsolationClass, TaskSpec};
use mutual_model::lease::{Fence, LeaseTerms};
use mutual_model::matching::{Need, Offer};
use mutual_model::receipt::StorageReceipt;
use mutual_model::resources::Resources;
use mutual_model::time::UnixMillis;
use mutual_node::agent::{
    AgentConfig, AgentDeps, AgentNode, INPUT_KEY, KnownStore, Mirror, Objects, PeerFinder,
    Presence, RESULT_KEY, RegistryPuller, SCHEME, StoreDialer, proved_classes,
};
use mutual_node::auth::{Gate, JobOffer, JobOfferReply, NodeSigner, unix_now};
use mutual_node::runtime::{self, Runtime};
use mutual_node::swarm::{Members, PeerAddr, Swarm, SwarmConfig};
use tempfile::TempDir;

/// The longest any step of a test may take; reached only when something is wrong.
pub(super) const WITHIN: Duration = Duration::from_secs(30);

pub(super) fn namespace() -> Namespace {
    "lab".parse().unwrap()
}

/// Small enough for several at once on any machine.
pub(super) fn small() -> Resources {
    Resources {
        cpu_millis: 500,
        memory_bytes: 64 << 20,
        gpus: 0,
        scratch_bytes: 16 << 20,
    }
}

/// Whose members all nodes here are.
pub(super) fn organisation() -> NodeKey {
    NodeKey::from_seed(&[1; 32])
}

/// A task that runs a shell script.
pub(super) fn script(text: &str) -> TaskSpec {
    let command = ["sh", "-c", text].map(str::to_owned).to_vec();
    let mut spec = TaskSpec::new(command, small());
    spec.class = Some(IsolationClass::Process);
    spec.retries = 0;
    spec
}

/// A demand server that can be taken away with all its connections.
struct Server {
    runtime: tokio::runtime::Runtime,
}

impl Server {
    fn start(listener: std::net::TcpListener, router: axum::Router) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
        Self { runtime }
    }

    fn stop(self) {
        self.runtime.shutdown_background();
    }
}

pub(super) struct Cloud {
    organisation: NodeKey,
    pub(super) store: Arc<SqliteStore>,
    store_key: NodeKey,
    server: Option<Server>,
    address: SocketAddr,
    keeper: Swarm,
    pub(super) keepers: Keepers,
    client: Swarm,
    client_blocks: BlockStore,
    user: NodeKey,
    pub(super) dir: TempDir,
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }
}

fn blocks(dir: &Path) -> BlockStore {
    let options = Options {
        durable: false,
        ..Options::default()
    };
    BlockStore::open(dir, options).unwrap()
}

fn membership(organisation: &NodeKey, key: &NodeKey, name: &str, roles: &[Role]) -> Certificate {
    let membership = Membership {
        organisation: organisation.public(),
        node: key.public(),
        sealing: key.sealing_public(),
        name: name.to_owned(),
        namespaces: vec![namespace(), "other".parse().unwrap()],
        roles: roles.to_vec(),
        not_before: UnixMillis(0),
        not_after: UnixMillis(u64::MAX >> 12),
    };
    Certificate::issue(organisation, membership).unwrap()
}

impl Cloud {
    pub(super) async fn start() -> Self {
        Self::with_lease(Duration::from_secs(20)).await
    }

    pub(super) async fn with_lease(lease: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        open_to_all(dir.path());
        let lease_ms = u64::try_from(lease.as_millis()).unwrap();
        let config = StoreConfig {
            terms: LeaseTerms {
                lease_ms,
                renew_ms: lease_ms / 4,
            },
            ..StoreConfig::default()
        };
        let store = SqliteStore::open(dir.path().join("demand.db"), config).unwrap();
        let organisation = organisation();
        let (keeper, _) = swarm(&organisation, dir.path(), 2, "keeper").await;
        let (client, client_blocks) = swarm(&organisation, dir.path(), 3, "client").await;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut cloud = Self {
            organisation,
            store: Arc::new(store),
            store_key: NodeKey::from_seed(&[4; 32]),
            server: None,
            address: listener.local_addr().unwrap(),
            keepers: Keepers::default(),
            keeper,
            client,
            client_blocks,
            user: NodeKey::from_seed(&[5; 32]),
            dir,
        };
        cloud.keepers.add(cloud.keeper.listen_addrs());
        cloud.serve(listener);
        cloud
    }

    fn serve(&mut self, listener: std::net::TcpListener) {
        let service = Service::new(
            self.store.clone(),
            Arc::new(Gate::new(vec![self.organisation.public()])),
            Arc::new(StoreKey::new(self.store_key.clone())),
            self.store_key.public(),
            None,
            Limits::default(),
        );
        self.server = Some(Server::start(listener, service.router()));
    }

    /// Takes the demand server away; the store itself stays.
    pub(super) fn cut(&mut self) {
        self.server.take().unwrap().stop();
    }

    pub(super) fn mend(&mut self) {
        let began = Instant::now();
        let listener = loop {
            match std::net::TcpListener::bind(self.address) {
                Ok(listener) => break listener,
                Err(error) => assert!(began.elapsed() < WITHIN, "{error}"),
            }
            // may sleep: polls for the event, with a bound
            std::thread::sleep(Duration::from_millis(5));
        };
        self.serve(listener);
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn trusted(&self) -> Vec<mutual_model::identity::PublicKey> {
        vec![self.organisation.public()]
    }

    pub(super) fn signer(&self, seed: u8, name: &str, roles: &[Role]) -> NodeSigner {
        let key = NodeKey::from_seed(&[seed; 32]);
        let certificate = membership(&self.organisation, &key, name, roles);
        NodeSigner::new(key, certificate).unwrap()
    }

    pub(super) fn user(&self) -> Principal {
        Principal {
            subject: "ada".into(),
            node: None,
            sealing: self.user.sealing_public(),
            namespaces: vec![namespace()],
            rights: vec![Right::Read, Right::Submit],
        }
    }

    pub(super) async fn submit(&self, spec: TaskSpec) -> JobId {
        self.submit_with(spec, None).await
    }

    pub(super) async fn submit_with(&self, spec: TaskSpec, input: Option<Manifest>) -> JobId {
        let submission = Submission {
            namespace: namespace(),
            client_key: format!("{:x}", rand::random::<u128>()).parse().unwrap(),
            spec,
            result_key: None,
            input,
        };
        let stored = self.store.submit(&self.user(), vec![submission]).await;
        stored.unwrap()[0].job
    }

    pub(super) async fn job(&self, job: JobId) -> JobView {
        self.store.job(&self.user(), job).await.unwrap()
    }

    /// Waits until a job looks as expected.
    pub(super) async fn until(&self, job: JobId, good: impl Fn(&JobView) -> bool) -> JobView {
        let began = Instant::now();
        loop {
            let view = self.job(job).await;
            if good(&view) {
                return view;
            }
            assert!(began.elapsed() < WITHIN, "still {view:#?}");
            // may sleep: polls for the event, with a bound
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) async fn ended(&self, job: JobId) -> JobView {
        self.until(job, |view| view.state.is_terminal()).await
    }

    /// Packs a directory as an input that the client seeds.
    pub(super) async fn input(&self, dir: &Path) -> Manifest {
        let key = DataKey::generate().unwrap();
        let batch = self.client_blocks.batch();
        let options = PackOptions::private("lab");
        let packed = tree::pack(&batch, &key, &options, dir).unwrap();
        batch.commit(&packed.root.cid, "input", None).unwrap();
        let receipts = self.keep(packed.root.cid).await;
        let sealing = self.store_key.sealing_public();
        let sealed = sealing.seal(INPUT_KEY, key.expose(), &mut rand::rng());
        Manifest {
            root: packed.root.cid.to_string().parse().unwrap(),
            bytes: packed.root.bytes,
            seeders: self
                .client
                .listen_addrs()
                .iter()
                .map(ToString::to_string)
                .collect(),
            enc_meta: EncMeta {
                scheme: SCHEME.into(),
                sealed_key: sealed.unwrap(),
            },
            receipts,
        }
    }

    /// Takes an image in as the submitter and has the keeper keep a copy; its content id.
    pub(super) async fn image(&self, path: &Path, namespace: Option<&str>) -> String {
        let batch = self.client_blocks.batch();
        let root = image::import(&batch, path, namespace.map(str::to_owned)).unwrap();
        batch.commit(&root.cid, "image", None).unwrap();
        self.keep(root.cid).await;
        root.cid.to_string()
    }

    async fn keep(&self, root: Cid) -> Vec<StorageReceipt> {
        let hour = Duration::from_secs(3_600);
        let keepers = self.keeper.listen_addrs();
        let kept = self.client.keep_at(root, &keepers, 1, hour);
        kept.await.unwrap()
    }

    /// Fetches an object as the submitter and unpacks it.
    pub(super) async fn fetch(&self, manifest: &Manifest) -> PathBuf {
        let root = address::parse(manifest.root.as_str()).unwrap();
        let seeders = manifest.seeders.iter().map(|text| text.parse().unwrap());
        let seeders: Vec<PeerAddr> = seeders.collect();
        let fetch = self.client.fetch(root, &seeders, FetchOptions::new("user"));
        fetch.finish().await.unwrap();
        let sealed = &manifest.enc_meta.sealed_key;
        let opened = self.user.open(RESULT_KEY, sealed).unwrap();
        let key = DataKey::from_bytes(opened.as_slice().try_into().unwrap());
        let target = self
            .dir
            .path()
            .join(format!("got-{:x}", rand::random::<u64>()));
        let opened = Tree::open(&self.client_blocks, &root, &key).unwrap();
        opened.unpack(&target, tree::Limits::default()).unwrap();
        target
    }

    /// The log of a finished job as one text, line by line as `stream: text`.
    pub(super) async fn log(&self, view: &JobView) -> Vec<String> {
        self.stored_log(view.result.as_ref().unwrap().log.as_ref().unwrap())
            .await
    }

    /// What a stored log says, as [`Cloud::log`] does.
    pub(super) async fn stored_log(&self, manifest: &Manifest) -> Vec<String> {
        let dir = self.fetch(manifest).await;
        let mut files: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        files.sort();
        let texts = files
            .iter()
            .map(|file| std::fs::read_to_string(file).unwrap());
        let lines: Vec<String> = texts
            .flat_map(|t| t.lines().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let messages = lines.iter().map(|l| serde_json::from_str(l).unwrap());
        messages.filter_map(said).collect()
    }

    pub(super) async fn agent(&self, seed: u8) -> AgentNode {
        self.agent_with(seed, |_| (), |store| store).await
    }

    /// Where the keeper of copies has its blocks.
    pub(super) fn keeper_dir(&self) -> PathBuf {
        self.dir.path().join("blocks-keeper")
    }

    /// The keeper of copies answers no more.
    pub(super) async fn kill_keeper(&self) {
        self.keeper.shutdown().await;
    }

    pub(super) fn agent_dir(&self, seed: u8) -> PathBuf {
        self.dir.path().join(format!("agent-{seed}"))
    }

    /// An agent with two slots for small tasks, whose way to the store goes through `wrap`.
    pub(super) async fn agent_with(
        &self,
        seed: u8,
        change: impl FnOnce(&mut AgentConfig),
        wrap: impl FnOnce(Arc<dyn DemandStore>) -> Arc<dyn DemandStore>,
    ) -> AgentNode {
        self.agent_and_swarm(seed, change, wrap).await.0
    }

    /// The same, with its part in the data plane, which outlives it.
    pub(super) async fn agent_and_swarm(
        &self,
        seed: u8,
        change: impl FnOnce(&mut AgentConfig),
        wrap: impl FnOnce(Arc<dyn DemandStore>) -> Arc<dyn DemandStore>,
    ) -> (AgentNode, Swarm) {
        let dir = self.agent_dir(seed);
        let name = format!("agent-{seed}");
        let signer = self.signer(seed, &name, &[Role::Agent]);
        let (swarm, blocks) = swarm(&self.organisation, &dir, seed, &name).await;
        let mut settings = runtime::Config::new(dir.join("runtime"));
        settings.shim = Some(env!("CARGO_BIN_EXE_mutual-shim").into());
        settings.allow_process = true;
        let runtime = Runtime::open(settings).await.unwrap();
        let credentials = Arc::new(signer.clone());
        let http = HttpStore::new(&[self.url()], credentials, HttpStoreConfig::default()).unwrap();
        let finder = self.keepers.clone();
        let mut config = AgentConfig::new(dir.join("state"), twice(small()), 2);
        config.poll_min = Duration::from_millis(20);
        config.poll_max = Duration::from_millis(100);
        change(&mut config);
        let deps = AgentDeps {
            signer,
            trusted: self.trusted(),
            runtime: runtime.clone(),
            objects: Objects::new(swarm.clone(), blocks, Arc::new(finder)),
            presence: Arc::new(Nobody),
            puller: Some(Arc::new(RegistryPuller)),
            stores: vec![KnownStore {
                url: StoreUrl::from(self.url().as_str()),
                store: wrap(Arc::new(http)),
                classes: proved_classes(&runtime),
            }],
            dialer: StoreDialer::new(|_| None),
        };
        (AgentNode::start(config, deps).await.unwrap(), swarm)
    }

    /// Makes a file in the output directory of a run, as a signal to its task.
    pub(super) fn touch_output(&self, seed: u8, job: JobId, fence: Fence, name: &str) {
        let tasks = std::fs::read_dir(self.agent_dir(seed).join("state/tasks")).unwrap();
        let mut tasks = tasks.map(|task| task.unwrap().path());
        let run = format!("{job}-{fence}-");
        let named = |path: &PathBuf| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(&run)
        };
        let task = tasks.find(named).unwrap();
        std::fs::write(task.join("output").join(name), "").unwrap();
    }

    /// Offers a job to an agent as a control would; the jobs it goes for.
    pub(super) async fn offer(&self, agent: &AgentNode, seed: u8, job: JobId) -> Vec<JobId> {
        let control = self.signer(9, "control", &[Role::Control]);
        let offer = self.offer_to(seed, job).await;
        let bytes = agent.offers().answer(&offer.sign(&control)).await.unwrap();
        let reply = JobOfferReply::verify(&bytes, &offer, &self.trusted(), unix_now());
        reply.unwrap().accepted
    }

    /// The offer of a job to the agent of a seed.
    pub(super) async fn offer_to(&self, seed: u8, job: JobId) -> JobOffer {
        let spec = self.job(job).await.spec;
        let to = NodeKey::from_seed(&[seed; 32]).id();
        let need = Need::from(&spec);
        JobOffer::new(to, vec![job], self.url(), namespace(), need)
    }
}

/// Tasks of a root agent run as another user.
fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).unwrap();
}

pub(super) fn twice(resources: Resources) -> Resources {
    resources.saturating_add(&resources)
}

fn said(message: mutual_node::agent::LogMessage) -> Option<String> {
    match message {
        mutual_node::agent::LogMessage::Line { stream, data, .. } => {
            Some(format!("{stream:?}: {}", data.trim_end()))
        }
        _ => None,
    }
}

pub(super) async fn swarm(
    organisation: &NodeKey,
    dir: &Path,
    seed: u8,
    name: &str,
) -> (Swarm, BlockStore) {
    let key = NodeKey::from_seed(&[seed; 32]);
    let certificate = membership(organisation, &key, name, &[Role::Agent, Role::Seeder]);
    let blocks = blocks(&dir.join(format!("blocks-{name}")));
    let gate = Arc::new(Members::of(vec![organisation.public()]));
    let config = SwarmConfig::loopback();
    let swarm = Swarm::start(config, Arc::new(key), &certificate, blocks.clone(), gate);
    (swarm.await.unwrap(), blocks)
}

/// Who keeps copies, as a DHT would tell.
#[derive(Debug, Clone, Default)]
pub(super) struct Keepers(Arc<Mutex<Vec<PeerAddr>>>);

impl Keepers {
    pub(super) fn add(&self, addresses: Vec<PeerAddr>) {
        self.0.lock().unwrap().extend(addresses);
    }
}

#[async_trait]
impl PeerFinder for Keepers {
    async fn keepers(&self, _: &Namespace) -> Vec<PeerAddr> {
        self.0.lock().unwrap().clone()
    }

    async fn providers(&self, _: JobId) -> Vec<PeerAddr> {
        Vec::new()
    }
}

/// No DHT: tests here find each other without.
#[derive(Debug)]
struct Nobody;

#[async_trait]
impl Presence for Nobody {
    async fn capacity(&self, _: Offer) {}

    async fn provides(&self, _: Namespace, _: JobId, _: mutual_model::ids::ContentId) {}

    async fn mirror(&self, _: Mirror) {}
}
