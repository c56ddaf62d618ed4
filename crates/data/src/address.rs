//! A block is named by its hash, so bytes from anyone can be checked before they are believed.
//!
//! Names are CIDv1. We write raw blocks and DAG-CBOR nodes under BLAKE3-256, and accept SHA2-256 as well, because that
//! is how OCI names blobs. Everything else is refused: a store that accepted a weak hash would accept forged blocks.
//! Source: <https://github.com/multiformats/cid>, codes from <https://github.com/multiformats/multicodec>.

use cid::multihash::Multihash;
use sha2::{Digest, Sha256};

pub use cid::Cid;

/// The largest block that is stored or sent, in bytes: a 1 MiB chunk with its seal, with room for larger nodes.
pub const BLOCK_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Length of a digest, in bytes: both accepted hashes have 256 bits.
pub const DIGEST_BYTES: usize = 32;

const RAW: u64 = 0x55;
const DAG_CBOR: u64 = 0x71;
const BLAKE3_256: u64 = 0x1e;
const SHA2_256: u64 = 0x12;

/// What a block's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    /// A chunk: opaque bytes without links.
    Raw,
    /// A node of a DAG, in DAG-CBOR.
    Node,
}

/// Why a name or the bytes under it were refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressError {
    /// The text or bytes are no CID at all.
    #[error("not a content address: {0}")]
    Malformed(String),
    /// A CID, but not of a kind this crate accepts.
    #[error("content address {0} is not CIDv1 raw or dag-cbor with a 256-bit blake3 or sha2 hash")]
    Unsupported(String),
    /// The bytes do not hash to their name.
    #[error("the bytes received are not those of block {0}")]
    Mismatch(Box<Cid>),
    /// The block is larger than [`BLOCK_BYTES_MAX`].
    #[error("block {cid} has {bytes} bytes, the limit is {BLOCK_BYTES_MAX}")]
    TooLarge {
        /// The block's name.
        cid: Box<Cid>,
        /// Its size.
        bytes: usize,
    },
}

/// The name of `bytes`, under BLAKE3-256.
pub fn name(codec: Codec, bytes: &[u8]) -> Cid {
    wrap(codec, BLAKE3_256, blake3::hash(bytes).as_bytes())
}

/// The name of a raw block by its SHA2-256 digest, as OCI writes it.
pub fn from_sha256(digest: &[u8; DIGEST_BYTES]) -> Cid {
    wrap(Codec::Raw, SHA2_256, digest)
}

fn wrap(codec: Codec, hash: u64, digest: &[u8; DIGEST_BYTES]) -> Cid {
    let codec = match codec {
        Codec::Raw => RAW,
        Codec::Node => DAG_CBOR,
    };
    let hash = Multihash::wrap(hash, digest).expect("32 bytes fit a 64-byte multihash");
    Cid::new_v1(codec, hash)
}

/// Whether `cid` is of a kind this crate accepts, and which.
///
/// # Errors
/// [`AddressError::Unsupported`].
pub fn codec(cid: &Cid) -> Result<Codec, AddressError> {
    let hash = cid.hash();
    let known = matches!(hash.code(), BLAKE3_256 | SHA2_256)
        && hash.digest().len() == DIGEST_BYTES
        && cid.version() == cid::Version::V1;
    match cid.codec() {
        RAW if known => Ok(Codec::Raw),
        DAG_CBOR if known => Ok(Codec::Node),
        _ => Err(AddressError::Unsupported(cid.to_string())),
    }
}

/// Reads a name from text.
///
/// # Errors
/// [`AddressError::Malformed`] or [`AddressError::Unsupported`].
pub fn parse(text: &str) -> Result<Cid, AddressError> {
    const TEXT_BYTES_MAX: usize = 128;
    if text.len() > TEXT_BYTES_MAX {
        return Err(AddressError::Malformed(format!(
            "{} characters",
            text.len()
        )));
    }
    let cid = Cid::try_from(text).map_err(|e| AddressError::Malformed(e.to_string()))?;
    codec(&cid)?;
    Ok(cid)
}

/// Checks that `bytes` are the block named `cid`.
///
/// # Errors
/// [`AddressError::TooLarge`], [`AddressError::Unsupported`], [`AddressError::Mismatch`].
pub fn verify(cid: &Cid, bytes: &[u8]) -> Result<(), AddressError> {
    if bytes.len() > BLOCK_BYTES_MAX {
        return Err(AddressError::TooLarge {
            cid: Box::new(*cid),
            bytes: bytes.len(),
        });
    }
    codec(cid)?;
    if hash_as(cid, bytes) == cid.hash().digest() {
        return Ok(());
    }
    Err(AddressError::Mismatch(Box::new(*cid)))
}

fn hash_as(cid: &Cid, bytes: &[u8]) -> [u8; DIGEST_BYTES] {
    match cid.hash().code() {
        SHA2_256 => Sha256::digest(bytes).into(),
        _ => *blake3::hash(bytes).as_bytes(),
    }
}

/// A name in 33 bytes instead of the 96 of [`Cid`], for sets of very many blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Short {
    kind: u8,
    digest: [u8; DIGEST_BYTES],
}

impl From<&Cid> for Short {
    /// The kind byte keeps raw and node, BLAKE3 and SHA2 apart; an unsupported name keeps its own kind and so equals
    /// no supported one.
    fn from(cid: &Cid) -> Self {
        let mut digest = [0; DIGEST_BYTES];
        let bytes = cid.hash().digest();
        let length = bytes.len().min(DIGEST_BYTES);
        digest[..length].copy_from_slice(&bytes[..length]);
        let kind = match codec(cid) {
            Ok(Codec::Raw) => 0,
            Ok(Codec::Node) => 1,
            Err(_) => {
                return Self {
                    kind: u8::MAX,
                    digest,
                };
            }
        };
        let hash = u8::from(cid.hash().code() == SHA2_256) << 1;
        Self {
            kind: kind | hash,
            digest,
        }
    }
}

impl Short {
    /// The whole name again. Only for names that were supported in the first place.
    pub(crate) fn to_cid(self) -> Cid {
        let codec = match self.kind & 1 {
            0 => Codec::Raw,
            _ => Codec::Node,
        };
        let hash = match self.kind & 2 {
            0 => BLAKE3_256,
            _ => SHA2_256,
        };
        wrap(codec, hash, &self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_found_under_its_own_name_only() {
        let cid = name(Codec::Raw, b"one");
        assert_eq!(verify(&cid, b"one"), Ok(()));
        assert_eq!(
            verify(&cid, b"two"),
            Err(AddressError::Mismatch(Box::new(cid)))
        );
        assert_ne!(Short::from(&cid), Short::from(&name(Codec::Node, b"one")));
    }

    #[test]
    fn sha256_names_are_those_of_oci() {
        let cid = from_sha256(&Sha256::digest(b"layer").into());
        assert_eq!(verify(&cid, b"layer"), Ok(()));
        assert!(verify(&cid, b"lay").is_err());
    }

    #[test]
    fn other_hashes_versions_and_lengths_are_refused() {
        let identity = Cid::new_v1(RAW, Multihash::wrap(0, b"short").unwrap());
        let unknown = Cid::new_v1(0x70, Multihash::wrap(SHA2_256, &[1; 32]).unwrap());
        let zero = Cid::new_v0(Multihash::wrap(SHA2_256, &[1; 32]).unwrap()).unwrap();
        for cid in [identity, unknown, zero] {
            assert!(matches!(
                parse(&cid.to_string()),
                Err(AddressError::Unsupported(_))
            ));
        }
        assert!(matches!(parse("nonsense"), Err(AddressError::Malformed(_))));
        assert!(matches!(
            parse(&"b".repeat(4096)),
            Err(AddressError::Malformed(_))
        ));
    }

    #[test]
    fn text_round_trips() {
        let cid = name(Codec::Node, b"x");
        assert_eq!(parse(&cid.to_string()), Ok(cid));
        for cid in [cid, name(Codec::Raw, b"x"), from_sha256(&[7; 32])] {
            assert_eq!(Short::from(&cid).to_cid(), cid);
        }
    }
}
