//! A file or directory as one sealed object: contents, names, modes, links and empty folders.
//!
//! An object has two sections. *Data* is the contents of all files, one after the other, so that many small files
//! share a chunk. *Index* lists the entries and says where each file lies in the data; it is sealed too, so a seeder
//! learns sizes and nothing else. Both are written in one pass and read in bounded memory.
//!
//! Entries come in one order only: parents before children, names sorted by bytes. A reader that insists on that order
//! refuses duplicates and orphans without remembering anything. The index ends with a count and the name of the data
//! section, so neither can be exchanged or cut.
//!
//! Kept: names (any bytes Linux allows), permission bits, symbolic links as they are, empty directories. Not kept:
//! owners, times, extended attributes, set-id bits; hard links become separate files. Sockets, pipes and devices are
//! skipped and reported.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::address::Cid;
use crate::beneath;
use crate::dag::{DagError, Mode};
use crate::seal::SealError;
use crate::section::SectionError;
use crate::store::StoreError;

mod pack;
mod read;
mod record;
mod remove;
mod select;
mod unpack;

#[cfg(test)]
mod tests;

pub use pack::{Packed, Skipped, pack, pack_selected};
pub use read::{Entries, FileReader, Tree};
pub use remove::remove;
pub use select::{Choice, Globs, everything};
pub use unpack::Unpacked;

/// Permission bits that are kept.
const MODE_MASK: u32 = 0o777;

/// Why a tree could not be packed, read or unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// A file of the tree could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The path, with anything that is not UTF-8 replaced.
        path: String,
        /// The system's word.
        source: io::Error,
    },
    /// An entry's name would leave the target, or is no name.
    #[error("entry {path:?} is refused: {why}")]
    UnsafeName {
        /// The entry.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An entry is a duplicate, out of order, or stands below something that is no directory.
    #[error("entry {path:?} is refused: {why}")]
    Misplaced {
        /// The entry.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file was written to while it was read, so that what was read may be half of one state and half of another.
    #[error("{path}: was written to while it was read; write beside it and rename")]
    Changed {
        /// The path.
        path: String,
    },
    /// The target already has something under an entry's name.
    #[error("{path}: is already there; unpack into an empty directory")]
    Exists {
        /// The path.
        path: String,
    },
    /// The tree is larger than the caller allows.
    #[error("the tree has more than {max} {what}, the limit set for it")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// The object's list of entries is damaged.
    #[error("the object's index is damaged: {0}")]
    Index(String),
    /// There is no such file in the object.
    #[error("{0:?} is no file of this object")]
    NoSuchFile(String),
    /// A pattern is no glob.
    #[error("{0}")]
    Pattern(#[from] globset::Error),
    /// The key is not the object's key, or there is no entropy for a new one.
    #[error(transparent)]
    Seal(#[from] SealError),
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

impl From<SectionError> for TreeError {
    fn from(error: SectionError) -> Self {
        match error {
            SectionError::Store(error) => Self::Store(error),
            SectionError::Seal(error) => Self::Seal(error),
            SectionError::Dag(error) => Self::Dag(error),
            other => Self::Section(other),
        }
    }
}

impl TreeError {
    /// Says which path failed; an error of our own that travelled through [`io::Error`] comes back as itself.
    fn at(path: &[u8]) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| match source.downcast::<SectionError>() {
            Ok(error) => error.into(),
            Err(source) => Self::Io {
                path: beneath::display(path),
                source,
            },
        }
    }

    /// Whether the files changed while they were read: another try may find them at rest.
    pub fn is_unsteady(&self) -> bool {
        match self {
            Self::Changed { .. } => true,
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }

    /// Whether there was no room, in the store or on the disk.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Store(error) => error.is_full(),
            Self::Io { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            _ => false,
        }
    }
}

/// The most a tree may hold. Packing and unpacking both stop before they exceed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Names in a path.
    pub depth: usize,
}

impl Default for Limits {
    /// A million entries, 1 TiB, 128 levels.
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            bytes: 1 << 40,
            depth: 128,
        }
    }
}

/// How to pack.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// The namespace that owns the object: bound into every chunk.
    pub namespace: String,
    /// [`Mode::Stream`] for inputs and results, [`Mode::Convergent`] for checkpoints (the key is then the job's
    /// secret, the same for all checkpoints of the job).
    pub mode: Mode,
    /// The most the tree may hold.
    pub limits: Limits,
    /// Whether the path that is packed may itself be a link, as a user's may. Not if somebody else could have put it
    /// there.
    pub follow: bool,
    /// Whether a file that is written to while it is read is an error.
    pub steady: bool,
}

impl PackOptions {
    /// A private object of `namespace` within the default limits, from a path that may be a link.
    pub fn private(namespace: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            mode: Mode::Stream,
            limits: Limits::default(),
            follow: true,
            steady: false,
        }
    }

    /// A deduplicating checkpoint of `namespace` within the default limits, of files that hold still.
    pub fn checkpoint(namespace: impl Into<String>) -> Self {
        Self {
            mode: Mode::Convergent,
            steady: true,
            ..Self::private(namespace)
        }
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// Where its contents begin in the data section.
        offset: u64,
        /// How many bytes it has.
        bytes: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points, as written; not followed here.
        #[serde(with = "serde_bytes")]
        target: Vec<u8>,
    },
}

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Path below the tree's root, names joined by `/`, any bytes but NUL.
    #[serde(with = "serde_bytes")]
    pub path: Vec<u8>,
    /// Permission bits (0o777).
    pub mode: u32,
    /// What it is.
    pub kind: Kind,
}

impl Entry {
    /// The path as the operating system takes it.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }
}

/// What a name stands for: `root` in errors and reports.
fn lossy(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A root and its sizes, as packing and fetching report them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    /// The manifest's name: `manifest_root_cid`.
    pub cid: Cid,
    /// Bytes of all blocks, the manifest included.
    pub bytes: u64,
}

/// Joins a parent path and a name.
fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() {
        return name.to_vec();
    }
    [parent, b"/", name].concat()
}

/// The last name of a path that the user gave, resolved if it is `.` or ends in `..`.
fn base_name(path: &Path) -> io::Result<PathBuf> {
    match path.file_name() {
        Some(name) => Ok(name.into()),
        None => Ok(path.canonicalize()?.file_name().unwrap_or_default().into()),
    }
}
