//! The index section's contents: length-prefixed DAG-CBOR records, entries first, one end mark last.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use super::{Entry, Kind, Limits, MODE_MASK, TreeError};
use crate::address::Cid;
use crate::beneath;
use crate::section::{SectionError, SectionWriter};

/// Longest path and longest link target, in bytes (Linux's `PATH_MAX`).
pub(super) const PATH_BYTES_MAX: usize = 4096;

/// Longest record: two paths and the fields around them.
const RECORD_BYTES_MAX: usize = 2 * PATH_BYTES_MAX + 256;

/// What stands in the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Record {
    Entry(Entry),
    /// The last record: binds the number of entries and the data section.
    End {
        entries: u64,
        data: Cid,
    },
}

pub(super) fn write(writer: &mut SectionWriter<'_>, record: &Record) -> Result<(), SectionError> {
    let bytes =
        serde_ipld_dagcbor::to_vec(record).expect("records hold only types DAG-CBOR can write");
    let length = u32::try_from(bytes.len()).expect("paths are bounded before they are written");
    writer.write(&length.to_be_bytes())?;
    writer.write(&bytes)
}

/// Reads the next record; `None` at the end of the stream.
pub(super) fn read(reader: &mut impl Read) -> Result<Option<Record>, TreeError> {
    let mut length = [0; 4];
    if !fill_or_end(reader, &mut length)? {
        return Ok(None);
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > RECORD_BYTES_MAX {
        return Err(TreeError::Index(format!("a record of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    reader
        .read_exact(&mut bytes)
        .map_err(TreeError::at(b"index"))?;
    serde_ipld_dagcbor::from_slice(&bytes)
        .map(Some)
        .map_err(|e| TreeError::Index(e.to_string()))
}

/// Fills the buffer; false if the stream ended before its first byte.
fn fill_or_end(reader: &mut impl Read, buffer: &mut [u8]) -> Result<bool, TreeError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(TreeError::Index("it ends within a record".into())),
            Ok(more) => filled += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(TreeError::at(b"index")(error)),
        }
    }
    Ok(true)
}

/// Judges a sequence of entries as they come: names, order, parents, and how much there is.
#[derive(Debug)]
pub(super) struct Inspector {
    limits: Limits,
    last: Option<Vec<u8>>,
    /// The directories that may still get children: the path to the last entry.
    open: Vec<Vec<u8>>,
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

impl Inspector {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            last: None,
            open: Vec::new(),
            entries: 0,
            bytes: 0,
        }
    }

    /// Accepts the next entry or says why not.
    pub(super) fn inspect(&mut self, entry: &Entry) -> Result<(), TreeError> {
        check_path(&entry.path, self.limits.depth)?;
        check_kind(entry)?;
        self.check_order(&entry.path)?;
        self.check_parent(entry)?;
        self.count(&entry.kind)
    }

    fn check_order(&mut self, path: &[u8]) -> Result<(), TreeError> {
        let follows = self
            .last
            .as_deref()
            .is_none_or(|last| names(last).lt(names(path)));
        if !follows {
            return Err(misplaced(path, "it repeats or is out of order"));
        }
        self.last = Some(path.to_vec());
        Ok(())
    }

    fn check_parent(&mut self, entry: &Entry) -> Result<(), TreeError> {
        let parent = parent(&entry.path);
        while self.open.last().is_some_and(|open| parent != Some(open)) {
            self.open.pop();
        }
        if parent.is_some() && self.open.is_empty() {
            return Err(misplaced(
                &entry.path,
                "what it stands in is no directory of this object",
            ));
        }
        if entry.kind == Kind::Directory {
            self.open.push(entry.path.clone());
        }
        Ok(())
    }

    fn count(&mut self, kind: &Kind) -> Result<(), TreeError> {
        self.entries += 1;
        if let Kind::File { bytes, .. } = kind {
            self.bytes = self.bytes.saturating_add(*bytes);
        }
        let too_large = |what, max| Err(TreeError::TooLarge { what, max });
        match self.limits {
            Limits { entries, .. } if self.entries > entries => too_large("entries", entries),
            Limits { bytes, .. } if self.bytes > bytes => too_large("bytes", bytes),
            _ => Ok(()),
        }
    }
}

fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
}

/// The path without its last name; `None` at the top.
pub(super) fn parent(path: &[u8]) -> Option<&[u8]> {
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    Some(&path[..slash])
}

/// The last name of a path.
pub(super) fn last_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

fn check_path(path: &[u8], depth_max: usize) -> Result<(), TreeError> {
    let refuse = |why| {
        Err(TreeError::UnsafeName {
            path: beneath::display(path),
            why,
        })
    };
    if path.len() > PATH_BYTES_MAX {
        return refuse("the path is longer than 4096 bytes");
    }
    if !names(path).all(beneath::is_plain_name) {
        return refuse("a name must not be empty, absolute, '.' or '..', or longer than 255 bytes");
    }
    if names(path).count() > depth_max {
        return refuse("it lies deeper than the limit set for this tree");
    }
    Ok(())
}

fn check_kind(entry: &Entry) -> Result<(), TreeError> {
    if entry.mode & !MODE_MASK != 0 {
        return Err(misplaced(
            &entry.path,
            "its mode has more than permission bits",
        ));
    }
    match &entry.kind {
        Kind::Symlink { target }
            if target.is_empty() || target.len() > PATH_BYTES_MAX || target.contains(&0) =>
        {
            Err(misplaced(
                &entry.path,
                "its link target is empty, too long or has a NUL",
            ))
        }
        Kind::File { offset, bytes } if offset.checked_add(*bytes).is_none() => {
            Err(misplaced(&entry.path, "its size is absurd"))
        }
        _ => Ok(()),
    }
}

fn misplaced(path: &[u8], why: &'static str) -> TreeError {
    TreeError::Misplaced {
        path: beneath::display(path),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: Kind) -> Entry {
        Entry {
            path: path.into(),
            mode: 0o644,
            kind,
        }
    }

    fn file(path: &str) -> Entry {
        entry(
            path,
            Kind::File {
                offset: 0,
                bytes: 10,
            },
        )
    }

    fn judge(entries: &[Entry]) -> Result<(), TreeError> {
        let limits = Limits {
            entries: 4,
            bytes: 25,
            depth: 3,
        };
        let mut inspector = Inspector::new(limits);
        entries
            .iter()
            .try_for_each(|entry| inspector.inspect(entry))
    }

    fn dir(path: &str) -> Entry {
        entry(path, Kind::Directory)
    }

    #[test]
    fn a_sorted_tree_is_accepted() {
        judge(&[dir("a"), file("a/b"), dir("a!"), file("b")]).unwrap();
    }

    #[test]
    fn names_that_escape_are_refused() {
        for path in ["", "/etc/passwd", "..", "a/../b", ".", "a//b", "a/", "a\0b"] {
            assert!(
                matches!(judge(&[file(path)]), Err(TreeError::UnsafeName { .. })),
                "{path:?}"
            );
        }
        let deep = [dir("a"), dir("a/b"), dir("a/b/c"), file("a/b/c/d")];
        assert!(matches!(judge(&deep), Err(TreeError::UnsafeName { .. })));
    }

    #[test]
    fn duplicates_orphans_and_children_of_links_are_refused() {
        let link = entry(
            "a",
            Kind::Symlink {
                target: b"/tmp".to_vec(),
            },
        );
        for entries in [
            vec![file("a"), file("a")],
            vec![dir("a"), dir("a")],
            vec![file("b"), file("a")],
            vec![file("a/b")],
            vec![link, file("a/b")],
            vec![file("a"), file("a/b")],
            vec![dir("a"), dir("b"), file("c/d")],
        ] {
            assert!(
                matches!(judge(&entries), Err(TreeError::Misplaced { .. })),
                "{entries:?}"
            );
        }
    }

    #[test]
    fn bombs_are_refused() {
        let files = ["a", "b", "c"].map(file);
        assert!(matches!(
            judge(&files),
            Err(TreeError::TooLarge {
                what: "bytes",
                max: 25
            })
        ));
        let dirs = ["a", "b", "c", "d", "e"].map(dir);
        assert!(matches!(
            judge(&dirs),
            Err(TreeError::TooLarge {
                what: "entries",
                max: 4
            })
        ));
        let absurd = entry(
            "a",
            Kind::File {
                offset: 2,
                bytes: u64::MAX,
            },
        );
        assert!(judge(&[absurd]).is_err());
    }

    #[test]
    fn set_id_bits_and_bad_links_are_refused() {
        let mut set_id = file("a");
        set_id.mode = 0o4755;
        let empty = entry("a", Kind::Symlink { target: vec![] });
        for entry in [set_id, empty] {
            assert!(matches!(judge(&[entry]), Err(TreeError::Misplaced { .. })));
        }
    }

    #[test]
    fn fuzz_tree_index() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let mut reader = bytes;
            let mut inspector = Inspector::new(Limits::default());
            while let Ok(Some(record)) = read(&mut reader) {
                if let Record::Entry(entry) = record {
                    let _ = inspector.inspect(&entry);
                }
            }
        });
    }
}
