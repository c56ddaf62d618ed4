//! Unpacking: entries into a directory, checked as a whole before the first is written.

use std::io::{BufRead as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::Mode;

use super::record::{last_name, parent};
use super::{Entry, Kind, Limits, Tree, TreeError, lossy};
use crate::beneath;
use crate::section::SectionReader;

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries made.
    pub entries: u64,
    /// Bytes of files written.
    pub bytes: u64,
}

impl Tree<'_> {
    /// Writes the tree into the directory `target`, which is made if it is missing.
    ///
    /// The whole index is checked before anything is written. Nothing is ever written outside `target`, no link is
    /// followed, and nothing that is already there is replaced. If it fails and `target` was made here, it is removed.
    ///
    /// # Errors
    /// [`TreeError::UnsafeName`], [`TreeError::Misplaced`], [`TreeError::TooLarge`] and [`TreeError::Index`] before
    /// anything is written; [`TreeError::Exists`], [`TreeError::Io`] and those of reading chunks later.
    pub fn unpack(&self, target: &Path, limits: Limits) -> Result<Unpacked, TreeError> {
        let mut entries = self.entries(limits);
        entries.by_ref().try_for_each(|entry| entry.map(drop))?;
        let (entries, bytes) = entries.seen();
        let made = !target.exists();
        let written = self.write_into(target, limits);
        if written.is_err() && made {
            let _ = std::fs::remove_dir_all(target);
        }
        written.map(|()| Unpacked { entries, bytes })
    }

    fn write_into(&self, target: &Path, limits: Limits) -> Result<(), TreeError> {
        let shown = lossy(target);
        std::fs::create_dir_all(target).map_err(TreeError::at(shown.as_bytes()))?;
        let root = beneath::open_root(target).map_err(TreeError::at(shown.as_bytes()))?;
        let mut unpacker = Unpacker {
            root,
            open: Vec::new(),
            data: self.data(),
        };
        for entry in self.entries(limits) {
            unpacker.entry(&entry?)?;
        }
        unpacker.close_until(None)
    }
}

/// A directory that still gets children.
struct Open {
    path: Vec<u8>,
    dir: OwnedFd,
    mode: u32,
}

struct Unpacker<'a> {
    root: OwnedFd,
    open: Vec<Open>,
    data: SectionReader<'a>,
}

impl Unpacker<'_> {
    fn entry(&mut self, entry: &Entry) -> Result<(), TreeError> {
        self.close_until(parent(&entry.path))?;
        let name = last_name(&entry.path);
        match &entry.kind {
            Kind::Directory => self.make_dir(name, entry),
            Kind::File { offset, bytes } => self.make_file(name, entry, *offset, *bytes),
            Kind::Symlink { target } => {
                let made = rustix::fs::symlinkat(target.as_slice(), self.here(), name);
                made.map_err(|e| at(&entry.path)(e.into()))
            }
        }
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.open
            .last()
            .map_or(self.root.as_fd(), |open| open.dir.as_fd())
    }

    /// Leaves directories until the innermost open one is `path`; their own modes are set last, so that a read-only
    /// directory can be filled.
    fn close_until(&mut self, path: Option<&[u8]>) -> Result<(), TreeError> {
        while let Some(open) = self.open.pop_if(|open| Some(open.path.as_slice()) != path) {
            let set = rustix::fs::fchmod(&open.dir, Mode::from_raw_mode(open.mode));
            set.map_err(|e| at(&open.path)(e.into()))?;
        }
        Ok(())
    }

    fn make_dir(&mut self, name: &[u8], entry: &Entry) -> Result<(), TreeError> {
        let dir = beneath::make_dir(self.here(), name).map_err(at(&entry.path))?;
        self.open.push(Open {
            path: entry.path.clone(),
            dir,
            mode: entry.mode,
        });
        Ok(())
    }

    fn make_file(
        &mut self,
        name: &[u8],
        entry: &Entry,
        offset: u64,
        bytes: u64,
    ) -> Result<(), TreeError> {
        let mut file = beneath::create_file(self.here(), name).map_err(at(&entry.path))?;
        let mut left = bytes;
        if left > 0 {
            self.data.seek(offset)?;
        }
        while left > 0 {
            let chunk = self.data.fill_buf().map_err(at(&entry.path))?;
            if chunk.is_empty() {
                return Err(TreeError::Index("a file lies beyond the data".into()));
            }
            let length = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            file.write_all(&chunk[..length]).map_err(at(&entry.path))?;
            self.data.consume(length);
            left -= length as u64;
        }
        let mode = Mode::from_raw_mode(entry.mode);
        rustix::fs::fchmod(&file, mode).map_err(|e| at(&entry.path)(e.into()))
    }
}

fn at(path: &[u8]) -> impl FnOnce(std::io::Error) -> TreeError + '_ {
    move |error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => TreeError::Exists {
            path: beneath::display(path),
        },
        _ => TreeError::at(path)(error),
    }
}
