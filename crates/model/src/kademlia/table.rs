//! The routing table: contacts in buckets by how many leading bits they share with this node.
//!
//! A bucket keeps its contacts in the order in which they were last heard of and prefers old ones:
//! who has been up for long will likely stay (Maymounkov and Mazières 2002, section 2.2). A
//! newcomer to a full bucket waits among the spares until an old contact fails.

use super::{Contact, Distance, Key};
use crate::time::Timestamp;

/// Newcomers remembered beside a full bucket.
const SPARES_MAX: usize = 8;
/// A contact that failed this often in a row is gone. One loss is not enough on a lossy network.
const FAILURES_MAX: u8 = 2;

#[derive(Debug, Clone)]
struct Slot {
    contact: Contact,
    seen: Timestamp,
    failures: u8,
}

#[derive(Debug, Clone, Default)]
struct Bucket {
    /// Least recently seen first.
    slots: Vec<Slot>,
    /// Oldest first.
    spares: Vec<Contact>,
    refreshed: Timestamp,
}

/// What became of a contact that was heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It was known; `moved` if it is known at another address.
    Known { moved: bool },
    /// It is in the table now.
    Added,
    /// Its bucket is full; ask this one, not heard of for longest, whether it lives.
    Full { stalest: Contact, seen: Timestamp },
    /// It is this node itself.
    Myself,
}

/// The contacts of one node.
#[derive(Debug, Clone)]
pub(super) struct Table {
    me: Key,
    bucket_len: usize,
    buckets: Vec<Bucket>,
}

impl Table {
    pub(super) fn new(me: Key, bucket_len: usize) -> Self {
        Self {
            me,
            bucket_len,
            buckets: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.slots.len()).sum()
    }

    pub(super) fn contacts(&self) -> impl Iterator<Item = &Contact> {
        self.buckets
            .iter()
            .flat_map(|bucket| bucket.slots.iter().map(|slot| &slot.contact))
    }

    pub(super) fn get(&self, id: &Key) -> Option<&Contact> {
        let bucket = self.buckets.get(self.me.shared_bits(id))?;
        let slot = bucket.slots.iter().find(|slot| slot.contact.id() == id)?;
        Some(&slot.contact)
    }

    /// Notes that an admitted node was heard of just now.
    pub(super) fn seen(&mut self, now: Timestamp, contact: Contact) -> Seen {
        let Some(place) = self.place(contact.id()) else {
            return Seen::Myself;
        };
        let bucket_len = self.bucket_len;
        let bucket = self.bucket(place, now);
        if let Some(at) = bucket.position(contact.id()) {
            let mut slot = bucket.slots.remove(at);
            let moved = slot.contact != contact;
            slot.seen = now;
            slot.failures = 0;
            bucket.slots.push(slot);
            return Seen::Known { moved };
        }
        if bucket.slots.len() < bucket_len {
            bucket.add(now, contact);
            return Seen::Added;
        }
        bucket.remember(contact);
        let oldest = &bucket.slots[0];
        Seen::Full {
            stalest: oldest.contact,
            seen: oldest.seen,
        }
    }

    /// Takes a new address for a known node, once the node itself answered from there.
    pub(super) fn moved(&mut self, contact: Contact) {
        let place = self.me.shared_bits(contact.id());
        let Some(bucket) = self.buckets.get_mut(place) else {
            return;
        };
        if let Some(at) = bucket.position(contact.id()) {
            bucket.slots[at].contact = contact;
        }
    }

    /// Notes that a contact did not answer. Returns whether it was dropped for it.
    pub(super) fn failed(&mut self, now: Timestamp, id: &Key) -> bool {
        let place = self.me.shared_bits(id);
        let Some(bucket) = self.buckets.get_mut(place) else {
            return false;
        };
        bucket.spares.retain(|spare| spare.id() != id);
        let Some(at) = bucket.position(id) else {
            return false;
        };
        bucket.slots[at].failures += 1;
        if bucket.slots[at].failures < FAILURES_MAX {
            return false;
        }
        bucket.slots.remove(at);
        if let Some(spare) = bucket.spares.pop() {
            // Not heard of lately: it goes where it is asked first.
            let seen = bucket.slots.first().map_or(now, |slot| slot.seen);
            bucket.slots.insert(
                0,
                Slot {
                    contact: spare,
                    seen,
                    failures: FAILURES_MAX - 1,
                },
            );
        }
        true
    }

    /// The `count` contacts nearest to `target`, nearest first.
    ///
    /// A bucket is either wholly nearer or wholly farther than another, except that all buckets
    /// beyond the target's own count as one; so few contacts are ever compared.
    pub(super) fn closest(&self, target: &Key, count: usize) -> Vec<Contact> {
        let home = self.me.shared_bits(target);
        let mut found: Vec<(Distance, Contact)> = Vec::with_capacity(count + self.bucket_len);
        let beyond = home.saturating_add(1).min(self.buckets.len());
        let near = home.min(self.buckets.len())..beyond;
        for range in [near, beyond..self.buckets.len()] {
            self.gather(range, target, count, &mut found);
        }
        for place in (0..home.min(self.buckets.len())).rev() {
            self.gather(place..place + 1, target, count, &mut found);
        }
        found.into_iter().map(|(_, contact)| contact).collect()
    }

    fn gather(
        &self,
        range: std::ops::Range<usize>,
        target: &Key,
        count: usize,
        found: &mut Vec<(Distance, Contact)>,
    ) {
        if found.len() >= count {
            return;
        }
        let start = found.len();
        for slot in self.buckets[range].iter().flat_map(|bucket| &bucket.slots) {
            found.push((slot.contact.id().distance(target), slot.contact));
        }
        let group = &mut found[start..];
        let wanted = count - start;
        if group.len() > wanted {
            group.select_nth_unstable_by_key(wanted - 1, |(distance, _)| *distance);
            found.truncate(count);
        }
        found[start..].sort_unstable_by_key(|(distance, _)| *distance);
    }

    /// The contact not heard of for longest, and when it was.
    pub(super) fn stalest(&self) -> Option<(Contact, Timestamp)> {
        let oldest = self
            .buckets
            .iter()
            .filter_map(|bucket| bucket.slots.first());
        oldest
            .min_by_key(|slot| slot.seen)
            .map(|slot| (slot.contact, slot.seen))
    }

    /// Prefix lengths of the buckets that were not refreshed since `before`.
    pub(super) fn stale_buckets(&self, before: Timestamp) -> Vec<usize> {
        (0..self.buckets.len())
            .filter(|place| self.buckets[*place].refreshed < before)
            .collect()
    }

    /// How many contacts share exactly `place` leading bits.
    pub(super) fn bucket_len(&self, place: usize) -> usize {
        self.buckets
            .get(place)
            .map_or(0, |bucket| bucket.slots.len())
    }

    /// How many prefix lengths have buckets.
    pub(super) fn depth(&self) -> usize {
        self.buckets.len()
    }

    /// Notes that a look-up goes into the part of the space around `target`.
    pub(super) fn refreshed(&mut self, now: Timestamp, target: &Key) {
        let place = self.me.shared_bits(target);
        if let Some(bucket) = self.buckets.get_mut(place) {
            bucket.refreshed = now;
        }
    }

    fn place(&self, id: &Key) -> Option<usize> {
        let place = self.me.shared_bits(id);
        (place < super::KEY_BITS).then_some(place)
    }

    fn bucket(&mut self, place: usize, now: Timestamp) -> &mut Bucket {
        if self.buckets.len() <= place {
            self.buckets.resize_with(place + 1, || Bucket {
                refreshed: now,
                ..Bucket::default()
            });
        }
        &mut self.buckets[place]
    }
}

impl Bucket {
    fn position(&self, id: &Key) -> Option<usize> {
        self.slots.iter().position(|slot| slot.contact.id() == id)
    }

    fn add(&mut self, now: Timestamp, contact: Contact) {
        self.spares.retain(|spare| spare.id() != contact.id());
        self.slots.push(Slot {
            contact,
            seen: now,
            failures: 0,
        });
    }

    fn remember(&mut self, contact: Contact) {
        self.spares.retain(|spare| spare.id() != contact.id());
        if self.spares.len() == SPARES_MAX {
            self.spares.remove(0);
        }
        self.spares.push(contact);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::PublicKey;
    use crate::kademlia::Random;
    use proptest::prelude::*;

    fn contact(random: &mut Random) -> Contact {
        Contact::new(PublicKey(random.bytes()), "10.0.0.1:7400".parse().unwrap())
    }

    fn filled(seed: u64, count: usize) -> (Table, Random) {
        let mut random = Random::new(seed);
        let mut table = Table::new(Key::new(random.bytes()), 20);
        for _ in 0..count {
            table.seen(Timestamp(1), contact(&mut random));
        }
        (table, random)
    }

    proptest! {
        #[test]
        fn the_closest_are_what_sorting_all_would_give(seed in 0_u64..1_000, count in 0_usize..300, wanted in 1_usize..30) {
            let (table, mut random) = filled(seed, count);
            let near_me = table.me.random_beyond(5, &mut random);
            for target in [Key::new(random.bytes()), table.me, near_me] {
                let mut all: Vec<Contact> = table.contacts().copied().collect();
                all.sort_by_key(|contact| contact.id().distance(&target));
                all.truncate(wanted);
                prop_assert_eq!(table.closest(&target, wanted), all);
            }
        }
    }

    #[test]
    fn old_contacts_stay_until_they_fail_twice_and_newcomers_wait() {
        let (mut table, mut random) = filled(1, 400);
        let first = *table.buckets[0].slots[0].contact.id();
        assert_eq!(table.buckets[0].slots.len(), 20);
        let newcomer = loop {
            let newcomer = contact(&mut random);
            if table.me.shared_bits(newcomer.id()) == 0 {
                break newcomer;
            }
        };
        let Seen::Full { stalest, .. } = table.seen(Timestamp(2), newcomer) else {
            panic!("the bucket was full");
        };
        assert_eq!(*stalest.id(), first);
        assert!(!table.failed(Timestamp(3), &first), "one loss is forgiven");
        assert!(table.get(&first).is_some());
        assert!(table.failed(Timestamp(4), &first));
        assert!(table.get(&first).is_none());
        assert!(
            table.get(newcomer.id()).is_some(),
            "the newest spare takes the place"
        );
        assert_eq!(table.buckets[0].slots.len(), 20);
    }

    #[test]
    fn a_new_address_counts_only_once_it_answered() {
        let (mut table, mut random) = filled(1, 0);
        let old = contact(&mut random);
        table.seen(Timestamp(1), old);
        let moved = Contact::new(*old.public(), "10.0.0.2:7400".parse().unwrap());
        assert_eq!(table.seen(Timestamp(2), moved), Seen::Known { moved: true });
        assert_eq!(table.get(old.id()), Some(&old));
        table.moved(moved);
        assert_eq!(table.get(old.id()), Some(&moved));
    }

    #[test]
    fn the_table_never_holds_its_owner() {
        let (mut table, _) = filled(1, 0);
        let public = PublicKey([7; 32]);
        table.me = *Contact::new(public, "10.0.0.1:1".parse().unwrap()).id();
        let myself = Contact::new(public, "10.0.0.1:1".parse().unwrap());
        assert_eq!(table.seen(Timestamp(1), myself), Seen::Myself);
        assert_eq!(table.len(), 0);
    }
}
