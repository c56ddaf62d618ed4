//! A stream of bytes as a chain of chunks below one link, written and read in bounded memory.
//!
//! A writer holds one chunk and at most [`LINKS_MAX`] links per level; a reader one chunk and
//! one index node per level. Chunks have a fixed size, except in deduplicating sections, where cuts follow the content
//! (FastCDC: Xia et al., USENIX ATC 2016) so that an insertion changes only the chunks near it.

use std::io::{self, BufRead, Read};

use fastcdc::v2020::FastCDC;

use crate::address::Codec;
use crate::dag::{Child, DagError, Index, LINKS_MAX, Link, Node, Section};
use crate::seal::{CHUNK_BYTES, ChunkSeal, SealError};
use crate::store::{Batch, BlockStore, StoreError};

/// Smallest and mean size of content-defined chunks, in bytes; the largest is [`CHUNK_BYTES`].
const CONTENT_MIN: u32 = 64 * 1024;
const CONTENT_MEAN: u32 = 256 * 1024;

/// Why a section could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SectionError {
    /// The store refused or lacks a block.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A chunk does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// An index node is not acceptable.
    #[error(transparent)]
    Dag(#[from] DagError),
    /// The section is shorter than the place asked for.
    #[error("byte {offset} lies beyond the {bytes} bytes of the object")]
    BeyondEnd {
        /// The place.
        offset: u64,
        /// The section's length.
        bytes: u64,
    },
}

impl From<SectionError> for io::Error {
    fn from(error: SectionError) -> Self {
        Self::other(error)
    }
}

/// Turns a stream of bytes into sealed chunks in a store.
#[derive(Debug)]
pub struct SectionWriter<'a> {
    batch: &'a Batch,
    seal: ChunkSeal,
    buffer: Vec<u8>,
    chunks: u64,
    payload: u64,
    levels: Vec<Vec<Link>>,
}

impl<'a> SectionWriter<'a> {
    /// A writer into `batch`.
    pub fn new(batch: &'a Batch, seal: ChunkSeal) -> Self {
        Self {
            batch,
            seal,
            buffer: Vec::new(),
            chunks: 0,
            payload: 0,
            levels: vec![Vec::new()],
        }
    }

    /// Plaintext bytes written so far.
    pub fn payload(&self) -> u64 {
        self.payload
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`SectionError::Store`] (a full disk or quota among them), [`SectionError::Seal`].
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), SectionError> {
        self.payload += bytes.len() as u64;
        while !bytes.is_empty() {
            // A full chunk is cut only when more follows: the last one must be marked as last.
            if self.buffer.len() == CHUNK_BYTES as usize {
                self.cut(false)?;
            }
            let room = CHUNK_BYTES as usize - self.buffer.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Appends everything `reader` gives, at most `limit` bytes; returns how many there were.
    ///
    /// # Errors
    /// An [`io::Error`] of the reader, or one that carries a [`SectionError`].
    pub fn copy_from(&mut self, reader: &mut impl Read, limit: u64) -> io::Result<u64> {
        let before = self.payload;
        loop {
            let left = limit - (self.payload - before);
            if self.buffer.len() == CHUNK_BYTES as usize {
                let Some(byte) = read_byte(&mut reader.by_ref().take(left))? else {
                    return Ok(self.payload - before);
                };
                self.write(&[byte])?;
                continue;
            }
            let room = (CHUNK_BYTES as usize - self.buffer.len()) as u64;
            let read = reader
                .by_ref()
                .take(room.min(left))
                .read_to_end(&mut self.buffer)? as u64;
            self.payload += read;
            if read < room {
                return Ok(self.payload - before);
            }
        }
    }

    /// Seals what is left and returns the section's root. An empty section has one empty chunk.
    ///
    /// # Errors
    /// As [`SectionWriter::write`].
    pub fn finish(mut self) -> Result<Section, SectionError> {
        while self.cut(true)? {}
        self.close()
    }

    /// Cuts one chunk from the front of the buffer; says whether more is left in it.
    fn cut(&mut self, ending: bool) -> Result<bool, SectionError> {
        let length = self.cut_length();
        let rest = self.buffer.split_off(length);
        let chunk = std::mem::replace(&mut self.buffer, rest);
        let more = !self.buffer.is_empty();
        self.emit(chunk, ending && !more)?;
        Ok(more)
    }

    fn cut_length(&self) -> usize {
        if self.buffer.is_empty() || !self.seal.cuts_by_content() {
            return self.buffer.len();
        }
        let cdc = FastCDC::new(&self.buffer, CONTENT_MIN, CONTENT_MEAN, CHUNK_BYTES);
        cdc.cut(0, self.buffer.len()).1
    }

    fn emit(&mut self, mut chunk: Vec<u8>, last: bool) -> Result<(), SectionError> {
        let payload = chunk.len() as u64;
        // Room for the seal, so that sealing in place does not copy the chunk.
        chunk.reserve(64);
        let block = self.seal.seal(self.chunks, last, chunk)?;
        self.chunks += 1;
        let bytes = block.len() as u64;
        let cid = self.batch.add(Codec::Raw, &block)?;
        self.link(
            0,
            Link {
                cid,
                bytes,
                payload,
            },
        )?;
        if self.buffer.capacity() == 0 && !last {
            self.buffer.reserve_exact(CHUNK_BYTES as usize + 64);
        }
        Ok(())
    }

    fn link(&mut self, level: usize, link: Link) -> Result<(), SectionError> {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        self.levels[level].push(link);
        if self.levels[level].len() == LINKS_MAX {
            self.fold(level)?;
        }
        Ok(())
    }

    /// Turns the links of a level into one node, linked from the level above.
    fn fold(&mut self, level: usize) -> Result<(), SectionError> {
        let links = std::mem::take(&mut self.levels[level]);
        let payload = links.iter().map(|l| l.payload).sum();
        let below: u64 = links.iter().map(|l| l.bytes).sum();
        let height = u8::try_from(level + 1).map_err(|_| SealError::TooManyChunks)?;
        let block = Node::Index(Index { height, links }).encode();
        let cid = self.batch.add(Codec::Node, &block)?;
        let bytes = below + block.len() as u64;
        self.link(
            level + 1,
            Link {
                cid,
                bytes,
                payload,
            },
        )
    }

    fn close(mut self) -> Result<Section, SectionError> {
        let mut level = 0;
        loop {
            let top = level + 1 == self.levels.len();
            match self.levels[level].len() {
                1 if top => break,
                0 => {}
                _ => self.fold(level)?,
            }
            level += 1;
        }
        let root = self.levels[level]
            .pop()
            .expect("the loop ends at a level with one link");
        let height = u8::try_from(level).map_err(|_| SealError::TooManyChunks)?;
        Ok(Section { root, height })
    }
}

/// One byte, to learn whether a full chunk is the last one.
fn read_byte(reader: &mut impl Read) -> io::Result<Option<u8>> {
    let mut byte = [0];
    loop {
        match reader.read(&mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(byte[0])),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads a section from a store, from any offset, chunk by chunk.
#[derive(Debug)]
pub struct SectionReader<'a> {
    store: &'a BlockStore,
    seal: ChunkSeal,
    root: Child,
    chunk_bytes: u64,
    /// Unread children of the open index nodes, the deepest last; each list reversed.
    open: Vec<Vec<Child>>,
    /// Where the next chunk begins, in plaintext bytes.
    next: u64,
    chunk: Vec<u8>,
    at: usize,
}

impl<'a> SectionReader<'a> {
    /// A reader at the beginning of `section`, whose chunks (but the last) have `chunk_bytes` if it is a stream.
    pub fn new(
        store: &'a BlockStore,
        seal: ChunkSeal,
        section: &Section,
        chunk_bytes: u32,
    ) -> Self {
        let root = Child {
            link: section.root.clone(),
            height: section.height,
        };
        Self {
            store,
            seal,
            open: vec![vec![root.clone()]],
            root,
            chunk_bytes: chunk_bytes.into(),
            next: 0,
            chunk: Vec::new(),
            at: 0,
        }
    }

    /// Plaintext bytes of the whole section.
    pub fn payload(&self) -> u64 {
        self.root.link.payload
    }

    /// Continues at `offset`. Only the nodes on the way and the chunk there are read.
    ///
    /// # Errors
    /// [`SectionError::BeyondEnd`], and as reading.
    pub fn seek(&mut self, offset: u64) -> Result<(), SectionError> {
        if offset > self.payload() {
            return Err(SectionError::BeyondEnd {
                offset,
                bytes: self.payload(),
            });
        }
        let start = self.next - self.chunk.len() as u64;
        if offset >= start && offset < self.next {
            self.at = usize::try_from(offset - start).unwrap_or(usize::MAX);
            return Ok(());
        }
        if offset < self.next {
            self.open = vec![vec![self.root.clone()]];
            self.next = 0;
        }
        self.chunk.clear();
        self.at = 0;
        self.skip_to(offset)
    }

    fn skip_to(&mut self, offset: u64) -> Result<(), SectionError> {
        while let Some(child) = self.pop() {
            let end = self.next + child.link.payload;
            if offset >= end && end < self.payload() {
                self.next = end;
            } else if child.height > 0 {
                self.expand(&child)?;
            } else {
                let skip = offset - self.next;
                self.load(&child)?;
                self.at = usize::try_from(skip)
                    .unwrap_or(usize::MAX)
                    .min(self.chunk.len());
                return Ok(());
            }
        }
        Ok(())
    }

    fn pop(&mut self) -> Option<Child> {
        loop {
            let level = self.open.last_mut()?;
            if let Some(child) = level.pop() {
                return Some(child);
            }
            self.open.pop();
        }
    }

    fn expand(&mut self, child: &Child) -> Result<(), SectionError> {
        let bytes = self.store.get(&child.link.cid)?;
        let mut children = Node::decode_child(&bytes, child)?.children();
        children.reverse();
        self.open.push(children);
        Ok(())
    }

    fn load(&mut self, child: &Child) -> Result<(), SectionError> {
        let block = self.store.get(&child.link.cid)?;
        if block.len() as u64 != child.link.bytes {
            return Err(DagError::Disagrees("size").into());
        }
        let end = self.next + child.link.payload;
        let number = self.number()?;
        self.chunk = self.seal.open(number, end == self.payload(), block)?;
        if self.chunk.len() as u64 != child.link.payload {
            return Err(DagError::Disagrees("payload").into());
        }
        self.at = 0;
        self.next = end;
        Ok(())
    }

    /// A stream chunk's number follows from its offset; other chunks are not bound to a place.
    fn number(&self) -> Result<u64, SectionError> {
        if matches!(self.seal, ChunkSeal::Stream(_)) && !self.next.is_multiple_of(self.chunk_bytes)
        {
            return Err(DagError::Disagrees("chunk size").into());
        }
        Ok(self.next / self.chunk_bytes)
    }

    /// Opens the next chunk with bytes in it; false at the end.
    fn advance(&mut self) -> Result<bool, SectionError> {
        while let Some(child) = self.pop() {
            if child.height > 0 {
                self.expand(&child)?;
                continue;
            }
            self.load(&child)?;
            if !self.chunk.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl BufRead for SectionReader<'_> {
    /// The rest of the current chunk, or the next one; empty only at the end.
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len() {
            self.advance()?;
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, length: usize) {
        self.at = (self.at + length).min(self.chunk.len());
    }
}

impl Read for SectionReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = out.len().min(available.len());
        out[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}
