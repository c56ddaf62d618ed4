//! Applying layers: files, links and whiteouts of one archive onto a root file system.

use std::collections::HashSet;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
use tar::EntryType;

use super::archive::{self, Bounded, Member};
use super::{ImageError, UnpackOptions, within};
use crate::beneath;

/// A name with this prefix removes the rest of the name from lower layers.
const WHITEOUT: &[u8] = b".wh.";

/// This name empties its directory of what lower layers put there.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// No set-id bits: containers run without new privileges, and to other users of this machine they would be a gift.
const FILE_MODE: u32 = 0o777;

/// Directories keep the sticky bit (`/tmp`).
const DIR_MODE: u32 = 0o1777;

/// The owner can always clean up.
const OWNER: u32 = 0o700;

/// A root file system being made.
pub(super) struct Target {
    root: OwnedFd,
    options: UnpackOptions,
    bytes_left: u64,
    /// What this layer made: inode of the directory, name.
    made: HashSet<(u64, Vec<u8>)>,
    pub(super) entries: u64,
    pub(super) skipped: u64,
}

impl Target {
    pub(super) fn new(path: &Path, options: UnpackOptions) -> io::Result<Self> {
        Ok(Self {
            root: beneath::open_root(path)?,
            options,
            bytes_left: options.limits.bytes,
            made: HashSet::new(),
            entries: 0,
            skipped: 0,
        })
    }

    /// Applies one layer, compressed or not.
    pub(super) fn apply(&mut self, layer: impl Read) -> Result<(), ImageError> {
        self.made.clear();
        let mut left = self.bytes_left;
        let bounded = Bounded {
            inner: archive::decompress(layer).map_err(ImageError::at(b"layer"))?,
            left: &mut left,
            max: self.options.limits.bytes,
        };
        let applied = archive::each(bounded, &mut |member, contents| {
            self.member(member, contents)
        });
        self.bytes_left = left;
        applied
    }

    fn member(&mut self, member: &Member, contents: &mut dyn Read) -> Result<(), ImageError> {
        self.entries += 1;
        if self.entries > self.options.limits.entries {
            return Err(ImageError::TooLarge {
                what: "entries",
                max: self.options.limits.entries,
            });
        }
        let names = self.names(&member.path)?;
        let Some((name, parents)) = names.split_last() else {
            return self.set_root_mode(member);
        };
        let at = || ImageError::at(&member.path);
        let dir = within::open_dir(self.root.as_fd(), parents, true).map_err(at())?;
        let inode = rustix::fs::fstat(&dir).map_err(|e| at()(e.into()))?.st_ino;
        if name == OPAQUE {
            return self.clear(dir.as_fd()).map_err(at());
        }
        if let Some(removed) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(dir.as_fd(), inode, removed, &member.path);
        }
        self.place(dir.as_fd(), name, member, contents)?;
        self.made.insert((inode, name.clone()));
        Ok(())
    }

    fn names(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, ImageError> {
        let refuse = |why| ImageError::UnsafeName {
            path: beneath::display(path),
            why,
        };
        let names = within::names(path).map_err(refuse)?;
        if names.len() > self.options.limits.depth {
            return Err(refuse("it lies deeper than the limit set for this image"));
        }
        Ok(names)
    }

    /// The entry `./`.
    fn set_root_mode(&self, member: &Member) -> Result<(), ImageError> {
        let mode = Mode::from_raw_mode(member.mode & DIR_MODE | OWNER);
        rustix::fs::fchmod(&self.root, mode).map_err(|e| ImageError::at(&member.path)(e.into()))
    }

    fn place(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        member: &Member,
        contents: &mut dyn Read,
    ) -> Result<(), ImageError> {
        let at = || ImageError::at(&member.path);
        match member.kind {
            EntryType::Regular | EntryType::Continuous => {
                write_file(dir, name, member, contents).map_err(at())?;
            }
            EntryType::Directory => make_dir(dir, name, member.mode).map_err(at())?,
            EntryType::Symlink => {
                beneath::remove(dir, name).map_err(at())?;
                let made = rustix::fs::symlinkat(member.link.as_slice(), dir, name);
                made.map_err(|e| at()(e.into()))?;
            }
            EntryType::Link => return self.hard_link(dir, name, member),
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                self.skipped += 1;
                return Ok(());
            }
            _ => {
                return Err(ImageError::Unsupported {
                    path: beneath::display(&member.path),
                    what: "its kind is unknown",
                });
            }
        }
        self.set_owner(dir, name, member).map_err(at())
    }

    fn set_owner(&self, dir: BorrowedFd<'_>, name: &[u8], member: &Member) -> io::Result<()> {
        if !self.options.keep_owners {
            return Ok(());
        }
        let (uid, gid) = member.owner;
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        Ok(rustix::fs::chownat(
            dir,
            name,
            owner.0,
            owner.1,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    fn hard_link(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        member: &Member,
    ) -> Result<(), ImageError> {
        let at = || ImageError::at(&member.path);
        let target = self.names(&member.link)?;
        let Some((target_name, parents)) = target.split_last() else {
            return Err(ImageError::UnsafeName {
                path: beneath::display(&member.path),
                why: "it is a hard link to the root",
            });
        };
        let target_dir = within::open_dir(self.root.as_fd(), parents, false).map_err(at())?;
        if same_entry(target_dir.as_fd(), target_name, dir, name) {
            return Ok(());
        }
        beneath::remove(dir, name).map_err(at())?;
        rustix::fs::linkat(
            &target_dir,
            target_name.as_slice(),
            dir,
            name,
            AtFlags::empty(),
        )
        .map_err(|e| at()(e.into()))
    }

    fn whiteout(
        &self,
        dir: BorrowedFd<'_>,
        inode: u64,
        name: &[u8],
        path: &[u8],
    ) -> Result<(), ImageError> {
        if !beneath::is_plain_name(name) {
            return Err(ImageError::UnsafeName {
                path: beneath::display(path),
                why: "it is a whiteout of no name",
            });
        }
        if self.made.contains(&(inode, name.to_vec())) {
            return Ok(());
        }
        beneath::remove(dir, name).map_err(ImageError::at(path))
    }

    /// Removes what lower layers put into a directory and keeps what this layer made.
    fn clear(&self, dir: BorrowedFd<'_>) -> io::Result<()> {
        let inode = rustix::fs::fstat(dir)?.st_ino;
        for name in beneath::names(dir)? {
            if !self.made.contains(&(inode, name.clone())) {
                beneath::remove(dir, &name)?;
            } else if beneath::file_type(dir, &name)? == FileType::Directory {
                self.clear(beneath::open_dir(dir, &name)?.as_fd())?;
            }
        }
        Ok(())
    }
}

/// Whether two places are one file already: removing the one would lose the other.
fn same_entry(a: BorrowedFd<'_>, a_name: &[u8], b: BorrowedFd<'_>, b_name: &[u8]) -> bool {
    match (beneath::stat(a, a_name), beneath::stat(b, b_name)) {
        (Ok(a), Ok(b)) => (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino),
        _ => false,
    }
}

fn write_file(
    dir: BorrowedFd<'_>,
    name: &[u8],
    member: &Member,
    contents: &mut dyn Read,
) -> io::Result<()> {
    beneath::remove(dir, name)?;
    let mut file = beneath::create_file(dir, name)?;
    let written = io::copy(contents, &mut file)?;
    if written != member.bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(member.mode & FILE_MODE))?;
    Ok(())
}

/// Makes a directory, or takes over a real one of a lower layer; anything else in its place goes.
fn make_dir(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> io::Result<()> {
    if !matches!(beneath::file_type(dir, name), Ok(FileType::Directory)) {
        beneath::remove(dir, name)?;
    }
    let made = beneath::make_dir(dir, name)?;
    Ok(rustix::fs::fchmod(
        &made,
        Mode::from_raw_mode(mode & DIR_MODE | OWNER),
    )?)
}
