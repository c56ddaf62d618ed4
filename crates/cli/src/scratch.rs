//! Directories for the time of one run: gone with it, or, if it was killed, when the next run
//! begins.
//!
//! Each holds a locked file. The kernel drops a lock with its process, however that ends, so a
//! directory whose lock can be had is nobody's any more.

use std::fs::{self, DirEntry, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::failure::{Failure, Outcome};

const LOCK: &str = "lock";

/// A directory of this run.
#[derive(Debug)]
pub(crate) struct Scratch {
    dir: TempDir,
    _lock: File,
}

impl Scratch {
    /// Makes one whose name starts with `prefix`, and clears away those of dead runs.
    pub(crate) fn new(prefix: &str) -> Outcome<Self> {
        Self::new_in(&std::env::temp_dir(), prefix)
            .map_err(|failure| failure.hint("name a directory that you may write to in TMPDIR"))
    }

    /// The same elsewhere than in the directory for temporary files.
    pub(crate) fn new_in(base: &Path, prefix: &str) -> Outcome<Self> {
        sweep(base, prefix);
        let wrong = |error| format!("no scratch directory in {}: {error}", base.display());
        Self::make(base, prefix).map_err(|error| Failure::user(wrong(error)))
    }

    fn make(base: &Path, prefix: &str) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix(prefix).tempdir_in(base)?;
        // Under its final name it is locked already: no sweep comes in between.
        let aside = dir.path().join("lock.new");
        let lock = File::create_new(&aside)?;
        lock.try_lock()?;
        fs::rename(aside, dir.path().join(LOCK))?;
        Ok(Self { dir, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Leaves it for people to look at; no later run clears it away.
    pub(crate) fn keep(self) -> PathBuf {
        let _ = fs::remove_file(self.path().join(LOCK));
        self.dir.keep()
    }

    /// Removes it and tells whether that worked.
    pub(crate) fn close(self) -> io::Result<()> {
        self.dir.close()
    }
}

/// Clears away what dead runs left. What cannot be cleared away now is left to the next run.
fn sweep(base: &Path, prefix: &str) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        if is_ours(&entry, prefix)
            && let Err(error) = remove_dead(&entry.path())
        {
            tracing::debug!(path = %entry.path().display(), %error, "a dead run's directory stays");
        }
    }
}

/// Whether it is a directory of this program and this user; a link is not.
fn is_ours(entry: &DirEntry, prefix: &str) -> bool {
    let named = entry
        .file_name()
        .as_encoded_bytes()
        .starts_with(prefix.as_bytes());
    let own = rustix::process::geteuid().as_raw();
    let is_own = |found: fs::Metadata| found.is_dir() && found.uid() == own;
    named && entry.metadata().is_ok_and(is_own)
}

fn remove_dead(dir: &Path) -> io::Result<()> {
    let lock = File::open(dir.join(LOCK))?;
    lock.try_lock()?;
    // The lock goes last, so that a directory that is left half cleared is found again.
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path())?,
            false if entry.file_name() == LOCK => {}
            false => fs::remove_file(entry.path())?,
        }
    }
    fs::remove_dir_all(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_dead_runs_are_cleared_away() {
        let base = tempfile::tempdir().unwrap();
        let make = || Scratch::make(base.path(), "run-").unwrap();
        let (living, kept, dead) = (make(), make().keep(), make());
        fs::create_dir(dead.path().join("sub")).unwrap();
        fs::write(dead.path().join("sub/file"), "x").unwrap();
        // What SIGKILL does to a run: the directory stays, the lock goes.
        let Scratch { dir, _lock } = dead;
        let (dead, unlocked) = (dir.keep(), _lock);
        drop(unlocked);
        for other in ["other", "run-unlocked"] {
            fs::create_dir(base.path().join(other)).unwrap();
        }
        std::os::unix::fs::symlink(living.path(), base.path().join("run-link")).unwrap();
        sweep(base.path(), "run-");
        assert!(!dead.exists());
        for there in [living.path(), &kept] {
            assert!(there.exists());
        }
        for there in ["other", "run-unlocked", "run-link"] {
            assert!(base.path().join(there).exists(), "{there}");
        }
    }
}
