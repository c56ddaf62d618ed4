//! What the tasks read: a directory's files without what its `.gitignore` leaves out.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;
use mutual_node::data::tree::Choice;

use crate::failure::{Failure, Outcome};

/// Marks directories that can be made anew and that nobody copies
/// (<https://bford.info/cachedir/>); `target` has one.
const CACHE_MARK: &str = "CACHEDIR.TAG";

/// A directory and the files in it that count.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) root: PathBuf,
    /// Paths of regular files below the root.
    pub(super) files: BTreeSet<PathBuf>,
    dirs: BTreeSet<PathBuf>,
    pub(super) bytes: u64,
}

impl Input {
    /// Looks through `named`, or this source tree, or the current directory.
    pub(super) fn collect(named: Option<&Path>) -> Outcome<Self> {
        let root = match named {
            Some(path) => path.to_owned(),
            None => source_tree()?,
        };
        if !root.is_dir() {
            return Err(Failure::user(format!("{} is no directory", root.display()))
                .hint("name one with --input"));
        }
        let mut input = Self {
            root,
            files: BTreeSet::new(),
            dirs: BTreeSet::new(),
            bytes: 0,
        };
        for entry in input.walk() {
            let entry = entry.map_err(Failure::user)?;
            input.add(&entry)?;
        }
        match input.files.is_empty() {
            true => Err(
                Failure::user(format!("no files in {}", input.root.display()))
                    .hint("name a directory with files with --input"),
            ),
            false => Ok(input),
        }
    }

    fn walk(&self) -> ignore::Walk {
        WalkBuilder::new(&self.root)
            .hidden(false)
            .require_git(false)
            .filter_entry(|entry| {
                entry.file_name() != ".git" && !entry.path().join(CACHE_MARK).exists()
            })
            .build()
    }

    fn add(&mut self, entry: &ignore::DirEntry) -> Outcome {
        let is_file = entry.file_type().is_some_and(|kind| kind.is_file());
        if !is_file {
            return Ok(());
        }
        let path = entry
            .path()
            .strip_prefix(&self.root)
            .map_err(Failure::internal)?;
        self.bytes += entry.metadata().map_or(0, |metadata| metadata.len());
        let above = path
            .ancestors()
            .skip(1)
            .filter(|dir| !dir.as_os_str().is_empty());
        self.dirs.extend(above.map(Path::to_owned));
        self.files.insert(path.to_owned());
        Ok(())
    }

    /// Which entries are packed.
    pub(super) fn choose(&self, path: &Path, is_dir: bool) -> Choice {
        let known = if is_dir { &self.dirs } else { &self.files };
        match known.contains(path) {
            true => Choice::Take,
            false => Choice::Skip,
        }
    }

    /// The files in the order in which `find . | LC_ALL=C sort` gives them, written `./PATH`.
    pub(super) fn sorted(&self) -> Vec<OsString> {
        let mut names: Vec<_> = self
            .files
            .iter()
            .map(|path| Path::new(".").join(path).into_os_string())
            .collect();
        names.sort_by(|a, b| a.as_encoded_bytes().cmp(b.as_encoded_bytes()));
        names
    }
}

/// The nearest directory upwards whose `Cargo.toml` declares a workspace, else the current one.
fn source_tree() -> Outcome<PathBuf> {
    let current = std::env::current_dir().map_err(Failure::user)?;
    let is_workspace = |dir: &&Path| {
        std::fs::read_to_string(dir.join("Cargo.toml"))
            .is_ok_and(|text| text.lines().any(|line| line.trim() == "[workspace]"))
    };
    Ok(current
        .ancestors()
        .find(is_workspace)
        .unwrap_or(&current)
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn ignored_and_cached_files_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for (path, text) in [
            (".gitignore", "*.tmp\n"),
            ("a/b.txt", "x"),
            ("a.txt", "x"),
            ("x.tmp", "x"),
            (".git/config", "x"),
            ("target/CACHEDIR.TAG", "x"),
            ("target/big", "x"),
        ] {
            write(path, text);
        }
        let input = Input::collect(Some(dir.path())).unwrap();
        let names: Vec<_> = input
            .sorted()
            .into_iter()
            .map(|name| name.into_string().unwrap())
            .collect();
        assert_eq!(names, ["./.gitignore", "./a.txt", "./a/b.txt"]);
        assert_eq!(input.choose(Path::new("a"), true), Choice::Take);
        assert_eq!(input.choose(Path::new("target"), true), Choice::Skip);
        assert_eq!(input.choose(Path::new("x.tmp"), false), Choice::Skip);
    }
}
