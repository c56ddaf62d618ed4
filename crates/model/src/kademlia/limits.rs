//! How much this node lets others make it do and keep.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Key;
use crate::record::CLOCK_TOLERANCE;
use crate::time::{Timestamp, UnixMillis};

/// Bounds on what others can make a node keep and do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries in one key's dictionary.
    pub entries_per_key: usize,
    /// Entries of one publisher.
    pub entries_per_publisher: usize,
    /// Bytes of all records.
    pub bytes: usize,
    /// Verified certificates kept beside those of stored records.
    pub certificates: usize,
    /// Requests that one node may make each second; bursts of twice as many pass.
    pub requests_per_second: u32,
    /// Look-ups of this node's own at a time.
    pub lookups: usize,
    /// Requests of this node's own awaiting an answer.
    pub requests: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries_per_key: 256,
            entries_per_publisher: 16_384,
            bytes: 32 << 20,
            certificates: 64,
            requests_per_second: 4_000,
            lookups: 1_024,
            requests: 16_384,
        }
    }
}

/// Peers whose rate is followed; a stranger beyond that finds the bucket of the idlest one free.
const PEERS_FOLLOWED_MAX: usize = 1_024;

/// A token bucket for each peer.
#[derive(Debug, Clone)]
pub(super) struct Rates {
    per_second: u32,
    peers: BTreeMap<Key, (f64, Timestamp)>,
}

impl Rates {
    pub(super) const fn new(per_second: u32) -> Self {
        Self {
            per_second,
            peers: BTreeMap::new(),
        }
    }

    /// Whether `peer` may make one more request now.
    pub(super) fn allow(&mut self, now: Timestamp, peer: &Key) -> bool {
        let burst = f64::from(self.per_second) * 2.0;
        if self.peers.len() >= PEERS_FOLLOWED_MAX && !self.peers.contains_key(peer) {
            self.peers
                .retain(|_, (_, at)| now.since(*at) < Duration::from_secs(2));
            if self.peers.len() >= PEERS_FOLLOWED_MAX {
                return false;
            }
        }
        let (tokens, at) = self.peers.entry(*peer).or_insert((burst, now));
        let gained = now.since(*at).as_secs_f64() * f64::from(self.per_second);
        *tokens = (*tokens + gained).min(burst);
        *at = now;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }
}

/// Requests remembered in one generation; a flood shortens the window instead of filling memory.
const REMEMBERED_MAX: usize = 16_384;

/// Tells a repeated request from a new one.
///
/// A request carries its sender's coarse time. One from outside five minutes either way is refused,
/// and the ids of the others are remembered for longer than that, in two generations.
#[derive(Debug, Clone, Default)]
pub(super) struct ReplayWindow {
    current: BTreeSet<(u64, u64)>,
    previous: BTreeSet<(u64, u64)>,
    since: Timestamp,
}

impl ReplayWindow {
    /// Whether this request is new; remembers it.
    pub(super) fn is_new(
        &mut self,
        now: Timestamp,
        wall: UnixMillis,
        peer: &Key,
        id: u64,
        sent_at: UnixMillis,
    ) -> bool {
        if sent_at > wall.after(CLOCK_TOLERANCE) || wall > sent_at.after(CLOCK_TOLERANCE) {
            return false;
        }
        if now.since(self.since) > CLOCK_TOLERANCE * 2 || self.current.len() >= REMEMBERED_MAX {
            self.previous = std::mem::take(&mut self.current);
            self.since = now;
        }
        let [a, b, c, d, e, f, g, h, ..] = *peer.as_bytes();
        let name = (u64::from_le_bytes([a, b, c, d, e, f, g, h]), id);
        !self.previous.contains(&name) && self.current.insert(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_new_once_and_only_near_the_present() {
        let mut window = ReplayWindow::default();
        let wall = UnixMillis(1_000_000_000);
        let peer = Key::new([1; 32]);
        let mut is_new =
            |id, sent_at| window.is_new(Timestamp(0), wall, &peer, id, UnixMillis(sent_at));
        assert!(is_new(1, wall.0));
        assert!(!is_new(1, wall.0));
        assert!(is_new(2, wall.0 - 299_000));
        assert!(!is_new(3, wall.0 - 301_000));
        assert!(!is_new(4, wall.0 + 301_000));
    }

    #[test]
    fn a_peer_gets_its_rate_and_others_theirs() {
        let mut rates = Rates::new(10);
        let (one, two) = (Key::new([1; 32]), Key::new([2; 32]));
        let passed = (0..100).filter(|_| rates.allow(Timestamp(0), &one)).count();
        assert_eq!(passed, 20);
        assert!(rates.allow(Timestamp(0), &two));
        assert!(rates.allow(Timestamp(100_000), &one));
        assert!(!rates.allow(Timestamp(100_000), &one));
    }
}
