//! Tests of packing and unpacking.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use proptest::prelude::*;

use super::record::Record;
use super::*;
use crate::address::Codec;
use crate::dag::{Node, Object, VERSION};
use crate::seal::{self, Binding, CHUNK_BYTES, DataKey};
use crate::section::SectionWriter;
use crate::store::{Batch, BlockStore, Options};

struct World {
    scratch: tempfile::TempDir,
    store: BlockStore,
    key: DataKey,
}

impl World {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let options = Options {
            durable: false,
            ..Options::default()
        };
        let store = BlockStore::open(scratch.path().join("store"), options).unwrap();
        fs::create_dir(scratch.path().join("source")).unwrap();
        Self {
            scratch,
            store,
            key: DataKey::generate().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn write(&self, name: impl AsRef<Path>, bytes: &[u8]) {
        let path = self.path("source").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn pack(&self) -> Packed {
        let options = PackOptions::private("lab");
        pack(
            &self.store.batch(),
            &self.key,
            &options,
            &self.path("source"),
        )
        .unwrap()
    }

    fn open(&self, root: &Cid) -> Tree<'_> {
        Tree::open(&self.store, root, &self.key).unwrap()
    }

    fn unpack(&self, root: &Cid) -> Result<Unpacked, TreeError> {
        self.open(root)
            .unpack(&self.path("target"), Limits::default())
    }

    fn round_trip(&self) -> Packed {
        let packed = self.pack();
        self.unpack(&packed.root.cid).unwrap();
        assert_eq!(
            snapshot(&self.path("target")),
            snapshot(&self.path("source"))
        );
        packed
    }
}

/// Everything below a directory: path → (mode, kind and contents).
fn snapshot(root: &Path) -> BTreeMap<PathBuf, (u32, String, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut stack = vec![root.to_owned()];
    while let Some(dir) = stack.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let relative = path.strip_prefix(root).unwrap().to_owned();
            let mode = metadata.permissions().mode() & 0o777;
            let seen = if metadata.is_dir() {
                stack.push(path);
                (mode, "dir".into(), vec![])
            } else if metadata.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                (0, "link".into(), target.as_os_str().as_bytes().to_vec())
            } else {
                (mode, "file".into(), fs::read(&path).unwrap())
            };
            found.insert(relative, seen);
        }
    }
    found
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut reader = blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof();
    reader.fill(&mut bytes);
    bytes
}

#[test]
fn a_directory_comes_back_as_it_was() {
    let world = World::new();
    world.write("a.txt", b"hello");
    world.write("empty", b"");
    world.write("big", &noise(3 * CHUNK_BYTES as usize + 17, 1));
    world.write("deep/er/file", b"x");
    world.write(
        "deep!",
        b"sorts between deep and its children if compared as text",
    );
    world.write(OsStr::from_bytes(b"not \xff utf-8"), b"bytes");
    fs::create_dir(world.path("source/nothing")).unwrap();
    symlink("a.txt", world.path("source/link")).unwrap();
    symlink("/nowhere/at all", world.path("source/dangling")).unwrap();
    fs::set_permissions(
        world.path("source/a.txt"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    fs::set_permissions(world.path("source/deep"), fs::Permissions::from_mode(0o555)).unwrap();
    let packed = world.round_trip();
    assert_eq!(packed.entries, 11);
    assert_eq!(packed.skipped, []);
    assert_eq!(
        Some(packed.root.bytes),
        world.store.complete(&packed.root.cid).unwrap()
    );
    fs::set_permissions(world.path("source/deep"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(world.path("target/deep"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn an_empty_directory_and_exact_chunks_come_back() {
    let world = World::new();
    world.round_trip();
    let world = World::new();
    world.write("exact", &noise(2 * CHUNK_BYTES as usize, 2));
    world.round_trip();
}

#[test]
fn a_single_file_comes_back_under_its_name() {
    let world = World::new();
    world.write("one.csv", b"1,2");
    let options = PackOptions::private("lab");
    let path = world.path("source/one.csv");
    let packed = pack(&world.store.batch(), &world.key, &options, &path).unwrap();
    world.unpack(&packed.root.cid).unwrap();
    assert_eq!(fs::read(world.path("target/one.csv")).unwrap(), b"1,2");
    let missing = pack(
        &world.store.batch(),
        &world.key,
        &options,
        &world.path("nope"),
    );
    assert!(missing.unwrap_err().to_string().contains("nope"));
}

#[test]
fn nothing_readable_is_stored() {
    let world = World::new();
    world.write("SECRETNAME", b"SECRETCONTENT");
    world.pack();
    for path in snapshot(&world.path("store")).into_values() {
        assert!(!path.2.windows(6).any(|w| w == b"SECRET"));
    }
}

#[test]
fn a_wrong_key_is_told() {
    let world = World::new();
    let root = world.pack().root.cid;
    let other = DataKey::generate().unwrap();
    let error = Tree::open(&world.store, &root, &other).unwrap_err();
    assert!(matches!(error, TreeError::Seal(SealError::WrongKey)));
}

#[test]
fn one_file_is_read_without_the_rest() {
    let world = World::new();
    world.write("a", &noise(5 * CHUNK_BYTES as usize, 3));
    world.write("b/wanted", b"this");
    world.write("c", &noise(2 * CHUNK_BYTES as usize, 4));
    let root = world.pack().root.cid;
    // Take the first chunk away: reading `b/wanted` must not need it.
    let Node::Object(object) = Node::decode(&world.store.get(&root).unwrap()).unwrap() else {
        panic!("the root is an object");
    };
    let index = Node::decode(&world.store.get(&object.data.root.cid).unwrap()).unwrap();
    remove_block(&world, &index.children()[0].link.cid);
    let tree = world.open(&root);
    let mut text = String::new();
    let read = tree
        .file("b/wanted", Limits::default())
        .unwrap()
        .read_to_string(&mut text);
    assert_eq!((read.unwrap(), text.as_str()), (4, "this"));
    assert!(matches!(
        tree.file("b", Limits::default()),
        Err(TreeError::NoSuchFile(_))
    ));
    let listed: Vec<_> = tree
        .entries(Limits::default())
        .map(|e| e.unwrap().path)
        .collect();
    assert_eq!(
        listed,
        [
            b"a".to_vec(),
            b"b".to_vec(),
            b"b/wanted".to_vec(),
            b"c".to_vec()
        ]
    );
    let error = world.unpack(&root).unwrap_err();
    assert!(
        matches!(error, TreeError::Store(StoreError::Missing(_))),
        "{error}"
    );
    assert!(
        !world.path("target").exists(),
        "nothing half-unpacked stays"
    );
}

fn remove_block(world: &World, cid: &Cid) {
    let name = cid.to_string();
    let path = world.path("store/fresh").join(name);
    fs::remove_file(path).unwrap();
}

#[test]
fn globs_choose_outputs_and_their_parents() {
    let world = World::new();
    for name in [
        "out/a.csv",
        "out/b.txt",
        "out/deep/c.csv",
        "logs/x",
        "plots/p/1.png",
        "top.csv",
    ] {
        world.write(name, b"1");
    }
    fs::create_dir(world.path("source/plots/none")).unwrap();
    let patterns = ["out/**/*.csv", "./plots/", "*.csv", "missing/*"].map(String::from);
    let globs = Globs::new(&patterns).unwrap();
    let options = PackOptions::private("lab");
    let choose = |path: &Path, is_dir: bool| globs.choose(path, is_dir);
    let batch = world.store.batch();
    let packed =
        pack_selected(&batch, &world.key, &options, &world.path("source"), &choose).unwrap();
    let tree = world.open(&packed.root.cid);
    let listed: Vec<_> = tree
        .entries(Limits::default())
        .map(|e| e.unwrap().path)
        .collect();
    let listed: Vec<_> = listed.iter().map(|p| str::from_utf8(p).unwrap()).collect();
    let expected = [
        "out",
        "out/a.csv",
        "out/deep",
        "out/deep/c.csv",
        "plots",
        "plots/none",
        "plots/p",
        "plots/p/1.png",
        "top.csv",
    ];
    assert_eq!(listed, expected);
    assert_eq!(globs.unmatched(), ["missing/*"]);
    assert!(matches!(
        Globs::new(&["a[".into()]),
        Err(TreeError::Pattern(_))
    ));
}

#[test]
fn sockets_and_pipes_are_skipped_and_told() {
    let world = World::new();
    let _socket = std::os::unix::net::UnixListener::bind(world.path("source/s")).unwrap();
    let pipe = world.path("source/p");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    let packed = world.pack();
    let what: Vec<_> = packed
        .skipped
        .iter()
        .map(|s| (s.path.as_str(), s.what))
        .collect();
    assert_eq!(what, [("p", "a pipe"), ("s", "a socket")]);
    assert_eq!(packed.entries, 0);
}

#[test]
fn limits_hold_when_packing_and_unpacking() {
    let world = World::new();
    world.write("a", &noise(1000, 5));
    let root = world.pack().root.cid;
    let limits = Limits {
        bytes: 999,
        ..Limits::default()
    };
    let small = PackOptions {
        limits,
        ..PackOptions::private("lab")
    };
    let packed = pack(
        &world.store.batch(),
        &world.key,
        &small,
        &world.path("source"),
    );
    let unpacked = world.open(&root).unpack(&world.path("target"), limits);
    for error in [packed.unwrap_err(), unpacked.unwrap_err()] {
        assert!(
            matches!(
                error,
                TreeError::TooLarge {
                    what: "bytes",
                    max: 999
                }
            ),
            "{error}"
        );
    }
    assert!(!world.path("target").exists());
}

#[test]
fn a_long_namespace_is_refused() {
    let world = World::new();
    let options = PackOptions::private("n".repeat(200));
    let packed = pack(
        &world.store.batch(),
        &world.key,
        &options,
        &world.path("source"),
    );
    assert!(matches!(
        packed,
        Err(TreeError::Dag(DagError::Limit { .. }))
    ));
}

#[test]
fn what_is_there_is_not_replaced_and_links_there_are_not_followed() {
    let world = World::new();
    world.write("dir/file", b"new");
    let root = world.pack().root.cid;
    fs::create_dir_all(world.path("target/dir")).unwrap();
    fs::write(world.path("target/dir/file"), b"old").unwrap();
    assert!(matches!(world.unpack(&root), Err(TreeError::Exists { .. })));
    assert_eq!(fs::read(world.path("target/dir/file")).unwrap(), b"old");
    fs::remove_dir_all(world.path("target/dir")).unwrap();
    fs::create_dir(world.path("outside")).unwrap();
    symlink(world.path("outside"), world.path("target/dir")).unwrap();
    assert!(world.unpack(&root).is_err());
    assert_eq!(snapshot(&world.path("outside")).len(), 0);
}

/// Builds an object by hand, as only an attacker with the key would.
fn forge(world: &World, entries: &[Entry], change: impl FnOnce(&mut Record)) -> Cid {
    let batch = world.store.batch();
    let binding = Binding {
        namespace: "lab".into(),
        object: [5; 16],
        chunk_bytes: CHUNK_BYTES,
    };
    let (index, data) = pack::seals(&world.key, &binding, Mode::Stream, [1; 7]);
    let mut writer = SectionWriter::new(&batch, data);
    writer.write(b"payload").unwrap();
    let data = writer.finish().unwrap();
    let mut writer = SectionWriter::new(&batch, index);
    for entry in entries {
        record::write(&mut writer, &Record::Entry(entry.clone())).unwrap();
    }
    let mut end = Record::End {
        entries: entries.len() as u64,
        data: data.root.cid,
    };
    change(&mut end);
    record::write(&mut writer, &end).unwrap();
    let node = Node::Object(Box::new(Object {
        version: VERSION,
        namespace: "lab".into(),
        object: [5; 16],
        mode: Mode::Stream,
        chunk_bytes: CHUNK_BYTES,
        prefix: [1; 7],
        commitment: seal::commitment(&world.key, &binding),
        index: writer.finish().unwrap(),
        data,
    }));
    batch.add(Codec::Node, &node.encode()).unwrap()
}

fn entry(path: &str, kind: Kind) -> Entry {
    Entry {
        path: path.into(),
        mode: 0o755,
        kind,
    }
}

#[test]
fn forged_objects_write_nothing_at_all() {
    let file = |path| {
        entry(
            path,
            Kind::File {
                offset: 0,
                bytes: 7,
            },
        )
    };
    let link = |path, target: &str| {
        entry(
            path,
            Kind::Symlink {
                target: target.into(),
            },
        )
    };
    let forged = [
        vec![file("fine"), file("../escaped")],
        vec![file("/tmp/escaped")],
        vec![link("a", ".."), file("a/escaped")],
        vec![
            link("a", "/tmp"),
            entry("a", Kind::Directory),
            file("a/escaped"),
        ],
        vec![file("a"), file("a")],
        vec![entry(
            "a",
            Kind::File {
                offset: 3,
                bytes: 7,
            },
        )],
    ];
    for entries in forged {
        let world = World::new();
        let root = forge(&world, &entries, |_| ());
        assert!(world.unpack(&root).is_err(), "{entries:?}");
        assert!(!world.path("target").exists(), "{entries:?}");
        assert!(!world.path("escaped").exists(), "{entries:?}");
    }
}

#[test]
fn an_index_with_another_end_is_refused() {
    let world = World::new();
    let ends: [fn(&mut Record); 2] = [
        |end| {
            if let Record::End { entries, .. } = end {
                *entries += 1
            }
        },
        |end| {
            if let Record::End { data, .. } = end {
                *data = crate::address::name(Codec::Raw, b"")
            }
        },
    ];
    for change in ends {
        let root = forge(&world, &[entry("a", Kind::Directory)], change);
        assert!(matches!(world.unpack(&root), Err(TreeError::Index(_))));
    }
    let unended = forge(&world, &[], |end| {
        *end = Record::Entry(entry("a", Kind::Directory))
    });
    assert!(matches!(world.unpack(&unended), Err(TreeError::Index(_))));
}

/// Replaces the data section of an object by what `change` makes of its chunks.
fn rearrange(world: &World, root: &Cid, change: impl FnOnce(&mut Vec<crate::dag::Link>)) -> Cid {
    let batch = world.store.batch();
    let Node::Object(mut object) = Node::decode(&world.store.get(root).unwrap()).unwrap() else {
        panic!("the root is an object");
    };
    let block = world.store.get(&object.data.root.cid).unwrap();
    let Node::Index(mut index) = Node::decode(&block).unwrap() else {
        panic!("the data has several chunks");
    };
    change(&mut index.links);
    let payload = index.links.iter().map(|l| l.payload).sum();
    let below: u64 = index.links.iter().map(|l| l.bytes).sum();
    let block = Node::Index(index).encode();
    object.data.root = crate::dag::Link {
        cid: batch.add(Codec::Node, &block).unwrap(),
        bytes: below + block.len() as u64,
        payload,
    };
    batch
        .add(Codec::Node, &Node::Object(object).encode())
        .unwrap()
}

#[test]
fn reordered_dropped_and_repeated_chunks_do_not_open() {
    let world = World::new();
    world.write("big", &noise(3 * CHUNK_BYTES as usize, 6));
    let root = world.pack().root.cid;
    let changes: [fn(&mut Vec<crate::dag::Link>); 4] = [
        |links| links.swap(0, 1),
        |links| {
            links.pop();
        },
        |links| {
            links.remove(0);
        },
        |links| {
            let first = links[0].clone();
            links.insert(1, first);
        },
    ];
    for change in changes {
        let changed = rearrange(&world, &root, change);
        // The index names the data section, so the exchange is seen before any chunk is opened ...
        assert!(matches!(world.unpack(&changed), Err(TreeError::Index(_))));
        // ... and chunks on their own do not open in another place either.
        let tree = world.open(&changed);
        let read = io::copy(&mut tree.data(), &mut io::sink());
        assert!(read.unwrap_err().to_string().contains("does not open"));
    }
}

#[test]
fn a_tampered_chunk_is_named() {
    let world = World::new();
    world.write("a", b"contents");
    let root = world.pack().root.cid;
    let Node::Object(object) = Node::decode(&world.store.get(&root).unwrap()).unwrap() else {
        panic!("the root is an object");
    };
    let cid = object.data.root.cid;
    let path = world.path("store/fresh").join(cid.to_string());
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(b"!").unwrap();
    let error = world.unpack(&root).unwrap_err();
    assert!(error.to_string().contains(&cid.to_string()), "{error}");
}

#[test]
fn checkpoints_share_what_did_not_change() {
    let world = World::new();
    let options = PackOptions::checkpoint("lab");
    let mut contents = noise(8 * CHUNK_BYTES as usize, 7);
    let pack_now = |contents: &[u8]| {
        world.write("model", contents);
        let before = world.store.usage().bytes;
        let packed = pack(
            &world.store.batch(),
            &world.key,
            &options,
            &world.path("source"),
        );
        (packed.unwrap().root.cid, world.store.usage().bytes - before)
    };
    let (_, first) = pack_now(&contents);
    // An insertion near the beginning shifts everything after it.
    contents.splice(1000..1000, *b"inserted");
    let (root, second) = pack_now(&contents);
    assert!(first > 8 << 20, "{first}");
    assert!(second < 2 << 20, "{second}");
    world.unpack(&root).unwrap();
    assert_eq!(fs::read(world.path("target/model")).unwrap(), contents);
    assert_eq!(world.open(&root).namespace(), "lab");
}

#[test]
fn a_full_store_is_told() {
    let world = World::new();
    world.write("big", &noise(1 << 20, 8));
    let options = Options {
        quota_bytes: 1000,
        durable: false,
    };
    let store = BlockStore::open(world.path("small"), options).unwrap();
    let batch: Batch = store.batch();
    let error = pack(
        &batch,
        &world.key,
        &PackOptions::private("lab"),
        &world.path("source"),
    );
    assert!(error.unwrap_err().is_full());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_tree_round_trips(files in proptest::collection::btree_map(
        "[a-c]{1,2}(/[a-c]{1,2}){0,2}", proptest::collection::vec(any::<u8>(), 0..200), 0..12)) {
        let world = World::new();
        for (name, bytes) in &files {
            // A name may need a directory where another is a file: the first wins.
            let path = world.path("source").join(name);
            if fs::create_dir_all(path.parent().unwrap()).is_ok() && !path.is_dir() {
                fs::write(path, bytes).unwrap();
            }
        }
        world.round_trip();
    }
}

#[test]
fn any_offset_can_be_read() {
    let world = World::new();
    let contents = noise(2_400_000, 9);
    world.write("a", &contents);
    let chunk = CHUNK_BYTES as usize;
    let mut offsets = vec![
        0,
        1,
        chunk - 1,
        chunk,
        chunk + 1,
        2 * chunk,
        2_399_999,
        2_400_000,
    ];
    offsets.extend((0..40).map(|n| n * 7_919_777 % contents.len()));
    for options in [PackOptions::private("lab"), PackOptions::checkpoint("lab")] {
        let batch = world.store.batch();
        let root = pack(&batch, &world.key, &options, &world.path("source"))
            .unwrap()
            .root
            .cid;
        let tree = world.open(&root);
        let mut data = tree.data();
        for &offset in &offsets {
            data.seek(offset as u64).unwrap();
            let mut read = Vec::new();
            data.by_ref().take(5000).read_to_end(&mut read).unwrap();
            let end = (offset + 5000).min(contents.len());
            assert!(read == contents[offset..end], "{offset}");
        }
        assert!(matches!(
            data.seek(2_400_001),
            Err(SectionError::BeyondEnd { .. })
        ));
    }
}
