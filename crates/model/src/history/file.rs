//! Histories in files: JSON Lines, one observation a line after one line that names the format.
//!
//! A file may come from anywhere and be of any size, so it is read line by line within bounds, and
//! what is wrong is named by its line.

use std::io::{self, BufRead, Read as _, Write};

use serde::{Deserialize, Serialize};

use super::Observation;

/// Longest line read, in bytes: a renewal that lists 4,096 claims takes three quarters of it.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// Most observations read.
pub const OBSERVATIONS_MAX: usize = 4_000_000;

const FORMAT: &str = "mutual history";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: String,
    version: u32,
}

/// Why a file is not a history.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("the history cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Its first line does not name the format in a version that is known.
    #[error(
        "line 1: no history of version {VERSION}; begin the file with {{\"format\":\"{FORMAT}\",\"version\":{VERSION}}}"
    )]
    Header,
    /// A line is longer than [`LINE_BYTES_MAX`].
    #[error("line {line}: longer than {LINE_BYTES_MAX} bytes; split what it lists")]
    Long {
        /// The line, from 1.
        line: usize,
    },
    /// A line is no observation.
    #[error("line {line}: {what}; give one observation as a JSON object a line")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// A call returned before it was made.
    #[error("line {line}: returned lies before called; give both on one clock")]
    Backwards {
        /// The line, from 1.
        line: usize,
    },
    /// There are more than [`OBSERVATIONS_MAX`].
    #[error("more than {OBSERVATIONS_MAX} observations; check the run in parts")]
    Many,
}

/// Writes a history as it happens.
#[derive(Debug)]
pub struct Journal<W: Write> {
    out: W,
}

impl<W: Write> Journal<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// What `out` reports.
    pub fn begin(mut out: W) -> io::Result<Self> {
        let header = Header {
            format: FORMAT.to_owned(),
            version: VERSION,
        };
        write_line(&mut out, &header)?;
        Ok(Self { out })
    }

    /// Adds an observation as one line; it is not flushed.
    ///
    /// # Errors
    /// What the writer reports.
    pub fn note(&mut self, observation: &Observation) -> io::Result<()> {
        write_line(&mut self.out, observation)
    }

    /// Flushes and gives back the writer.
    ///
    /// # Errors
    /// What the writer reports.
    pub fn end(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

fn write_line(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// Reads a whole history. Empty lines are skipped.
///
/// # Errors
/// [`ReadError`] for the first line that is wrong.
pub fn read(mut from: impl BufRead) -> Result<Vec<Observation>, ReadError> {
    let mut history = Vec::new();
    let mut bytes = Vec::new();
    for line in 1.. {
        if !next_line(&mut from, &mut bytes, line)? {
            break;
        }
        if line == 1 {
            check_header(&bytes)?;
        } else if !bytes.trim_ascii().is_empty() {
            history.push(parse(&bytes, line)?);
        }
        if history.len() > OBSERVATIONS_MAX {
            return Err(ReadError::Many);
        }
    }
    Ok(history)
}

/// False at the end of the file.
fn next_line(from: &mut impl BufRead, bytes: &mut Vec<u8>, line: usize) -> Result<bool, ReadError> {
    bytes.clear();
    let most = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut bounded = from.take(most.saturating_add(1));
    bounded.read_until(b'\n', bytes)?;
    if bytes.len() > LINE_BYTES_MAX {
        return Err(ReadError::Long { line });
    }
    match line {
        1 if bytes.is_empty() => Err(ReadError::Header),
        _ => Ok(!bytes.is_empty()),
    }
}

fn check_header(bytes: &[u8]) -> Result<(), ReadError> {
    match serde_json::from_slice(bytes) {
        Ok(Header { format, version }) if format == FORMAT && version == VERSION => Ok(()),
        _ => Err(ReadError::Header),
    }
}

fn parse(bytes: &[u8], line: usize) -> Result<Observation, ReadError> {
    let parsed: Result<Observation, _> = serde_json::from_slice(bytes);
    let observation = parsed.map_err(|error| ReadError::Line {
        line,
        what: error.to_string(),
    })?;
    if observation.returned < observation.called {
        return Err(ReadError::Backwards { line });
    }
    Ok(observation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Deed;
    use crate::time::Timestamp;

    fn slept(called: u64) -> Observation {
        Observation {
            called: Timestamp(called),
            returned: Timestamp(called + 1),
            deed: Deed::Calm { within_ms: 5 },
        }
    }

    fn written(history: &[Observation]) -> Vec<u8> {
        let mut journal = Journal::begin(Vec::new()).unwrap();
        for observation in history {
            journal.note(observation).unwrap();
        }
        journal.end().unwrap()
    }

    #[track_caller]
    fn refuses(text: &str, expected: &str) {
        let error = read(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    const HEAD: &str = r#"{"format":"mutual history","version":1}"#;

    #[test]
    fn what_is_written_is_read() {
        let history = [slept(1), slept(7)];
        let text = written(&history);
        assert_eq!(
            std::str::from_utf8(&text).unwrap().lines().nth(1),
            Some(r#"{"called":1,"returned":2,"deed":{"calm":{"within_ms":5}}}"#)
        );
        assert_eq!(read(&text[..]).unwrap(), history);
        assert_eq!(read(&written(&[])[..]).unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line() {
        refuses("", "line 1: no history of version 1");
        refuses(
            r#"{"format":"mutual history","version":2}"#,
            "line 1: no history",
        );
        refuses(
            &format!("{HEAD}\n\n{{\"called\":1}}\n"),
            "line 3: missing field `returned`",
        );
        let backwards = r#"{"called":2,"returned":1,"deed":"clock_set"}"#;
        refuses(
            &format!("{HEAD}\n{backwards}"),
            "line 2: returned lies before called",
        );
        let long = format!("{HEAD}\n{}", " ".repeat(LINE_BYTES_MAX + 1));
        refuses(&long, "line 2: longer than 1048576 bytes");
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let mut file = format!("{HEAD}\n").into_bytes();
            file.extend_from_slice(bytes);
            if let Ok(history) = read(&file[..]) {
                // Whatever can be read can be judged and written again.
                drop(crate::history::check(&history));
                assert_eq!(read(&written(&history)[..]).unwrap(), history);
            }
        });
    }
}
