//! Writing: a batch holds what it wrote until it is committed under a pin, or dropped.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{BlockStore, FRESH, PINS, Pin, StoreError, lock};
use crate::address::{self, Cid, Codec, Short};

/// Up to this many new blocks are synchronised one by one; more are cheaper with one `syncfs`.
const SINGLE_SYNCS_MAX: usize = 16;

/// A set of blocks being written, safe from collection while it lives.
///
/// Dropping a batch without [`Batch::commit`] leaves its blocks in the store, unpinned: a later attempt finds them,
/// and the collector may remove them. All methods take `&self` and may be called from several threads.
#[derive(Debug)]
pub struct Batch {
    store: BlockStore,
    touched: Mutex<HashSet<Short>>,
}

impl Batch {
    pub(super) fn new(store: BlockStore) -> Self {
        Self {
            store,
            touched: Mutex::default(),
        }
    }

    /// The store it writes to.
    pub fn store(&self) -> &BlockStore {
        &self.store
    }

    /// Stores bytes made here and returns their name.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::DiskFull`], [`StoreError::Address`] (too large), [`StoreError::Io`].
    pub fn add(&self, codec: Codec, bytes: &[u8]) -> Result<Cid, StoreError> {
        let cid = address::name(codec, bytes);
        if bytes.len() > address::BLOCK_BYTES_MAX {
            return Err(address::AddressError::TooLarge {
                cid: Box::new(cid),
                bytes: bytes.len(),
            }
            .into());
        }
        self.store_verified(&cid, bytes)?;
        Ok(cid)
    }

    /// Stores bytes received under a name, after checking that they are that block. True if it is new here.
    ///
    /// # Errors
    /// As [`Batch::add`]; [`StoreError::Address`] also if the bytes are not that block.
    pub fn put(&self, cid: &Cid, bytes: &[u8]) -> Result<bool, StoreError> {
        address::verify(cid, bytes)?;
        self.store_verified(cid, bytes)
    }

    /// Whether the block is here; if so, this batch holds it from now on.
    pub fn contains(&self, cid: &Cid) -> bool {
        self.hold(cid);
        self.store.contains(cid)
    }

    /// The lock on what is held is taken last and kept shortest: the collector needs it for every block.
    fn hold(&self, cid: &Cid) {
        let short = Short::from(cid);
        let mut touched = lock(&self.touched);
        if touched.insert(short) {
            let mut held = lock(&self.store.inner.held);
            *held.counts.entry(short).or_default() += 1;
        }
    }

    fn store_verified(&self, cid: &Cid, bytes: &[u8]) -> Result<bool, StoreError> {
        // Held first: from here on a collector spares it, whether it is already here or not yet.
        if self.contains(cid) {
            return Ok(false);
        }
        let length = bytes.len() as u64;
        self.store.reserve(length)?;
        let mut written = self.store.write_fresh(cid, bytes);
        if matches!(written, Err(StoreError::DiskFull(_))) && self.store.collect()?.bytes > 0 {
            written = self.store.write_fresh(cid, bytes);
        }
        if !matches!(written, Ok(true)) {
            self.store.inner.used.fetch_sub(length, Ordering::Relaxed);
        }
        written
    }

    /// Makes the DAG below `root` durable and pins it for `owner` (until `until`, in milliseconds since 1970, or for
    /// good). The caller has stored or found every block of it through this batch.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::DiskFull`], [`StoreError::Missing`] if not even the root is here.
    pub fn commit(&self, root: &Cid, owner: &str, until: Option<u64>) -> Result<(), StoreError> {
        if !self.contains(root) {
            return Err(StoreError::Missing(Box::new(*root)));
        }
        self.settle()?;
        self.store.write_pin(&Pin {
            root: *root,
            owner: owner.to_owned(),
            until,
        })
    }

    /// Moves this batch's fresh blocks to where they are believed without another look, once the disk has them.
    fn settle(&self) -> Result<(), StoreError> {
        let inner = &self.store.inner;
        let _one = lock(&inner.committing);
        let mine: Vec<Cid> = {
            let touched = lock(&self.touched);
            let fresh = lock(&inner.fresh);
            touched
                .intersection(&fresh)
                .map(|short| short.to_cid())
                .collect()
        };
        if mine.is_empty() {
            return Ok(());
        }
        if inner.options.durable {
            self.synchronise(&mine)?;
        }
        mine.iter().try_for_each(|cid| self.promote(cid))
    }

    fn synchronise(&self, blocks: &[Cid]) -> Result<(), StoreError> {
        let dir = self.store.inner.dir.join(FRESH);
        let handle = File::open(&dir).map_err(StoreError::io(&dir))?;
        if blocks.len() > SINGLE_SYNCS_MAX {
            return rustix::fs::syncfs(&handle).map_err(|e| StoreError::io(&dir)(e.into()));
        }
        for cid in blocks {
            let path = self.store.fresh_path(cid);
            let synced = File::open(&path).and_then(|file| file.sync_data());
            synced.map_err(StoreError::io(&path))?;
        }
        handle.sync_all().map_err(StoreError::io(&dir))
    }

    fn promote(&self, cid: &Cid) -> Result<(), StoreError> {
        let from = self.store.fresh_path(cid);
        fs::rename(&from, self.store.settled_path(cid)).map_err(StoreError::io(&from))?;
        lock(&self.store.inner.fresh).remove(&Short::from(cid));
        Ok(())
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let mut touched = lock(&self.touched);
        let mut held = lock(&self.store.inner.held);
        for short in touched.drain() {
            held.release(short);
        }
    }
}

impl BlockStore {
    /// Takes bytes from the quota, collecting once if there are too few.
    fn reserve(&self, bytes: u64) -> Result<(), StoreError> {
        if self.try_reserve(bytes) {
            return Ok(());
        }
        self.collect()?;
        if self.try_reserve(bytes) {
            return Ok(());
        }
        Err(StoreError::Full {
            used: self.usage().bytes,
            quota: self.inner.options.quota_bytes,
            needed: bytes,
        })
    }

    fn try_reserve(&self, bytes: u64) -> bool {
        let quota = self.inner.options.quota_bytes;
        let add = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= quota);
        self.inner
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .is_ok()
    }

    /// Writes a block so that no reader ever sees half of it. False if another writer was first.
    fn write_fresh(&self, cid: &Cid, bytes: &[u8]) -> Result<bool, StoreError> {
        let temporary = self.temporary_path();
        let written = self.write_and_name(cid, bytes, &temporary);
        if !matches!(written, Ok(true)) {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn write_and_name(
        &self,
        cid: &Cid,
        bytes: &[u8],
        temporary: &Path,
    ) -> Result<bool, StoreError> {
        File::create_new(temporary)
            .and_then(|mut file| file.write_all(bytes))
            .map_err(StoreError::io(temporary))?;
        let path = self.fresh_path(cid);
        match renameat_with(CWD, temporary, CWD, &path, RenameFlags::NOREPLACE) {
            Ok(()) => {
                lock(&self.inner.fresh).insert(Short::from(cid));
                Ok(true)
            }
            Err(rustix::io::Errno::EXIST) => Ok(false),
            Err(error) => Err(StoreError::io(&path)(error.into())),
        }
    }

    pub(super) fn pin_dir(&self) -> PathBuf {
        self.inner.dir.join(PINS)
    }
}
