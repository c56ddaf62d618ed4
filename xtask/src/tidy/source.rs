//! The repository's files as the rules see them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::workspace::Workspace;

/// A file of the repository, its path relative to the root.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// `None` for what is not UTF-8: pictures, archives.
    pub(super) text: Option<String>,
}

impl Source {
    pub(super) fn is_rust(&self) -> bool {
        self.path
            .extension()
            .is_some_and(|extension| extension == "rs")
    }

    /// Whether the file belongs to tests as a whole.
    pub(super) fn is_test(&self) -> bool {
        self.path
            .components()
            .any(|part| part.as_os_str() == "tests")
            || self.path.ends_with("tests.rs")
    }

    pub(super) fn named(sources: &[Self], path: &str) -> Option<String> {
        let source = sources
            .iter()
            .find(|source| source.path == Path::new(path))?;
        source.text.clone()
    }
}

pub(super) fn read_all(workspace: &Workspace) -> Result<Vec<Source>> {
    workspace
        .files()?
        .into_iter()
        .map(|path| {
            let bytes = fs::metadata(workspace.root().join(&path))?.len();
            let text = workspace.text(&path)?;
            Ok(Source { path, bytes, text })
        })
        .collect()
}
