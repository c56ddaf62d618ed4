//! The change log has a place for what comes next.

use std::path::Path;

use anyhow::Result;

use super::finding::Finding;
use super::source::Source;
use crate::workspace::Workspace;

const CHANGELOG: &str = "CHANGELOG.md";
const NEXT: &str = "## Unreleased";

pub(super) fn check(_: &Workspace, sources: &[Source]) -> Result<Vec<Finding>> {
    let text = Source::named(sources, CHANGELOG).unwrap_or_default();
    if text.lines().any(|line| line.trim() == NEXT) {
        return Ok(Vec::new());
    }
    let message = format!("add a section `{NEXT}`");
    Ok(vec![Finding::about(Path::new(CHANGELOG), message)])
}
