//! Blocks on disk: verified before they are stored, pinned by root, collected when nobody needs them.
//!
//! # How a crash is survived
//! A block is written to a temporary file and renamed into `fresh/`. It moves on to `blocks/` only after the file
//! system confirmed it durable, which happens once per committed root and not once per block. When a store is opened,
//! whatever stands in `fresh/` is hashed again and thrown away if it does not match, so a block torn by a power cut is
//! never believed. A pin is written after its blocks are durable: a pin means a complete DAG.
//!
//! # How collection stays safe
//! A [`Batch`] holds every block it wrote or found until it is dropped; the collector spares held blocks and all that
//! is reachable from a pin. So an object being packed or fetched is never collected under its writer.
//!
//! All calls block on the disk for a short time: from asynchronous code use a blocking task. One process owns a store
//! (a lock file says so); any number of threads use it through clones.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::address::{self, AddressError, Cid, Codec, Short};
use crate::dag::{DagError, Node};

mod batch;
mod collect;
mod pins;
#[cfg(test)]
mod tests;

pub use batch::Batch;
pub use collect::Collected;
pub use pins::Pin;

const BLOCKS: &str = "blocks";
const FRESH: &str = "fresh";
const TEMPORARY: &str = "tmp";
const PINS: &str = "pins";

/// Why the store refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The quota or the disk is full, also after collecting what nobody needs. Nothing was stored.
    #[error(
        "the block store is full: {used} of {quota} bytes used, {needed} more needed; raise the quota or free space"
    )]
    Full {
        /// Bytes in use.
        used: u64,
        /// Bytes allowed.
        quota: u64,
        /// Bytes asked for.
        needed: u64,
    },
    /// The disk below the store has no space left. Nothing was stored.
    #[error("no space left on the disk below {0}")]
    DiskFull(PathBuf),
    /// The block is not here.
    #[error("block {0} is not in the store")]
    Missing(Box<Cid>),
    /// The bytes are not the block they claim to be, or its name is unsupported.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A node of a DAG is not acceptable.
    #[error(transparent)]
    Dag(#[from] DagError),
    /// Another process uses this store.
    #[error("the block store {0} is in use by another process")]
    InUse(PathBuf),
    /// The disk failed.
    #[error("block store: {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

impl StoreError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| {
            let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
            if full.contains(&source.kind()) {
                return Self::DiskFull(path.to_owned());
            }
            Self::Io {
                path: path.to_owned(),
                source,
            }
        }
    }

    /// Whether there was no room.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::DiskFull(_))
    }
}

/// How a store is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Most bytes of blocks.
    pub quota_bytes: u64,
    /// Whether a commit waits until the disk has everything. Off only for throw-away stores.
    pub durable: bool,
}

impl Default for Options {
    /// 64 GiB, durable.
    fn default() -> Self {
        Self {
            quota_bytes: 64 << 30,
            durable: true,
        }
    }
}

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all blocks.
    pub bytes: u64,
    /// Bytes allowed.
    pub quota_bytes: u64,
    /// Pins, expired ones included until collected.
    pub pins: usize,
}

/// Blocks in a directory. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct BlockStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    options: Options,
    used: AtomicU64,
    serial: AtomicU64,
    held: Mutex<Held>,
    fresh: Mutex<HashSet<Short>>,
    pins: Mutex<BTreeMap<pins::Key, Option<u64>>>,
    /// One commit at a time, and no commit while another moves blocks.
    committing: Mutex<()>,
    /// One collection at a time; pinning what is already here waits for it.
    collecting: Mutex<()>,
    /// From when on what is not urgent may be collected.
    next_collection: Mutex<Instant>,
    _lock: File,
}

/// Blocks that batches need, with how many batches need each.
#[derive(Debug, Default)]
struct Held {
    counts: HashMap<Short, u32>,
    /// While a collection runs, nothing is let go: it decided what to spare before.
    frozen: bool,
    deferred: Vec<Short>,
}

impl Held {
    fn release(&mut self, short: Short) {
        if self.frozen {
            self.deferred.push(short);
            return;
        }
        if let Some(count) = self.counts.get_mut(&short) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&short);
            }
        }
    }
}

/// A poisoned lock means that a thread panicked between two consistent states of plain collections: go on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BlockStore {
    /// Opens or makes the store in `dir`. Leftovers of a crash are verified or removed.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Io`], [`StoreError::DiskFull`].
    pub fn open(dir: impl Into<PathBuf>, options: Options) -> Result<Self, StoreError> {
        let dir = dir.into();
        make_directories(&dir)?;
        let guard = take_lock(&dir)?;
        let store = Self {
            inner: Arc::new(Inner {
                pins: Mutex::new(pins::load(&dir.join(PINS))?),
                dir,
                options,
                used: AtomicU64::new(0),
                serial: AtomicU64::new(0),
                held: Mutex::default(),
                fresh: Mutex::default(),
                committing: Mutex::default(),
                collecting: Mutex::default(),
                next_collection: Mutex::new(Instant::now()),
                _lock: guard,
            }),
        };
        store.sweep_temporary()?;
        store.verify_fresh()?;
        store.measure()?;
        Ok(store)
    }

    /// Starts a batch: the only way to write.
    pub fn batch(&self) -> Batch {
        Batch::new(self.clone())
    }

    /// Whether the block is here.
    pub fn contains(&self, cid: &Cid) -> bool {
        self.locate(cid, |path| fs::symlink_metadata(path)).is_ok()
    }

    /// Reads a block and checks it.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Address`] if the disk spoiled it (it is then removed, so that it can be
    /// fetched again), [`StoreError::Io`].
    pub fn get(&self, cid: &Cid) -> Result<Vec<u8>, StoreError> {
        let block = self.get_unverified(cid)?;
        if let Err(error) = address::verify(cid, &block) {
            self.discard(cid);
            return Err(error.into());
        }
        Ok(block)
    }

    /// Reads a block for a peer, who checks it anyway.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Io`].
    pub fn get_unverified(&self, cid: &Cid) -> Result<Vec<u8>, StoreError> {
        self.locate(cid, |path| fs::read(path))
    }

    /// Bytes used and allowed.
    pub fn usage(&self) -> Usage {
        Usage {
            bytes: self.inner.used.load(Ordering::Relaxed),
            quota_bytes: self.inner.options.quota_bytes,
            pins: lock(&self.inner.pins).len(),
        }
    }

    /// Whether every block below `root` is here, and how many bytes they have; `None` if one is missing.
    ///
    /// # Errors
    /// [`StoreError::Dag`], [`StoreError::Address`], [`StoreError::Io`].
    pub fn complete(&self, root: &Cid) -> Result<Option<u64>, StoreError> {
        let mut bytes = 0;
        let walked = self.walk(root, &mut |_, length| {
            bytes += length;
            true
        });
        match walked {
            Ok(()) => Ok(Some(bytes)),
            Err(StoreError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Visits every block below `root`, parents first, with its size; `visit` says whether to go deeper.
    fn walk(
        &self,
        root: &Cid,
        visit: &mut impl FnMut(&Cid, u64) -> bool,
    ) -> Result<(), StoreError> {
        let mut stack = vec![*root];
        while let Some(cid) = stack.pop() {
            let length = self.locate(&cid, |path| fs::symlink_metadata(path))?.len();
            if visit(&cid, length) && address::codec(&cid)? == Codec::Node {
                let node = Node::decode(&self.get(&cid)?)?;
                stack.extend(node.children().iter().rev().map(|c| c.link.cid));
            }
        }
        Ok(())
    }

    /// Applies `read` to the block's file, wherever it stands. A commit may move it between two looks, hence three.
    fn locate<T>(&self, cid: &Cid, read: impl Fn(&Path) -> io::Result<T>) -> Result<T, StoreError> {
        address::codec(cid)?;
        let settled = self.settled_path(cid);
        for path in [&settled, &self.fresh_path(cid), &settled] {
            match read(path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => return other.map_err(StoreError::io(path)),
            }
        }
        Err(StoreError::Missing(Box::new(*cid)))
    }

    fn settled_path(&self, cid: &Cid) -> PathBuf {
        let shard = cid.hash().digest().first().copied().unwrap_or_default();
        let dir = self.inner.dir.join(BLOCKS).join(format!("{shard:02x}"));
        dir.join(cid.to_string())
    }

    fn fresh_path(&self, cid: &Cid) -> PathBuf {
        self.inner.dir.join(FRESH).join(cid.to_string())
    }

    fn temporary_path(&self) -> PathBuf {
        let serial = self.inner.serial.fetch_add(1, Ordering::Relaxed);
        self.inner.dir.join(TEMPORARY).join(serial.to_string())
    }

    /// Removes a block that does not hash to its name.
    fn discard(&self, cid: &Cid) {
        tracing::warn!(%cid, "a stored block is damaged and was removed");
        for path in [self.settled_path(cid), self.fresh_path(cid)] {
            self.remove_block(&path);
        }
    }

    /// Unlinks a block's file and gives its bytes back to the quota; returns how many.
    fn remove_block(&self, path: &Path) -> u64 {
        let Ok(length) = fs::symlink_metadata(path).map(|m| m.len()) else {
            return 0;
        };
        if fs::remove_file(path).is_err() {
            return 0;
        }
        self.inner.used.fetch_sub(length, Ordering::Relaxed);
        length
    }

    fn sweep_temporary(&self) -> Result<(), StoreError> {
        let dir = self.inner.dir.join(TEMPORARY);
        for path in files(&dir)? {
            fs::remove_file(&path).map_err(StoreError::io(&path))?;
        }
        Ok(())
    }

    fn verify_fresh(&self) -> Result<(), StoreError> {
        for path in files(&self.inner.dir.join(FRESH))? {
            match verified_name(&path) {
                Some(cid) => {
                    lock(&self.inner.fresh).insert(Short::from(&cid));
                }
                None => fs::remove_file(&path).map_err(StoreError::io(&path))?,
            }
        }
        Ok(())
    }

    fn measure(&self) -> Result<(), StoreError> {
        let mut used = 0;
        for path in self.block_files()? {
            used += fs::symlink_metadata(&path)
                .map_err(StoreError::io(&path))?
                .len();
        }
        self.inner.used.store(used, Ordering::Relaxed);
        Ok(())
    }

    fn block_files(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut found = files(&self.inner.dir.join(FRESH))?;
        for shard in 0..=u8::MAX {
            let dir = self.inner.dir.join(BLOCKS).join(format!("{shard:02x}"));
            found.extend(files(&dir)?);
        }
        Ok(found)
    }
}

fn make_directories(dir: &Path) -> Result<(), StoreError> {
    for name in [FRESH, TEMPORARY, PINS] {
        let path = dir.join(name);
        fs::create_dir_all(&path).map_err(StoreError::io(&path))?;
    }
    for shard in 0..=u8::MAX {
        let path = dir.join(BLOCKS).join(format!("{shard:02x}"));
        fs::create_dir_all(&path).map_err(StoreError::io(&path))?;
    }
    Ok(())
}

fn take_lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(StoreError::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse(dir.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(StoreError::io(&path)(error)),
    }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect())
        .map_err(StoreError::io(dir))
}

/// The name of the block in `path`, if its bytes are that block.
fn verified_name(path: &Path) -> Option<Cid> {
    let cid = address::parse(path.file_name()?.to_str()?).ok()?;
    let length = fs::symlink_metadata(path).ok()?.len();
    if length > address::BLOCK_BYTES_MAX as u64 {
        return None;
    }
    address::verify(&cid, &fs::read(path).ok()?).ok()?;
    Some(cid)
}
