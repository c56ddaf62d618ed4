//! OCI images made on the spot: their blobs, and the forms they come in.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image of one layer.
#[derive(Debug, Clone)]
pub(crate) struct OciImage {
    /// Its blobs by digest, the manifest included.
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    /// Digest of the manifest.
    pub(crate) name: String,
    /// Digest of the layer.
    pub(crate) layer: String,
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn describe(kind: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() })
}

impl OciImage {
    /// An image of `layer` that is to be run as `settings` say.
    pub(crate) fn new(layer: &[u8], settings: &Value) -> Self {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = json!({
            "architecture": arch, "os": "linux", "config": settings,
            "rootfs": { "type": "layers", "diff_ids": [digest(layer)] },
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": describe(CONFIG, &config), "layers": [describe(LAYER, layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let name = digest(&manifest);
        let blobs = [config, layer.to_vec(), manifest];
        Self {
            blobs: blobs.map(|bytes| (digest(&bytes), bytes)).into(),
            name,
            layer: digest(layer),
        }
    }

    /// Writes it as an image layout.
    pub(crate) fn write_layout(&self, layout: &Path) {
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        for (digest, bytes) in &self.blobs {
            fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes).unwrap();
        }
        let index = json!({ "schemaVersion": 2, "manifests": [describe(MANIFEST, &self.blobs[&self.name])] });
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
        fs::write(
            layout.join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .unwrap();
    }
}

/// A directory as a tar.
pub(crate) fn tar_of(dir: &Path) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.follow_symlinks(false);
    tar.append_dir_all(".", dir).unwrap();
    tar.into_inner().unwrap()
}

/// A root with a shell and a few programs of this machine, and a file of its own.
pub(crate) fn shell_root(dir: &Path) {
    let copy = |path: &str| {
        let target = dir.join(path.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(path, target).unwrap();
    };
    for program in ["/bin/sh", "/bin/cat", "/bin/ls", "/bin/touch"] {
        copy(program);
        let list = Command::new("ldd").arg(program).output().unwrap();
        let text = String::from_utf8_lossy(&list.stdout).into_owned();
        text.split_whitespace()
            .filter(|word| word.starts_with('/'))
            .for_each(copy);
    }
    fs::create_dir_all(dir.join("srv/app")).unwrap();
    fs::write(dir.join("srv/app/greeting"), "from the image\n").unwrap();
}

/// An image with a shell in it that works in `/srv/app`, and says whence it is.
pub(crate) fn shell_image(scratch: &Path) -> OciImage {
    let root = scratch.join("shell-root");
    shell_root(&root);
    OciImage::new(
        &tar_of(&root),
        &json!({ "Env": ["FROM=image"], "WorkingDir": "/srv/app" }),
    )
}

/// The layout of `image` in both forms that users have: a directory, and a tar of it.
pub(crate) fn both_forms(image: &OciImage, scratch: &Path) -> [PathBuf; 2] {
    let (dir, file) = (scratch.join("layout"), scratch.join("layout.tar"));
    image.write_layout(&dir);
    fs::write(&file, tar_of(&dir)).unwrap();
    File::open(&file).unwrap();
    [dir, file]
}
