//! Packing: one walk over the files, in order, straight into sealed chunks.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::FileType;

use super::record::{self, Inspector, Record};
use super::{
    Choice, Entry, Kind, MODE_MASK, PackOptions, Root, TreeError, base_name, everything, join,
    lossy,
};
use crate::address::Codec;
use crate::beneath;
use crate::dag::{Mode, Node, Object, VERSION};
use crate::seal::{
    self, Binding, CHUNK_BYTES, ChunkSeal, ConvergentSeal, DataKey, OBJECT_ID_BYTES, PREFIX_BYTES,
    StreamSeal,
};
use crate::section::SectionWriter;
use crate::store::Batch;

/// How many skipped entries a report names.
const SKIPPED_MAX: usize = 100;

/// The outcome of packing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The new object. Commit it with [`Batch::commit`].
    pub root: Root,
    /// Entries packed.
    pub entries: u64,
    /// Bytes of all files packed.
    pub bytes: u64,
    /// What was left out because it is no file, directory or link (the first 100).
    pub skipped: Vec<Skipped>,
}

/// An entry that cannot be packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its path below the root.
    pub path: String,
    /// What it is.
    pub what: &'static str,
}

/// Packs a file or a directory with all it holds. A file becomes a tree of one entry under its own name.
///
/// # Errors
/// Any variant of [`TreeError`]; nothing is pinned, and what was stored is collected later.
pub fn pack(
    batch: &Batch,
    key: &DataKey,
    options: &PackOptions,
    path: &Path,
) -> Result<Packed, TreeError> {
    pack_selected(batch, key, options, path, &everything)
}

/// Packs what `select` takes below `path`. It is asked about every entry by its path below the root, directories
/// before what they hold; a single file is asked about by its name.
///
/// # Errors
/// As [`pack`].
pub fn pack_selected(
    batch: &Batch,
    key: &DataKey,
    options: &PackOptions,
    path: &Path,
    select: &dyn Fn(&Path, bool) -> Choice,
) -> Result<Packed, TreeError> {
    let mut packer = Packer::new(batch, key, options, select)?;
    let shown = lossy(path);
    let at = || TreeError::at(shown.as_bytes());
    if !options.follow {
        let dir = beneath::open_own_root(path).map_err(at())?;
        packer.directory(dir.as_fd(), b"")?;
    } else if std::fs::metadata(path).map_err(at())?.is_dir() {
        let dir = beneath::open_root(path).map_err(at())?;
        packer.directory(dir.as_fd(), b"")?;
    } else {
        packer.single(path)?;
    }
    packer.finish(batch)
}

struct Packer<'a> {
    select: &'a dyn Fn(&Path, bool) -> Choice,
    object: Unfinished,
    data: SectionWriter<'a>,
    index: SectionWriter<'a>,
    inspector: Inspector,
    bytes_max: u64,
    steady: bool,
    /// Directories looked into but not taken yet, outermost first.
    pending: Vec<Entry>,
    skipped: Vec<Skipped>,
}

/// The manifest's fields that are known before the contents.
struct Unfinished {
    binding: Binding,
    mode: Mode,
    prefix: [u8; PREFIX_BYTES],
    commitment: [u8; seal::KEY_BYTES],
}

impl Unfinished {
    fn new(key: &DataKey, options: &PackOptions) -> Result<Self, TreeError> {
        let mut object = [0; OBJECT_ID_BYTES];
        let mut prefix = [0; PREFIX_BYTES];
        seal::fill_random(&mut object)?;
        seal::fill_random(&mut prefix)?;
        let binding = Binding {
            namespace: options.namespace.clone(),
            object,
            chunk_bytes: CHUNK_BYTES,
        };
        Ok(Self {
            commitment: seal::commitment(key, &binding),
            binding,
            mode: options.mode,
            prefix,
        })
    }
}

/// The seals of an object's index and data sections.
pub(super) fn seals(
    key: &DataKey,
    binding: &Binding,
    mode: Mode,
    prefix: [u8; PREFIX_BYTES],
) -> (ChunkSeal, ChunkSeal) {
    let stream = |name| ChunkSeal::Stream(Box::new(StreamSeal::new(key, binding, name, prefix)));
    let data = match mode {
        Mode::Stream => stream("data"),
        Mode::Convergent => ChunkSeal::Convergent(ConvergentSeal::new(key, &binding.namespace)),
    };
    (stream("index"), data)
}

impl<'a> Packer<'a> {
    fn new(
        batch: &'a Batch,
        key: &DataKey,
        options: &PackOptions,
        select: &'a dyn Fn(&Path, bool) -> Choice,
    ) -> Result<Self, TreeError> {
        let object = Unfinished::new(key, options)?;
        let (index, data) = seals(key, &object.binding, object.mode, object.prefix);
        Ok(Self {
            select,
            object,
            data: SectionWriter::new(batch, data),
            index: SectionWriter::new(batch, index),
            inspector: Inspector::new(options.limits),
            bytes_max: options.limits.bytes,
            steady: options.steady,
            pending: Vec::new(),
            skipped: Vec::new(),
        })
    }

    /// A path to one file: the user named it, so a link there is followed.
    fn single(&mut self, path: &Path) -> Result<(), TreeError> {
        let shown = lossy(path);
        let at = || TreeError::at(shown.as_bytes());
        let name = base_name(path).map_err(at())?;
        let name = name.as_os_str().as_bytes();
        let real = path.canonicalize().map_err(at())?;
        let parent = real.parent().unwrap_or(Path::new("/"));
        let dir = beneath::open_root(parent).map_err(at())?;
        let real_name = real.file_name().unwrap_or_default().as_bytes();
        if (self.select)(Path::new(real.file_name().unwrap_or_default()), false) == Choice::Take {
            self.file(dir.as_fd(), real_name, name)?;
        }
        Ok(())
    }

    fn directory(&mut self, dir: BorrowedFd<'_>, path: &[u8]) -> Result<(), TreeError> {
        let names = beneath::names(dir).map_err(TreeError::at(path))?;
        for name in names {
            self.entry(dir, &name, &join(path, &name))?;
        }
        Ok(())
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<(), TreeError> {
        let stat = beneath::stat(dir, name).map_err(TreeError::at(path))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mode = stat.st_mode & MODE_MASK;
        let is_dir = kind == FileType::Directory;
        match (
            (self.select)(Path::new(std::ffi::OsStr::from_bytes(path)), is_dir),
            kind,
        ) {
            (Choice::Skip, _) => Ok(()),
            (choice, FileType::Directory) => self.enter(dir, name, path, mode, choice),
            (Choice::Look, _) => Ok(()),
            (_, FileType::RegularFile) => self.file(dir, name, path),
            (_, FileType::Symlink) => self.link(dir, name, path),
            (_, other) => {
                self.skip(path, other);
                Ok(())
            }
        }
    }

    fn enter(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        mode: u32,
        choice: Choice,
    ) -> Result<(), TreeError> {
        let entry = Entry {
            path: path.to_vec(),
            mode,
            kind: Kind::Directory,
        };
        self.pending.push(entry);
        if choice == Choice::Take {
            self.flush_pending()?;
        }
        let inner = beneath::open_dir(dir, name).map_err(TreeError::at(path))?;
        self.directory(inner.as_fd(), path)?;
        self.pending.pop_if(|entry| entry.path == path);
        Ok(())
    }

    fn flush_pending(&mut self) -> Result<(), TreeError> {
        for entry in std::mem::take(&mut self.pending) {
            self.record(entry)?;
        }
        Ok(())
    }

    fn file(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<(), TreeError> {
        self.flush_pending()?;
        let (mut file, stat) = beneath::open_file(dir, name).map_err(TreeError::at(path))?;
        let offset = self.data.payload();
        // One byte more than allowed: then the inspector refuses it, and no endless file is read to its end.
        let limit = (self.bytes_max - self.inspector.bytes).saturating_add(1);
        let bytes = self
            .data
            .copy_from(&mut file, limit)
            .map_err(TreeError::at(path))?;
        if self.steady && !beneath::is_as_before(&file, &stat).map_err(TreeError::at(path))? {
            let path = beneath::display(path);
            return Err(TreeError::Changed { path });
        }
        self.record(Entry {
            path: path.to_vec(),
            mode: stat.st_mode & MODE_MASK,
            kind: Kind::File { offset, bytes },
        })
    }

    fn link(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<(), TreeError> {
        self.flush_pending()?;
        let target = beneath::read_link(dir, name).map_err(TreeError::at(path))?;
        self.record(Entry {
            path: path.to_vec(),
            mode: MODE_MASK,
            kind: Kind::Symlink { target },
        })
    }

    fn skip(&mut self, path: &[u8], kind: FileType) {
        let what = match kind {
            FileType::Socket => "a socket",
            FileType::Fifo => "a pipe",
            _ => "a device",
        };
        if self.skipped.len() < SKIPPED_MAX {
            let path = beneath::display(path);
            self.skipped.push(Skipped { path, what });
        }
    }

    fn record(&mut self, entry: Entry) -> Result<(), TreeError> {
        self.inspector.inspect(&entry)?;
        Ok(record::write(&mut self.index, &Record::Entry(entry))?)
    }

    fn finish(mut self, batch: &Batch) -> Result<Packed, TreeError> {
        let data = self.data.finish()?;
        let end = Record::End {
            entries: self.inspector.entries,
            data: data.root.cid,
        };
        record::write(&mut self.index, &end)?;
        let index = self.index.finish()?;
        let node = Node::Object(Box::new(Object {
            version: VERSION,
            namespace: self.object.binding.namespace,
            object: self.object.binding.object,
            mode: self.object.mode,
            chunk_bytes: CHUNK_BYTES,
            prefix: self.object.prefix,
            commitment: self.object.commitment,
            index,
            data,
        }));
        let root = store_root(batch, &node)?;
        Ok(Packed {
            root,
            entries: self.inspector.entries,
            bytes: self.inspector.bytes,
            skipped: self.skipped,
        })
    }
}

fn store_root(batch: &Batch, node: &Node) -> Result<Root, TreeError> {
    let block = node.encode();
    // What we write, strangers must be able to read: our own limits hold for us too (a namespace may be too long).
    let bytes = Node::decode(&block)?.total_bytes(block.len())?;
    let cid = batch.add(Codec::Node, &block)?;
    Ok(Root { cid, bytes })
}
