//! What is observed, for the checker, and what happens, for people.

use std::collections::VecDeque;
use std::sync::OnceLock;

use mutual_model::history::{Deed, Observation};
use mutual_model::identity::NodeKey;
use mutual_model::time::Timestamp;

/// Lines of a trace that are kept.
const TAIL: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Log {
    history: Vec<Observation>,
    pub(super) is_traced: bool,
    tail: VecDeque<String>,
}

impl Log {
    pub(super) fn note(&mut self, called: Timestamp, returned: Timestamp, deed: Deed) {
        let observation = Observation {
            called,
            returned,
            deed,
        };
        if self.is_traced {
            self.say(returned, || {
                format!("[{}] {}", called.0, shortened(&observation))
            });
        }
        self.history.push(observation);
    }

    /// Adds a line to the trace.
    pub(super) fn say(&mut self, now: Timestamp, line: impl FnOnce() -> String) {
        if !self.is_traced {
            return;
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(format!("{:>10} {}", now.0, line()));
    }

    pub(super) fn tail(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }

    pub(super) fn history(&self) -> &[Observation] {
        &self.history
    }

    /// Tells two histories apart.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for observation in &self.history {
            hasher.update(&observation.called.0.to_be_bytes());
            hasher.update(&observation.returned.0.to_be_bytes());
            hasher.update(format!("{:?}", observation.deed).as_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

fn shortened(observation: &Observation) -> String {
    serde_json::to_string(&observation.deed).unwrap_or_default()
}

/// Keys of all nodes of all worlds: making one takes longer than a step.
pub(super) fn key(number: usize) -> NodeKey {
    static KEYS: OnceLock<Vec<NodeKey>> = OnceLock::new();
    let keys = KEYS.get_or_init(|| {
        (0..=99)
            .map(|seed| NodeKey::from_seed(&[seed; 32]))
            .collect()
    });
    keys[number.min(99)].clone()
}
