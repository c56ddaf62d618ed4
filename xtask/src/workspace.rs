//! The workspace this tool belongs to: its root, its source files and how cargo is called in it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use cargo_metadata::{Metadata, MetadataCommand};
use ignore::WalkBuilder;
use xshell::{Cmd, Shell};

/// The checked-out workspace and a shell whose working directory is its root.
pub(crate) struct Workspace {
    root: PathBuf,
    pub(crate) shell: Shell,
}

impl Workspace {
    /// Finds the workspace from what cargo says when it runs this tool, else from where it was built.
    pub(crate) fn locate() -> Result<Self> {
        let manifest = std::env::var("CARGO_MANIFEST_DIR");
        let manifest = manifest.unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
        let root = Path::new(&manifest)
            .parent()
            .ok_or_else(|| anyhow!("xtask lies directly below the workspace's root"))?
            .to_path_buf();
        let shell = Shell::new()?;
        shell.change_dir(&root);
        Ok(Self { root, shell })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The cargo that started this tool, so that a chosen toolchain stays chosen.
    pub(crate) fn cargo(&self) -> Cmd<'_> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        self.shell.cmd(cargo)
    }

    /// Members, targets and dependencies, without resolving the registry.
    pub(crate) fn metadata(&self) -> Result<Metadata> {
        MetadataCommand::new()
            .manifest_path(self.root.join("Cargo.toml"))
            .no_deps()
            .exec()
            .context("cargo metadata failed")
    }

    /// Every file that is not ignored by git, as sorted paths relative to the root.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let walk = WalkBuilder::new(&self.root)
            .hidden(false)
            .require_git(false)
            .filter_entry(|entry| entry.file_name() != ".git")
            .build();
        for entry in walk {
            let entry = entry?;
            if entry.file_type().is_some_and(|kind| kind.is_file()) {
                files.push(entry.path().strip_prefix(&self.root)?.to_path_buf());
            }
        }
        files.sort();
        Ok(files)
    }

    /// A file's text, or `None` when it is not UTF-8 (pictures, archives).
    pub(crate) fn text(&self, file: &Path) -> Result<Option<String>> {
        let bytes = fs::read(self.root.join(file))
            .with_context(|| format!("cannot read {}", file.display()))?;
        Ok(String::from_utf8(bytes).ok())
    }
}
