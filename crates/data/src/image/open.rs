//! Reading an image: its blobs by digest, the manifest for a name and platform, its root file system.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::layer::Target;
use super::{
    Descriptor, Digest, ImageError, Index, JSON_BYTES_MAX, Manifest, Rootfs, UnpackOptions,
};
use crate::address::Cid;
use crate::dag::{self, DagError, Node};
use crate::seal::{CHUNK_BYTES, ChunkSeal};
use crate::section::SectionReader;
use crate::store::BlockStore;

/// How deep an index may stand within indexes.
const INDEX_DEPTH_MAX: usize = 3;

/// Annotations that name an image in a layout: OCI's own, and containerd's (which Docker writes).
const NAMES: [&str; 2] = [
    "org.opencontainers.image.ref.name",
    "io.containerd.image.name",
];

/// An image, opened.
#[derive(Debug)]
pub struct Image<'a> {
    index: Vec<u8>,
    blobs: Blobs<'a>,
}

#[derive(Debug)]
enum Blobs<'a> {
    Directory(PathBuf),
    Stored(&'a BlockStore, Vec<dag::Blob>),
}

impl<'a> Image<'a> {
    /// Opens the image below `root`, whose blocks are in `store`.
    ///
    /// # Errors
    /// [`ImageError::Dag`] if the root is no image, [`ImageError::Store`].
    pub fn from_store(store: &'a BlockStore, root: &Cid) -> Result<Self, ImageError> {
        match Node::decode(&store.get(root)?)? {
            Node::Image(image) => Ok(Self {
                index: image.index,
                blobs: Blobs::Stored(store, image.blobs),
            }),
            other => Err(ImageError::Dag(DagError::Kind {
                expected: "an image",
                found: other.kind(),
            })),
        }
    }

    /// Opens an image layout directory.
    ///
    /// # Errors
    /// [`ImageError::NotAnImage`], [`ImageError::Io`].
    pub fn from_layout(dir: &Path) -> Result<Image<'static>, ImageError> {
        let path = dir.join("index.json");
        let shown = path.to_string_lossy();
        let file = File::open(&path)
            .map_err(|e| ImageError::NotAnImage(format!("{shown} cannot be read: {e}")))?;
        let mut index = Vec::new();
        let read = file.take(JSON_BYTES_MAX).read_to_end(&mut index);
        read.map_err(ImageError::at(shown.as_bytes()))?;
        Ok(Image {
            index,
            blobs: Blobs::Directory(dir.join("blobs").join("sha256")),
        })
    }

    /// The names that the image's own index gives.
    ///
    /// # Errors
    /// [`ImageError::NotAnImage`].
    pub fn names(&self) -> Result<Vec<String>, ImageError> {
        let index = Index::parse(&self.index)?;
        Ok(index
            .manifests
            .iter()
            .flat_map(names)
            .map(str::to_owned)
            .collect())
    }

    /// Makes a root file system in `target` from the manifest called `reference` (or the only one) for this machine's
    /// platform. `target` must not exist or be empty; it is removed again if this fails.
    ///
    /// Names cannot leave `target`; links are resolved inside it. Owners are kept only if asked for, set-id bits and
    /// extended attributes never, devices and pipes are skipped, and directories stay writable for their owner.
    ///
    /// # Errors
    /// Any variant of [`ImageError`].
    pub fn unpack_rootfs(
        &self,
        reference: Option<&str>,
        target: &Path,
        options: UnpackOptions,
    ) -> Result<Rootfs, ImageError> {
        let manifest = self.manifest(reference)?;
        let config = self.read(&manifest.config)?;
        let shown = target.to_string_lossy().into_owned();
        let at = || ImageError::at(shown.as_bytes());
        std::fs::create_dir_all(target).map_err(at())?;
        if std::fs::read_dir(target).map_err(at())?.next().is_some() {
            return Err(at()(io::ErrorKind::DirectoryNotEmpty.into()));
        }
        let applied = self.apply_layers(&manifest, target, options);
        if applied.is_err() {
            let _ = std::fs::remove_dir_all(target);
        }
        let made = applied?;
        Ok(Rootfs {
            config,
            entries: made.entries,
            skipped: made.skipped,
        })
    }

    fn apply_layers(
        &self,
        manifest: &Manifest,
        target: &Path,
        options: UnpackOptions,
    ) -> Result<Target, ImageError> {
        let shown = target.to_string_lossy();
        let mut target = Target::new(target, options).map_err(ImageError::at(shown.as_bytes()))?;
        for layer in &manifest.layers {
            let mut blob = self.open(layer)?;
            target.apply(&mut blob)?;
            blob.finish()?;
        }
        Ok(target)
    }

    /// The configuration of the manifest called `reference`, as [`Rootfs::config`].
    ///
    /// # Errors
    /// As [`Image::unpack_rootfs`].
    pub fn config(&self, reference: Option<&str>) -> Result<Vec<u8>, ImageError> {
        self.read(&self.manifest(reference)?.config)
    }

    fn manifest(&self, reference: Option<&str>) -> Result<Manifest, ImageError> {
        let mut index = Index::parse(&self.index)?;
        if let Some(wanted) = reference {
            let available = self.names()?.join(", ");
            index
                .manifests
                .retain(|m| names(m).any(|name| name == wanted));
            if index.manifests.is_empty() {
                return Err(ImageError::NoManifest {
                    wanted: format!("{wanted:?}"),
                    available,
                });
            }
        }
        for _ in 0..INDEX_DEPTH_MAX {
            let chosen = choose(&index.manifests)?;
            let bytes = self.read(chosen)?;
            if !chosen.is_index() {
                return Manifest::parse(&bytes);
            }
            index = Index::parse(&bytes)?;
        }
        Err(ImageError::NotAnImage(
            "its indexes are nested too deeply".into(),
        ))
    }

    /// Reads a small blob whole and verifies it.
    fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        if descriptor.size > JSON_BYTES_MAX {
            return Err(ImageError::TooLarge {
                what: "bytes in a manifest",
                max: JSON_BYTES_MAX,
            });
        }
        let mut blob = self.open(descriptor)?;
        let mut bytes = Vec::new();
        blob.read_to_end(&mut bytes)
            .map_err(ImageError::at(descriptor.digest.as_bytes()))?;
        blob.finish()?;
        Ok(bytes)
    }

    fn open(&self, descriptor: &Descriptor) -> Result<VerifiedBlob<'_>, ImageError> {
        let digest = descriptor.sha256()?;
        let missing = || ImageError::MissingBlob(hex::encode(digest));
        let inner: Box<dyn Read + '_> = match &self.blobs {
            Blobs::Directory(dir) => {
                Box::new(File::open(dir.join(hex::encode(digest))).map_err(|_| missing())?)
            }
            Blobs::Stored(store, blobs) => {
                let place = blobs.binary_search_by(|blob| blob.sha256.cmp(&digest));
                let section = &blobs[place.map_err(|_| missing())?].section;
                Box::new(SectionReader::new(
                    store,
                    ChunkSeal::Public,
                    section,
                    CHUNK_BYTES,
                ))
            }
        };
        Ok(VerifiedBlob::new(inner, digest, descriptor.size))
    }
}

fn names(descriptor: &Descriptor) -> impl Iterator<Item = &str> {
    NAMES
        .iter()
        .filter_map(|key| descriptor.annotations.get(*key))
        .map(String::as_str)
}

/// The manifest for this platform; one without a platform fits any.
fn choose(manifests: &[Descriptor]) -> Result<&Descriptor, ImageError> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let fits = |m: &&Descriptor| {
        m.platform
            .as_ref()
            .is_none_or(|p| p.os == "linux" && p.architecture == architecture)
    };
    let shown = |m: &Descriptor| match &m.platform {
        Some(platform) => format!("{}/{}", platform.os, platform.architecture),
        None => m.digest.chars().take(80).collect(),
    };
    manifests
        .iter()
        .find(fits)
        .ok_or_else(|| ImageError::NoManifest {
            wanted: format!("linux/{architecture}"),
            available: manifests.iter().map(shown).collect::<Vec<_>>().join(", "),
        })
}

/// A blob that is hashed while it is read.
pub(super) struct VerifiedBlob<'a> {
    inner: io::Take<Box<dyn Read + 'a>>,
    hasher: Sha256,
    digest: Digest,
    bytes: u64,
    read: u64,
}

impl<'a> VerifiedBlob<'a> {
    pub(super) fn new(inner: Box<dyn Read + 'a>, digest: Digest, bytes: u64) -> Self {
        Self {
            // One byte more, so that a longer blob is seen to be longer.
            inner: inner.take(bytes.saturating_add(1)),
            hasher: Sha256::new(),
            digest,
            bytes,
            read: 0,
        }
    }

    /// Reads the rest, which the reader may have had no use for, and checks the whole.
    pub(super) fn finish(mut self) -> Result<(), ImageError> {
        let name = hex::encode(self.digest);
        io::copy(&mut self, &mut io::sink()).map_err(ImageError::at(name.as_bytes()))?;
        let digest: Digest = self.hasher.finalize().into();
        if self.read != self.bytes || digest != self.digest {
            return Err(ImageError::Digest(name));
        }
        Ok(())
    }
}

impl Read for VerifiedBlob<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.hasher.update(&out[..read]);
        self.read += read as u64;
        Ok(read)
    }
}
