//! Paths inside a root file system, with its own symbolic links followed but never out of it.
//!
//! Layers may go through links that earlier layers made (`/lib → usr/lib`). They are resolved here as the container
//! would see them: an absolute target starts at the root directory, `..` stops there.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::beneath;

/// Links followed in one path, as in Linux.
const LINKS_MAX: usize = 40;

/// Splits a layer's path into names. Leading `/` and `./` mean the root; `..` is refused.
pub(super) fn names(path: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let names: Vec<_> = path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(<[u8]>::to_vec)
        .collect();
    match names.iter().all(|name| beneath::is_plain_name(name)) {
        true => Ok(names),
        false => Err("a name must not be '..', contain NUL or be longer than 255 bytes"),
    }
}

/// Opens the directory at `path` below `root`; `make` creates what is missing on the way.
pub(super) fn open_dir(root: BorrowedFd<'_>, path: &[Vec<u8>], make: bool) -> io::Result<OwnedFd> {
    let mut todo: VecDeque<Vec<u8>> = path.iter().cloned().collect();
    let mut opened: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name == b".." {
            opened.pop();
            continue;
        }
        let here = opened.last().map_or(root, AsFd::as_fd);
        match beneath::open_dir(here, &name) {
            Ok(dir) => opened.push(dir),
            Err(e) if e.kind() == io::ErrorKind::NotFound && make => {
                opened.push(beneath::make_dir(here, &name)?);
            }
            Err(error) => {
                let target = beneath::read_link(here, &name).map_err(|_| error)?;
                links += 1;
                if links > LINKS_MAX {
                    return Err(io::Error::other("too many symbolic links"));
                }
                if target.starts_with(b"/") {
                    opened.clear();
                }
                follow(&mut todo, &target);
            }
        }
    }
    match opened.pop() {
        Some(dir) => Ok(dir),
        None => root.try_clone_to_owned(),
    }
}

fn follow(todo: &mut VecDeque<Vec<u8>>, target: &[u8]) {
    let names = target.split(|byte| *byte == b'/');
    for name in names.rev().filter(|name| !name.is_empty() && *name != b".") {
        todo.push_front(name.to_vec());
    }
}
