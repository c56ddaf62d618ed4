//! Garbage collection: mark what pins reach, sweep the rest, spare what batches hold.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Instant;

use super::{BlockStore, StoreError, lock};
use crate::address::{self, Short};

/// How much longer than a collection took the next one waits that is not needed for room: it costs at most a tenth
/// of the disk's time.
const REST_FACTOR: u32 = 9;

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blocks removed.
    pub blocks: u64,
    /// Bytes freed.
    pub bytes: u64,
}

impl BlockStore {
    /// Removes every block that no live pin reaches and no batch holds. Expired pins end here.
    ///
    /// # Errors
    /// [`StoreError::Io`]; then some blocks may have been removed, all of them unneeded.
    pub fn collect(&self) -> Result<Collected, StoreError> {
        let _one = lock(&self.inner.collecting);
        self.expire_pins()?;
        lock(&self.inner.held).frozen = true;
        let result = self.mark().and_then(|live| self.sweep(&live));
        self.thaw();
        result
    }

    /// As [`BlockStore::collect`], but only if the last collection is long past for what it took.
    pub(super) fn collect_in_turn(&self) -> Result<(), StoreError> {
        if Instant::now() < *lock(&self.inner.next_collection) {
            return Ok(());
        }
        let begun = Instant::now();
        self.collect()?;
        let rest = begun.elapsed() * REST_FACTOR;
        *lock(&self.inner.next_collection) = Instant::now() + rest;
        Ok(())
    }

    fn mark(&self) -> Result<HashSet<Short>, StoreError> {
        let mut live = HashSet::new();
        for pin in self.pins() {
            let marked = self.walk(&pin.root, &mut |cid, _| live.insert(Short::from(cid)));
            match marked {
                // A damaged DAG below a pin keeps what is left of it: it can be fetched again.
                Ok(())
                | Err(StoreError::Missing(_) | StoreError::Address(_) | StoreError::Dag(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(live)
    }

    fn sweep(&self, live: &HashSet<Short>) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        for path in self.block_files()? {
            let bytes = self.sweep_one(&path, live);
            collected.blocks += u64::from(bytes.is_some());
            collected.bytes += bytes.unwrap_or(0);
        }
        Ok(collected)
    }

    /// Removes one file unless it is needed. The lock makes "nobody holds it" and "it is gone" one step.
    fn sweep_one(&self, path: &Path, live: &HashSet<Short>) -> Option<u64> {
        let cid = address::parse(path.file_name()?.to_str()?).ok();
        let short = cid.as_ref().map(Short::from);
        if short.is_some_and(|short| live.contains(&short)) {
            return None;
        }
        let held = lock(&self.inner.held);
        if short.is_some_and(|short| held.counts.contains_key(&short)) {
            return None;
        }
        fs::symlink_metadata(path).ok()?;
        let bytes = self.remove_block(path);
        if let Some(short) = short {
            lock(&self.inner.fresh).remove(&short);
        }
        drop(held);
        Some(bytes)
    }

    fn thaw(&self) {
        let mut held = lock(&self.inner.held);
        held.frozen = false;
        for short in std::mem::take(&mut held.deferred) {
            held.release(short);
        }
    }
}
