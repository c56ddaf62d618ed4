//! Rules about a file's plain text: its size, its length, its white space and its words.

use anyhow::Result;

use super::finding::Finding;
use super::source::Source;
use crate::workspace::Workspace;

/// Beyond this a file belongs somewhere else than in version control.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// A source file that cannot be read in one sitting holds more than one idea.
const SOURCE_LINES_MAX: usize = 1_000;
/// Marks of unfinished work. They are split here so that this file does not accuse itself.
const UNFINISHED: [&str; 3] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
];

pub(super) fn check(_: &Workspace, sources: &[Source]) -> Result<Vec<Finding>> {
    Ok(sources.iter().flat_map(of_file).collect())
}

fn of_file(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if source.bytes > FILE_BYTES_MAX {
        let message = format!("{} bytes: keep files under 1 MiB", source.bytes);
        findings.push(Finding::about(&source.path, message));
    }
    let Some(text) = &source.text else {
        return findings;
    };
    let lines = text.lines().count();
    if source.is_rust() && lines > SOURCE_LINES_MAX {
        let message = format!("{lines} lines: split it by idea ({SOURCE_LINES_MAX} at most)");
        findings.push(Finding::about(&source.path, message));
    }
    if !is_generated(source) {
        findings.extend(of_lines(source, text));
    }
    findings
}

/// Lock files, licence texts and snapshots are not written by us.
fn is_generated(source: &Source) -> bool {
    let name = source
        .path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    name.starts_with("LICENSE") || name.ends_with(".lock") || name.ends_with(".snap")
}

fn of_lines(source: &Source, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.ends_with([' ', '\t']) {
            findings.push(Finding::at(
                &source.path,
                index + 1,
                "white space at the end of the line",
            ));
        }
        if UNFINISHED.iter().any(|mark| has_word(line, mark)) {
            let message = "finish it, or say in the issue that it is open";
            findings.push(Finding::at(&source.path, index + 1, message));
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        findings.push(Finding::about(&source.path, "the last line has no end"));
    }
    findings
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        let inside =
            |neighbour: Option<char>| neighbour.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !inside(before) && !inside(after)
    })
}

/// Words that a caller wants to see nowhere, ignoring case; empty lines and `#` comments do not count.
pub(super) fn forbidden(sources: &[Source], words: &str) -> Vec<Finding> {
    let words: Vec<_> = words
        .lines()
        .map(|line| line.trim().to_lowercase())
        .filter(|word| !word.is_empty() && !word.starts_with('#'))
        .collect();
    let mut findings = Vec::new();
    for source in sources {
        for (index, line) in source.text.iter().flat_map(|text| text.lines()).enumerate() {
            let line = line.to_lowercase();
            if let Some(word) = words.iter().find(|word| line.contains(word.as_str())) {
                findings.push(Finding::at(
                    &source.path,
                    index + 1,
                    format!("forbidden word «{word}»"),
                ));
            }
        }
    }
    findings
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

    #[test]
    fn white_space_and_missing_ends_are_seen() {
        assert_eq!(of_file(&source("a.rs", "fine\n")).len(), 0);
        assert_eq!(of_file(&source("a.rs", "trailing \n")).len(), 1);
        assert_eq!(of_file(&source("a.rs", "no end")).len(), 1);
        assert_eq!(of_file(&source("Cargo.lock", "trailing \n")).len(), 0);
    }

    #[test]
    fn unfinished_work_is_a_word_of_its_own() {
        let mark = UNFINISHED[0];
        assert_eq!(
            of_file(&source("a.md", &format!("{mark}: write\n"))).len(),
            1
        );
        assert_eq!(of_file(&source("a.md", &format!("MAS{mark}NS\n"))).len(), 0);
    }

    #[test]
    fn long_sources_are_seen_and_long_data_is_not() {
        let text = "x\n".repeat(SOURCE_LINES_MAX + 1);
        assert_eq!(of_file(&source("a.rs", &text)).len(), 1);
        assert_eq!(of_file(&source("a.csv", &text)).len(), 0);
    }

    #[test]
    fn forbidden_words_ignore_case_and_comments() {
        let sources = [source("a.md", "one\nTwo words\n")];
        assert_eq!(forbidden(&sources, "# two\n\n").len(), 0);
        assert_eq!(forbidden(&sources, "two").len(), 1);
    }
}
