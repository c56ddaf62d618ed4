//! What the documents promise is there: the commands they show and the files they link to.

use std::path::{Component, Path, PathBuf};

use anyhow::Result;

use super::finding::Finding;
use super::source::Source;
use crate::workspace::Workspace;

/// Where each command of the `mutual` program has a file of its own.
const COMMAND_FILES: &str = "crates/cli/src";

pub(super) fn check(_: &Workspace, sources: &[Source]) -> Result<Vec<Finding>> {
    let documents = sources.iter().filter(|source| is_markdown(source));
    Ok(documents
        .flat_map(|document| of_document(document, sources))
        .collect())
}

fn is_markdown(source: &Source) -> bool {
    source
        .path
        .extension()
        .is_some_and(|extension| extension == "md")
}

fn of_document(document: &Source, sources: &[Source]) -> Vec<Finding> {
    let text = document.text.as_deref().unwrap_or_default();
    let mut findings = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            continue;
        }
        let missing = if in_code {
            missing_command(line, sources)
        } else {
            missing_link(&document.path, line, sources)
        };
        findings.extend(missing.map(|message| Finding::at(&document.path, index + 1, message)));
    }
    findings
}

/// A shown command that does not exist, in one line of a code block.
fn missing_command(line: &str, sources: &[Source]) -> Option<String> {
    let line = line.trim_start().trim_start_matches("$ ");
    let words: Vec<_> = line.split_whitespace().collect();
    match words.as_slice() {
        ["cargo", "xtask", name, ..] => {
            let known = crate::command_names().iter().any(|command| command == name);
            (!known).then(|| format!("cargo xtask has no command {name}"))
        }
        ["cargo", "run", "--release", "--", name, ..] | ["mutual", name, ..] => {
            let known = name.starts_with(['-', '<']) || has_command_file(name, sources);
            (!known).then(|| format!("mutual has no command {name}"))
        }
        ["cargo", "run", .., "--example", name] => {
            let known = has_example(name, sources);
            (!known).then(|| format!("there is no example {name}"))
        }
        _ => None,
    }
}

fn has_command_file(name: &str, sources: &[Source]) -> bool {
    let stem = name.replace('-', "_");
    sources.iter().any(|source| {
        source.is_rust()
            && source.path.starts_with(COMMAND_FILES)
            && source
                .path
                .file_stem()
                .is_some_and(|file| file == stem.as_str())
    })
}

fn has_example(name: &str, sources: &[Source]) -> bool {
    let file = Path::new("examples").join(name).with_extension("rs");
    sources.iter().any(|source| source.path.ends_with(&file))
}

/// A link to a file of the repository that is not there.
fn missing_link(document: &Path, line: &str, sources: &[Source]) -> Option<String> {
    let targets = line
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let images = line
        .split("src=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    let mut local = targets
        .chain(images)
        .filter(|target| !target.contains("://") && !target.starts_with(['#', '<']));
    local
        .find(|target| !exists(document, target, sources))
        .map(|target| format!("the link to {target} leads nowhere"))
}

fn exists(document: &Path, target: &str, sources: &[Source]) -> bool {
    let file = target.split('#').next().unwrap_or(target);
    let folder = document.parent().unwrap_or(Path::new(""));
    let wanted = normal(&folder.join(file));
    sources
        .iter()
        .any(|source| source.path == wanted || source.path.starts_with(&wanted))
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::Normal(name) => plain.push(name),
            _ => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source {
            path: path.into(),
            bytes: text.len() as u64,
            text: Some(text.into()),
        }
    }

    #[track_caller]
    fn check(line: &str, expected: usize) {
        let sources = [
            source("crates/cli/src/commands/demo.rs", ""),
            source("crates/stage/examples/plan.rs", ""),
            source("docs/picture.svg", ""),
        ];
        let text = if line.contains("](") {
            line.to_owned()
        } else {
            format!("```sh\n{line}\n```\n")
        };
        assert_eq!(
            of_document(&source("README.md", &text), &sources).len(),
            expected,
            "{line}"
        );
    }

    #[test]
    fn shown_commands_exist() {
        check("cargo xtask test", 0);
        check("$ cargo xtask teleport", 1);
        check("cargo run --release -- demo", 0);
        check("mutual demo --input DIR", 0);
        check("mutual teleport", 1);
        check("mutual --help", 0);
        check("cargo run --package mutual-stage --example plan", 0);
        check("cargo run --package mutual-stage --example nothing", 1);
    }

    #[test]
    fn links_lead_somewhere() {
        check("see [the picture](docs/picture.svg)", 0);
        check("see [the folder](docs)", 0);
        check("see [the picture](./docs/../docs/picture.svg#top)", 0);
        check("see [nothing](docs/nothing.svg)", 1);
        check("see [the web](https://example.org) and [above](#top)", 0);
    }
}
