//! `cargo xtask tidy`: the rules of this repository that neither rustc nor clippy knows.
//!
//! Each rule is one small file below this module and returns findings; nothing is printed before all have run.
//! To add a rule: write its file, name it in [`RULES`], and say in `CONTRIBUTING.md` what it asks for.

mod arrows;
mod changelog;
mod finding;
mod readme;
mod source;
mod syntax;
mod targets;
mod text;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use finding::Finding;
use source::Source;

#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// A file of words, one a line, that must not occur anywhere in the repository
    #[arg(long, value_name = "FILE")]
    forbid_words: Option<PathBuf>,
}

type Rule = fn(&Workspace, &[Source]) -> Result<Vec<Finding>>;

const RULES: [Rule; 6] = [
    arrows::check,
    targets::check,
    text::check,
    syntax::check,
    readme::check,
    changelog::check,
];

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let sources = source::read_all(workspace)?;
    let mut findings = Vec::new();
    for rule in RULES {
        findings.extend(rule(workspace, &sources)?);
    }
    if let Some(path) = &args.forbid_words {
        let words = fs::read_to_string(path)
            .with_context(|| format!("cannot read the words in {}", path.display()))?;
        findings.extend(text::forbidden(&sources, &words));
    }
    if findings.is_empty() {
        println!("tidy: {} files, nothing to mend", sources.len());
        return Ok(());
    }
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    bail!("tidy: {} to mend", findings.len());
}
