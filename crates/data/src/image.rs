//! OCI images as DAGs of their own blobs, and their root file systems.
//!
//! An image keeps its blobs exactly as published, cut into plain chunks of 1 MiB: the same layer gives the same blocks
//! in every image and on every node, so it is stored and sent once. The manifest ([`crate::dag::Image`]) lists each
//! blob's SHA2-256 digest beside its chunks; the digest is checked when a blob is taken in and again when it is read.
//!
//! [`import`] takes an OCI image layout (a directory, or a tar of one, as `docker save` writes) and also the older form
//! of `docker save`. [`Image`] reads an image from a store or straight from a layout directory, and
//! [`Image::unpack_rootfs`] applies its layers.
//!
//! Specification: <https://github.com/opencontainers/image-spec> (image-layout.md, manifest.md, layer.md).

use std::io;

use serde::Deserialize;

use crate::address::DIGEST_BYTES;
use crate::beneath;
use crate::dag::DagError;
use crate::section::SectionError;
use crate::store::StoreError;
use crate::tree::Limits;

mod archive;
mod import;
mod layer;
mod open;
mod within;

pub use import::import;
pub use open::Image;

/// Largest manifest, index or configuration, in bytes (the registry specification asks for 4 MiB).
const JSON_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Most layers of one image.
const LAYERS_MAX: usize = 256;

/// Most manifests in one index.
const MANIFESTS_MAX: usize = 256;

/// Why an image could not be taken in or unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// It is no image at all, or a broken one.
    #[error("not an OCI image: {0}")]
    NotAnImage(String),
    /// A blob that the image needs is not in it.
    #[error("the image lacks blob sha256:{0}")]
    MissingBlob(String),
    /// A blob's bytes are not those its digest names.
    #[error("blob sha256:{0} does not match its digest or size")]
    Digest(String),
    /// The image has no manifest under that name or for this platform.
    #[error("the image has no manifest for {wanted}; it has: {available}")]
    NoManifest {
        /// What was asked for.
        wanted: String,
        /// What there is.
        available: String,
    },
    /// An entry of a layer or archive has a name that would leave the target, or is no name.
    #[error("layer entry {path:?} is refused: {why}")]
    UnsafeName {
        /// The entry.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Something that this program does not read.
    #[error("layer entry {path:?} is not supported: {what}")]
    Unsupported {
        /// The entry.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// The image is larger than the caller allows.
    #[error("the image has more than {max} {what}, the limit set for it")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The path.
        path: String,
        /// The system's word.
        source: io::Error,
    },
    /// The manifest is not acceptable.
    #[error(transparent)]
    Dag(#[from] DagError),
    /// The store refused or lacks a block.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A chunk could not be written or read.
    #[error(transparent)]
    Section(SectionError),
}

impl From<SectionError> for ImageError {
    fn from(error: SectionError) -> Self {
        match error {
            SectionError::Store(error) => Self::Store(error),
            SectionError::Dag(error) => Self::Dag(error),
            other => Self::Section(other),
        }
    }
}

impl ImageError {
    /// Whether the fault is this machine's (its disk, say) and not the image's.
    pub fn is_local(&self) -> bool {
        // What a decompressor or an archive reader says of bad bytes.
        let bad = [
            io::ErrorKind::InvalidData,
            io::ErrorKind::InvalidInput,
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::Other,
        ];
        match self {
            Self::Io { source, .. } => !bad.contains(&source.kind()),
            Self::Store(error) => error.is_full() || matches!(error, StoreError::Io { .. }),
            _ => false,
        }
    }

    /// Says which path failed; an error of our own that travelled through [`io::Error`] comes back as itself.
    fn at(path: &[u8]) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| {
            let source = match source.downcast::<Self>() {
                Ok(own) => return own,
                Err(source) => source,
            };
            match source.downcast::<SectionError>() {
                Ok(error) => error.into(),
                Err(source) => Self::Io {
                    path: beneath::display(path),
                    source,
                },
            }
        }
    }
}

/// SHA2-256 of a blob.
type Digest = [u8; DIGEST_BYTES];

/// A reference to a blob, as OCI writes it. Fields we do not use are ignored.
#[derive(Debug, Clone, Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
    #[serde(default, rename = "mediaType")]
    media_type: String,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

impl Descriptor {
    fn sha256(&self) -> Result<Digest, ImageError> {
        let text = self.digest.strip_prefix("sha256:").unwrap_or_default();
        let mut digest = [0; DIGEST_BYTES];
        hex::decode_to_slice(text, &mut digest).map_err(|_| {
            let shown: String = self.digest.chars().take(80).collect();
            ImageError::NotAnImage(format!("digest {shown:?} is not sha256 with 64 digits"))
        })?;
        Ok(digest)
    }

    fn is_index(&self) -> bool {
        self.media_type.ends_with("image.index.v1+json")
            || self.media_type.ends_with("manifest.list.v2+json")
    }
}

/// `index.json`, or an index within it.
#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// An image manifest.
#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Index {
    fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let index: Self = parse("index", bytes)?;
        if index.manifests.len() > MANIFESTS_MAX {
            return Err(ImageError::TooLarge {
                what: "manifests",
                max: MANIFESTS_MAX as u64,
            });
        }
        Ok(index)
    }
}

impl Manifest {
    fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let manifest: Self = parse("manifest", bytes)?;
        if manifest.layers.len() > LAYERS_MAX {
            return Err(ImageError::TooLarge {
                what: "layers",
                max: LAYERS_MAX as u64,
            });
        }
        Ok(manifest)
    }

    fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

fn parse<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes)
        .map_err(|e| ImageError::NotAnImage(format!("its {what} does not parse: {e}")))
}

/// How layers are applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnpackOptions {
    /// The most entries and decompressed bytes of all layers together.
    pub limits: Limits,
    /// Whether files get the owners the layers name. Only root can; others own everything themselves.
    pub keep_owners: bool,
}

/// A root file system made from an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// The image's configuration (`application/vnd.oci.image.config.v1+json`), verified: entry point, environment,
    /// working directory, user.
    pub config: Vec<u8>,
    /// Entries applied.
    pub entries: u64,
    /// Devices and pipes that were left out: the runtime makes its own `/dev`.
    pub skipped: u64,
}
