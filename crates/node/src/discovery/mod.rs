//! Finding nodes, jobs and results: this node's part in the DHT, over one UDP port (DESIGN §6).
//!
//! [`Discovery`] is a cheap handle to a task that owns the socket and drives the sans-IO core of
//! `mutual_model::kademlia`. Everything found is a hint: it was signed by a member of the namespace,
//! but it may be old, and every decision is the demand store's.
//!
//! Every look-up has a deadline and returns what was found until then. All methods are cancel-safe:
//! a publication goes on if its caller stops waiting, and a look-up's answer is dropped.

mod mirror;
mod peers;
mod presence;
mod queries;
pub(crate) mod seal;
mod task;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mutual_model::kademlia::{Config, Core, Identity};
use mutual_model::record::{NodeRecord, Record, VerifiedRecord};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub use mirror::status_mirror;
pub use mutual_model::kademlia::{
    CallError, Caller, Contact, Key, PAYLOAD_LEN_MAX, SetupError, Stats,
};
pub use peers::{Bootstrap, BootstrapError};
pub use presence::Presence;
pub use queries::{FoundAd, IdleQuery};

use task::{Command, Start, Task};

/// How many nodes hold a record if nothing else is said.
pub const REPLICAS: usize = 8;
/// Commands that wait for the task.
const COMMANDS_MAX: usize = 1_024;

/// How a node takes part.
#[derive(Debug, Clone)]
pub struct DiscoveryConfig {
    /// Where to listen, one fixed UDP port; port 0 takes a free one, for tests.
    pub listen: SocketAddr,
    /// Peers to join through; at least two for a cloud that survives the loss of one.
    pub bootstrap: Vec<Bootstrap>,
    /// Where known peers are kept across restarts.
    pub peers_file: Option<PathBuf>,
    /// The core's own settings; `client` for a node that others cannot reach.
    pub kademlia: Config,
}

impl DiscoveryConfig {
    /// A node that listens on `listen` and joins through `bootstrap`.
    pub fn new(listen: SocketAddr, bootstrap: Vec<Bootstrap>) -> Self {
        Self {
            listen,
            bootstrap,
            peers_file: None,
            kademlia: Config::default(),
        }
    }
}

/// Why a node cannot take part.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The identity does not do.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The socket cannot be opened.
    #[error(
        "cannot listen for discovery on UDP {addr}: {source}; choose another port or stop what uses it"
    )]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The task has been shut down. Nothing was done.
    #[error("discovery has been shut down")]
    Stopped,
    /// The record does not fit a datagram. Nothing was published.
    #[error("the record is too long to publish: {0}")]
    Record(#[from] mutual_model::record::CodecError),
}

/// A handle to this node's part in the network; clones share it.
#[derive(Clone)]
pub struct Discovery {
    commands: mpsc::Sender<Command>,
    presence: Arc<watch::Sender<Option<Presence>>>,
    contact: Contact,
    local_addr: SocketAddr,
}

impl std::fmt::Debug for Discovery {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "Discovery({:?}, {})",
            self.contact.node_id(),
            self.local_addr
        )
    }
}

impl Discovery {
    /// Opens the socket and starts to join the network in the background.
    ///
    /// # Errors
    /// [`DiscoveryError::Setup`] for a certificate that is not this key's or too long to travel,
    /// [`DiscoveryError::Listen`] if the address is taken or not this machine's.
    pub async fn start(
        config: DiscoveryConfig,
        identity: Identity,
    ) -> Result<Self, DiscoveryError> {
        let key = identity.key.clone();
        let core = Core::new(config.kademlia, identity, rand::random())?;
        let listen = |source| DiscoveryError::Listen {
            addr: config.listen,
            source,
        };
        let socket = UdpSocket::bind(config.listen).await.map_err(listen)?;
        let local_addr = socket.local_addr().map_err(listen)?;
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let known = config
            .peers_file
            .as_deref()
            .map(peers::load)
            .unwrap_or_default();
        let task = Task::new(Start {
            core,
            sealer: seal::Sealer::new(key.clone(), seal::DISCOVERY),
            public: key.public(),
            socket,
            commands: inbox,
            answers: commands.downgrade(),
            peers_file: config.peers_file,
            known,
        });
        tokio::spawn(task.run());
        for bootstrap in config.bootstrap {
            tokio::spawn(task::resolve(bootstrap, commands.downgrade()));
        }
        let (presence, announced) = watch::channel(None);
        tokio::spawn(presence::run(commands.downgrade(), announced));
        Ok(Self {
            commands,
            presence: Arc::new(presence),
            contact: Contact::new(key.public(), local_addr),
            local_addr,
        })
    }

    /// Saves the known peers, closes the socket and ends the task. Nothing is withdrawn: what this
    /// node published expires by itself.
    pub async fn shutdown(&self) {
        let (done, stopped) = oneshot::channel();
        if self.commands.send(Command::Shutdown { done }).await.is_ok() {
            // An error means that it was already stopping.
            let _ = stopped.await;
        }
    }

    /// Where the socket listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// This node's key and listening address, as a bootstrap peer for others.
    pub const fn contact(&self) -> Contact {
        self.contact
    }

    /// Nodes in the routing table.
    pub async fn peers(&self) -> Vec<Contact> {
        self.ask(|done| Command::Peers { done })
            .await
            .unwrap_or_default()
    }

    /// Counts since the start.
    pub async fn stats(&self) -> Stats {
        self.ask(|done| Command::Stats { done })
            .await
            .unwrap_or_default()
    }

    /// Waits until at least `count` nodes are known, at most for `limit`. Returns whether they are.
    pub async fn wait_for_peers(&self, count: usize, limit: Duration) -> bool {
        let enough = async {
            while self.stats().await.contacts < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(limit, enough).await.is_ok()
    }

    /// Publishes a record in place of this node's earlier one at the same key, and keeps it fresh
    /// until it is withdrawn. Returns how many other nodes hold it.
    ///
    /// # Errors
    /// [`DiscoveryError::Record`] if it does not fit a datagram, [`DiscoveryError::Stopped`].
    pub async fn publish(
        &self,
        record: Record,
        lifetime: Duration,
    ) -> Result<usize, DiscoveryError> {
        publish(&self.commands, record, lifetime, REPLICAS).await
    }

    /// Takes back what this node published at `key`.
    ///
    /// # Errors
    /// [`DiscoveryError::Stopped`].
    pub async fn withdraw(&self, key: Key) -> Result<(), DiscoveryError> {
        withdraw(&self.commands, key).await
    }

    /// Announces this node, or what changed about it: its own record, its line in the roster, and
    /// its entry among the idle ones or the end of that. Returns at once; the rest happens in the
    /// background and is kept fresh until the next announcement.
    pub fn announce(&self, presence: Presence) {
        // Nobody listens only once the task is gone.
        self.presence.send_replace(Some(presence));
    }

    /// The entries of a key, merged from `quorum` holders: 1 is fastest, 2 or 3 forgive an outdated
    /// one. Only records that passed every check.
    pub async fn get(&self, key: Key, quorum: usize, deadline: Duration) -> Vec<VerifiedRecord> {
        let deadline = Instant::now() + deadline;
        let found = self
            .ask(|done| Command::FindRecords {
                key,
                quorum,
                deadline,
                done,
            })
            .await;
        found.map(|found| found.records).unwrap_or_default()
    }

    /// The nodes nearest to a position, nearest first.
    pub async fn closest(&self, target: Key, deadline: Duration) -> Vec<Contact> {
        let deadline = Instant::now() + deadline;
        let found = self
            .ask(|done| Command::FindNodes {
                target,
                deadline,
                done,
            })
            .await;
        found.map(|found| found.contacts).unwrap_or_default()
    }

    /// Asks the application of a node something over a sealed datagram: one each way, repeated until
    /// answered, so the other side may see a question twice. At most [`PAYLOAD_LEN_MAX`] bytes.
    ///
    /// # Errors
    /// [`CallError`]; with [`CallError::TimedOut`] the other side may have acted all the same.
    pub async fn request(
        &self,
        to: Contact,
        kind: u8,
        payload: Vec<u8>,
        deadline: Duration,
    ) -> Result<Vec<u8>, CallError> {
        let deadline = Instant::now() + deadline;
        self.ask(|done| Command::Call {
            to,
            kind,
            payload,
            deadline,
            done,
        })
        .await
        .unwrap_or(Err(CallError::TimedOut))
    }

    /// Answers questions of one kind with `handler`, which gets the caller, its verified certificate
    /// included, and the question; `None` refuses. Replaces an earlier handler of the kind.
    ///
    /// # Errors
    /// [`DiscoveryError::Stopped`].
    pub async fn serve<H, F>(&self, kind: u8, handler: H) -> Result<(), DiscoveryError>
    where
        H: Fn(Caller, Vec<u8>) -> F + Send + Sync + 'static,
        F: Future<Output = Option<Vec<u8>>> + Send + 'static,
    {
        let handler: task::Handler =
            Arc::new(move |caller, payload| Box::pin(handler(caller, payload)));
        let command = Command::Serve { kind, handler };
        let sent = self.commands.send(command).await;
        sent.map_err(|_| DiscoveryError::Stopped)
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (done, answer) = oneshot::channel();
        self.commands.send(command(done)).await.ok()?;
        answer.await.ok()
    }
}

/// How to reach a node that a record describes; `None` if the record names no discovery address.
pub fn contact_of(node: &NodeRecord) -> Option<Contact> {
    node.udp.first().map(|addr| Contact::new(node.node, *addr))
}

async fn publish(
    commands: &mpsc::Sender<Command>,
    record: Record,
    lifetime: Duration,
    replicas: usize,
) -> Result<usize, DiscoveryError> {
    record.check_len()?;
    let (done, published) = oneshot::channel();
    let record = Box::new(record);
    let command = Command::Publish {
        record,
        lifetime,
        replicas,
        done,
    };
    commands
        .send(command)
        .await
        .map_err(|_| DiscoveryError::Stopped)?;
    published.await.map_err(|_| DiscoveryError::Stopped)
}

async fn withdraw(commands: &mpsc::Sender<Command>, key: Key) -> Result<(), DiscoveryError> {
    let (done, withdrawn) = oneshot::channel();
    let command = Command::Withdraw { key, done };
    commands
        .send(command)
        .await
        .map_err(|_| DiscoveryError::Stopped)?;
    withdrawn
        .await
        .map(drop)
        .map_err(|_| DiscoveryError::Stopped)
}
