//! Datagrams on the wire: sealed between two nodes' keys, plus the one plain question to a stranger.
//!
//! A sealed datagram is `1 | sender's public key (32) | nonce (12) | ciphertext | tag (16)`. The
//! cipher is AES-256-GCM; the pair's X25519 secret gives a key for each direction through HKDF, so
//! that a datagram cannot be turned back on its sender. Nonces are random: a pair may exchange 2^32
//! datagrams before a repetition becomes likely enough to matter (NIST SP 800-38D, section 8.3),
//! 136 years at one each second.
//!
//! Whoever knows only an address asks for the key behind it: `2 | token (8) | padding`, answered by
//! `3 | token (8) | public key (32)`. The answer is shorter than the question and proves nothing;
//! the key proves itself by opening what is sealed to it, and its owner by its certificate.

use std::collections::{BTreeMap, HashMap};

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use hkdf::Hkdf;
use mutual_model::identity::{NodeKey, PublicKey};
use mutual_model::kademlia::{DATAGRAM_LEN_MAX, SEAL_LEN};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The purpose of discovery's own datagrams.
pub(super) const DISCOVERY: &[u8] = b"mutual datagram v1";

const SEALED: u8 = 1;
const WHO: u8 = 2;
const I_AM: u8 = 3;
const HEAD_LEN: usize = 33;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
const TOKEN_LEN: usize = 8;
const WHO_LEN: usize = 64;
/// Pairs whose keys are remembered; the one used longest ago makes room.
const PAIRS_MAX: usize = 512;

/// Keys of one pair of nodes.
struct Pair {
    send: Zeroizing<[u8; 32]>,
    receive: Zeroizing<[u8; 32]>,
    used: u64,
}

/// Seals and opens this node's datagrams.
pub(crate) struct Sealer {
    key: NodeKey,
    /// Keys of one purpose open nothing of another.
    purpose: &'static [u8],
    public: PublicKey,
    pairs: HashMap<PublicKey, Pair>,
    /// Pairs by when they were last used.
    order: BTreeMap<u64, PublicKey>,
    uses: u64,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Sealer({:?}, {} pairs)", self.public, self.pairs.len())
    }
}

/// What a datagram turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// A message from the node with this key.
    Message { from: PublicKey, message: Vec<u8> },
    /// Somebody asks for this node's key.
    Who { token: [u8; TOKEN_LEN] },
    /// Somebody says that this is its key.
    IAm {
        token: [u8; TOKEN_LEN],
        public: PublicKey,
    },
}

impl Sealer {
    pub(crate) fn new(key: NodeKey, purpose: &'static [u8]) -> Self {
        Self {
            public: key.public(),
            key,
            purpose,
            pairs: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
        }
    }

    /// The datagram that carries `message` to the node with key `to`.
    pub(crate) fn seal(&mut self, to: &PublicKey, mut message: Vec<u8>) -> Option<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut datagram = Vec::with_capacity(message.len() + SEAL_LEN);
        datagram.push(SEALED);
        datagram.extend_from_slice(self.public.as_bytes());
        let pair = self.pair(to)?;
        let cipher = Aes256Gcm::new((&*pair.send).into());
        let tag = cipher
            .encrypt_inout_detached(
                &Nonce::from(nonce),
                &datagram,
                message.as_mut_slice().into(),
            )
            .ok()?;
        datagram.extend_from_slice(&nonce);
        datagram.extend_from_slice(&message);
        datagram.extend_from_slice(&tag);
        Some(datagram)
    }

    /// Opens a datagram; `None` if it is not meant for this node or not genuine.
    pub(crate) fn open(&mut self, datagram: &[u8]) -> Option<Opened> {
        match *datagram.first()? {
            SEALED => self.open_sealed(datagram),
            WHO if datagram.len() == WHO_LEN => Some(Opened::Who {
                token: *datagram[1..].first_chunk()?,
            }),
            I_AM if datagram.len() == 1 + TOKEN_LEN + 32 => Some(Opened::IAm {
                token: *datagram[1..].first_chunk()?,
                public: PublicKey(*datagram[1 + TOKEN_LEN..].first_chunk()?),
            }),
            _ => None,
        }
    }

    fn open_sealed(&mut self, datagram: &[u8]) -> Option<Opened> {
        if datagram.len() < SEAL_LEN || datagram.len() > DATAGRAM_LEN_MAX {
            return None;
        }
        let (head, rest) = datagram.split_at(HEAD_LEN);
        let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>()?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG_LEN>()?;
        let from = PublicKey(*head[1..].first_chunk()?);
        let pair = self.pair(&from)?;
        let cipher = Aes256Gcm::new((&*pair.receive).into());
        let mut message = ciphertext.to_vec();
        cipher
            .decrypt_inout_detached(
                &Nonce::from(*nonce),
                head,
                message.as_mut_slice().into(),
                &Tag::from(*tag),
            )
            .ok()?;
        Some(Opened::Message { from, message })
    }

    fn pair(&mut self, other: &PublicKey) -> Option<&Pair> {
        self.uses += 1;
        let now = self.uses;
        if !self.pairs.contains_key(other) {
            let pair = self.derive(other)?;
            self.make_room();
            self.pairs.insert(*other, pair);
        }
        let pair = self.pairs.get_mut(other)?;
        self.order.remove(&pair.used);
        pair.used = now;
        self.order.insert(now, *other);
        Some(pair)
    }

    fn make_room(&mut self) {
        if self.pairs.len() >= PAIRS_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.pairs.remove(&oldest);
        }
    }

    fn derive(&self, other: &PublicKey) -> Option<Pair> {
        let secret = self.key.agree(other)?;
        let direction = |from: &PublicKey, to: &PublicKey| {
            let mut key = Zeroizing::new([0; 32]);
            let info = [self.purpose, from.as_bytes(), to.as_bytes()];
            Hkdf::<Sha256>::new(None, secret.as_slice())
                .expand_multi_info(&info, key.as_mut())
                .ok()
                .map(|()| key)
        };
        Some(Pair {
            send: direction(&self.public, other)?,
            receive: direction(other, &self.public)?,
            used: 0,
        })
    }
}

/// The question for the key behind an address.
pub(super) fn who(token: [u8; TOKEN_LEN]) -> Vec<u8> {
    let mut datagram = vec![WHO];
    datagram.extend_from_slice(&token);
    datagram.resize(WHO_LEN, 0);
    datagram
}

/// The answer to [`who`].
pub(super) fn i_am(token: [u8; TOKEN_LEN], public: &PublicKey) -> Vec<u8> {
    let mut datagram = vec![I_AM];
    datagram.extend_from_slice(&token);
    datagram.extend_from_slice(public.as_bytes());
    datagram
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(seed: u8) -> Sealer {
        Sealer::new(NodeKey::from_seed(&[seed; 32]), DISCOVERY)
    }

    #[test]
    fn only_the_addressee_opens_and_knows_the_sender() {
        let [mut one, mut two, mut three] = [1, 2, 3].map(sealer);
        let datagram = one.seal(&two.public, b"hello".to_vec()).unwrap();
        assert_eq!(datagram.len(), 5 + SEAL_LEN);
        let from = one.public;
        let message = b"hello".to_vec();
        assert_eq!(two.open(&datagram), Some(Opened::Message { from, message }));
        assert_eq!(three.open(&datagram), None);
        assert_eq!(one.open(&datagram), None, "not turned back");
        for place in 0..datagram.len() {
            let mut changed = datagram.clone();
            changed[place] ^= 1;
            assert_eq!(two.open(&changed), None, "byte {place}");
        }
    }

    #[test]
    fn nobody_can_speak_with_anothers_key() {
        let [mut one, mut two, three] = [1, 2, 3].map(sealer);
        let mut datagram = one.seal(&two.public, b"hello".to_vec()).unwrap();
        datagram[1..33].copy_from_slice(three.public.as_bytes());
        assert_eq!(two.open(&datagram), None);
    }

    #[test]
    fn keys_are_remembered_for_a_bounded_number_of_pairs() {
        let mut one = sealer(1);
        for seed in 0..PAIRS_MAX + 20 {
            let mut bytes = [7; 32];
            bytes[..8].copy_from_slice(&seed.to_le_bytes());
            let other = NodeKey::from_seed(&bytes).public();
            assert!(one.seal(&other, vec![]).is_some());
        }
        assert_eq!(one.pairs.len(), PAIRS_MAX);
        assert_eq!(one.order.len(), PAIRS_MAX);
    }

    #[test]
    fn the_plain_question_is_longer_than_its_answer() {
        let mut one = sealer(1);
        let token = [9; TOKEN_LEN];
        assert_eq!(one.open(&who(token)), Some(Opened::Who { token }));
        let public = one.public;
        let answer = i_am(token, &public);
        assert!(answer.len() < WHO_LEN);
        assert_eq!(one.open(&answer), Some(Opened::IAm { token, public }));
    }

    #[test]
    fn fuzz_datagram() {
        let mut one = sealer(1);
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Some(Opened::Message { .. }) = one.open(bytes) {
                panic!("forged");
            }
        });
    }
}
