//! Positions in the 256-bit space of the network and the XOR distance between them.

use std::fmt;

use super::Random;

/// Bits of a position, and so the largest number of buckets a routing table can have.
pub const KEY_BITS: usize = 256;

/// A position in the network: the id of a node, or the place where an entry is kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The position with exactly these bytes, most significant first.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the position, most significant first.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The position of something that has a name: a hash of `parts` in the given domain.
    ///
    /// Every part is preceded by its length, so `["ab", "c"]` and `["a", "bc"]` are two places.
    pub fn hash(domain: &str, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(domain);
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The XOR distance to another position (Maymounkov and Mazières 2002, section 2.1).
    pub fn distance(&self, other: &Self) -> Distance {
        let mut words = [0; 4];
        for (word, (left, right)) in words
            .iter_mut()
            .zip(self.0.chunks_exact(8).zip(other.0.chunks_exact(8)))
        {
            *word = be_word(left) ^ be_word(right);
        }
        Distance(words)
    }

    /// How many leading bits both positions share: 0 to 256, 256 only for the same position.
    pub fn shared_bits(&self, other: &Self) -> usize {
        self.distance(other).leading_zeros()
    }

    /// A random position that shares exactly `bits` leading bits with this one.
    pub fn random_beyond(&self, bits: usize, random: &mut Random) -> Self {
        let bits = bits.min(KEY_BITS - 1);
        let mut bytes = random.bytes();
        let (whole, part) = (bits / 8, bits % 8);
        bytes[..whole].copy_from_slice(&self.0[..whole]);
        let flip = 0x80_u8 >> part;
        let keep = !(0xff_u8 >> part);
        bytes[whole] =
            (self.0[whole] & keep) | (!self.0[whole] & flip) | (bytes[whole] & (flip - 1));
        Self(bytes)
    }
}

fn be_word(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |word, byte| word << 8 | u64::from(*byte))
}

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0[..6] {
            write!(out, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// How far two positions lie apart; ordered, smaller is nearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Distance([u64; 4]);

impl Distance {
    /// The number of zero bits before the first one bit, 256 for the distance of nothing.
    pub fn leading_zeros(&self) -> usize {
        let mut bits = 0;
        for word in self.0 {
            bits += word.leading_zeros() as usize;
            if word != 0 {
                break;
            }
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_a_metric_of_leading_bits() {
        let zero = Key::new([0; 32]);
        let mut bytes = [0; 32];
        bytes[2] = 0b0001_0000;
        let other = Key::new(bytes);
        assert_eq!(zero.shared_bits(&other), 19);
        assert_eq!(other.shared_bits(&zero), 19);
        assert_eq!(zero.shared_bits(&zero), 256);
        assert!(zero.distance(&zero) < zero.distance(&other));
    }

    #[test]
    fn a_random_position_beyond_a_prefix_shares_exactly_that_prefix() {
        let mut random = Random::new(7);
        let me = Key::hash("test", &[b"me"]);
        for bits in 0..KEY_BITS {
            let other = me.random_beyond(bits, &mut random);
            assert_eq!(me.shared_bits(&other), bits);
        }
    }

    #[test]
    fn parts_are_kept_apart() {
        assert_ne!(
            Key::hash("t", &[b"ab", b"c"]),
            Key::hash("t", &[b"a", b"bc"])
        );
        assert_ne!(Key::hash("t", &[b"ab"]), Key::hash("u", &[b"ab"]));
    }
}
