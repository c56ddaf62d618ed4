//! Choosing what to pack: everything, what a callback says, or what globs match.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::TreeError;

/// What to do with an entry met while packing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Pack it. What stands in a directory is asked about in turn.
    Take,
    /// Leave it out, a directory with all it holds.
    Skip,
    /// Look into a directory, and pack it only if something in it is taken. For a file the same as `Skip`.
    Look,
}

/// Takes everything.
pub fn everything(_path: &Path, _is_dir: bool) -> Choice {
    Choice::Take
}

/// Globs below a directory, as a task names its outputs: `*` stays within a name, `**` crosses directories, a matched
/// directory comes with all it holds. Links are matched, never followed.
#[derive(Debug)]
pub struct Globs {
    patterns: Vec<String>,
    set: GlobSet,
    matched: RefCell<Vec<bool>>,
}

impl Globs {
    /// Reads patterns.
    ///
    /// # Errors
    /// [`TreeError::Pattern`], naming the one that is no glob.
    pub fn new(patterns: &[String]) -> Result<Self, TreeError> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            let pattern = pattern.trim_start_matches("./").trim_end_matches('/');
            set.add(GlobBuilder::new(pattern).literal_separator(true).build()?);
        }
        Ok(Self {
            patterns: patterns.to_vec(),
            set: set.build()?,
            matched: RefCell::new(vec![false; patterns.len()]),
        })
    }

    /// The choice for one entry, to be given to [`pack_selected`](super::pack_selected).
    pub fn choose(&self, path: &Path, is_dir: bool) -> Choice {
        let own = self.set.matches(path);
        for index in &own {
            self.matched.borrow_mut()[*index] = true;
        }
        let within = || {
            path.ancestors()
                .skip(1)
                .any(|parent| self.matches_dir(parent))
        };
        match is_dir {
            _ if !own.is_empty() || within() => Choice::Take,
            true => Choice::Look,
            false => Choice::Skip,
        }
    }

    fn matches_dir(&self, path: &Path) -> bool {
        path.as_os_str() != OsStr::from_bytes(b"") && self.set.is_match(path)
    }

    /// The patterns that matched nothing so far.
    pub fn unmatched(&self) -> Vec<&str> {
        let matched = self.matched.borrow();
        let pairs = self.patterns.iter().zip(matched.iter());
        pairs
            .filter(|(_, hit)| !**hit)
            .map(|(p, _)| p.as_str())
            .collect()
    }
}
