//! Look-ups under way: whom to ask next, what to believe, when to end.

use std::time::Duration;

use super::core::{Action, Core, Found, Timer};
use super::lookup::{Goal, Lookup, Purpose, Sighting};
use super::message::{Entry, Request};
use super::requests::Aim;
use super::{Contact, Key};
use crate::record::{SignedRecord, VerifiedRecord};
use crate::time::{Timestamp, UnixMillis};

impl Core {
    /// Starts a look-up from the nearest known nodes.
    pub(super) fn look_up(
        &mut self,
        now: Timestamp,
        target: Key,
        goal: Goal,
        purpose: Purpose,
        width: usize,
        deadline: Timestamp,
    ) {
        let mut lookup = Lookup::new(target, goal, purpose, width, deadline);
        lookup.add(
            self.table.closest(&target, self.config.bucket_len),
            &self.me,
        );
        self.start_lookup(now, lookup);
    }

    /// Starts a look-up whose first candidates are known.
    pub(super) fn start_lookup(&mut self, now: Timestamp, lookup: Lookup) {
        self.next_lookup += 1;
        let id = self.next_lookup;
        if self.lookups.len() >= self.config.limits.lookups {
            self.report(now, lookup, false);
            return;
        }
        self.table.refreshed(now, &lookup.target);
        self.set_timer(lookup.deadline, Timer::LookupDeadline(id));
        self.lookups.insert(id, lookup);
        self.advance(now, id);
    }

    pub(super) fn find_records(
        &mut self,
        now: Timestamp,
        query: u64,
        key: Key,
        quorum: usize,
        deadline: Timestamp,
    ) {
        // As many as may hold it, and some that joined since it was stored.
        let width = self.config.replicas + self.config.replicas / 2;
        let goal = Goal::Values {
            quorum: quorum.max(1),
        };
        let mut lookup = Lookup::new(key, goal, Purpose::Query(query), width, deadline);
        lookup.add(self.table.closest(&key, self.config.bucket_len), &self.me);
        self.take_own(now, &mut lookup);
        self.start_lookup(now, lookup);
    }

    /// This node is a holder too. What it keeps was checked when it came.
    fn take_own(&self, now: Timestamp, lookup: &mut Lookup) {
        for (subkey, entry) in self.store.entries(now, &lookup.target, None) {
            if let Ok(signed) = SignedRecord::decode(&entry.record) {
                let expires = now.after(entry.remaining);
                lookup.holders = 1;
                lookup.take(Sighting {
                    subkey,
                    signed,
                    expires,
                });
            }
        }
    }

    fn advance(&mut self, now: Timestamp, id: u64) {
        let Some(lookup) = self.lookups.get_mut(&id) else {
            return;
        };
        if lookup.is_done() {
            self.end_lookup(now, id, true);
            return;
        }
        let parallel = self.config.parallel;
        let mut next = Vec::new();
        while let Some(contact) = lookup.next(parallel) {
            next.push(contact);
        }
        let request = lookup.question();
        for contact in next {
            self.ask(now, contact, Aim::Lookup(id), request.clone());
        }
    }

    pub(super) fn candidate_late(&mut self, now: Timestamp, id: u64, candidate: Contact) {
        if let Some(lookup) = self.lookups.get_mut(&id) {
            lookup.slow(candidate.id());
            self.advance(now, id);
        }
        // With nobody else to ask, a lost datagram must not cost the whole look-up.
        if let Some(lookup) = self.lookups.get(&id)
            && lookup.is_stuck()
        {
            let request = lookup.question();
            self.ask(now, candidate, Aim::Repeated(id), request);
        }
    }

    pub(super) fn candidate_failed(&mut self, now: Timestamp, id: u64, candidate: &Key) {
        if let Some(lookup) = self.lookups.get_mut(&id) {
            lookup.failed(candidate);
            self.advance(now, id);
        }
    }

    pub(super) fn heard_nodes(
        &mut self,
        now: Timestamp,
        id: u64,
        from: &Key,
        contacts: Vec<Contact>,
    ) {
        if let Some(lookup) = self.lookups.get_mut(&id) {
            lookup.add(contacts, &self.me);
            lookup.answered(from);
            self.advance(now, id);
        }
    }

    pub(super) fn heard_values(
        &mut self,
        now: Timestamp,
        id: u64,
        from: Contact,
        (entries, more, contacts): (Vec<Entry>, bool, Vec<Contact>),
    ) {
        let Some(mut lookup) = self.lookups.remove(&id) else {
            return;
        };
        lookup.add(contacts, &self.me);
        let last = entries
            .into_iter()
            .filter_map(|entry| self.sight(now, (id, &mut lookup), from, entry))
            .last();
        let page = last.filter(|_| more && lookup.wants_page(from.id()));
        if page.is_none() {
            lookup.answered(from.id());
        }
        let key = lookup.target;
        self.lookups.insert(id, lookup);
        match page {
            Some(after) => {
                let after = Some(after);
                self.ask(
                    now,
                    from,
                    Aim::Lookup(id),
                    Request::FindValue { key, after },
                );
            }
            None => self.advance(now, id),
        }
    }

    /// Looks at one entry that a holder delivered; returns its subkey unless it is nonsense.
    fn sight(
        &mut self,
        now: Timestamp,
        (id, lookup): (u64, &mut Lookup),
        from: Contact,
        entry: Entry,
    ) -> Option<Key> {
        let signed = SignedRecord::decode(&entry.record).ok()?;
        let subkey = signed.subkey();
        if signed.key() != lookup.target || signed.stamp().tombstone {
            return None;
        }
        if lookup.has(&entry.record) {
            lookup.delivered(from.id());
            return Some(subkey);
        }
        let wall = self.wall(now);
        let remaining = signed.remaining(entry.remaining, wall);
        let expires = now.after(remaining);
        let hash = *signed.certificate();
        let sighting = Sighting {
            subkey,
            signed,
            expires,
        };
        if self.certificates.get(&hash, wall).is_some() || hash == self.certificate_hash {
            if self.believe(lookup, sighting, wall) {
                lookup.delivered(from.id());
            }
        } else if lookup.unproven.len() < self.config.limits.entries_per_key {
            let fetching = lookup
                .unproven
                .iter()
                .any(|(_, waiting)| *waiting.signed.certificate() == hash);
            lookup.unproven.push((from, sighting));
            if !fetching {
                let aim = Aim::Certificate { lookup: id, hash };
                self.ask(now, from, aim, Request::GetCertificate { hash });
            }
        }
        Some(subkey)
    }

    /// Takes an entry into the result if it passes all checks.
    fn believe(&mut self, lookup: &mut Lookup, sighting: Sighting, wall: UnixMillis) -> bool {
        let hash = sighting.signed.certificate();
        let trust = &self.identity.trust;
        let checked = match self.certificates.get(hash, wall) {
            Some(certificate) => sighting.signed.check(&certificate, trust, wall),
            None => sighting
                .signed
                .check(&self.identity.certificate, trust, wall),
        };
        if checked.is_err() {
            self.stats.refused += 1;
            return false;
        }
        lookup.take(sighting);
        true
    }

    /// A holder answered a question for a certificate; it was learnt if it was a good one.
    pub(super) fn certificate_arrived(
        &mut self,
        now: Timestamp,
        id: u64,
        hash: &[u8; 32],
        from: &Key,
    ) {
        let wall = self.wall(now);
        if self.certificates.get(hash, wall).is_none() {
            self.certificate_missing(now, id, hash, from);
            return;
        }
        let Some(mut lookup) = self.lookups.remove(&id) else {
            return;
        };
        let (ready, waiting) = std::mem::take(&mut lookup.unproven)
            .into_iter()
            .partition(|(_, sighting)| sighting.signed.certificate() == hash);
        lookup.unproven = waiting;
        for (holder, sighting) in ready {
            if self.believe(&mut lookup, sighting, wall) {
                lookup.delivered(holder.id());
            }
        }
        self.lookups.insert(id, lookup);
        self.advance(now, id);
    }

    /// A holder did not give a certificate; another that delivered such an entry is asked.
    pub(super) fn certificate_missing(
        &mut self,
        now: Timestamp,
        id: u64,
        hash: &[u8; 32],
        from: &Key,
    ) {
        let Some(lookup) = self.lookups.get_mut(&id) else {
            return;
        };
        let waits = |sighting: &Sighting| sighting.signed.certificate() == hash;
        lookup
            .unproven
            .retain(|(holder, sighting)| !waits(sighting) || holder.id() != from);
        let next = lookup.unproven.iter().find(|(_, sighting)| waits(sighting));
        match next.map(|(holder, _)| *holder) {
            Some(holder) => {
                let (lookup, hash) = (id, *hash);
                let aim = Aim::Certificate { lookup, hash };
                self.ask(now, holder, aim, Request::GetCertificate { hash });
            }
            None => self.advance(now, id),
        }
    }

    pub(super) fn end_lookup(&mut self, now: Timestamp, id: u64, complete: bool) {
        if let Some(lookup) = self.lookups.remove(&id) {
            self.clear_timer(lookup.deadline, Timer::LookupDeadline(id));
            self.report(now, lookup, complete);
        }
    }

    fn report(&mut self, now: Timestamp, lookup: Lookup, complete: bool) {
        self.stats.lookups += 1;
        let contacts = lookup.closest(self.config.bucket_len);
        match lookup.purpose {
            Purpose::Query(query) => {
                let records = verified(now, lookup.into_found());
                let found = Found {
                    contacts,
                    records,
                    complete,
                };
                self.actions.push(Action::Found { query, found });
            }
            Purpose::Publication(key) => self.located(now, key, contacts),
            Purpose::Join => self.joined(now, !contacts.is_empty()),
            Purpose::Refresh => {}
        }
    }
}

fn verified(now: Timestamp, found: Vec<Sighting>) -> Vec<VerifiedRecord> {
    let live = found.into_iter().filter(|sighting| sighting.expires > now);
    live.map(|sighting| VerifiedRecord {
        remaining: sighting.expires.since(now),
        signed: sighting.signed,
    })
    .collect()
}

/// How long this node's own look-ups may take when nobody gave a deadline.
pub(super) const OWN_DEADLINE: Duration = Duration::from_secs(10);
