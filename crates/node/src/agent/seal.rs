//! Objects that only some may open: packing with a fresh key, sealing it, and opening what came in.

use std::path::Path;

use mutual_data::transfer::KeepRequest;
use mutual_data::tree::{Choice, Limits, PackOptions, Root, Tree, TreeError};
use mutual_data::{BlockStore, Cid, DataKey, tree};
pub use mutual_demand::http::{
    CHECKPOINT_KEY_PURPOSE as CHECKPOINT_KEY, INPUT_KEY_PURPOSE as INPUT_KEY,
    RESULT_KEY_PURPOSE as RESULT_KEY,
};
use mutual_demand::{Artifact, EncMeta, Manifest};
use mutual_model::identity::{IdentityError, NodeKey, SealingPublic};
use mutual_model::ids::{ContentId, Namespace};

use super::objects::Replica;

/// The only scheme of sealed objects so far.
pub const SCHEME: &str = "aes-256-gcm-stream/1";
/// Files named in a result.
const ARTIFACTS_MAX: usize = 1_000;
/// Addresses in a manifest, and the longest one.
const SEEDERS_MAX: usize = 16;
const SEEDER_BYTES_MAX: usize = 512;

/// Why an object could not be made or opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum SealedError {
    /// The object's scheme is unknown here.
    #[error("the object is sealed by {0:?}; this agent knows {SCHEME:?}")]
    Scheme(String),
    /// The key cannot be opened or sealed.
    #[error("data key: {0}")]
    Key(#[from] IdentityError),
    /// What was sealed is no key.
    #[error("data key: not 32 bytes")]
    KeyLength,
    /// The object's name is none.
    #[error("root: {0}")]
    Root(String),
    /// Packing or unpacking failed.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The block store failed.
    #[error(transparent)]
    Blocks(#[from] mutual_data::store::StoreError),
    /// The system could not give entropy or a thread.
    #[error("{0}")]
    System(String),
}

/// An object on this machine that is complete and pinned.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    pub(super) root: Root,
    pub(super) artifacts: Vec<Artifact>,
    pub(super) key: DataKey,
}

/// What to pack and how.
#[derive(Debug)]
pub(super) struct Packing<'a> {
    pub(super) dir: &'a Path,
    pub(super) options: PackOptions,
    pub(super) key: DataKey,
    /// Globs; everything if empty.
    pub(super) globs: &'a [String],
    /// The end of names that are left out in any case.
    pub(super) left_out: Option<&'static str>,
    pub(super) owner: String,
    /// When the pin ends, in milliseconds since 1970.
    pub(super) until: u64,
}

/// Packs a directory and pins the object. Blocking.
pub(super) fn pack(blocks: &BlockStore, packing: Packing<'_>) -> Result<Packed, SealedError> {
    let globs = tree::Globs::new(packing.globs)?;
    let take_all = packing.globs.is_empty();
    let left_out = |path: &Path| {
        let end = packing.left_out.map(str::as_bytes);
        end.is_some_and(|end| path.as_os_str().as_encoded_bytes().ends_with(end))
    };
    let select = |path: &Path, is_dir: bool| match take_all {
        _ if left_out(path) => Choice::Skip,
        true => Choice::Take,
        false => globs.choose(path, is_dir),
    };
    let batch = blocks.batch();
    // The task may have put a link to this machine's own files there.
    let options = PackOptions {
        follow: false,
        ..packing.options
    };
    let packed = tree::pack_selected(&batch, &packing.key, &options, packing.dir, &select)?;
    batch.commit(&packed.root.cid, &packing.owner, Some(packing.until))?;
    Ok(Packed {
        artifacts: list_files(blocks, &packed.root.cid, &packing.key)?,
        root: packed.root,
        key: packing.key,
    })
}

fn list_files(blocks: &BlockStore, root: &Cid, key: &DataKey) -> Result<Vec<Artifact>, TreeError> {
    let tree = Tree::open(blocks, root, key)?;
    let mut files = Vec::new();
    for entry in tree.entries(Limits::default()) {
        let entry = entry?;
        if let tree::Kind::File { bytes, .. } = entry.kind {
            let path = entry.as_path().to_string_lossy().into_owned();
            files.push(Artifact { path, bytes });
        }
        if files.len() == ARTIFACTS_MAX {
            break;
        }
    }
    Ok(files)
}

/// The manifest that tells where an object is and lets `reader` open it.
pub(super) fn manifest(
    packed: &Packed,
    reader: &SealingPublic,
    purpose: &str,
    own_addresses: Vec<String>,
    replicas: Vec<Replica>,
) -> Result<Manifest, SealedError> {
    let sealed_key = reader.seal(purpose, packed.key.expose(), &mut rand::rng())?;
    // The others first: whoever reads this may do so because this machine is gone.
    let others = replicas
        .iter()
        .flat_map(|replica| replica.addresses.clone());
    let seeders = others.chain(own_addresses);
    Ok(Manifest {
        root: content_id(&packed.root.cid)?,
        bytes: packed.root.bytes,
        seeders: seeders
            .filter(|address| address.len() <= SEEDER_BYTES_MAX)
            .take(SEEDERS_MAX)
            .collect(),
        enc_meta: EncMeta {
            scheme: SCHEME.to_owned(),
            sealed_key,
        },
        receipts: replicas
            .into_iter()
            .map(|replica| replica.receipt)
            .collect(),
    })
}

fn content_id(cid: &Cid) -> Result<ContentId, SealedError> {
    let text = cid.to_string();
    let parsed = text.parse();
    parsed.map_err(|error: mutual_model::ids::NameError| SealedError::Root(error.to_string()))
}

/// What to ask other peers to hold.
pub(super) fn keep_request(
    packed: &Packed,
    namespace: &Namespace,
    duration: std::time::Duration,
) -> KeepRequest {
    KeepRequest {
        root: packed.root.cid,
        namespace: Some(namespace.as_str().to_owned()),
        bytes: packed.root.bytes,
        duration,
        series: None,
    }
}

/// The root that a manifest names.
pub(super) fn root_of(manifest: &Manifest) -> Result<Cid, SealedError> {
    let parsed = mutual_data::address::parse(manifest.root.as_str());
    parsed.map_err(|error| SealedError::Root(error.to_string()))
}

/// The key of an object that was sealed to this agent.
pub(super) fn open_key(
    key: &NodeKey,
    purpose: &str,
    manifest: &Manifest,
) -> Result<DataKey, SealedError> {
    if manifest.enc_meta.scheme != SCHEME {
        return Err(SealedError::Scheme(manifest.enc_meta.scheme.clone()));
    }
    let opened = key.open(purpose, &manifest.enc_meta.sealed_key)?;
    let bytes = opened.as_slice().try_into();
    bytes
        .map(DataKey::from_bytes)
        .map_err(|_| SealedError::KeyLength)
}

/// A fresh key.
pub(super) fn fresh_key() -> Result<DataKey, SealedError> {
    DataKey::generate().map_err(|error| SealedError::System(error.to_string()))
}

/// Unpacks an object that is complete on this machine into `target`. Blocking.
pub(super) fn unpack(
    blocks: &BlockStore,
    root: &Cid,
    key: &DataKey,
    target: &Path,
    limits: Limits,
) -> Result<(), SealedError> {
    Tree::open(blocks, root, key)?.unpack(target, limits)?;
    Ok(())
}

/// Runs what touches the disk where it holds nobody up.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SealedError> + Send + 'static,
) -> Result<T, SealedError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(SealedError::System(error.to_string())))
}
