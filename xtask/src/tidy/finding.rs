//! What a rule found: where, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing to mend, ordered by file and line.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Finding {
    file: PathBuf,
    line: usize,
    message: String,
}

impl Finding {
    /// A finding at a line counted from one.
    pub(super) fn at(file: &Path, line: usize, message: impl Into<String>) -> Self {
        Self {
            file: file.to_path_buf(),
            line,
            message: message.into(),
        }
    }

    /// A finding about a file as a whole.
    pub(super) fn about(file: &Path, message: impl Into<String>) -> Self {
        Self::at(file, 1, message)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}:{}: {}",
            self.file.display(),
            self.line,
            self.message
        )
    }
}
