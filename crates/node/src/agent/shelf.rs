//! Unpacked inputs that tasks share: an array of a thousand tasks unpacks its input once on each machine.
//!
//! A tree is addressed by its content and the key that opens it, so whoever cannot open an object never sees what
//! another unpacked. Only containers share, because only they cannot write to what they are given.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use mutual_data::{Cid, DataKey, tree};

/// Bytes of trees that are kept though no task uses them at the moment, in all.
const KEPT_BYTES_MAX: u64 = 1 << 30;
/// How many of them.
const KEPT_MAX: usize = 8;

/// What identifies a tree: content and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address([u8; 32]);

impl Address {
    pub(super) fn of(root: &Cid, key: &DataKey) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("mutual unpacked input v1");
        hasher.update(key.expose());
        hasher.update(&root.to_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

/// A directory that goes with the last task that uses it.
#[derive(Debug)]
pub(super) struct Unpacked {
    dir: PathBuf,
}

impl Unpacked {
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        let dir = std::mem::take(&mut self.dir);
        let remove = move || {
            if let Err(error) = tree::remove(&dir) {
                tracing::warn!(dir = %dir.display(), %error, "an unpacked input stays");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

type Slot = Arc<tokio::sync::Mutex<Weak<Unpacked>>>;

/// The unpacked inputs of this machine. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    dir: PathBuf,
    slots: Arc<Mutex<BTreeMap<Address, Slot>>>,
    kept: Arc<Mutex<Kept>>,
}

impl Shelf {
    /// An empty shelf in `dir`; what an earlier process left there is removed.
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        tree::remove(&dir)?;
        fs::create_dir_all(&dir)?;
        Ok(Self {
            dir: fs::canonicalize(dir)?,
            slots: Arc::default(),
            kept: Arc::default(),
        })
    }

    /// The tree at `address`, about `bytes` large. If it is not there `unpack` makes it, once however many tasks
    /// want it, in a directory that does not exist yet. Cancel-safe: a half-made tree is removed.
    pub(super) async fn tree<E: Send + 'static>(
        &self,
        address: Address,
        bytes: u64,
        unpack: impl FnOnce(&Path) -> Result<(), E> + Send + 'static,
        lost: impl FnOnce(tokio::task::JoinError) -> E,
    ) -> Result<Arc<Unpacked>, E> {
        let slot = self.slot(address);
        let mut found = slot.lock().await;
        let tree = match found.upgrade() {
            Some(tree) => tree,
            None => {
                let dir = self.dir.join(format!("{:032x}", rand::random::<u128>()));
                let made = tokio::task::spawn_blocking(move || make(dir, unpack));
                made.await.map_err(lost)??
            }
        };
        *found = Arc::downgrade(&tree);
        drop(found);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.keep(tree.clone(), bytes);
        Ok(tree)
    }

    fn slot(&self, address: Address) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| Arc::strong_count(slot) > 1 || is_alive(slot));
        slots.entry(address).or_default().clone()
    }
}

fn make<E>(dir: PathBuf, unpack: impl FnOnce(&Path) -> Result<(), E>) -> Result<Arc<Unpacked>, E> {
    // From here on the directory goes with this value, also if nobody waits for it any more.
    let tree = Arc::new(Unpacked { dir });
    unpack(&tree.dir)?;
    Ok(tree)
}

fn is_alive(slot: &Slot) -> bool {
    slot.try_lock().map_or(true, |tree| tree.strong_count() > 0)
}

/// The trees used last, which stay a while for the next task of their array.
#[derive(Debug, Default)]
struct Kept(VecDeque<(Arc<Unpacked>, u64)>);

impl Kept {
    fn keep(&mut self, tree: Arc<Unpacked>, bytes: u64) {
        self.0.retain(|(kept, _)| !Arc::ptr_eq(kept, &tree));
        self.0.push_back((tree, bytes));
        let total = |kept: &VecDeque<(_, u64)>| {
            let bytes = kept.iter().map(|(_, bytes)| *bytes);
            bytes.fold(0, u64::saturating_add)
        };
        while self.0.len() > KEPT_MAX || total(&self.0) > KEPT_BYTES_MAX {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn address(n: u8) -> Address {
        Address([n; 32])
    }

    fn fill(dir: &Path) -> Result<(), Infallible> {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("file"), b"content").unwrap();
        Ok(())
    }

    fn never(_: tokio::task::JoinError) -> Infallible {
        panic!("unpacking panicked")
    }

    fn trees(shelf: &Shelf) -> usize {
        fs::read_dir(&shelf.dir).unwrap().count()
    }

    async fn until_left(shelf: &Shelf, expected: usize) {
        let gone = async {
            while trees(shelf) != expected {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(20), gone).await;
        waited.expect("a tree is removed");
    }

    #[tokio::test]
    async fn tasks_that_want_the_same_tree_share_one() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path().join("inputs")).unwrap();
        let made = Arc::new(AtomicU32::new(0));
        let want = || {
            let made = made.clone();
            let unpack = move |dir: &Path| {
                made.fetch_add(1, Ordering::Relaxed);
                fill(dir)
            };
            shelf.tree(address(1), 7, unpack, never)
        };
        let (one, other) = tokio::join!(want(), want());
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.dir(), other.dir());
        assert_eq!(made.load(Ordering::Relaxed), 1);
        assert_eq!(fs::read(one.dir().join("file")).unwrap(), b"content");
        let third = shelf.tree(address(2), 7, fill, never).await.unwrap();
        assert_ne!(third.dir(), one.dir());
    }

    #[tokio::test]
    async fn the_oldest_unused_trees_go_first_and_used_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path().join("inputs")).unwrap();
        let used = shelf.tree(address(0), 1, fill, never).await.unwrap();
        for n in 1..=10 {
            drop(shelf.tree(address(n), 1, fill, never).await.unwrap());
        }
        until_left(&shelf, KEPT_MAX + 1).await;
        assert!(used.dir().exists());
        drop(
            shelf
                .tree(address(20), KEPT_BYTES_MAX + 1, fill, never)
                .await,
        );
        until_left(&shelf, 1).await;
        drop(used);
        until_left(&shelf, 0).await;
    }

    #[tokio::test]
    async fn what_could_not_be_unpacked_is_tried_again_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path().join("inputs")).unwrap();
        let full = |dir: &Path| {
            fs::create_dir(dir).unwrap();
            Err("the disk is full")
        };
        let refused = shelf.tree(address(1), 7, full, |_| "panic").await;
        assert_eq!(refused.unwrap_err(), "the disk is full");
        until_left(&shelf, 0).await;
        let tree = shelf.tree(address(1), 7, fill, never).await.unwrap();
        assert!(tree.dir().join("file").exists());
    }
}
