//! Keys, and the two ways a chunk is encrypted before it gets its address.
//!
//! **Streams** ([`StreamSeal`]) are for private objects: every object has a fresh key, chunks are AES-256-GCM under the
//! STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár, "Online Authenticated-Encryption and its Nonce-Reuse
//! Misuse-Resistance", CRYPTO 2015): nonce = 7-byte prefix, 32-bit counter, last-chunk flag. Reordered, dropped,
//! truncated or foreign chunks do not open. The associated data names the namespace, the object and the chunk size.
//!
//! **Convergent** chunks ([`ConvergentSeal`]) are for checkpoints, which must deduplicate: equal plaintext under one
//! job secret gives equal ciphertext. The chunk is `tag ‖ AES-256-GCM(key = HMAC(secret, tag), nonce = 0, chunk)`
//! where `tag` is a keyed hash of the plaintext (the synthetic-IV construction of Rogaway and Shrimpton, EUROCRYPT
//! 2006). One key encrypts one plaintext only, so the fixed nonce is safe. The tag shows equality and nothing else,
//! and the address shows that anyway.
//!
//! AES-GCM does not commit to its key, so both commit explicitly: streams by [`commitment`] in the manifest, chunks by
//! checking the tag after decryption. A wrong key is therefore told apart from damage.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Plaintext bytes of a chunk of a stream, and the most in a convergent chunk (DESIGN §8: 1 MiB).
pub const CHUNK_BYTES: u32 = 1024 * 1024;

/// Length of every key, in bytes.
pub const KEY_BYTES: usize = 32;

/// Length of an object's id, in bytes.
pub const OBJECT_ID_BYTES: usize = 16;

/// Length of the random part of a stream's nonces, in bytes.
pub const PREFIX_BYTES: usize = 7;

/// What AES-GCM adds to a chunk, in bytes.
const GCM_TAG_BYTES: usize = 16;

/// The secret of one object or, for checkpoints, of one job: 32 random bytes, wiped when dropped.
///
/// Its `Debug` shows nothing, it cannot be printed, serialised or compared by accident.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DataKey([u8; KEY_BYTES]);

impl DataKey {
    /// A fresh key from the operating system's entropy.
    ///
    /// # Errors
    /// [`SealError::Entropy`] if the system has none to give.
    pub fn generate() -> Result<Self, SealError> {
        let mut bytes = [0; KEY_BYTES];
        fill_random(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// A key received (unwrapped) from elsewhere.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// The secret itself, to be wrapped for its receiver. Never store or log it.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey(hidden)")
    }
}

/// Why sealing or opening failed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SealError {
    /// The operating system gave no entropy.
    #[error("the operating system gave no random bytes: {0}")]
    Entropy(String),
    /// The chunk does not open: damaged, moved, truncated, or of another object.
    #[error("chunk {number} does not open: damaged, out of order, or of another object")]
    Tampered {
        /// The chunk's place in its section.
        number: u64,
    },
    /// The key is not the one this object was sealed with.
    #[error("the key is not the one this object was sealed with")]
    WrongKey,
    /// The section has more chunks than a 32-bit counter can number.
    #[error("an object has at most 2^32 chunks")]
    TooManyChunks,
}

/// Fills `bytes` from the operating system's entropy.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), SealError> {
    getrandom::fill(bytes).map_err(|e| SealError::Entropy(e.to_string()))
}

/// What a sealed chunk belongs to: bound into every chunk as associated data and into the commitment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The namespace that owns the object.
    pub namespace: String,
    /// The object's random id.
    pub object: [u8; OBJECT_ID_BYTES],
    /// Plaintext bytes of every chunk but the last.
    pub chunk_bytes: u32,
}

impl Binding {
    /// One unambiguous byte string: fixed-length fields first, then the name.
    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24 + self.namespace.len());
        out.extend_from_slice(&self.object);
        out.extend_from_slice(&self.chunk_bytes.to_be_bytes());
        out.extend_from_slice(self.namespace.as_bytes());
        out
    }
}

/// Derives a subkey for one purpose (HKDF-SHA256, RFC 5869).
fn derive(key: &DataKey, salt: &[u8], purpose: &str, context: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut out = Zeroizing::new([0; KEY_BYTES]);
    Hkdf::<Sha256>::new(Some(salt), &key.0)
        .expand_multi_info(&[purpose.as_bytes(), b"\0", context], out.as_mut())
        .expect("32 bytes are within the 8,160 that HKDF-SHA256 can give");
    out
}

/// The public value that binds an object to its key: stands in the manifest and reveals nothing of the key.
pub fn commitment(key: &DataKey, binding: &Binding) -> [u8; KEY_BYTES] {
    *derive(key, &binding.object, "mutual/1/commit", &binding.bytes())
}

/// Checks that `key` is the one `expected` commits to.
///
/// # Errors
/// [`SealError::WrongKey`].
pub fn check_commitment(
    key: &DataKey,
    binding: &Binding,
    expected: &[u8; KEY_BYTES],
) -> Result<(), SealError> {
    // Not a secret comparison: both sides are public.
    if commitment(key, binding) == *expected {
        return Ok(());
    }
    Err(SealError::WrongKey)
}

/// How the chunks of one section are turned into blocks and back.
#[derive(Debug)]
pub enum ChunkSeal {
    /// Ordered chunks of one object under its own key.
    Stream(Box<StreamSeal>),
    /// Deduplicating chunks under a job's secret.
    Convergent(ConvergentSeal),
    /// Chunks as they are: public content, checked by its address alone.
    Public,
}

impl ChunkSeal {
    /// Turns a plaintext chunk into a block. `number` is its place; `last` marks the section's final chunk.
    ///
    /// # Errors
    /// [`SealError::TooManyChunks`].
    pub fn seal(&self, number: u64, last: bool, chunk: Vec<u8>) -> Result<Vec<u8>, SealError> {
        match self {
            Self::Stream(stream) => stream.seal(number, last, chunk),
            Self::Convergent(convergent) => Ok(convergent.seal(chunk)),
            Self::Public => Ok(chunk),
        }
    }

    /// Turns a block back into its plaintext.
    ///
    /// # Errors
    /// [`SealError::Tampered`], [`SealError::WrongKey`] (convergent only), [`SealError::TooManyChunks`].
    pub fn open(&self, number: u64, last: bool, block: Vec<u8>) -> Result<Vec<u8>, SealError> {
        match self {
            Self::Stream(stream) => stream.open(number, last, block),
            Self::Convergent(convergent) => convergent.open(number, block),
            Self::Public => Ok(block),
        }
    }

    /// Whether chunk boundaries follow the content rather than fixed offsets.
    pub(crate) fn cuts_by_content(&self) -> bool {
        matches!(self, Self::Convergent(_))
    }
}

/// AES-256-GCM with STREAM nonces.
pub struct StreamSeal {
    cipher: Aes256Gcm,
    prefix: [u8; PREFIX_BYTES],
    associated: Vec<u8>,
}

impl std::fmt::Debug for StreamSeal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StreamSeal(hidden)")
    }
}

impl StreamSeal {
    /// The seal of one section. Sections of an object have names of their own, and so keys of their own.
    pub fn new(
        key: &DataKey,
        binding: &Binding,
        section: &str,
        prefix: [u8; PREFIX_BYTES],
    ) -> Self {
        let subkey = derive(key, &binding.object, "mutual/1/stream", section.as_bytes());
        Self {
            cipher: Aes256Gcm::new((&*subkey).into()),
            prefix,
            associated: binding.bytes(),
        }
    }

    fn nonce(&self, number: u64, last: bool) -> Result<[u8; 12], SealError> {
        let counter = u32::try_from(number).map_err(|_| SealError::TooManyChunks)?;
        let mut nonce = [0; 12];
        nonce[..PREFIX_BYTES].copy_from_slice(&self.prefix);
        nonce[PREFIX_BYTES..11].copy_from_slice(&counter.to_be_bytes());
        nonce[11] = u8::from(last);
        Ok(nonce)
    }

    fn seal(&self, number: u64, last: bool, mut chunk: Vec<u8>) -> Result<Vec<u8>, SealError> {
        let nonce = Nonce::from(self.nonce(number, last)?);
        self.cipher
            .encrypt_in_place(&nonce, &self.associated, &mut chunk)
            .map_err(|_| SealError::TooManyChunks)?;
        Ok(chunk)
    }

    fn open(&self, number: u64, last: bool, mut block: Vec<u8>) -> Result<Vec<u8>, SealError> {
        let nonce = Nonce::from(self.nonce(number, last)?);
        self.cipher
            .decrypt_in_place(&nonce, &self.associated, &mut block)
            .map_err(|_| SealError::Tampered { number })?;
        Ok(block)
    }
}

/// Deduplicating encryption under one job's secret.
pub struct ConvergentSeal {
    tag_key: Zeroizing<[u8; KEY_BYTES]>,
    secret: Zeroizing<[u8; KEY_BYTES]>,
}

impl std::fmt::Debug for ConvergentSeal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConvergentSeal(hidden)")
    }
}

impl ConvergentSeal {
    /// The seal of all chunks under `secret` in `namespace`: equal chunks of any object give equal blocks.
    pub fn new(secret: &DataKey, namespace: &str) -> Self {
        let context = namespace.as_bytes();
        Self {
            tag_key: derive(secret, b"", "mutual/1/convergent-tag", context),
            secret: derive(secret, b"", "mutual/1/convergent-key", context),
        }
    }

    fn tag(&self, chunk: &[u8]) -> [u8; KEY_BYTES] {
        *blake3::keyed_hash(&self.tag_key, chunk).as_bytes()
    }

    /// `expand` of HKDF is one HMAC-SHA256 over the tag (and a counter byte): the chunk key of DESIGN §8.
    fn cipher(&self, tag: &[u8]) -> Aes256Gcm {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        Hkdf::<Sha256>::from_prk(self.secret.as_ref())
            .expect("32 bytes are the length of a SHA-256 key")
            .expand(tag, key.as_mut())
            .expect("32 bytes are within what HKDF-SHA256 can give");
        Aes256Gcm::new((&*key).into())
    }

    fn seal(&self, chunk: Vec<u8>) -> Vec<u8> {
        let tag = self.tag(&chunk);
        let mut block = Vec::with_capacity(KEY_BYTES + chunk.len() + GCM_TAG_BYTES);
        block.extend_from_slice(&tag);
        block.extend_from_slice(&chunk);
        let seal = self
            .cipher(&tag)
            .encrypt_inout_detached(&Nonce::default(), &[], (&mut block[KEY_BYTES..]).into())
            .expect("a chunk is far below the 64 GiB limit of AES-GCM");
        block.extend_from_slice(&seal);
        block
    }

    fn open(&self, number: u64, mut block: Vec<u8>) -> Result<Vec<u8>, SealError> {
        if block.len() < KEY_BYTES + GCM_TAG_BYTES {
            return Err(SealError::Tampered { number });
        }
        let mut chunk = block.split_off(KEY_BYTES);
        self.cipher(&block)
            .decrypt_in_place(&Nonce::default(), &[], &mut chunk)
            .map_err(|_| SealError::WrongKey)?;
        if self.tag(&chunk) != block[..] {
            return Err(SealError::Tampered { number });
        }
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(seed: u8) -> DataKey {
        DataKey::from_bytes([seed; KEY_BYTES])
    }

    fn binding() -> Binding {
        Binding {
            namespace: "lab".into(),
            object: [7; OBJECT_ID_BYTES],
            chunk_bytes: CHUNK_BYTES,
        }
    }

    fn stream(seed: u8, binding: &Binding, section: &str) -> ChunkSeal {
        ChunkSeal::Stream(Box::new(StreamSeal::new(
            &key(seed),
            binding,
            section,
            [1; 7],
        )))
    }

    #[test]
    fn a_key_shows_nothing() {
        assert_eq!(format!("{:?}", key(0x41)), "DataKey(hidden)");
        assert_ne!(
            DataKey::generate().unwrap().expose(),
            DataKey::generate().unwrap().expose()
        );
    }

    #[test]
    fn a_chunk_opens_in_its_own_place_only() {
        let seal = stream(1, &binding(), "data");
        let block = seal.seal(3, false, b"chunk".to_vec()).unwrap();
        assert_eq!(seal.open(3, false, block.clone()).unwrap(), b"chunk");
        let other_place = seal.open(2, false, block.clone());
        let cut_short = seal.open(3, true, block.clone());
        let mut flipped = block.clone();
        flipped[0] ^= 1;
        let damaged = seal.open(3, false, flipped);
        let foreign = Binding {
            namespace: "other".into(),
            ..binding()
        };
        let foreign = stream(1, &foreign, "data").open(3, false, block.clone());
        let section = stream(1, &binding(), "index").open(3, false, block);
        for (what, result) in [
            ("moved", other_place),
            ("truncated", cut_short),
            ("damaged", damaged),
            ("other namespace", foreign),
            ("other section", section),
        ] {
            let number = if what == "moved" { 2 } else { 3 };
            assert_eq!(result, Err(SealError::Tampered { number }), "{what}");
        }
    }

    #[test]
    fn the_commitment_tells_a_wrong_key() {
        let committed = commitment(&key(1), &binding());
        assert_eq!(check_commitment(&key(1), &binding(), &committed), Ok(()));
        assert_eq!(
            check_commitment(&key(2), &binding(), &committed),
            Err(SealError::WrongKey)
        );
    }

    #[test]
    fn the_counter_does_not_wrap() {
        let seal = stream(1, &binding(), "data");
        let beyond = u64::from(u32::MAX) + 1;
        assert_eq!(
            seal.seal(beyond, false, vec![]),
            Err(SealError::TooManyChunks)
        );
    }

    #[test]
    fn convergent_chunks_deduplicate_within_one_secret_and_namespace() {
        let seal = |seed, ns| ChunkSeal::Convergent(ConvergentSeal::new(&key(seed), ns));
        let block = seal(1, "a").seal(0, false, b"same".to_vec()).unwrap();
        assert_eq!(block, seal(1, "a").seal(9, true, b"same".to_vec()).unwrap());
        assert_ne!(
            block,
            seal(2, "a").seal(0, false, b"same".to_vec()).unwrap()
        );
        assert_ne!(
            block,
            seal(1, "b").seal(0, false, b"same".to_vec()).unwrap()
        );
        assert_eq!(
            seal(2, "a").open(0, false, block.clone()),
            Err(SealError::WrongKey)
        );
        assert!(seal(1, "a").open(0, false, block[..40].to_vec()).is_err());
        assert_eq!(seal(1, "a").open(5, false, block).unwrap(), b"same");
    }

    proptest! {
        #[test]
        fn any_chunk_round_trips(chunk: Vec<u8>, number: u32, last: bool) {
            let seals = [
                stream(1, &binding(), "data"),
                ChunkSeal::Convergent(ConvergentSeal::new(&key(1), "lab")),
                ChunkSeal::Public,
            ];
            for seal in seals {
                let block = seal.seal(number.into(), last, chunk.clone()).unwrap();
                prop_assert_eq!(seal.open(number.into(), last, block).unwrap(), chunk.clone());
            }
        }
    }
}
