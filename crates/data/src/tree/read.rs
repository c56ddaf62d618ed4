//! Reading: the entries of an object, and one file of it without the rest.

use std::io::{self, BufRead, Read};

use super::record::{self, Inspector, Record};
use super::{Entry, Kind, Limits, TreeError, pack};
use crate::address::Cid;
use crate::beneath;
use crate::dag::{DagError, Node, Object};
use crate::seal::{self, Binding, DataKey};
use crate::section::SectionReader;
use crate::store::BlockStore;

/// A sealed tree opened with its key. Cheap: nothing but the manifest is read until asked for.
#[derive(Debug)]
pub struct Tree<'a> {
    pub(super) store: &'a BlockStore,
    key: DataKey,
    object: Box<Object>,
}

impl<'a> Tree<'a> {
    /// Opens the object below `root`, whose blocks are in `store`.
    ///
    /// # Errors
    /// [`TreeError::Seal`] for a wrong key, [`TreeError::Dag`] if the root is no object, [`TreeError::Store`] if it
    /// is not here.
    pub fn open(store: &'a BlockStore, root: &Cid, key: &DataKey) -> Result<Self, TreeError> {
        let object = match Node::decode(&store.get(root)?)? {
            Node::Object(object) => object,
            other => {
                return Err(TreeError::Dag(DagError::Kind {
                    expected: "a sealed object",
                    found: other.kind(),
                }));
            }
        };
        seal::check_commitment(key, &binding(&object), &object.commitment)?;
        Ok(Self {
            store,
            key: key.clone(),
            object,
        })
    }

    /// The namespace that owns it.
    pub fn namespace(&self) -> &str {
        &self.object.namespace
    }

    /// The entries in order, each checked; ends with an error if the index is not whole.
    pub fn entries(&self, limits: Limits) -> Entries<'_> {
        let (index, _) = self.seals();
        Entries {
            reader: SectionReader::new(
                self.store,
                index,
                &self.object.index,
                self.object.chunk_bytes,
            ),
            inspector: Inspector::new(limits),
            data: self.object.data.root.cid,
            data_bytes: self.object.data.root.payload,
            done: false,
        }
    }

    /// Reads one file. Of the data only the chunks it lies in are opened.
    ///
    /// # Errors
    /// [`TreeError::NoSuchFile`]; as [`Tree::entries`].
    pub fn file(
        &self,
        path: impl AsRef<[u8]>,
        limits: Limits,
    ) -> Result<FileReader<'_>, TreeError> {
        let path = path.as_ref();
        for entry in self.entries(limits) {
            let entry = entry?;
            if let Kind::File { offset, bytes } = entry.kind
                && entry.path == path
            {
                return self.contents(offset, bytes);
            }
        }
        Err(TreeError::NoSuchFile(beneath::display(path)))
    }

    fn contents(&self, offset: u64, bytes: u64) -> Result<FileReader<'_>, TreeError> {
        let mut data = self.data();
        data.seek(offset)?;
        Ok(FileReader { data, left: bytes })
    }

    /// A reader over the contents of all files.
    pub(super) fn data(&self) -> SectionReader<'_> {
        let (_, data) = self.seals();
        SectionReader::new(self.store, data, &self.object.data, self.object.chunk_bytes)
    }

    fn seals(&self) -> (seal::ChunkSeal, seal::ChunkSeal) {
        let object = &self.object;
        pack::seals(&self.key, &binding(object), object.mode, object.prefix)
    }
}

fn binding(object: &Object) -> Binding {
    Binding {
        namespace: object.namespace.clone(),
        object: object.object,
        chunk_bytes: object.chunk_bytes,
    }
}

/// The entries of a tree, one by one.
#[derive(Debug)]
pub struct Entries<'a> {
    reader: SectionReader<'a>,
    inspector: Inspector,
    data: Cid,
    data_bytes: u64,
    done: bool,
}

impl Entries<'_> {
    fn advance(&mut self) -> Result<Option<Entry>, TreeError> {
        let damaged = |what: &str| Err(TreeError::Index(what.to_owned()));
        match record::read(&mut self.reader)? {
            None => damaged("it has no end"),
            Some(Record::Entry(entry)) => {
                self.inspector.inspect(&entry)?;
                self.check_place(&entry)?;
                Ok(Some(entry))
            }
            Some(Record::End { entries, data }) => {
                if entries != self.inspector.entries || data != self.data {
                    return damaged("its end is that of another object");
                }
                if record::read(&mut self.reader)?.is_some() {
                    return damaged("something follows its end");
                }
                Ok(None)
            }
        }
    }

    fn check_place(&self, entry: &Entry) -> Result<(), TreeError> {
        match entry.kind {
            Kind::File { offset, bytes } if offset + bytes > self.data_bytes => {
                Err(TreeError::Index(format!(
                    "{} lies beyond the data",
                    beneath::display(&entry.path)
                )))
            }
            _ => Ok(()),
        }
    }

    /// How much was seen so far: entries, and bytes of files.
    pub fn seen(&self) -> (u64, u64) {
        (self.inspector.entries, self.inspector.bytes)
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.advance().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

/// The contents of one file.
#[derive(Debug)]
pub struct FileReader<'a> {
    data: SectionReader<'a>,
    left: u64,
}

impl Read for FileReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.data.fill_buf()?;
        let length = out
            .len()
            .min(available.len())
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        out[..length].copy_from_slice(&available[..length]);
        self.data.consume(length);
        self.left -= length as u64;
        Ok(length)
    }
}
