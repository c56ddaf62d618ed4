//! Reading and writing short binary forms with a hard bound on everything.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Why bytes are not what they should be, or a value cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end inside a field.
    #[error("the bytes end within `{field}`")]
    Truncated {
        /// The field being read.
        field: &'static str,
    },
    /// A length is over its bound.
    #[error("`{field}` has length {len}, at most {max} are allowed")]
    TooLong {
        /// The field.
        field: &'static str,
        /// The length found.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// A field holds a value that means nothing.
    #[error("`{field}` holds a value that is not allowed")]
    Invalid {
        /// The field.
        field: &'static str,
    },
    /// Something follows the end.
    #[error("{0} bytes follow the end")]
    Trailing(usize),
}

/// Reads fields one after another from borrowed bytes.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], CodecError> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(CodecError::Truncated { field })?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], CodecError> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(CodecError::Truncated { field })?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, CodecError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, CodecError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, CodecError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, CodecError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A list's length in one byte.
    pub(crate) fn count(&mut self, field: &'static str, max: usize) -> Result<usize, CodecError> {
        let len = usize::from(self.u8(field)?);
        bounded(field, len, max)
    }

    /// Bytes preceded by their length in two bytes.
    pub(crate) fn bytes(
        &mut self,
        field: &'static str,
        max: usize,
    ) -> Result<&'a [u8], CodecError> {
        let len = usize::from(self.u16(field)?);
        let len = bounded(field, len, max)?;
        self.take(field, len)
    }

    /// Text preceded by its length in one byte.
    pub(crate) fn text(&mut self, field: &'static str, max: usize) -> Result<&'a str, CodecError> {
        let len = self.count(field, max)?;
        std::str::from_utf8(self.take(field, len)?).map_err(|_| CodecError::Invalid { field })
    }

    /// A checked name, such as a namespace.
    pub(crate) fn name<T: std::str::FromStr>(
        &mut self,
        field: &'static str,
    ) -> Result<T, CodecError> {
        let text = self.text(field, usize::from(u8::MAX))?;
        text.parse().map_err(|_| CodecError::Invalid { field })
    }

    pub(crate) fn flag(&mut self, field: &'static str) -> Result<bool, CodecError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Invalid { field }),
        }
    }

    pub(crate) fn socket(&mut self, field: &'static str) -> Result<SocketAddr, CodecError> {
        let ip = match self.u8(field)? {
            4 => IpAddr::from(self.array::<4>(field)?),
            6 => IpAddr::V6(Ipv6Addr::from(self.array::<16>(field)?)),
            _ => return Err(CodecError::Invalid { field }),
        };
        Ok(SocketAddr::new(ip, self.u16(field)?))
    }

    /// What has not been read yet.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Checks that nothing is left.
    pub(crate) fn end(self) -> Result<(), CodecError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(CodecError::Trailing(left)),
        }
    }
}

fn bounded(field: &'static str, len: usize, max: usize) -> Result<usize, CodecError> {
    if len > max {
        return Err(CodecError::TooLong { field, len, max });
    }
    Ok(len)
}

/// Writes fields one after another; the counterpart of [`Reader`].
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn with_capacity(len: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(len),
        }
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    pub(crate) fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    pub(crate) fn count(
        &mut self,
        field: &'static str,
        len: usize,
        max: usize,
    ) -> Result<(), CodecError> {
        let len = bounded(field, len, max.min(usize::from(u8::MAX)))?;
        self.u8(u8::try_from(len).unwrap_or(u8::MAX));
        Ok(())
    }

    pub(crate) fn bytes(
        &mut self,
        field: &'static str,
        bytes: &[u8],
        max: usize,
    ) -> Result<(), CodecError> {
        let len = bounded(field, bytes.len(), max.min(usize::from(u16::MAX)))?;
        self.u16(u16::try_from(len).unwrap_or(u16::MAX));
        self.put(bytes);
        Ok(())
    }

    pub(crate) fn text(
        &mut self,
        field: &'static str,
        text: &str,
        max: usize,
    ) -> Result<(), CodecError> {
        self.count(field, text.len(), max)?;
        self.put(text.as_bytes());
        Ok(())
    }

    pub(crate) fn socket(&mut self, addr: SocketAddr) {
        match addr.ip() {
            IpAddr::V4(ip) => {
                self.u8(4);
                self.put(&ip.octets());
            }
            IpAddr::V6(ip) => {
                self.u8(6);
                self.put(&ip.octets());
            }
        }
        self.u16(addr.port());
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
