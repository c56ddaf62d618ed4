//! Nonces and jitter from one seed, so that one seed gives one trace.

use std::time::Duration;

use crate::ids::Nonce;

/// A counter under a secret key: BLAKE3 as a pseudo-random function.
#[derive(Clone)]
pub(super) struct Entropy {
    seed: [u8; 32],
    drawn: u64,
}

impl Entropy {
    pub(super) const fn new(seed: [u8; 32]) -> Self {
        Self { seed, drawn: 0 }
    }

    fn draw(&mut self) -> [u8; 32] {
        self.drawn += 1;
        *blake3::keyed_hash(&self.seed, &self.drawn.to_be_bytes()).as_bytes()
    }

    pub(super) fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&self.draw()[..16]);
        Nonce(nonce)
    }

    /// `mean` give or take a quarter, so that agents do not fall into step.
    pub(super) fn jitter(&mut self, mean: Duration) -> Duration {
        let quarters = u32::from(self.draw()[0]);
        mean * 3 / 4 + (mean / 2) * quarters / 255
    }
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entropy({} drawn)", self.drawn)
    }
}
