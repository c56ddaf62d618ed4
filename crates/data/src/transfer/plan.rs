//! What is still to be fetched and who was asked: the bookkeeping of a fetch, without I/O of its own.
//!
//! Nodes come before chunks and siblings in order, depth first, so the list of wanted blocks stays as short as one
//! node's links per level. A block that one provider takes long to deliver is asked of an idle one as well; the first
//! answer counts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::address::{Cid, Codec, Short, codec};
use crate::dag::Child;

/// Most blocks on their way at a time, over all providers: 16 MiB.
pub(super) const IN_FLIGHT_MAX: usize = 16;

/// After this long a block owed by one provider may be asked of another as well.
const STEAL_AFTER: Duration = Duration::from_millis(300);

/// After this long a provider that lacked a block is asked again: it may be fetching it itself.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// A provider's place in the plan.
pub(super) type ProviderId = usize;

/// A wanted block and what its parent says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The root: nothing is known of it but its name.
    Root(Cid),
    /// A block below another.
    Below(Child),
}

impl Wanted {
    pub(super) fn cid(&self) -> &Cid {
        match self {
            Self::Root(cid) => cid,
            Self::Below(child) => &child.link.cid,
        }
    }

    pub(super) fn is_node(&self) -> bool {
        codec(self.cid()) == Ok(Codec::Node)
    }
}

#[derive(Debug)]
struct Asked {
    wanted: Wanted,
    by: BTreeMap<ProviderId, Instant>,
}

/// The state of one fetch.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Next last. Nodes are put last, so that they are asked first.
    wanted: Vec<Wanted>,
    asked: HashMap<Short, Asked>,
    /// Blocks that arrived and are being verified or expanded.
    working: usize,
    lacking: HashMap<ProviderId, HashMap<Short, Instant>>,
    /// Everything ever wanted, so that a block linked twice is fetched once.
    seen: HashSet<Short>,
}

impl Plan {
    /// Adds blocks to fetch, in order.
    pub(super) fn want(&mut self, blocks: Vec<Wanted>) {
        let (nodes, chunks): (Vec<_>, Vec<_>) = blocks.into_iter().partition(Wanted::is_node);
        for wanted in chunks.into_iter().rev().chain(nodes.into_iter().rev()) {
            if self.seen.insert(Short::from(wanted.cid())) {
                self.wanted.push(wanted);
            }
        }
    }

    /// Blocks asked for and not arrived.
    fn in_flight(&self) -> usize {
        self.asked.values().map(|asked| asked.by.len()).sum()
    }

    /// Chooses up to `count` blocks to ask of a provider.
    pub(super) fn take(&mut self, by: ProviderId, count: usize, now: Instant) -> Vec<Wanted> {
        let mut taken = Vec::new();
        while taken.len() < count && self.in_flight() + self.working < IN_FLIGHT_MAX {
            let Some(wanted) = self.take_wanted(by, now).or_else(|| self.steal(by, now)) else {
                break;
            };
            let entry = self.asked.entry(Short::from(wanted.cid()));
            let asked = entry.or_insert_with(|| Asked {
                wanted: wanted.clone(),
                by: BTreeMap::new(),
            });
            asked.by.insert(by, now);
            taken.push(wanted);
        }
        taken
    }

    fn take_wanted(&mut self, by: ProviderId, now: Instant) -> Option<Wanted> {
        let place = self
            .wanted
            .iter()
            .rposition(|w| !self.lacks(by, w.cid(), now))?;
        Some(self.wanted.remove(place))
    }

    fn steal(&self, by: ProviderId, now: Instant) -> Option<Wanted> {
        let stealable = |asked: &&Asked| {
            asked.by.len() == 1
                && !asked.by.contains_key(&by)
                && asked
                    .by
                    .values()
                    .all(|since| now.duration_since(*since) >= STEAL_AFTER)
                && !self.lacks(by, asked.wanted.cid(), now)
        };
        let oldest = self
            .asked
            .values()
            .filter(stealable)
            .min_by_key(|a| a.by.values().min().copied())?;
        Some(oldest.wanted.clone())
    }

    fn lacks(&self, provider: ProviderId, cid: &Cid, now: Instant) -> bool {
        self.lacking
            .get(&provider)
            .and_then(|lacking| lacking.get(&Short::from(cid)))
            .is_some_and(|since| now.duration_since(*since) < ASK_AGAIN_AFTER)
    }

    /// A block arrived. False if another provider was faster: then it need not even be verified.
    pub(super) fn arrived(&mut self, cid: &Cid) -> bool {
        let first = self.asked.remove(&Short::from(cid)).is_some();
        self.working += usize::from(first);
        first
    }

    /// An arrived block was stored, and links to these.
    pub(super) fn stored(&mut self, children: Vec<Wanted>) {
        self.working -= 1;
        self.want(children);
    }

    /// An arrived block was bad: it is wanted again.
    pub(super) fn spoilt(&mut self, wanted: Wanted) {
        self.working -= 1;
        self.wanted.push(wanted);
    }

    /// A provider does not have a block it was asked for.
    pub(super) fn missing(&mut self, by: ProviderId, cid: &Cid, now: Instant) {
        let short = Short::from(cid);
        self.lacking.entry(by).or_default().insert(short, now);
        self.give_back(by, short);
    }

    /// A provider is gone: what it owed is wanted again.
    pub(super) fn gone(&mut self, by: ProviderId) {
        let owed: Vec<_> = self
            .asked
            .iter()
            .filter(|(_, a)| a.by.contains_key(&by))
            .map(|(s, _)| *s)
            .collect();
        for short in owed {
            self.give_back(by, short);
        }
        self.lacking.remove(&by);
    }

    fn give_back(&mut self, by: ProviderId, short: Short) {
        let Some(asked) = self.asked.get_mut(&short) else {
            return;
        };
        asked.by.remove(&by);
        if asked.by.is_empty()
            && let Some(asked) = self.asked.remove(&short)
        {
            self.wanted.push(asked.wanted);
        }
    }

    /// Blocks known to be missing still.
    pub(super) fn left(&self) -> usize {
        self.wanted.len() + self.asked.len() + self.working
    }

    /// Whether everything is here.
    pub(super) fn is_done(&self) -> bool {
        self.left() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::name;
    use crate::dag::Link;

    fn chunk(number: u8) -> Wanted {
        below(name(Codec::Raw, &[number]), 0)
    }

    fn below(cid: Cid, height: u8) -> Wanted {
        let link = Link {
            cid,
            bytes: 1,
            payload: 1,
        };
        Wanted::Below(Child { link, height })
    }

    fn plan(count: u8) -> Plan {
        let mut plan = Plan::default();
        plan.want((0..count).map(chunk).collect());
        plan
    }

    #[test]
    fn blocks_are_asked_in_order_once_and_nodes_first() {
        let mut plan = plan(2);
        plan.want(vec![chunk(1), below(name(Codec::Node, b""), 1)]);
        let now = Instant::now();
        let taken = plan.take(0, 9, now);
        assert_eq!(
            taken,
            [below(name(Codec::Node, b""), 1), chunk(0), chunk(1)]
        );
        assert_eq!(plan.take(1, 9, now), []);
    }

    #[test]
    fn what_is_on_its_way_is_bounded() {
        let mut plan = plan(100);
        let now = Instant::now();
        let first = plan.take(0, 10, now);
        assert_eq!(first.len() + plan.take(1, 10, now).len(), IN_FLIGHT_MAX);
        assert!(plan.arrived(first[0].cid()));
        assert_eq!(plan.take(1, 10, now), [], "it is still being stored");
        plan.stored(vec![]);
        assert_eq!(plan.take(1, 10, now).len(), 1);
    }

    #[test]
    fn what_a_lost_provider_owed_is_asked_of_another() {
        let mut plan = plan(3);
        let now = Instant::now();
        assert_eq!(plan.take(0, 2, now).len(), 2);
        plan.gone(0);
        assert_eq!(plan.take(1, 9, now).len(), 3);
    }

    #[test]
    fn a_slow_block_is_asked_twice_and_counts_once() {
        let mut plan = plan(1);
        let start = Instant::now();
        plan.take(0, 1, start);
        assert_eq!(plan.take(1, 1, start), []);
        let later = start + STEAL_AFTER;
        assert_eq!(plan.take(0, 1, later), [], "not of the same provider");
        assert_eq!(plan.take(1, 1, later), [chunk(0)]);
        assert_eq!(plan.take(2, 1, later), [], "two are enough");
        assert!(plan.arrived(chunk(0).cid()));
        assert!(!plan.arrived(chunk(0).cid()));
        plan.stored(vec![]);
        assert!(plan.is_done());
    }

    #[test]
    fn a_lacking_provider_is_asked_again_later() {
        let mut plan = plan(1);
        let start = Instant::now();
        plan.take(0, 1, start);
        plan.missing(0, chunk(0).cid(), start);
        assert_eq!(plan.take(0, 1, start), []);
        assert_eq!(plan.take(0, 1, start + ASK_AGAIN_AFTER).len(), 1);
        plan.gone(0);
        assert_eq!(plan.left(), 1);
    }

    #[test]
    fn a_spoilt_block_is_wanted_again() {
        let mut plan = plan(1);
        let now = Instant::now();
        plan.take(0, 1, now);
        assert!(plan.arrived(chunk(0).cid()));
        assert!(!plan.is_done());
        plan.spoilt(chunk(0));
        assert_eq!(plan.take(1, 1, now), [chunk(0)]);
    }
}
