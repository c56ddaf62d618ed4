//! The seeded generator that makes a trace repeatable.

use std::time::Duration;

/// A small generator of numbers that look random: SplitMix64 (Steele, Lea and Flood 2014).
///
/// It picks positions to refresh, request ids and jitter, nothing that an adversary must not
/// guess: every datagram is authenticated, so a guessed request id opens nothing.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// A generator whose whole output follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The multiply-shift of Lemire 2019; its bias of at most bound / 2^64 is of no account here.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// 32 bytes.
    pub fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes());
        }
        bytes
    }

    /// A duration between three quarters and five quarters of `mean`, so that periodic work spreads.
    pub fn about(&mut self, mean: Duration) -> Duration {
        let micros = u64::try_from(mean.as_micros()).unwrap_or(u64::MAX / 2);
        Duration::from_micros(micros - micros / 4 + self.below(micros / 2 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence() {
        let (mut left, mut right) = (Random::new(3), Random::new(3));
        assert_eq!(left.bytes(), right.bytes());
        assert_ne!(Random::new(4).next_u64(), Random::new(3).next_u64());
    }

    #[test]
    fn numbers_stay_below_their_bound() {
        let mut random = Random::new(1);
        assert_eq!(random.below(0), 0);
        assert!((0..1000).all(|_| random.below(7) < 7));
        let mean = Duration::from_secs(8);
        assert!(
            (0..1000)
                .map(|_| random.about(mean))
                .all(|d| d >= mean * 3 / 4 && d <= mean * 5 / 4)
        );
    }
}
