//! The question by which an agent asks a node to watch it, and the answer: one datagram each way.

use std::collections::BTreeMap;
use std::time::Duration;

use mutual_model::agent::StoreUrl;
use mutual_model::guardian::Silence;
use mutual_model::ids::Incarnation;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::wire::Pass;

/// Stores named in one question: what fits into a datagram.
pub(super) const STORES_MAX: usize = 8;
/// Longest address of a store.
const URL_BYTES_MAX: usize = 256;
/// No ward beats faster than this, so that no ward keeps its guardians busy.
const INTERVAL_MIN: Duration = Duration::from_millis(5);
/// A ward whose silence may last longer is not worth watching: its leases end before.
const MOST_MAX: Duration = Duration::from_secs(300);

/// Asks to be watched, or tells a guardian what has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entrust {
    /// The run of the agent's process.
    pub(super) run: Incarnation,
    /// The agent's liveness port, at the address the question comes from.
    pub(super) port: u16,
    /// Opens a session there.
    pub(super) pass: Pass,
    /// The stores it works for, and the incarnation by which each knows it.
    pub(super) stores: BTreeMap<StoreUrl, Incarnation>,
    /// Pause between its heartbeats, in milliseconds.
    pub(super) interval_ms: u32,
    /// Shortest silence that may be held against it, in milliseconds.
    pub(super) least_ms: u32,
    /// Silence that must be held against it, in milliseconds.
    pub(super) most_ms: u32,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum Entrusted {
    /// It is watched; heartbeats go to this UDP port.
    Yes {
        /// At the address the answer comes from.
        beats: u16,
    },
    /// It is not watched here.
    No,
}

/// Why a question is not considered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum EntrustError {
    #[error("not a question to a guardian")]
    Malformed,
    #[error("{0}")]
    OutOfRange(&'static str),
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

impl Entrust {
    pub(super) fn new(
        run: Incarnation,
        port: u16,
        pass: Pass,
        stores: &BTreeMap<StoreUrl, Incarnation>,
        silence: &Silence,
    ) -> Self {
        let named = stores.iter().take(STORES_MAX);
        Self {
            run,
            port,
            pass,
            stores: named.map(|(url, known)| (url.clone(), *known)).collect(),
            interval_ms: millis(silence.interval),
            least_ms: millis(silence.least),
            most_ms: millis(silence.most),
        }
    }

    /// How the agent's silence is judged, with the guardian's own `phi`.
    pub(super) fn silence(&self, phi: f64) -> Silence {
        Silence {
            interval: Duration::from_millis(self.interval_ms.into()),
            phi,
            least: Duration::from_millis(self.least_ms.into()),
            most: Duration::from_millis(self.most_ms.into()),
        }
    }

    fn check(self) -> Result<Self, EntrustError> {
        let silence = self.silence(0.0);
        let bad = |what| Err(EntrustError::OutOfRange(what));
        if self.stores.len() > STORES_MAX {
            return bad("more stores than fit into a datagram");
        }
        if self
            .stores
            .keys()
            .any(|url| url.as_str().len() > URL_BYTES_MAX)
        {
            return bad("a store's address is too long");
        }
        if silence.interval < INTERVAL_MIN {
            return bad("heartbeats come too often");
        }
        if silence.least < silence.interval * 2 || silence.most < silence.least {
            return bad("the bounds of silence contradict each other");
        }
        if silence.most > MOST_MAX {
            return bad("the bounds of silence are too wide");
        }
        Ok(self)
    }

    /// Reads and checks a question.
    ///
    /// # Errors
    /// [`EntrustError`].
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, EntrustError> {
        let question: Self = decode(bytes).ok_or(EntrustError::Malformed)?;
        question.check()
    }
}

/// The encoded message; `None` only if it cannot be written, which its types exclude.
pub(super) fn encode(message: &impl Serialize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    ciborium::into_writer(message, &mut bytes).ok()?;
    Some(bytes)
}

/// The message, if the bytes are one and nothing more.
pub(super) fn decode<T: DeserializeOwned>(mut bytes: &[u8]) -> Option<T> {
    let message = ciborium::from_reader(&mut bytes).ok()?;
    bytes.is_empty().then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::PAYLOAD_LEN_MAX;
    use uuid::Uuid;

    fn question() -> Entrust {
        let url = |n: u8| StoreUrl::from(format!("http://demand-{n}.example.org:7620").as_str());
        let run = Incarnation(Uuid::from_u128(7));
        let stores = (0..20).map(|n| (url(n), run)).collect();
        Entrust::new(run, 7631, [9; 16], &stores, &Silence::FAST)
    }

    #[test]
    fn fuzz_questions_never_panic_and_keep_within_bounds() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Ok(question) = Entrust::from_bytes(bytes) {
                assert!(question.stores.len() <= STORES_MAX);
            }
            let _ = decode::<Entrusted>(bytes);
        });
    }

    #[test]
    fn a_question_fits_into_a_datagram_and_is_read_back() {
        let question = question();
        let bytes = encode(&question).unwrap();
        assert!(bytes.len() <= PAYLOAD_LEN_MAX, "{}", bytes.len());
        assert_eq!(Entrust::from_bytes(&bytes), Ok(question.clone()));
        assert_eq!(question.silence(Silence::FAST.phi), Silence::FAST);
        let mut more = bytes;
        more.push(0);
        assert_eq!(Entrust::from_bytes(&more), Err(EntrustError::Malformed));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |change: fn(&mut Entrust)| {
            let mut question = question();
            change(&mut question);
            let read = Entrust::from_bytes(&encode(&question).unwrap());
            matches!(read, Err(EntrustError::OutOfRange(_)))
        };
        assert!(refused(|question| question.interval_ms = 1));
        assert!(refused(|question| question.least_ms = 39));
        assert!(refused(|question| question.most_ms = 59));
        assert!(refused(|question| question.most_ms = 300_001));
        assert!(refused(|question| {
            let run = question.run;
            let url = "u".repeat(257);
            question.stores.insert(StoreUrl::from(url.as_str()), run);
            question.stores.retain(|url, _| url.as_str().len() > 256);
        }));
    }
}
