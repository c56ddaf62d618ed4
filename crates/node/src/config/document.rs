//! TOML documents written by people, read so that every error points at its place.
//!
//! A type error and an error of meaning (`cpus = 0`) look alike to whoever wrote the file: line,
//! column, field, problem, fix. The TOML parser gives places for the first kind; for the second,
//! [`Document::locate`] finds the place of a named field.

use std::fmt;

use mutual_model::job::FieldError;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Longest document that is read: far more than any configuration or job file needs.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// Where in a text something stands, both from 1. Columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl Place {
    fn at(text: &str, offset: usize) -> Self {
        let before: String = text
            .char_indices()
            .take_while(|(at, _)| *at < offset)
            .map(|(_, c)| c)
            .collect();
        let last_line = before.rsplit('\n').next().unwrap_or_default();
        Self {
            line: before.matches('\n').count() + 1,
            column: last_line.chars().count() + 1,
        }
    }
}

/// What is wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct DocumentError {
    /// Where, if it can be said.
    pub place: Option<Place>,
    /// What, and how to mend it.
    pub error: FieldError,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Place { line, column }) = self.place {
            write!(f, "line {line}, column {column}: ")?;
        }
        self.error.fmt(f)
    }
}

/// A document and the typed value in it.
#[derive(Debug)]
pub struct Document<'text, T> {
    text: &'text str,
    /// The value.
    pub value: T,
}

impl<'text, T: DeserializeOwned> Document<'text, T> {
    /// Reads `text`.
    ///
    /// # Errors
    /// [`DocumentError`] if it is too long, no TOML, or does not have the shape of `T`.
    pub fn parse(text: &'text str) -> Result<Self, DocumentError> {
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(DocumentError {
                place: None,
                error: FieldError::new(
                    "document",
                    format!("{} bytes long", text.len()),
                    format!("keep it within {DOCUMENT_BYTES_MAX} bytes"),
                ),
            });
        }
        match toml::from_str(text) {
            Ok(value) => Ok(Self { text, value }),
            Err(error) => Err(shape_error(text, &error)),
        }
    }

    /// Gives `error` the place of the field it names.
    pub fn locate(&self, error: FieldError) -> DocumentError {
        DocumentError {
            place: find(self.text, &error.field).map(|offset| Place::at(self.text, offset)),
            error,
        }
    }
}

/// Turns the parser's message into field, problem and fix.
fn shape_error(text: &str, error: &toml::de::Error) -> DocumentError {
    let span = error.span();
    let place = span.as_ref().map(|span| Place::at(text, span.start));
    let message = error.message().trim().replace('\n', ", ");
    let quoted = |prefix: &str| {
        let rest = message.split_once(prefix)?.1;
        rest.split_once('`').map(|(name, _)| name.to_owned())
    };
    let field = quoted("unknown field `")
        .or_else(|| quoted("missing field `"))
        .or_else(|| span.and_then(|span| key_before(text, span.start)))
        .unwrap_or_else(|| "document".to_owned());
    let (problem, fix) = match message.split_once(", expected ") {
        Some((problem, expected)) => (problem.to_owned(), format!("expected {expected}")),
        None if message.starts_with("missing field") => (message, format!("add {field} = …")),
        None => match message.split_once("; ") {
            Some((problem, fix)) => (problem.to_owned(), fix.to_owned()),
            None => (message, "correct the value".to_owned()),
        },
    };
    DocumentError {
        place,
        error: FieldError::new(field, problem, fix),
    }
}

/// The key on the line that holds `offset`, if it looks like `key = …`.
fn key_before(text: &str, offset: usize) -> Option<String> {
    let start = text.get(..offset)?.rfind('\n').map_or(0, |at| at + 1);
    let line = text.get(start..)?.lines().next()?;
    let key = line.split_once('=')?.0.trim();
    let is_key = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_alphanumeric() || "_-.".contains(c));
    is_key.then(|| key.to_owned())
}

/// Byte offset of the value at a path such as `network.bootstrap[1]` or `env.NAME`; of its
/// nearest ancestor if the path leads into something absent.
fn find(text: &str, path: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut found = None;
    for step in path.split('.') {
        let (name, index) = split_index(step);
        let value: &Spanned<DeValue<'_>> = table.get(name)?;
        let value = match (index, value.get_ref().as_array()) {
            (Some(index), Some(array)) => array.get(index).unwrap_or(value),
            _ => value,
        };
        found = Some(value.span().start);
        match value.get_ref().as_table() {
            Some(inner) => table = inner,
            None => break,
        }
    }
    found
}

fn split_index(step: &str) -> (&str, Option<usize>) {
    match step.split_once('[') {
        Some((name, rest)) => (name, rest.trim_end_matches(']').parse().ok()),
        None => (step, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[expect(dead_code, reason = "only its shape matters")]
        count: u32,
        #[serde(default)]
        #[expect(dead_code, reason = "only its shape matters")]
        names: Vec<String>,
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(
            Document::<Sample>::parse(text).unwrap_err().to_string(),
            expected
        );
    }

    #[test]
    fn shape_errors_name_place_field_and_fix() {
        check(
            "count = 1\ncolour = 'red'\n",
            "line 2, column 1: colour: unknown field `colour`; expected `count` or `names`",
        );
        check(
            "count = 'x'\n",
            "line 1, column 9: count: invalid type: string \"x\"; expected u32",
        );
        check(
            "names = []\n",
            "line 1, column 1: count: missing field `count`; add count = …",
        );
    }

    #[test]
    fn fields_are_located_by_path() {
        let document = Document::<Sample>::parse("count = 1\nnames = ['a',\n  'b']\n").unwrap();
        let place = |field: &str| document.locate(FieldError::new(field, "", "")).place;
        assert_eq!(place("names[1]"), Some(Place { line: 3, column: 3 }));
        assert_eq!(place("count"), Some(Place { line: 1, column: 9 }));
        assert_eq!(place("absent"), None);
    }

    #[test]
    fn fuzz_documents_never_panic() {
        bolero::check!().with_type::<String>().for_each(|text| {
            if let Ok(document) = Document::<Sample>::parse(text) {
                let _ = document.locate(FieldError::new("names[3].x", "", ""));
            }
        });
    }
}
