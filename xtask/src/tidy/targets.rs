//! Every crate shares the workspace's lints and links its integration tests once.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::{Package, TargetKind};

use super::finding::Finding;
use super::source::Source;
use crate::workspace::Workspace;

pub(super) fn check(workspace: &Workspace, _: &[Source]) -> Result<Vec<Finding>> {
    let metadata = workspace.metadata()?;
    let mut findings = Vec::new();
    for package in metadata.workspace_packages() {
        let absolute = package.manifest_path.as_std_path();
        let manifest = absolute.strip_prefix(workspace.root()).unwrap_or(absolute);
        let text = fs::read_to_string(absolute)?;
        if !shares_lints(&text).with_context(|| manifest.display().to_string())? {
            let message = "add `[lints] workspace = true`: the lints are the same everywhere";
            findings.push(Finding::about(manifest, message));
        }
        findings.extend(too_many_test_binaries(manifest, package));
    }
    Ok(findings)
}

fn shares_lints(manifest: &str) -> Result<bool> {
    let table: toml::Table = toml::from_str(manifest)?;
    let workspace = table.get("lints").and_then(|lints| lints.get("workspace"));
    Ok(workspace.and_then(toml::Value::as_bool) == Some(true))
}

/// Each integration-test binary links the whole crate again: one with modules is enough.
fn too_many_test_binaries(manifest: &Path, package: &Package) -> Option<Finding> {
    let binaries: Vec<_> = package
        .targets
        .iter()
        .filter(|target| target.kind.contains(&TargetKind::Test))
        .map(|target| target.name.as_str())
        .collect();
    (binaries.len() > 1).then(|| {
        let names = binaries.join(", ");
        let message = format!("make the test binaries {names} modules of one `tests/runner.rs`");
        Finding::about(manifest, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lints_count_only_when_they_are_the_workspace_s() {
        assert!(shares_lints("[lints]\nworkspace = true\n").unwrap());
        assert!(!shares_lints("[lints.rust]\nunsafe_code = \"deny\"\n").unwrap());
        assert!(!shares_lints("[package]\nname = \"a\"\n").unwrap());
    }
}
