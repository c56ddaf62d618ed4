//! Remembers which signed requests were seen, within bounds that no sender can push others out of.
//!
//! Each node has its own window: the instants and nonces of its latest requests. When a window is
//! full its oldest entry goes and everything as old is refused from then on, so a forgotten request
//! is refused rather than accepted twice. A node that floods narrows only its own window.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mutual_model::identity::NodeId;
use mutual_model::ids::Nonce;
use mutual_model::time::UnixMillis;

/// Requests remembered per node: at 2,500 requests a second they span 1.6 s, far more than
/// requests of one node overtake each other.
const PER_NODE_MAX: usize = 4_096;
/// Requests remembered in all: about 40 MB at most.
const TOTAL_MAX: usize = 500_000;

#[derive(Debug, Default)]
struct Window {
    seen: BTreeSet<(UnixMillis, Nonce)>,
    /// Requests signed at or before this are refused.
    floor: UnixMillis,
}

impl Window {
    /// Forgets the oldest until at most `most` are left; returns how many went.
    fn shrink_to(&mut self, most: usize) -> usize {
        let before = self.seen.len();
        while self.seen.len() > most {
            if let Some((at, _)) = self.seen.pop_first() {
                self.floor = self.floor.max(at);
            }
        }
        before - self.seen.len()
    }

    fn forget_before(&mut self, horizon: UnixMillis) -> usize {
        let before = self.seen.len();
        self.seen = self.seen.split_off(&(horizon, Nonce([0; 16])));
        before - self.seen.len()
    }
}

/// The requests seen lately, by node.
#[derive(Debug, Default)]
pub(super) struct ReplayCache {
    windows: BTreeMap<NodeId, Window>,
    total: usize,
    swept_at: UnixMillis,
}

impl ReplayCache {
    /// Whether a request of `node`, signed at `at` and checked otherwise, is new. Remembers it.
    pub(super) fn admit(
        &mut self,
        node: NodeId,
        at: UnixMillis,
        nonce: Nonce,
        now: UnixMillis,
        skew: Duration,
    ) -> bool {
        self.sweep(now, skew);
        let window = self.windows.entry(node).or_default();
        if at <= window.floor || !window.seen.insert((at, nonce)) {
            return false;
        }
        self.total += 1;
        self.total -= window.shrink_to(PER_NODE_MAX);
        if self.total > TOTAL_MAX {
            self.halve_the_busiest();
        }
        true
    }

    /// Drops what the skew check refuses anyway; at most once in a quarter of the skew.
    fn sweep(&mut self, now: UnixMillis, skew: Duration) {
        if now.since(self.swept_at) < skew / 4 {
            return;
        }
        self.swept_at = now;
        let skew_ms = mutual_model::time::millis(skew);
        let horizon = UnixMillis(now.0.saturating_sub(skew_ms));
        for window in self.windows.values_mut() {
            self.total -= window.forget_before(horizon);
        }
        // A window whose floor still lies within the skew must stay: dropping it would let the
        // forgotten requests in again.
        self.windows
            .retain(|_, window| !window.seen.is_empty() || window.floor >= horizon);
    }

    fn halve_the_busiest(&mut self) {
        let busiest = self
            .windows
            .values_mut()
            .max_by_key(|window| window.seen.len());
        if let Some(window) = busiest {
            let half = window.seen.len() / 2;
            self.total -= window.shrink_to(half);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutual_model::identity::NodeKey;

    const SKEW: Duration = Duration::from_secs(300);

    fn node(seed: u8) -> NodeId {
        NodeKey::from_seed(&[seed; 32]).id()
    }

    fn nonce(number: u64) -> Nonce {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        Nonce(bytes)
    }

    #[test]
    fn a_request_is_admitted_once_and_per_node() {
        let mut cache = ReplayCache::default();
        let now = UnixMillis(1_000_000);
        assert!(cache.admit(node(1), now, nonce(1), now, SKEW));
        assert!(!cache.admit(node(1), now, nonce(1), now, SKEW));
        assert!(cache.admit(node(1), now, nonce(2), now, SKEW));
        assert!(cache.admit(node(2), now, nonce(1), now, SKEW));
    }

    #[test]
    fn a_flood_narrows_only_its_own_window_and_never_reopens_it() {
        let mut cache = ReplayCache::default();
        let now = UnixMillis(1_000_000);
        let quiet = UnixMillis(999_000);
        assert!(cache.admit(node(2), quiet, nonce(0), now, SKEW));
        for number in 0..=PER_NODE_MAX as u64 {
            let at = UnixMillis(1_000_000 + number);
            assert!(cache.admit(node(1), at, nonce(number), now, SKEW));
        }
        assert_eq!(cache.total, PER_NODE_MAX + 1);
        assert!(!cache.admit(node(1), now, nonce(0), now, SKEW));
        assert!(!cache.admit(node(2), quiet, nonce(0), now, SKEW));
        assert!(cache.admit(node(2), quiet, nonce(1), now, SKEW));
    }

    #[test]
    fn the_expired_is_forgotten() {
        let mut cache = ReplayCache::default();
        let now = UnixMillis(1_000_000);
        assert!(cache.admit(node(1), now, nonce(1), now, SKEW));
        let later = now.after(SKEW * 3);
        assert!(cache.admit(node(2), later, nonce(1), later, SKEW));
        assert_eq!((cache.total, cache.windows.len()), (1, 1));
    }
}
