//! Tests of the block store.

use super::*;
use crate::dag::{Index, Link};

struct Scratch {
    dir: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn open(&self, quota_bytes: u64) -> BlockStore {
        BlockStore::open(
            self.dir.path(),
            Options {
                quota_bytes,
                durable: true,
            },
        )
        .unwrap()
    }
}

/// A DAG of `count` chunks below one index node, added to `batch`.
fn dag(batch: &Batch, seed: u8, count: usize) -> Result<Cid, StoreError> {
    let mut links = Vec::new();
    for number in 0..count {
        let chunk = vec![seed.wrapping_add(u8::try_from(number).unwrap()); 1000];
        links.push(Link {
            cid: batch.add(Codec::Raw, &chunk)?,
            bytes: 1000,
            payload: 1000,
        });
    }
    let node = Node::Index(Index { height: 1, links });
    batch.add(Codec::Node, &node.encode())
}

#[test]
fn what_is_committed_is_there_after_reopening() {
    let scratch = Scratch::new();
    let store = scratch.open(1 << 20);
    let batch = store.batch();
    for chunks in [3, 40] {
        let root = dag(&batch, 0, chunks).unwrap();
        batch.commit(&root, "job:1", None).unwrap();
    }
    drop(batch);
    let before = store.usage();
    drop(store);
    let store = scratch.open(1 << 20);
    assert_eq!(store.usage(), before);
    for pin in store.pins() {
        assert!(store.complete(&pin.root).unwrap().is_some());
    }
    assert_eq!(store.collect().unwrap(), Collected::default());
}

#[test]
fn torn_blocks_are_never_believed() {
    let scratch = Scratch::new();
    let store = scratch.open(1 << 20);
    let batch = store.batch();
    let whole = batch.add(Codec::Raw, b"whole").unwrap();
    let torn = batch.add(Codec::Raw, b"torn by a power cut").unwrap();
    fs::write(store.fresh_path(&torn), b"torn by").unwrap();
    fs::write(scratch.dir.path().join("tmp/7"), b"half").unwrap();
    fs::write(scratch.dir.path().join("pins/half"), b"{\"ro").unwrap();
    drop(batch);
    drop(store);
    let store = scratch.open(1 << 20);
    assert!(store.contains(&whole));
    assert!(!store.contains(&torn));
    assert_eq!(store.usage().bytes, 5);
    assert_eq!(
        fs::read_dir(scratch.dir.path().join("tmp"))
            .unwrap()
            .count(),
        0
    );
    assert!(store.pins().is_empty());
}

#[test]
fn a_spoilt_block_is_removed_when_it_is_read() {
    let scratch = Scratch::new();
    let store = scratch.open(1 << 20);
    let cid = store.batch().add(Codec::Raw, b"good").unwrap();
    fs::write(store.fresh_path(&cid), b"evil").unwrap();
    assert!(matches!(store.get(&cid), Err(StoreError::Address(_))));
    assert!(matches!(store.get(&cid), Err(StoreError::Missing(_))));
    assert_eq!(store.usage().bytes, 0);
}

#[test]
fn foreign_bytes_are_refused_under_a_name() {
    let scratch = Scratch::new();
    let store = scratch.open(1 << 20);
    let cid = address::name(Codec::Raw, b"good");
    assert!(matches!(
        store.batch().put(&cid, b"evil"),
        Err(StoreError::Address(AddressError::Mismatch(_)))
    ));
    let large = vec![0; address::BLOCK_BYTES_MAX + 1];
    assert!(store.batch().add(Codec::Raw, &large).is_err());
    assert_eq!(store.usage().bytes, 0);
}

#[test]
fn the_quota_holds_and_frees_what_nobody_needs() {
    let scratch = Scratch::new();
    let store = scratch.open(2500);
    let batch = store.batch();
    batch.add(Codec::Raw, &[1; 1000]).unwrap();
    batch.add(Codec::Raw, &[2; 1000]).unwrap();
    let error = batch.add(Codec::Raw, &[3; 1000]).unwrap_err();
    assert!(matches!(
        error,
        StoreError::Full {
            used: 2000,
            quota: 2500,
            needed: 1000
        }
    ));
    assert!(error.is_full());
    drop(batch);
    // The first two are no longer held, so they make room.
    store.batch().add(Codec::Raw, &[3; 1000]).unwrap();
    assert_eq!(store.usage().bytes, 1000);
}

#[test]
fn collection_spares_pins_and_batches() {
    let scratch = Scratch::new();
    let store = scratch.open(1 << 20);
    let batch = store.batch();
    let kept = dag(&batch, 0, 3).unwrap();
    batch.commit(&kept, "a", None).unwrap();
    let held = dag(&batch, 100, 3).unwrap();
    let gone = dag(&store.batch(), 200, 3).unwrap();
    assert_eq!(store.collect().unwrap().blocks, 4);
    assert!(!store.contains(&gone));
    assert!(store.complete(&held).unwrap().is_some());
    drop(batch);
    assert_eq!(store.collect().unwrap().blocks, 4);
    assert!(store.complete(&held).unwrap().is_none());
    assert!(store.is_pinned(&kept));
    assert!(store.unpin(&kept, "a").unwrap());
    assert!(!store.unpin(&kept, "a").unwrap());
    assert_eq!(store.collect().unwrap().blocks, 4);
    assert_eq!(store.usage().bytes, 0);
}

#[test]
fn each_owner_has_a_pin_of_its_own_and_pins_expire() {
    let scratch = Scratch::new();
    let store = scratch.open(1 << 20);
    let batch = store.batch();
    let root = dag(&batch, 0, 2).unwrap();
    batch.commit(&root, "a", Some(1)).unwrap();
    drop(batch);
    assert!(!store.is_pinned(&root), "1970 is over");
    store.pin(&root, "b", Some(u64::MAX)).unwrap();
    store.collect().unwrap();
    let owners: Vec<_> = store.pins().into_iter().map(|p| p.owner).collect();
    assert_eq!(owners, ["b"]);
    assert!(store.complete(&root).unwrap().is_some());
}

#[test]
fn an_incomplete_dag_is_not_pinned() {
    let scratch = Scratch::new();
    let store = scratch.open(1 << 20);
    let batch = store.batch();
    let root = dag(&batch, 0, 2).unwrap();
    let Node::Index(index) = Node::decode(&store.get(&root).unwrap()).unwrap() else {
        panic!("the root is an index");
    };
    fs::remove_file(store.fresh_path(&index.links[1].cid)).unwrap();
    assert!(matches!(
        store.pin(&root, "a", None),
        Err(StoreError::Missing(_))
    ));
    assert!(store.pins().is_empty());
}

#[test]
fn a_store_has_one_process() {
    let scratch = Scratch::new();
    let _store = scratch.open(1);
    let second = BlockStore::open(scratch.dir.path(), Options::default());
    assert!(matches!(second, Err(StoreError::InUse(_))));
}

#[test]
fn many_threads_write_and_collect_at_once() {
    let scratch = Scratch::new();
    let store = scratch.open(1 << 20);
    std::thread::scope(|scope| {
        for seed in 0..4_u8 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..5_u8 {
                    let batch = store.batch();
                    // Threads share half of their chunks.
                    let root = dag(&batch, seed / 2 * 50 + round, 20).unwrap();
                    batch.commit(&root, &format!("{seed}"), None).unwrap();
                    store.collect().unwrap();
                    assert!(store.complete(&root).unwrap().is_some());
                }
            });
        }
    });
    let expected = store.usage().bytes;
    store.measure().unwrap();
    assert_eq!(store.usage().bytes, expected, "the quota's count is exact");
}
