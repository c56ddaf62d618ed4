//! Fetching a DAG from many providers at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::frame::{self, Message};
use super::plan::{Plan, ProviderId, Wanted};
use super::{Dial, TransferError, blocking, session};
use crate::address::{AddressError, Cid};
use crate::dag::{Child, Node};
use crate::store::{Batch, BlockStore, StoreError};
use crate::tree::Root;

/// Most providers of one fetch, and how many may wait to be added.
const PROVIDERS_MAX: usize = 64;

/// From so many expected bytes on a faster way to a provider pays for being opened: a few round trips.
const WIDE_BYTES_MIN: u64 = 16 << 20;

/// How often a provider whose connection broke is dialled again.
const DIALS_MAX: u32 = 4;

/// The pause before the first repeated dial; it doubles.
const REDIAL_PAUSE: Duration = Duration::from_millis(100);

/// How a DAG is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchOptions {
    /// Who wants it: the owner of the pin made at the end.
    pub owner: String,
    /// When the pin ends, in milliseconds since 1970; `None` = when unpinned.
    pub until: Option<u64>,
    /// Largest object accepted, in bytes of all blocks.
    pub bytes_max: u64,
    /// If given, the namespace that the object must belong to.
    pub namespace: Option<String>,
    /// Whether an object of no namespace will do as well.
    pub public_too: bool,
    /// About how many bytes are expected: for many, faster ways to providers are worth opening.
    pub bytes_expected: u64,
    /// A provider silent for this long while it owes blocks is dropped.
    pub stall: Duration,
    /// Without any new block for this long the fetch fails.
    pub give_up: Duration,
    /// With no provider left, the fetch waits this long for another to be added.
    pub lonely: Duration,
}

impl FetchOptions {
    /// Any size, any namespace; 10 s of silence, 60 s without a block, 2 s without a provider.
    pub fn new(owner: impl Into<String>) -> Self {
        Self {
            owner: owner.into(),
            until: None,
            bytes_max: u64::MAX,
            namespace: None,
            public_too: false,
            bytes_expected: 0,
            stall: Duration::from_secs(10),
            give_up: Duration::from_secs(60),
            lonely: Duration::from_secs(2),
        }
    }
}

/// What a provider is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderState {
    /// Being dialled.
    Dialling,
    /// Serving.
    Active,
    /// Dropped, and why.
    Dropped(String),
}

/// One provider's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderStatus {
    /// Its name.
    pub name: String,
    /// Bytes of blocks it sent.
    pub bytes: u64,
    /// What it is doing.
    pub state: ProviderState,
}

/// How far a fetch is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of blocks that are here, those from earlier included.
    pub bytes: u64,
    /// Bytes of all blocks, once the manifest is here.
    pub total: Option<u64>,
    /// Blocks that were fetched.
    pub blocks: u64,
    /// Everyone that was asked, in the order they were added.
    pub providers: Vec<ProviderStatus>,
}

/// The outcome of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    /// The root, now durable and pinned, and the bytes of all its blocks.
    pub root: Root,
    /// Bytes that travelled; the rest was here already.
    pub received: u64,
}

/// A fetch under way. Dropping it stops it; what has arrived stays for a later attempt.
#[derive(Debug)]
pub struct Fetch {
    providers: mpsc::Sender<Arc<dyn Dial>>,
    progress: watch::Receiver<Progress>,
    task: AbortOnDropHandle<Result<Fetched, TransferError>>,
}

impl Fetch {
    /// Adds a provider while the fetch runs. False if it is over, or has too many already.
    pub fn add(&self, provider: Arc<dyn Dial>) -> bool {
        self.providers.try_send(provider).is_ok()
    }

    /// Follows the progress.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Waits for the end. Cancel-safe only in that dropping stops the fetch.
    ///
    /// # Errors
    /// [`TransferError::NoProvider`], [`TransferError::Store`], [`TransferError::TooLarge`],
    /// [`TransferError::Namespace`], [`TransferError::BadBlock`] (the DAG itself is malformed).
    pub async fn finish(self) -> Result<Fetched, TransferError> {
        // Held until the end: the driver takes its closing for "no more providers".
        let _providers = self.providers;
        self.task.await.map_err(std::io::Error::other)?
    }
}

/// Starts to fetch the DAG below `root` into `store`, and to pin it. Must be called within a Tokio runtime.
pub fn fetch(
    store: &BlockStore,
    root: Cid,
    providers: Vec<Arc<dyn Dial>>,
    options: FetchOptions,
) -> Fetch {
    let (sender, receiver) = mpsc::channel(PROVIDERS_MAX);
    for provider in providers.into_iter().take(PROVIDERS_MAX) {
        let _ = sender.try_send(provider);
    }
    let shared = Arc::new(Shared::new(store, options, None));
    let progress = shared.progress.subscribe();
    let task = tokio::spawn(drive(shared, root, receiver));
    Fetch {
        providers: sender,
        progress,
        task: AbortOnDropHandle::new(task),
    }
}

/// A poisoned lock means that a thread panicked between two consistent states of plain collections: go on.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all sessions of a fetch share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) plan: Mutex<Plan>,
    /// Ticks whenever the plan changed.
    pub(super) changed: watch::Sender<()>,
    pub(super) options: FetchOptions,
    /// The exact namespace a keeper was promised; outer `None` = not promised.
    promised: Option<Option<String>>,
    progress: watch::Sender<Progress>,
    batch: Batch,
    fatal: Mutex<Option<TransferError>>,
    over: watch::Sender<bool>,
    /// Blocks being stored: they are waited for at the end, so that nothing is written after it.
    pub(super) storing: TaskTracker,
    last_block: Mutex<Instant>,
}

impl Shared {
    pub(super) fn new(
        store: &BlockStore,
        options: FetchOptions,
        promised: Option<Option<String>>,
    ) -> Self {
        Self {
            plan: Mutex::default(),
            changed: watch::Sender::new(()),
            options,
            promised,
            progress: watch::Sender::new(Progress::default()),
            batch: store.batch(),
            fatal: Mutex::default(),
            over: watch::Sender::new(false),
            storing: TaskTracker::new(),
            last_block: Mutex::new(Instant::now()),
        }
    }

    /// Plans the fetch by what is here already. Blocks on the disk.
    pub(super) fn begin(&self, root: &Cid) -> Result<(), TransferError> {
        let mut wanted = Vec::new();
        match self
            .batch
            .contains(root)
            .then(|| self.batch.store().get(root))
        {
            Some(Ok(block)) => {
                let node = self.check_root(&block)?;
                self.progress.send_modify(|p| p.bytes += block.len() as u64);
                self.look_below(node.children(), &mut wanted)?;
            }
            Some(Err(StoreError::Missing(_) | StoreError::Address(_))) | None => {
                wanted.push(Wanted::Root(*root));
            }
            Some(Err(error)) => return Err(error.into()),
        }
        lock(&self.plan).want(wanted);
        self.announce();
        Ok(())
    }

    /// Finds what is missing below a node, without recursion: a stranger's DAG may be deep.
    fn look_below(
        &self,
        children: Vec<Child>,
        wanted: &mut Vec<Wanted>,
    ) -> Result<(), TransferError> {
        let mut stack = children;
        stack.reverse();
        let mut here = 0;
        while let Some(child) = stack.pop() {
            if !self.batch.contains(&child.link.cid) {
                wanted.push(Wanted::Below(child));
            } else if child.height == 0 {
                here += child.link.bytes;
            } else {
                let block = self.batch.store().get(&child.link.cid)?;
                here += block.len() as u64;
                stack.extend(decode_child(&block, &child)?.children().into_iter().rev());
            }
        }
        self.progress.send_modify(|p| p.bytes += here);
        Ok(())
    }

    fn check_root(&self, block: &[u8]) -> Result<Node, TransferError> {
        let bad = |e: crate::dag::DagError| TransferError::BadBlock(e.to_string());
        let node = Node::decode(block).map_err(bad)?;
        let bytes = node.total_bytes(block.len()).map_err(bad)?;
        if bytes > self.options.bytes_max {
            return Err(TransferError::TooLarge {
                bytes,
                max: self.options.bytes_max,
            });
        }
        self.check_namespace(&node)?;
        self.progress.send_modify(|p| p.total = Some(bytes));
        Ok(node)
    }

    fn check_namespace(&self, node: &Node) -> Result<(), TransferError> {
        let found = node.namespace().map(str::to_owned);
        let expected = match (&self.promised, &self.options.namespace) {
            (Some(promised), _) => promised.clone(),
            (None, Some(expected)) => Some(expected.clone()),
            (None, None) => return Ok(()),
        };
        let is_public = found.is_none() && self.promised.is_none();
        if found == expected || (is_public && self.options.public_too) {
            return Ok(());
        }
        Err(TransferError::Namespace { expected, found })
    }

    /// Verifies and stores an arrived block, and plans what it links to. An error is this provider's; errors that no
    /// provider could mend end the whole fetch.
    pub(super) fn accept(&self, wanted: Wanted, block: &[u8]) -> Result<(), TransferError> {
        match self.put(&wanted, block) {
            Ok(()) => {}
            Err(TransferError::Store(StoreError::Address(error @ AddressError::Mismatch(_)))) => {
                lock(&self.plan).spoilt(wanted);
                self.announce();
                return Err(TransferError::BadBlock(error.to_string()));
            }
            Err(error) => {
                self.fail(error);
                return Ok(());
            }
        }
        self.note(block.len());
        Ok(())
    }

    fn put(&self, wanted: &Wanted, block: &[u8]) -> Result<(), TransferError> {
        self.batch.put(wanted.cid(), block)?;
        let children = match wanted {
            Wanted::Root(_) => self.check_root(block)?.children(),
            Wanted::Below(child) if child.height > 0 => decode_child(block, child)?.children(),
            Wanted::Below(child) if child.link.bytes != block.len() as u64 => {
                return Err(TransferError::BadBlock(
                    "a chunk's size is not what its parent says".into(),
                ));
            }
            Wanted::Below(_) => Vec::new(),
        };
        let mut missing = Vec::new();
        self.look_below(children, &mut missing)?;
        lock(&self.plan).stored(missing);
        Ok(())
    }

    fn note(&self, bytes: usize) {
        *lock(&self.last_block) = Instant::now();
        self.progress.send_modify(|p| {
            p.bytes += bytes as u64;
            p.blocks += 1;
        });
        self.announce();
    }

    pub(super) fn count(&self, id: ProviderId, bytes: usize) {
        self.progress.send_modify(|p| {
            if let Some(provider) = p.providers.get_mut(id) {
                provider.bytes += bytes as u64;
            }
        });
    }

    fn set_state(&self, id: ProviderId, state: ProviderState) {
        self.progress.send_modify(|p| {
            if let Some(provider) = p.providers.get_mut(id) {
                provider.state = state;
            }
        });
    }

    /// Adds a provider to the report.
    pub(super) fn enlist(&self, name: String) -> ProviderId {
        let mut id = 0;
        self.progress.send_modify(|p| {
            id = p.providers.len();
            p.providers.push(ProviderStatus {
                name,
                bytes: 0,
                state: ProviderState::Dialling,
            });
        });
        id
    }

    fn fail(&self, error: TransferError) {
        lock(&self.fatal).get_or_insert(error);
        self.announce();
    }

    /// Tells everyone that the plan changed, or that the end is near.
    pub(super) fn announce(&self) {
        let over = lock(&self.fatal).is_some() || lock(&self.plan).is_done();
        self.over
            .send_if_modified(|old| std::mem::replace(old, over) != over);
        self.changed.send_replace(());
    }

    pub(super) fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    pub(super) async fn wait_over(&self) {
        // Fails only if the sender is gone, and we hold it.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// The outcome once it is over: makes the DAG durable and pins it. Blocks on the disk.
    pub(super) fn conclude(&self, root: &Cid) -> Result<Fetched, TransferError> {
        if let Some(error) = lock(&self.fatal).take() {
            return Err(error);
        }
        self.batch
            .commit(root, &self.options.owner, self.options.until)?;
        let progress = self.progress.borrow();
        Ok(Fetched {
            root: Root {
                cid: *root,
                bytes: progress.total.unwrap_or(0),
            },
            received: progress.providers.iter().map(|p| p.bytes).sum(),
        })
    }

    fn no_provider(&self) -> TransferError {
        let providers = self
            .progress
            .borrow()
            .providers
            .iter()
            .map(describe)
            .collect::<Vec<_>>();
        TransferError::NoProvider {
            missing: lock(&self.plan).left(),
            providers: if providers.is_empty() {
                "none was given".into()
            } else {
                providers.join("; ")
            },
        }
    }
}

fn describe(provider: &ProviderStatus) -> String {
    match &provider.state {
        ProviderState::Dropped(why) => format!("{}: {why}", provider.name),
        ProviderState::Dialling => format!("{}: not reached", provider.name),
        ProviderState::Active => format!("{}: lacks them", provider.name),
    }
}

fn decode_child(block: &[u8], child: &Child) -> Result<Node, TransferError> {
    Node::decode_child(block, child).map_err(|e| TransferError::BadBlock(e.to_string()))
}

async fn drive(
    shared: Arc<Shared>,
    root: Cid,
    mut providers: mpsc::Receiver<Arc<dyn Dial>>,
) -> Result<Fetched, TransferError> {
    let planning = Arc::clone(&shared);
    blocking(move || planning.begin(&root)).await??;
    let mut sessions = JoinSet::new();
    let gathered = gather(&shared, root, &mut providers, &mut sessions).await;
    sessions.shutdown().await;
    shared.storing.close();
    shared.storing.wait().await;
    gathered?;
    blocking(move || shared.conclude(&root)).await?
}

/// Runs sessions until everything is here, something fatal happened, or nobody is left to ask.
async fn gather(
    shared: &Arc<Shared>,
    root: Cid,
    providers: &mut mpsc::Receiver<Arc<dyn Dial>>,
    sessions: &mut JoinSet<()>,
) -> Result<(), TransferError> {
    let options = &shared.options;
    while !shared.is_over() {
        let idle = lock(&shared.last_block).elapsed();
        let patience = options.give_up.saturating_sub(idle);
        tokio::select! {
            () = shared.wait_over() => {}
            Some(provider) = providers.recv() => {
                let id = shared.enlist(provider.name());
                sessions.spawn(attend(Arc::clone(shared), id, root, provider));
            }
            Some(_) = sessions.join_next() => {}
            () = tokio::time::sleep(options.lonely), if sessions.is_empty() => return Err(shared.no_provider()),
            () = tokio::time::sleep(patience) => {
                if lock(&shared.last_block).elapsed() >= options.give_up {
                    return Err(shared.no_provider());
                }
            }
        }
    }
    Ok(())
}

/// Stays with a provider: dials again when the connection breaks, drops it when it misbehaves.
async fn attend(shared: Arc<Shared>, id: ProviderId, root: Cid, provider: Arc<dyn Dial>) {
    let mut pause = REDIAL_PAUSE;
    for attempt in 1.. {
        let Err(error) = visit(&shared, id, &root, provider.as_ref()).await else {
            return;
        };
        let again = matches!(error, TransferError::Io(_)) && attempt < DIALS_MAX;
        tracing::debug!(provider = provider.name(), %error, again, "a provider failed");
        if !again {
            shared.set_state(id, ProviderState::Dropped(error.to_string()));
            return;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

async fn visit(
    shared: &Arc<Shared>,
    id: ProviderId,
    root: &Cid,
    provider: &dyn Dial,
) -> Result<(), TransferError> {
    let stall = shared.options.stall;
    let wide = shared.options.bytes_expected >= WIDE_BYTES_MIN;
    let opening = async {
        match wide {
            true => provider.open_wide(root).await,
            false => provider.open().await,
        }
    };
    let stream = frame::within(stall, async { Ok(opening.await?) }).await?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let open = Message::Open { root: *root };
    match frame::ask(&mut reader, &mut writer, open, stall).await? {
        Message::Opened => {}
        _ => return Err(TransferError::Protocol("no answer to open".into())),
    }
    shared.set_state(id, ProviderState::Active);
    session::run(shared, id, &mut reader, &mut writer).await
}
