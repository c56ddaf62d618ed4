//! A heartbeat's bytes.
//!
//! `version (1) ‖ run (16) ‖ sequence (8, big-endian) ‖ state hash (32)`. Who sent it, and that
//! nobody changed it, is the sealed datagram's business.

use uuid::Uuid;

use super::StateHash;
use crate::ids::Incarnation;

/// Length of a heartbeat.
pub const BEAT_BYTES: usize = 57;

const VERSION: u8 = 1;

/// One heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// The run of the agent's process.
    pub run: Incarnation,
    /// Grows with each beat of a run, so that an old datagram is no sign of life.
    pub sequence: u64,
    /// What the agent holds.
    pub state: StateHash,
}

/// Why bytes are no heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BeatError {
    /// The length is wrong.
    #[error("a heartbeat has {BEAT_BYTES} bytes, not {0}")]
    Length(usize),
    /// A version this program does not know.
    #[error("heartbeats of version {0} are not known here")]
    Version(u8),
}

impl Beat {
    /// The bytes.
    pub fn to_bytes(&self) -> [u8; BEAT_BYTES] {
        let mut bytes = [0; BEAT_BYTES];
        bytes[0] = VERSION;
        bytes[1..17].copy_from_slice(self.run.0.as_bytes());
        bytes[17..25].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[25..].copy_from_slice(&self.state.0);
        bytes
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// [`BeatError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BeatError> {
        let wrong = |_| BeatError::Length(bytes.len());
        let bytes: &[u8; BEAT_BYTES] = bytes.try_into().map_err(wrong)?;
        let (version, rest) = (bytes[0], &bytes[1..]);
        if version != VERSION {
            return Err(BeatError::Version(version));
        }
        let (mut run, mut sequence, mut state) = ([0; 16], [0; 8], [0; 32]);
        run.copy_from_slice(&rest[..16]);
        sequence.copy_from_slice(&rest[16..24]);
        state.copy_from_slice(&rest[24..]);
        Ok(Self {
            run: Incarnation(Uuid::from_bytes(run)),
            sequence: u64::from_be_bytes(sequence),
            state: StateHash(state),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_whatever_is_read_as_a_beat_has_the_same_bytes() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Ok(beat) = Beat::from_bytes(bytes) {
                assert_eq!(beat.to_bytes(), bytes);
            }
        });
    }

    #[test]
    fn a_beat_is_read_back_and_nothing_else_is() {
        let beat = Beat {
            run: Incarnation(Uuid::from_u128(7)),
            sequence: 9,
            state: StateHash([3; 32]),
        };
        let mut bytes = beat.to_bytes();
        assert_eq!(Beat::from_bytes(&bytes), Ok(beat));
        assert_eq!(Beat::from_bytes(&bytes[1..]), Err(BeatError::Length(56)));
        bytes[0] = 2;
        assert_eq!(Beat::from_bytes(&bytes), Err(BeatError::Version(2)));
    }
}
