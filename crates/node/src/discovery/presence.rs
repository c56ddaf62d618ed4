//! What a node says of itself, kept up to date under all the keys where others look for it.
//!
//! Being idle or not is told at once, to few nodes, for a short time. The node's own record and its
//! line in the roster follow at most once a second, however often the status changes.

use std::collections::BTreeMap;
use std::time::Duration;

use mutual_model::ids::Namespace;
use mutual_model::kademlia::Key;
use mutual_model::record::{Body, DirectoryEntry, IdleEntry, Index, NodeRecord, Record, idle_key};
use mutual_model::resources::ResourceClass;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::task::Command;
use super::{DiscoveryError, REPLICAS};

/// How long an idle entry stands (DESIGN §5); it is renewed three times as often.
const IDLE_LIFETIME: Duration = Duration::from_secs(10);
const DIRECTORY_LIFETIME: Duration = Duration::from_secs(60);
const NODE_LIFETIME: Duration = Duration::from_secs(60);
/// Idle entries go to few nodes: they are many and short-lived (DESIGN §6).
const IDLE_REPLICAS: usize = 4;
/// The node's own record follows changes at most this often.
const NODE_INTERVAL: Duration = Duration::from_secs(1);

/// A node and the namespaces in which it wants to be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// The node.
    pub node: NodeRecord,
    /// The namespaces; its certificate must name them.
    pub namespaces: Vec<Namespace>,
}

/// Announces every change until the handle or the task is gone.
pub(super) async fn run(
    commands: mpsc::WeakSender<Command>,
    mut announced: watch::Receiver<Option<Presence>>,
) {
    let mut standing = Standing::default();
    loop {
        let wake = standing.node_due;
        tokio::select! {
            changed = announced.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
        }
        let presence = announced.borrow_and_update().clone();
        let (Some(presence), Some(commands)) = (presence, commands.upgrade()) else {
            continue;
        };
        match standing.update(&commands, &presence).await {
            Err(DiscoveryError::Stopped) => return,
            Err(error) => tracing::warn!(%error, "this node could not be announced"),
            Ok(()) => {}
        }
    }
}

/// What has been announced so far.
#[derive(Debug, Default)]
struct Standing {
    idle: BTreeMap<Namespace, ResourceClass>,
    shown: Option<Presence>,
    shown_at: Option<Instant>,
    node_due: Option<Instant>,
}

impl Standing {
    async fn update(
        &mut self,
        commands: &mpsc::Sender<Command>,
        presence: &Presence,
    ) -> Result<(), DiscoveryError> {
        for namespace in &presence.namespaces {
            self.update_idle(commands, namespace, &presence.node)
                .await?;
        }
        if self.shown.as_ref() == Some(presence) {
            self.node_due = None;
            return Ok(());
        }
        let free_at = self.shown_at.map(|at| at + NODE_INTERVAL);
        if let Some(free_at) = free_at
            && free_at > Instant::now()
        {
            self.node_due = Some(free_at);
            return Ok(());
        }
        self.node_due = None;
        self.shown_at = Some(Instant::now());
        self.shown = Some(presence.clone());
        show(commands, presence).await
    }

    async fn update_idle(
        &mut self,
        commands: &mpsc::Sender<Command>,
        namespace: &Namespace,
        node: &NodeRecord,
    ) -> Result<(), DiscoveryError> {
        let class = node.is_idle().then(|| node.free.class());
        let before = self.idle.get(namespace).copied();
        if let Some(before) = before.filter(|before| Some(*before) != class) {
            self.idle.remove(namespace);
            retire(commands, idle_key(namespace, before, 0)).await?;
        }
        let Some(class) = class else {
            return Ok(());
        };
        if before != Some(class) {
            let entry = DirectoryEntry {
                index: Index::Idle,
                class,
                depth: 0,
            };
            let record = Record {
                namespace: namespace.clone(),
                body: Body::Directory(entry),
            };
            submit(commands, record, DIRECTORY_LIFETIME, IDLE_REPLICAS).await?;
        }
        self.idle.insert(namespace.clone(), class);
        let node = node.clone();
        let record = Record {
            namespace: namespace.clone(),
            body: Body::Idle(IdleEntry {
                class,
                shard: 0,
                node,
            }),
        };
        submit(commands, record, IDLE_LIFETIME, IDLE_REPLICAS).await
    }
}

async fn show(commands: &mpsc::Sender<Command>, presence: &Presence) -> Result<(), DiscoveryError> {
    for (number, namespace) in presence.namespaces.iter().enumerate() {
        let roster = Body::Roster(presence.node.clone());
        // A node's own record stands once, in the first namespace.
        let own = (number == 0).then(|| Body::Node(presence.node.clone()));
        for body in own.into_iter().chain([roster]) {
            let record = Record {
                namespace: namespace.clone(),
                body,
            };
            submit(commands, record, NODE_LIFETIME, REPLICAS).await?;
        }
    }
    Ok(())
}

/// Has a record published without waiting for it: what comes next must not wait for a lost datagram.
async fn submit(
    commands: &mpsc::Sender<Command>,
    record: Record,
    lifetime: Duration,
    replicas: usize,
) -> Result<(), DiscoveryError> {
    record.check_len()?;
    let (done, _) = oneshot::channel();
    let record = Box::new(record);
    let command = Command::Publish {
        record,
        lifetime,
        replicas,
        done,
    };
    let sent = commands.send(command).await;
    sent.map_err(|_| DiscoveryError::Stopped)
}

/// Has a record withdrawn without waiting for it.
async fn retire(commands: &mpsc::Sender<Command>, key: Key) -> Result<(), DiscoveryError> {
    let (done, _) = oneshot::channel();
    let sent = commands.send(Command::Withdraw { key, done }).await;
    sent.map_err(|_| DiscoveryError::Stopped)
}
