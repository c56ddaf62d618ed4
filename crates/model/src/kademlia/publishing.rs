//! This node's own records: signed, stored at the nearest nodes, kept fresh, taken back.

use std::time::Duration;

use super::core::{Action, Core, Timer};
use super::lookup::{Goal, Purpose};
use super::message::{Request, Stored};
use super::requests::Aim;
use super::seeking::OWN_DEADLINE;
use super::{Contact, Key};
use crate::record::{Record, SignedRecord, Stamp, Version};
use crate::time::Timestamp;
use std::sync::Arc;

/// How long holders found by a look-up are written to directly.
const HOLDERS_GOOD_FOR: Duration = Duration::from_secs(120);
/// A record is published this many times within its lifetime, so that two losses do no harm.
const PUBLICATIONS_PER_LIFETIME: u32 = 3;
/// How soon a record that nobody else holds is published again.
const RETRY_ALONE: Duration = Duration::from_secs(1);

/// A record that this node keeps alive in the network.
#[derive(Debug, Clone)]
pub(super) struct Publication {
    record: Record,
    lifetime: Duration,
    replicas: usize,
    withdrawn: bool,
    holders: Vec<Contact>,
    located_at: Option<Timestamp>,
    /// The bytes on their way, and who still has to say that it has them.
    signed: Option<Arc<[u8]>>,
    waiting: Vec<Key>,
    kept: usize,
    /// Whether someone waits to hear of it.
    announced: bool,
    due: Timestamp,
}

impl Core {
    pub(super) fn publish(
        &mut self,
        now: Timestamp,
        record: Record,
        lifetime: Duration,
        replicas: usize,
    ) {
        let key = record.place();
        let before = self.publications.remove(&key);
        if let Some(before) = &before {
            self.clear_timer(before.due, Timer::Publication(key));
        }
        let (holders, located_at) =
            before.map_or((Vec::new(), None), |p| (p.holders, p.located_at));
        let publication = Publication {
            record,
            lifetime,
            replicas: replicas.max(1),
            withdrawn: false,
            holders,
            located_at,
            signed: None,
            waiting: Vec::new(),
            kept: 0,
            announced: false,
            due: now,
        };
        self.publications.insert(key, publication);
        self.republish(now, key);
    }

    pub(super) fn withdraw(&mut self, now: Timestamp, key: Key) {
        let Some(publication) = self.publications.get_mut(&key) else {
            self.actions.push(Action::Published { key, holders: 0 });
            return;
        };
        publication.withdrawn = true;
        publication.announced = false;
        let due = publication.due;
        self.clear_timer(due, Timer::Publication(key));
        self.republish(now, key);
    }

    /// Signs the record anew and sends it to its holders, which are looked up if need be.
    pub(super) fn republish(&mut self, now: Timestamp, key: Key) {
        let Some(mut publication) = self.publications.remove(&key) else {
            return;
        };
        self.clear_timer(publication.due, Timer::Publication(key));
        let Some(signed) = self.sign(now, &publication) else {
            // Too long: nothing was or will be published.
            self.actions.push(Action::Published { key, holders: 0 });
            return;
        };
        self.keep_own(now, &signed);
        publication.signed = Some(signed.bytes().clone());
        publication.waiting.clear();
        publication.kept = 0;
        // Unless the holders answer before, the record goes out again in time.
        publication.due = now.after(publication.lifetime / PUBLICATIONS_PER_LIFETIME);
        self.set_timer(publication.due, Timer::Publication(key));
        let enough = publication.replicas.min(self.table.len());
        let located = publication.holders.len() >= enough
            && publication
                .located_at
                .is_some_and(|at| now.since(at) < HOLDERS_GOOD_FOR);
        let holders = publication.holders.clone();
        let (replicas, target) = (publication.replicas, publication.record.key());
        self.publications.insert(key, publication);
        if located {
            self.send_copies(now, key, &holders);
        } else {
            let width = replicas.min(self.config.bucket_len);
            let deadline = now.after(OWN_DEADLINE);
            self.look_up(
                now,
                target,
                Goal::Nodes,
                Purpose::Publication(key),
                width,
                deadline,
            );
        }
    }

    fn sign(&mut self, now: Timestamp, publication: &Publication) -> Option<SignedRecord> {
        self.sequence += 1;
        let stamp = Stamp {
            version: Version {
                incarnation: self.identity.incarnation,
                sequence: self.sequence,
            },
            lifetime: publication.lifetime,
            signed_at: self.wall(now),
            tombstone: publication.withdrawn,
        };
        let record = publication.record.clone();
        SignedRecord::sign(&self.identity.key, self.certificate_hash, record, stamp).ok()
    }

    /// This node is always a holder of its own records.
    fn keep_own(&mut self, now: Timestamp, signed: &SignedRecord) {
        if let Some(certificate) = self.learn_certificate(now, &self.certificate.clone()) {
            let lifetime = signed.stamp().lifetime;
            self.store.keep(now, signed, certificate, lifetime);
        }
    }

    /// The look-up for a publication ended.
    pub(super) fn located(&mut self, now: Timestamp, key: Key, mut contacts: Vec<Contact>) {
        let Some(publication) = self.publications.get_mut(&key) else {
            return;
        };
        contacts.truncate(publication.replicas);
        publication.holders.clone_from(&contacts);
        publication.located_at = Some(now);
        self.send_copies(now, key, &contacts);
    }

    fn send_copies(&mut self, now: Timestamp, key: Key, holders: &[Contact]) {
        let Some(publication) = self.publications.get_mut(&key) else {
            return;
        };
        publication.waiting = holders.iter().map(|holder| *holder.id()).collect();
        let Some(record) = publication.signed.clone() else {
            return;
        };
        let remaining = publication.lifetime;
        for holder in holders {
            let record = record.clone();
            self.ask(
                now,
                *holder,
                Aim::Publication(key),
                Request::Store { remaining, record },
            );
        }
        self.settle(now, key);
    }

    /// A holder answered, or did not.
    pub(super) fn copy_settled(
        &mut self,
        now: Timestamp,
        key: Key,
        holder: &Key,
        stored: Option<Stored>,
    ) {
        let Some(publication) = self.publications.get_mut(&key) else {
            return;
        };
        publication.waiting.retain(|waiting| waiting != holder);
        match stored {
            Some(Stored::Kept) => publication.kept += 1,
            // Somebody else's entry serves as well, or ours went out again meanwhile.
            Some(Stored::Superseded) => {}
            _ => publication.located_at = None,
        }
        self.settle(now, key);
    }

    /// Once every holder answered: report, and decide when to publish again.
    fn settle(&mut self, now: Timestamp, key: Key) {
        let Some(publication) = self.publications.get_mut(&key) else {
            return;
        };
        if !publication.waiting.is_empty() {
            return;
        }
        let holders = publication.kept;
        if !std::mem::replace(&mut publication.announced, true) {
            self.actions.push(Action::Published { key, holders });
        }
        if publication.withdrawn {
            let due = publication.due;
            self.publications.remove(&key);
            self.clear_timer(due, Timer::Publication(key));
            return;
        }
        let (due, next) = (publication.due, self.next_publication(now, key));
        self.clear_timer(due, Timer::Publication(key));
        self.set_timer(next, Timer::Publication(key));
        if let Some(publication) = self.publications.get_mut(&key) {
            publication.due = next;
        }
    }

    fn next_publication(&mut self, now: Timestamp, key: Key) -> Timestamp {
        let Some(publication) = self.publications.get(&key) else {
            return now;
        };
        let regular = (publication.lifetime / PUBLICATIONS_PER_LIFETIME)
            .min(self.config.republish_interval_max);
        let alone = publication.kept == 0;
        let thin = publication.kept < publication.replicas.min(self.table.len());
        let mean = match (alone, thin) {
            (true, _) => regular.min(RETRY_ALONE),
            (_, true) => regular.min(RETRY_ALONE * 10),
            _ => regular,
        };
        now.after(self.random.about(mean))
    }
}
