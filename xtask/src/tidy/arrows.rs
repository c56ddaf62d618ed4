//! Which crate may know of which: the arrows of `ARCHITECTURE.md`, held against cargo's own metadata.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use cargo_metadata::{Dependency, DependencyKind, Metadata, Package};

use super::finding::Finding;
use super::source::Source;
use crate::workspace::Workspace;

/// What every package of the workspace but `xtask` starts with.
const PREFIX: &str = "mutual-";

/// A crate, the crates it may use, and the outside crates it must know nothing of.
struct Place {
    name: &'static str,
    may_use: &'static [&'static str],
    knows_nothing_of: &'static [&'static str],
}

const TERMINAL: [&str; 4] = ["clap", "comfy-table", "indicatif", "ratatui"];

const PLACES: [Place; 8] = [
    Place {
        name: "stage",
        may_use: &[],
        knows_nothing_of: &["tokio", "async-trait", "rand", "anyhow"],
    },
    Place {
        name: "model",
        may_use: &[],
        knows_nothing_of: &[
            "tokio",
            "async-trait",
            "futures",
            "libp2p",
            "reqwest",
            "axum",
            "getrandom",
            "tempfile",
            "anyhow",
        ],
    },
    Place {
        name: "data",
        may_use: &["model"],
        knows_nothing_of: &[
            "rusqlite",
            "tokio-postgres",
            "axum",
            "reqwest",
            "libp2p",
            "anyhow",
        ],
    },
    Place {
        name: "demand",
        may_use: &["model"],
        knows_nothing_of: &["libp2p", "libcontainer", "oci-spec", "oci-client", "anyhow"],
    },
    Place {
        name: "node",
        may_use: &["data", "demand", "stage", "model"],
        knows_nothing_of: &TERMINAL,
    },
    Place {
        name: "sim",
        may_use: &["model", "stage", "demand"],
        knows_nothing_of: &[
            "libp2p",
            "reqwest",
            "axum",
            "tokio-postgres",
            "libcontainer",
        ],
    },
    Place {
        name: "cli",
        may_use: &["node", "sim", "stage"],
        knows_nothing_of: &["rusqlite", "tokio-postgres", "libp2p", "libcontainer"],
    },
    Place {
        name: "xtask",
        may_use: &[],
        knows_nothing_of: &[],
    },
];

pub(super) fn check(workspace: &Workspace, _: &[Source]) -> Result<Vec<Finding>> {
    let metadata = workspace.metadata()?;
    Ok(findings(workspace.root(), &metadata))
}

fn findings(root: &Path, metadata: &Metadata) -> Vec<Finding> {
    metadata
        .workspace_packages()
        .into_iter()
        .flat_map(|package| package_findings(root, package))
        .collect()
}

fn package_findings(root: &Path, package: &Package) -> Vec<Finding> {
    let manifest = package.manifest_path.as_std_path();
    let manifest = manifest.strip_prefix(root).unwrap_or(manifest);
    let name = short(&package.name);
    let Some(place) = PLACES.iter().find(|place| place.name == name) else {
        return vec![Finding::about(
            manifest,
            format!("crate {name} has no place in the arrows of xtask/src/tidy/arrows.rs"),
        )];
    };
    package
        .dependencies
        .iter()
        .filter_map(|dependency| objection(place, dependency))
        .map(|message| Finding::about(manifest, message))
        .collect()
}

fn objection(place: &Place, dependency: &Dependency) -> Option<String> {
    let for_tests = dependency.kind == DependencyKind::Development;
    if dependency.path.is_none() {
        let banned = !for_tests && place.knows_nothing_of.contains(&dependency.name.as_str());
        return banned.then(|| format!("{} must know nothing of {}", place.name, dependency.name));
    }
    let target = short(&dependency.name);
    let allowed = if for_tests {
        reachable(place.name).contains(target)
    } else {
        place.may_use.contains(&target)
    };
    (!allowed).then(|| format!("no arrow leads from {} to {target}", place.name))
}

/// Tests may look at everything below their crate, but never upwards.
fn reachable(name: &str) -> BTreeSet<&'static str> {
    let mut seen = BTreeSet::new();
    let mut open = vec![name];
    while let Some(name) = open.pop() {
        let place = PLACES.iter().find(|place| place.name == name);
        for next in place.into_iter().flat_map(|place| place.may_use) {
            if seen.insert(*next) {
                open.push(next);
            }
        }
    }
    seen
}

fn short(package: &str) -> &str {
    package.strip_prefix(PREFIX).unwrap_or(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arrows_have_no_circle() {
        for place in &PLACES {
            assert!(
                !reachable(place.name).contains(place.name),
                "{}",
                place.name
            );
        }
    }

    #[test]
    fn tests_reach_through_but_never_up() {
        assert!(reachable("cli").contains("model"));
        assert!(!reachable("model").contains("node"));
        assert!(reachable("stage").is_empty());
    }
}
