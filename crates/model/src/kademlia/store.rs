//! The records that this node keeps for the network.
//!
//! Each key holds a dictionary of entries in the order of their subkeys. Everything is bounded: the
//! entries of a key, those of one publisher, and the bytes in all; what has expired goes first and
//! nobody's live entry is ever pushed out by another's.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::message::{Entry, Stored};
use super::{Key, Limits};
use crate::identity::{Certificate, PublicKey};
use crate::record::SignedRecord;
use crate::time::Timestamp;

/// One entry of a dictionary.
#[derive(Debug, Clone)]
struct Held {
    subkey: Key,
    publisher: PublicKey,
    tombstone: bool,
    expires: Timestamp,
    /// When a copy last came from elsewhere, so that one holder's replication spares the others'.
    received: Timestamp,
    record: Arc<[u8]>,
    /// Kept so that whoever looks the entry up can be given it.
    _certificate: Arc<Certificate>,
}

/// All dictionaries of one node.
#[derive(Debug, Clone)]
pub(super) struct Store {
    limits: Limits,
    keys: BTreeMap<Key, Vec<Held>>,
    publishers: BTreeMap<PublicKey, usize>,
    len: usize,
    bytes: usize,
}

impl Store {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            keys: BTreeMap::new(),
            publishers: BTreeMap::new(),
            len: 0,
            bytes: 0,
        }
    }

    /// Entries in all.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.keys()
    }

    /// Keeps a record that passed all checks for `remaining`.
    ///
    /// The same version again never lasts longer than it did: lifetimes only count down.
    pub(super) fn keep(
        &mut self,
        now: Timestamp,
        signed: &SignedRecord,
        certificate: Arc<Certificate>,
        remaining: Duration,
    ) -> Stored {
        let (key, subkey) = (signed.key(), signed.subkey());
        if let Some(verdict) = self.against_present(now, &key, &subkey, signed) {
            return verdict;
        }
        self.remove(&key, &subkey);
        if !self.has_room(now, &key, signed) {
            return Stored::Full;
        }
        let held = Held {
            subkey,
            publisher: *signed.publisher(),
            tombstone: signed.stamp().tombstone,
            expires: now.after(remaining),
            received: now,
            record: signed.bytes().clone(),
            _certificate: certificate,
        };
        self.insert(key, held);
        Stored::Kept
    }

    fn against_present(
        &mut self,
        now: Timestamp,
        key: &Key,
        subkey: &Key,
        signed: &SignedRecord,
    ) -> Option<Stored> {
        let entries = self.keys.get_mut(key)?;
        let at = position(entries, subkey).ok()?;
        let held = &mut entries[at];
        if held.expires <= now {
            return None;
        }
        if held.record == *signed.bytes() {
            held.received = now;
            return Some(Stored::Kept);
        }
        let present = SignedRecord::decode(&held.record).ok()?;
        (!signed.supersedes(&present)).then_some(Stored::Superseded)
    }

    fn has_room(&mut self, now: Timestamp, key: &Key, signed: &SignedRecord) -> bool {
        if self.fits(key, signed) {
            return true;
        }
        self.sweep(now);
        self.fits(key, signed)
    }

    fn fits(&self, key: &Key, signed: &SignedRecord) -> bool {
        let of_key = self.keys.get(key).map_or(0, Vec::len);
        let of_publisher = self
            .publishers
            .get(signed.publisher())
            .copied()
            .unwrap_or(0);
        of_key < self.limits.entries_per_key
            && of_publisher < self.limits.entries_per_publisher
            && self.bytes + signed.bytes().len() <= self.limits.bytes
    }

    fn insert(&mut self, key: Key, held: Held) {
        self.len += 1;
        self.bytes += held.record.len();
        *self.publishers.entry(held.publisher).or_default() += 1;
        let entries = self.keys.entry(key).or_default();
        if let Err(at) = position(entries, &held.subkey) {
            entries.insert(at, held);
        }
    }

    fn remove(&mut self, key: &Key, subkey: &Key) {
        let Some(entries) = self.keys.get_mut(key) else {
            return;
        };
        if let Ok(at) = position(entries, subkey) {
            let held = entries.remove(at);
            if entries.is_empty() {
                self.keys.remove(key);
            }
            self.forget(&held);
        }
    }

    fn forget(&mut self, held: &Held) {
        self.len -= 1;
        self.bytes -= held.record.len();
        if let Some(count) = self.publishers.get_mut(&held.publisher) {
            *count -= 1;
            if *count == 0 {
                self.publishers.remove(&held.publisher);
            }
        }
    }

    /// Drops what has expired.
    pub(super) fn sweep(&mut self, now: Timestamp) {
        let mut dead = Vec::new();
        self.keys.retain(|_, entries| {
            dead.extend(entries.extract_if(.., |held| held.expires <= now));
            !entries.is_empty()
        });
        dead.iter().for_each(|held| self.forget(held));
    }

    /// The live entries of `key` whose subkey lies after `after`, tombstones left out.
    pub(super) fn entries<'a>(
        &'a self,
        now: Timestamp,
        key: &Key,
        after: Option<Key>,
    ) -> impl Iterator<Item = (Key, Entry)> + use<'a> {
        let entries = self.keys.get(key).map_or(&[][..], Vec::as_slice);
        let from = match after.map_or(Bound::Unbounded, Bound::Excluded) {
            Bound::Excluded(after) => entries.partition_point(|held| held.subkey <= after),
            _ => 0,
        };
        entries[from..]
            .iter()
            .filter(move |held| held.expires > now && !held.tombstone)
            .map(move |held| (held.subkey, held.entry(now)))
    }

    /// Everything at `key` that still lives, tombstones too: what another holder needs.
    pub(super) fn copies(&self, now: Timestamp, key: &Key) -> Vec<Entry> {
        let entries = self.keys.get(key).map_or(&[][..], Vec::as_slice);
        let live = entries.iter().filter(|held| held.expires > now);
        live.map(|held| held.entry(now)).collect()
    }

    /// Keys with an entry that no one has sent again since `before` and that lives on for longer
    /// than `remaining`; they count as replicated from now on.
    pub(super) fn due_for_replication(
        &mut self,
        now: Timestamp,
        before: Timestamp,
        remaining: Duration,
    ) -> Vec<Key> {
        let mut due = Vec::new();
        for (key, entries) in &mut self.keys {
            let mut any = false;
            for held in entries {
                if held.received < before && held.expires > now.after(remaining) {
                    held.received = now;
                    any = true;
                }
            }
            if any {
                due.push(*key);
            }
        }
        due
    }
}

impl Held {
    fn entry(&self, now: Timestamp) -> Entry {
        Entry {
            remaining: self.expires.since(now),
            record: self.record.clone(),
        }
    }
}

fn position(entries: &[Held], subkey: &Key) -> Result<usize, usize> {
    entries.binary_search_by(|held| held.subkey.cmp(subkey))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Membership, NodeKey, Role};
    use crate::ids::{Incarnation, JobId};
    use crate::record::{Body, Bulletin, ProviderRecord, Record, Stamp, Version};
    use crate::resources::ResourceClass;
    use crate::time::UnixMillis;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn certificate() -> Arc<Certificate> {
        let key = NodeKey::from_seed(&[1; 32]);
        let membership = Membership {
            organisation: key.public(),
            node: key.public(),
            sealing: key.sealing_public(),
            name: "node".into(),
            namespaces: vec![],
            roles: vec![Role::Agent],
            not_before: UnixMillis(0),
            not_after: UnixMillis(u64::MAX),
        };
        Arc::new(Certificate::issue(&key, membership).unwrap())
    }

    fn signed(publisher: u8, body: Body, sequence: u64, tombstone: bool) -> SignedRecord {
        let stamp = Stamp {
            version: Version {
                incarnation: Incarnation::new(NOW, [0; 10]),
                sequence,
            },
            lifetime: MINUTE,
            signed_at: NOW,
            tombstone,
        };
        let namespace = "lab".parse().unwrap();
        let record = Record { namespace, body };
        SignedRecord::sign(
            &NodeKey::from_seed(&[publisher; 32]),
            [0; 32],
            record,
            stamp,
        )
        .unwrap()
    }

    fn bulletin(publisher: u8, sequence: u64) -> SignedRecord {
        let class = ResourceClass {
            gpu: 0,
            memory: 1,
            cpu: 1,
        };
        let ads = vec![];
        let body = Body::Bulletin(Bulletin {
            class,
            open: 1,
            ads,
        });
        signed(publisher, body, sequence, false)
    }

    fn provider(publisher: u8, job: u8) -> SignedRecord {
        let provider = ProviderRecord {
            job: JobId::new(NOW, [job; 10]),
            manifest: "bafy".parse().unwrap(),
            seeders: vec![],
        };
        signed(publisher, Body::Provider(provider), 1, false)
    }

    fn store(limits: Limits) -> Store {
        Store::new(limits)
    }

    fn keep(store: &mut Store, at: u64, signed: &SignedRecord, remaining: Duration) -> Stored {
        store.keep(Timestamp(at), signed, certificate(), remaining)
    }

    fn live(store: &Store, at: u64, key: &Key) -> usize {
        store.entries(Timestamp(at), key, None).count()
    }

    #[test]
    fn older_versions_never_come_back() {
        let mut store = store(Limits::default());
        let (first, second) = (bulletin(1, 1), bulletin(1, 2));
        assert_eq!(keep(&mut store, 0, &second, MINUTE), Stored::Kept);
        assert_eq!(keep(&mut store, 0, &first, MINUTE), Stored::Superseded);
        assert_eq!(keep(&mut store, 0, &second, MINUTE), Stored::Kept);
        let body = second.record().body.clone();
        let tombstone = signed(1, body, 3, true);
        assert_eq!(keep(&mut store, 0, &tombstone, MINUTE), Stored::Kept);
        assert_eq!(live(&store, 0, &second.key()), 0);
        assert_eq!(keep(&mut store, 0, &second, MINUTE), Stored::Superseded);
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn a_copy_of_the_same_version_adds_no_time() {
        let mut store = store(Limits::default());
        let record = bulletin(1, 1);
        keep(&mut store, 0, &record, MINUTE);
        keep(&mut store, 59_000_000, &record, MINUTE);
        assert_eq!(live(&store, 59_999_999, &record.key()), 1);
        assert_eq!(live(&store, 60_000_000, &record.key()), 0);
        store.sweep(Timestamp(60_000_000));
        assert_eq!(
            (store.len(), store.bytes, store.publishers.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn the_dead_make_room_and_the_living_do_not() {
        let mut store = store(Limits {
            entries_per_key: 2,
            ..Limits::default()
        });
        keep(&mut store, 0, &bulletin(1, 1), MINUTE / 2);
        keep(&mut store, 0, &bulletin(2, 1), MINUTE);
        assert_eq!(keep(&mut store, 0, &bulletin(3, 1), MINUTE), Stored::Full);
        assert_eq!(
            keep(&mut store, 30_000_000, &bulletin(3, 1), MINUTE),
            Stored::Kept
        );
        assert_eq!(
            keep(&mut store, 30_000_000, &bulletin(2, 2), MINUTE),
            Stored::Kept
        );
        assert_eq!(store.len(), 2);
    }

    #[test]
    fn no_publisher_and_not_all_together_take_more_than_their_share() {
        let mut few = store(Limits {
            entries_per_publisher: 3,
            ..Limits::default()
        });
        let kept = |stored: &Stored| *stored == Stored::Kept;
        let results = (0..9).map(|job| keep(&mut few, 0, &provider(1, job), MINUTE));
        assert_eq!(results.filter(kept).count(), 3);
        assert_eq!(keep(&mut few, 0, &provider(2, 1), MINUTE), Stored::Kept);
        let one = provider(1, 1).bytes().len();
        let mut small = store(Limits {
            bytes: one * 4 + 3,
            ..Limits::default()
        });
        let results = (0..9).map(|job| keep(&mut small, 0, &provider(1, job), MINUTE));
        assert_eq!(results.filter(kept).count(), 4);
    }

    #[test]
    fn pages_continue_after_the_last_subkey() {
        let mut store = store(Limits::default());
        let key = bulletin(1, 1).key();
        for publisher in 1..20 {
            keep(&mut store, 0, &bulletin(publisher, 1), MINUTE);
        }
        let mut after = None;
        let mut seen = 0;
        while let Some((last, _)) = store.entries(Timestamp(0), &key, after).take(4).last() {
            seen += store.entries(Timestamp(0), &key, after).take(4).count();
            after = Some(last);
        }
        assert_eq!(seen, 19);
    }
}
