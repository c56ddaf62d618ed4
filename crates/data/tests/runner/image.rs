//! Images: taking them in from every form, and hostile and honest layers onto a root file system.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use mutual_data::image::{Image, ImageError, Rootfs, UnpackOptions, import};
use mutual_data::tree::Limits;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::world::{MEBIBYTE, Peer, noise};

/// A layer under construction.
struct Layer(Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn add(mut self, path: &str, kind: EntryType, mode: u32, body: &[u8], link: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(body.len() as u64);
        // The builder refuses hostile names, so they are written into the header itself.
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, body).unwrap();
        self
    }

    fn file(self, path: &str, body: &str) -> Self {
        self.add(path, EntryType::Regular, 0o644, body.as_bytes(), "")
    }

    fn dir(self, path: &str) -> Self {
        self.add(path, EntryType::Directory, 0o755, b"", "")
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.add(path, EntryType::Symlink, 0o777, b"", target)
    }

    fn hard_link(self, path: &str, target: &str) -> Self {
        self.add(path, EntryType::Link, 0o644, b"", target)
    }

    fn tar(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }

    fn gzip(self) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&self.tar()).unwrap();
        gzip.finish().unwrap()
    }

    fn zstd(self) -> Vec<u8> {
        zstd::encode_all(self.tar().as_slice(), 1).unwrap()
    }
}

/// A layer with one file of so many zeros.
pub(crate) fn layer_with_file(name: &str, bytes: usize) -> Vec<u8> {
    let body = "\0".repeat(bytes);
    Layer::new().file(name, &body).tar()
}

const CONFIG: &[u8] = br#"{"architecture":"amd64","os":"linux","config":{"Cmd":["true"]}}"#;

fn put_blob(layout: &Path, bytes: &[u8], media_type: &str) -> Value {
    let digest = hex::encode(Sha256::digest(bytes));
    let dir = layout.join("blobs/sha256");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(&digest), bytes).unwrap();
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() })
}

/// Writes an image layout with these layers, called `app:1`.
pub(crate) fn layout(dir: &Path, layers: &[Vec<u8>]) -> PathBuf {
    let layout = dir.join("layout");
    let layers: Vec<_> = layers
        .iter()
        .map(|l| put_blob(&layout, l, "layer.v1.tar"))
        .collect();
    let manifest = json!({ "config": put_blob(&layout, CONFIG, "config"), "layers": layers });
    let bytes = manifest.to_string().into_bytes();
    let mut manifest = put_blob(
        &layout,
        &bytes,
        "application/vnd.oci.image.manifest.v1+json",
    );
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "app:1" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    layout
}

fn unpack(peer: &Peer, layers: &[Vec<u8>]) -> Result<Rootfs, ImageError> {
    unpack_within(peer, layers, Limits::default())
}

fn unpack_within(peer: &Peer, layers: &[Vec<u8>], limits: Limits) -> Result<Rootfs, ImageError> {
    let layout = layout(&peer.path(""), layers);
    let options = UnpackOptions {
        limits,
        keep_owners: false,
    };
    Image::from_layout(&layout)?.unpack_rootfs(None, &peer.path("root"), options)
}

fn read(peer: &Peer, name: &str) -> String {
    fs::read_to_string(peer.path("root").join(name)).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn layers_of_every_compression_are_applied_in_order() {
    let peer = Peer::new(2);
    let layers = [
        Layer::new()
            .dir("etc/")
            .file("etc/a", "1")
            .file("etc/b", "1")
            .file("gone", "1")
            .tar(),
        Layer::new()
            .file("etc/b", "2")
            .dir("opaque/")
            .file("opaque/low", "2")
            .gzip(),
        Layer::new()
            .file("etc/.wh.a", "")
            .file(".wh.gone", "")
            .file("opaque/new", "3")
            .file("opaque/.wh..wh..opq", "")
            .file("./deep/without/parents", "3")
            .zstd(),
    ];
    let rootfs = unpack(&peer, &layers).unwrap();
    assert_eq!(rootfs.config, CONFIG);
    assert_eq!((rootfs.entries, rootfs.skipped), (12, 0));
    assert_eq!(names(&peer.path("root")), ["deep", "etc", "opaque"]);
    assert_eq!(names(&peer.path("root/etc")), ["b"]);
    assert_eq!(read(&peer, "etc/b"), "2");
    assert_eq!(names(&peer.path("root/opaque")), ["new"]);
    assert_eq!(read(&peer, "deep/without/parents"), "3");
}

#[test]
fn links_modes_and_devices() {
    let peer = Peer::new(2);
    let layer = Layer::new()
        .add("tmp/", EntryType::Directory, 0o1777, b"", "")
        .add("su", EntryType::Regular, 0o4755, b"x", "")
        .hard_link("su-too", "su")
        .hard_link("su", "su-too")
        .link("usr", "/real")
        .dir("real/")
        .file("usr/inside", "through the link")
        .add("null", EntryType::Char, 0o666, b"", "")
        .add("read-only/", EntryType::Directory, 0o555, b"", "")
        .file("read-only/file", "x");
    let rootfs = unpack(&peer, &[layer.tar()]).unwrap();
    assert_eq!(rootfs.skipped, 1);
    let metadata = |name: &str| fs::metadata(peer.path("root").join(name)).unwrap();
    assert_eq!(metadata("tmp").permissions().mode() & 0o7777, 0o1777);
    assert_eq!(
        metadata("su").permissions().mode() & 0o7777,
        0o755,
        "no set-id"
    );
    assert_eq!(metadata("su").ino(), metadata("su-too").ino());
    assert_eq!(read(&peer, "real/inside"), "through the link");
    assert!(!peer.path("root/null").exists());
}

#[test]
fn layers_cannot_reach_outside() {
    let outside = tempfile::tempdir().unwrap();
    let out = outside.path().to_str().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "untouched").unwrap();
    let escapes = [
        Layer::new().file("../escaped", "x"),
        Layer::new().file("a/../../escaped", "x"),
        Layer::new().link("out", out).file("out/secret", "changed"),
        Layer::new()
            .link("up", "../../../../../../..")
            .file(&format!("up{out}/secret"), "changed"),
        Layer::new().file(&format!("{out}/secret"), "changed"),
        Layer::new().hard_link("mine", &format!("{out}/secret")),
        Layer::new().hard_link("mine", "../secret"),
        Layer::new()
            .link("l", &format!("{out}/secret"))
            .file("l", "changed"),
        Layer::new().link("out", out).file("out/.wh.secret", ""),
        Layer::new().link("out", out).file("out/.wh..wh..opq", ""),
        Layer::new().file(".wh...", ""),
        Layer::new().file(".wh.", ""),
    ];
    for (number, layer) in escapes.into_iter().enumerate() {
        let peer = Peer::new(2);
        // Some are refused, some are harmless inside: none may touch what is outside.
        let _ = unpack(&peer, &[layer.tar()]);
        assert_eq!(
            fs::read_to_string(&secret).unwrap(),
            "untouched",
            "{number}"
        );
        assert!(!peer.path("escaped").exists() && !outside.path().join("escaped").exists());
    }
    assert_eq!(names(outside.path()), ["secret"]);
}

#[test]
fn names_that_climb_are_refused_and_nothing_is_left() {
    for path in ["../escaped", "a/../b", ".wh..", ".wh..."] {
        let peer = Peer::new(2);
        let error = unpack(&peer, &[Layer::new().file(path, "").tar()]).unwrap_err();
        assert!(
            matches!(error, ImageError::UnsafeName { .. }),
            "{path}: {error}"
        );
        assert!(!peer.path("root").exists());
    }
}

#[test]
fn endless_links_end() {
    let peer = Peer::new(2);
    let layer = Layer::new().link("a", "b").link("b", "a").file("a/x", "");
    let error = unpack(&peer, &[layer.tar()]).unwrap_err();
    assert!(error.to_string().contains("symbolic links"), "{error}");
}

#[test]
fn bombs_are_refused() {
    let zeros = "\0".repeat(4 * MEBIBYTE);
    let limits = Limits {
        entries: 3,
        bytes: MEBIBYTE as u64,
        depth: 4,
    };
    let bytes = Layer::new().file("zeros", &zeros).gzip();
    let entries = (0..4)
        .fold(Layer::new(), |layer, n| layer.file(&n.to_string(), ""))
        .tar();
    for (layer, expected) in [(bytes, "bytes"), (entries, "entries")] {
        let peer = Peer::new(2);
        match unpack_within(&peer, &[layer], limits) {
            Err(ImageError::TooLarge { what, .. }) => assert_eq!(what, expected),
            other => panic!("{other:?}"),
        }
        assert!(!peer.path("root").exists());
    }
    let deep = Layer::new().file("a/b/c/d/e", "").tar();
    let refused = unpack_within(&Peer::new(2), &[deep], limits);
    assert!(matches!(refused, Err(ImageError::UnsafeName { .. })));
}

#[test]
fn changed_missing_and_cut_blobs_are_refused() {
    let blob = |peer: &Peer, bytes: &[u8]| {
        let digest = hex::encode(Sha256::digest(bytes));
        peer.path("layout/blobs/sha256").join(digest)
    };
    let layer = Layer::new().file("a", "original").tar();
    for change in ["changed", "missing", "cut"] {
        let peer = Peer::new(2);
        let layout = layout(&peer.path(""), std::slice::from_ref(&layer));
        let path = blob(&peer, &layer);
        match change {
            "changed" => fs::write(path, Layer::new().file("a", "0riginal").tar()).unwrap(),
            "missing" => fs::remove_file(path).unwrap(),
            _ => fs::write(path, &layer[..700]).unwrap(),
        }
        let image = Image::from_layout(&layout).unwrap();
        let unpacked = image.unpack_rootfs(None, &peer.path("root"), UnpackOptions::default());
        assert!(unpacked.is_err(), "{change}");
        assert!(!peer.path("root").exists(), "{change}");
        let batch = peer.store.batch();
        assert!(import(&batch, &layout, None).is_err(), "{change}");
    }
}

#[test]
fn what_is_no_image_is_told() {
    let peer = Peer::new(2);
    let path = peer.path("not-an-image");
    fs::write(&path, b"hello").unwrap();
    let batch = peer.store.batch();
    assert!(import(&batch, &path, None).is_err());
    fs::write(&path, Layer::new().file("hello", "x").tar()).unwrap();
    let error = import(&batch, &path, None).unwrap_err();
    assert!(error.to_string().contains("no index.json"), "{error}");
    assert!(matches!(
        Image::from_layout(&peer.path("")),
        Err(ImageError::NotAnImage(_))
    ));
    let (root, _) = peer.publish(10);
    let error = Image::from_store(&peer.store, &root.cid).unwrap_err();
    assert!(
        error.to_string().contains("a sealed object, not an image"),
        "{error}"
    );
}

#[test]
fn a_missing_reference_names_those_there_are() {
    let peer = Peer::new(2);
    let layout = layout(&peer.path(""), &[]);
    let image = Image::from_layout(&layout).unwrap();
    assert_eq!(image.names().unwrap(), ["app:1"]);
    assert_eq!(image.config(Some("app:1")).unwrap(), CONFIG);
    let error = image.config(Some("app:2")).unwrap_err().to_string();
    assert!(
        error.contains("\"app:2\"") && error.contains("app:1"),
        "{error}"
    );
}

fn tar_of(dir: &Path) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    builder.append_dir_all(".", dir).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn a_directory_and_an_archive_of_it_give_one_root_and_layers_are_shared() {
    let peer = Peer::new(2);
    let base = Layer::new()
        .file("big", &hex::encode(noise(MEBIBYTE)))
        .tar();
    let layout_dir = layout(&peer.path(""), std::slice::from_ref(&base));
    let batch = peer.store.batch();
    let root = import(&batch, &layout_dir, None).unwrap();
    let archive = peer.path("image.tar");
    fs::write(&archive, tar_of(&layout_dir)).unwrap();
    assert_eq!(import(&batch, &archive, None).unwrap(), root);
    batch.commit(&root.cid, "test", None).unwrap();
    assert_eq!(peer.store.complete(&root.cid).unwrap(), Some(root.bytes));
    // A second image on the same base stores little more than its own layer.
    let before = peer.store.usage().bytes;
    fs::remove_dir_all(&layout_dir).unwrap();
    let layout_dir = layout(
        &peer.path(""),
        &[base, Layer::new().file("small", "x").tar()],
    );
    let second = import(&batch, &layout_dir, Some("lab".into())).unwrap();
    assert!(peer.store.usage().bytes - before < 10_000);
    let image = Image::from_store(&peer.store, &second.cid).unwrap();
    image
        .unpack_rootfs(Some("app:1"), &peer.path("root"), UnpackOptions::default())
        .unwrap();
    assert_eq!(names(&peer.path("root")), ["big", "small"]);
}

#[test]
fn an_older_docker_save_is_taken_in() {
    let peer = Peer::new(2);
    let saved = peer.path("saved");
    for dir in ["one", "two"] {
        fs::create_dir_all(saved.join(dir)).unwrap();
    }
    fs::write(saved.join("config.json"), CONFIG).unwrap();
    fs::write(
        saved.join("one/layer.tar"),
        Layer::new().file("a", "1").tar(),
    )
    .unwrap();
    symlink("../one/layer.tar", saved.join("two/layer.tar")).unwrap();
    let layers = ["one/layer.tar", "two/layer.tar"];
    let manifest = json!([{ "Config": "config.json", "RepoTags": ["app:2"], "Layers": layers }]);
    fs::write(saved.join("manifest.json"), manifest.to_string()).unwrap();
    let mut builder = Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder.append_dir_all("", &saved).unwrap();
    let archive = peer.path("saved.tar");
    fs::write(&archive, builder.into_inner().unwrap()).unwrap();
    let root = import(&peer.store.batch(), &archive, None).unwrap();
    let image = Image::from_store(&peer.store, &root.cid).unwrap();
    let rootfs = image.unpack_rootfs(Some("app:2"), &peer.path("root"), UnpackOptions::default());
    assert_eq!(rootfs.unwrap().config, CONFIG);
    assert_eq!(read(&peer, "a"), "1");
}

#[test]
fn another_platform_is_not_taken_for_ours() {
    let peer = Peer::new(2);
    let layout = layout(&peer.path(""), &[]);
    let path = layout.join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    index["manifests"][0]["platform"] = json!({ "os": "linux", "architecture": "s390x" });
    fs::write(path, index.to_string()).unwrap();
    let error = Image::from_layout(&layout)
        .unwrap()
        .config(None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("linux/s390x"), "{error}");
}
