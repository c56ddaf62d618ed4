//! Tar archives from strangers, member by member, with every extension bounded.
//!
//! The `tar` crate reads long names into memory whatever they claim to be, so extension headers are read here.

use std::io::{self, BufRead, BufReader, Read};

use tar::{Archive, EntryType, PaxExtensions};

use super::ImageError;
use crate::beneath;

/// Largest extension header (long names, PAX records with extended attributes), in bytes.
const EXTENSION_BYTES_MAX: u64 = 1024 * 1024;

/// A member of an archive, its name not yet checked.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: EntryType,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) bytes: u64,
}

/// Calls `visit` for each member with a reader of its contents.
pub(super) fn each(
    reader: impl Read,
    visit: &mut dyn FnMut(&Member, &mut dyn Read) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let mut archive = Archive::new(reader);
    let mut extension = Extension::default();
    let broken = |error| ImageError::at(b"archive")(error);
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let mut entry = entry.map_err(broken)?;
        match entry.header().entry_type() {
            EntryType::GNULongName => extension.path = Some(read_name(&mut entry)?),
            EntryType::GNULongLink => extension.link = Some(read_name(&mut entry)?),
            EntryType::XHeader => extension.read_pax(&read_extension(&mut entry)?)?,
            EntryType::XGlobalHeader => {}
            _ => {
                let member = member(entry.header(), std::mem::take(&mut extension))?;
                visit(&member, &mut entry)?;
            }
        }
    }
    Ok(())
}

/// What extension headers say of the member that follows.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    bytes: Option<u64>,
    owner: (Option<u32>, Option<u32>),
    sparse: bool,
}

impl Extension {
    fn read_pax(&mut self, records: &[u8]) -> Result<(), ImageError> {
        for record in PaxExtensions::new(records) {
            let record = record.map_err(ImageError::at(b"PAX header"))?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.bytes = number(value),
                b"uid" => self.owner.0 = number(value),
                b"gid" => self.owner.1 = number(value),
                key if key.starts_with(b"GNU.sparse.") => self.sparse = true,
                _ => {}
            }
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    str::from_utf8(text).ok()?.parse().ok()
}

fn read_extension(entry: &mut impl Read) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let read = entry.take(EXTENSION_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(ImageError::at(b"archive"))?;
    if bytes.len() as u64 > EXTENSION_BYTES_MAX {
        return Err(ImageError::TooLarge {
            what: "bytes in an extension header",
            max: EXTENSION_BYTES_MAX,
        });
    }
    Ok(bytes)
}

/// A GNU long name ends with a NUL.
fn read_name(entry: &mut impl Read) -> Result<Vec<u8>, ImageError> {
    let mut name = read_extension(entry)?;
    name.truncate(name.iter().position(|b| *b == 0).unwrap_or(name.len()));
    Ok(name)
}

fn member(header: &tar::Header, extension: Extension) -> Result<Member, ImageError> {
    let path = extension
        .path
        .unwrap_or_else(|| header.path_bytes().into_owned());
    let link = header.link_name_bytes().map(std::borrow::Cow::into_owned);
    let at = |error| ImageError::at(&path)(error);
    let bytes = header.entry_size().map_err(at)?;
    let unsupported = |what| {
        Err(ImageError::Unsupported {
            path: beneath::display(&path),
            what,
        })
    };
    if extension.sparse || header.entry_type() == EntryType::GNUSparse {
        return unsupported("a sparse file");
    }
    if extension.bytes.is_some_and(|claimed| claimed != bytes) {
        return unsupported("a file of 8 GiB or more");
    }
    let id = |given: Option<u32>, own: io::Result<u64>| {
        given.or_else(|| u32::try_from(own.ok()?).ok()).unwrap_or(0)
    };
    Ok(Member {
        link: extension.link.or(link).unwrap_or_default(),
        kind: header.entry_type(),
        mode: header.mode().map_err(at)?,
        owner: (
            id(extension.owner.0, header.uid()),
            id(extension.owner.1, header.gid()),
        ),
        bytes,
        path,
    })
}

/// Decompresses by what the bytes begin with: gzip, zstd, or neither.
pub(super) fn decompress<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(128 * 1024, reader);
    let head = reader.fill_buf()?;
    if head.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(reader)));
    }
    if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
        // 8 MiB windows are what the format's own specification asks decoders to support; some layers use more.
        decoder.window_log_max(27)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(reader))
}

/// Ends with an error after `left` bytes: what a small layer decompresses to has no other bound.
pub(super) struct Bounded<'a, R> {
    pub(super) inner: R,
    pub(super) left: &'a mut u64,
    pub(super) max: u64,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => {
                *self.left = left;
                Ok(read)
            }
            None => Err(io::Error::other(ImageError::TooLarge {
                what: "bytes",
                max: self.max,
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_archive() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = each(bytes, &mut |_, contents| {
                let _ = io::copy(contents, &mut io::sink());
                Ok(())
            });
        });
    }

    /// Random bytes rarely are a header with a good checksum: so damage a real archive.
    #[test]
    fn fuzz_damaged_archive() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, "n".repeat(150), &b"abc"[..])
            .unwrap();
        let bytes = builder.into_inner().unwrap();
        bolero::check!()
            .with_type::<(u16, u8)>()
            .for_each(|(at, value)| {
                let mut damaged = bytes.clone();
                let at = usize::from(*at) % damaged.len();
                damaged[at] = *value;
                let _ = each(damaged.as_slice(), &mut |_, _| Ok(()));
            });
    }

    #[test]
    fn an_endless_name_is_refused() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(1 << 40);
        header.set_cksum();
        let reader = header.as_bytes().chain(io::repeat(b'a'));
        let error = each(reader, &mut |_, _| Ok(())).unwrap_err();
        assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
    }
}
