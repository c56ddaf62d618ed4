//! What a node does unasked: join, look around, probe, refresh, hand copies on, forget.

use std::time::Duration;

use super::core::{Core, Timer};
use super::lookup::{Goal, Lookup, Purpose};
use super::message::Request;
use super::requests::Aim;
use super::seeking::OWN_DEADLINE;
use super::{Contact, Key};
use crate::time::Timestamp;

/// First delay before seeds are tried again; it doubles up to [`super::Config::seed_interval`].
pub(super) const SEED_DELAY_MIN: Duration = Duration::from_millis(500);
/// First delay before the neighbourhood is looked up again; it grows fourfold.
pub(super) const NEIGHBOURHOOD_DELAY_MIN: Duration = Duration::from_secs(5);
const NEIGHBOURHOOD_DELAY_MAX: Duration = Duration::from_secs(320);
/// A look-up that only fills a bucket ends after this many answers.
const REFRESH_WIDTH: usize = 4;
/// Buckets refreshed at a time.
const REFRESHES_AT_ONCE: usize = 3;
const REFRESH_CHECK: Duration = Duration::from_secs(60);
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
const SEEDS_MAX: usize = 256;
/// Handing copies on is paced, so that a newcomer is not flooded.
const HAND_OVERS_AT_ONCE: usize = 16;
const HAND_OVER_PACE: Duration = Duration::from_millis(50);
const HAND_OVERS_MAX: usize = 65_536;
/// What lives shorter than this is left to its publisher.
const HAND_OVER_LIFETIME_MIN: Duration = Duration::from_secs(5);

impl Core {
    pub(super) fn join(&mut self, now: Timestamp, seeds: Vec<Contact>) {
        for seed in seeds {
            match self.seeds.iter().position(|known| known.id() == seed.id()) {
                Some(at) => self.seeds[at] = seed,
                None if self.seeds.len() < SEEDS_MAX && *seed.id() != self.me => {
                    self.seeds.push(seed);
                }
                None => {}
            }
        }
        self.start_timers(now);
        self.look_for_neighbours(now);
    }

    fn start_timers(&mut self, now: Timestamp) {
        if std::mem::replace(&mut self.joining, true) {
            return;
        }
        let config = &self.config;
        for (delay, timer) in [
            (config.probe_interval, Timer::Probe),
            (NEIGHBOURHOOD_DELAY_MIN, Timer::Neighbourhood),
            (REFRESH_CHECK, Timer::Refresh),
            (SEED_DELAY_MIN, Timer::Seeds),
            (SWEEP_INTERVAL, Timer::Sweep),
        ] {
            self.again(now, delay, timer);
        }
    }

    fn again(&mut self, now: Timestamp, delay: Duration, timer: Timer) {
        let at = now.after(self.random.about(delay));
        self.set_timer(at, timer);
    }

    /// Looks up this node's own position, from seeds too, so that its neighbours meet it.
    fn look_for_neighbours(&mut self, now: Timestamp) {
        let width = self.config.bucket_len;
        let deadline = now.after(OWN_DEADLINE);
        let mut lookup = Lookup::new(self.me, Goal::Nodes, Purpose::Join, width, deadline);
        let near = self.table.closest(&self.me, width);
        if near.len() < width {
            lookup.add(self.seeds.iter().copied(), &self.me);
        }
        lookup.add(near, &self.me);
        self.start_lookup(now, lookup);
    }

    /// The neighbours are known: fill the buckets of the rest of the space.
    pub(super) fn joined(&mut self, now: Timestamp, found_any: bool) {
        if !found_any {
            return;
        }
        self.seed_delay = SEED_DELAY_MIN;
        // The deepest buckets are this node's neighbourhood and were just filled.
        let beyond = self.table.depth().saturating_sub(2);
        for place in 0..beyond {
            if self.table.bucket_len(place) < self.config.bucket_len / 2 {
                self.fill_bucket(now, place);
            }
        }
    }

    fn fill_bucket(&mut self, now: Timestamp, place: usize) {
        let target = self.me.random_beyond(place, &mut self.random);
        let deadline = now.after(OWN_DEADLINE);
        self.look_up(
            now,
            target,
            Goal::Nodes,
            Purpose::Refresh,
            REFRESH_WIDTH,
            deadline,
        );
    }

    pub(super) fn look_around(&mut self, now: Timestamp) {
        let delay = self.neighbourhood_delay;
        self.neighbourhood_delay = (delay * 4).min(NEIGHBOURHOOD_DELAY_MAX);
        self.again(now, self.neighbourhood_delay, Timer::Neighbourhood);
        self.look_for_neighbours(now);
    }

    pub(super) fn probe(&mut self, now: Timestamp) {
        self.again(now, self.config.probe_interval, Timer::Probe);
        if let Some((contact, seen)) = self.table.stalest()
            && now.since(seen) >= self.config.probe_interval
        {
            self.ask(now, contact, Aim::Probe, Request::Ping);
        }
    }

    pub(super) fn refresh(&mut self, now: Timestamp) {
        self.again(now, REFRESH_CHECK, Timer::Refresh);
        let Some(before) = before(now, self.config.refresh_interval) else {
            return;
        };
        for place in self
            .table
            .stale_buckets(before)
            .into_iter()
            .take(REFRESHES_AT_ONCE)
        {
            self.fill_bucket(now, place);
        }
    }

    /// Without contacts, joins again; with some, asks the bootstrap peers that are missing, so that
    /// two halves of a parted network find each other and a restarted peer is met again.
    pub(super) fn try_seeds(&mut self, now: Timestamp) {
        self.seed_delay = (self.seed_delay * 2).min(self.config.seed_interval);
        if self.table.len() == 0 {
            self.again(now, self.seed_delay, Timer::Seeds);
            if !self.seeds.is_empty() {
                self.look_for_neighbours(now);
            }
            return;
        }
        self.again(now, self.config.seed_interval, Timer::Seeds);
        let table = &self.table;
        let missing = self
            .seeds
            .iter()
            .filter(|seed| table.get(seed.id()).is_none());
        let missing: Vec<Contact> = missing.copied().take(REFRESHES_AT_ONCE).collect();
        for seed in missing {
            let target = self.me;
            let lookup = Lookup::new(
                target,
                Goal::Nodes,
                Purpose::Refresh,
                REFRESH_WIDTH,
                now.after(OWN_DEADLINE),
            );
            self.look_up_through(now, seed, lookup);
        }
        // A seed that is gone for good must not keep the others from their turn.
        let turn = REFRESHES_AT_ONCE.min(self.seeds.len());
        self.seeds.rotate_left(turn);
    }

    fn look_up_through(&mut self, now: Timestamp, seed: Contact, mut lookup: Lookup) {
        lookup.add([seed], &self.me);
        self.start_lookup(now, lookup);
    }

    pub(super) fn sweep(&mut self, now: Timestamp) {
        self.again(now, SWEEP_INTERVAL, Timer::Sweep);
        self.store.sweep(now);
        let Some(before) = before(now, self.config.replicate_interval) else {
            return;
        };
        let due = self
            .store
            .due_for_replication(now, before, HAND_OVER_LIFETIME_MIN);
        for key in due {
            for holder in self.table.closest(&key, self.config.replicas) {
                self.queue_hand_over(now, holder, key);
            }
        }
    }

    /// A node came: it gets what it should hold, from the nearest node that holds it.
    pub(super) fn arrived(&mut self, now: Timestamp, contact: Contact) {
        for key in self.keys_between(&contact) {
            self.queue_hand_over(now, contact, key);
        }
    }

    /// A node went: whoever takes its place gets what it held.
    pub(super) fn departed(&mut self, now: Timestamp, gone: &Key) {
        let keys: Vec<Key> = self.store.keys().copied().collect();
        for key in keys {
            let holders = self.table.closest(&key, self.config.replicas);
            let Some(last) = holders.last().copied() else {
                return;
            };
            let was_holder = gone.distance(&key) < last.id().distance(&key);
            if was_holder && self.is_nearest_of(&key, &holders) {
                self.queue_hand_over(now, last, key);
            }
        }
    }

    /// Keys that `contact` should hold and this node, of the holders so far the nearest, has.
    fn keys_between(&self, contact: &Contact) -> Vec<Key> {
        let count = self.config.replicas + 1;
        let concerns = |key: &&Key| {
            let mut holders = self.table.closest(key, count);
            let among = holders
                .iter()
                .take(count - 1)
                .any(|holder| holder.id() == contact.id());
            holders.retain(|holder| holder.id() != contact.id());
            among && self.is_nearest_of(key, &holders)
        };
        self.store.keys().filter(concerns).copied().collect()
    }

    fn is_nearest_of(&self, key: &Key, holders: &[Contact]) -> bool {
        let mine = self.me.distance(key);
        holders
            .first()
            .is_none_or(|nearest| mine < nearest.id().distance(key))
    }

    fn queue_hand_over(&mut self, now: Timestamp, to: Contact, key: Key) {
        if self.hand_overs.len() >= HAND_OVERS_MAX {
            return;
        }
        if self.hand_overs.is_empty() {
            self.set_timer(now.after(HAND_OVER_PACE), Timer::HandOver);
        }
        self.hand_overs.push_back((to, key));
    }

    pub(super) fn hand_over(&mut self, now: Timestamp) {
        let count = HAND_OVERS_AT_ONCE.min(self.hand_overs.len());
        let due: Vec<(Contact, Key)> = self.hand_overs.drain(..count).collect();
        for (to, key) in due {
            for entry in self.store.copies(now, &key) {
                if entry.remaining >= HAND_OVER_LIFETIME_MIN {
                    let (remaining, record) = (entry.remaining, entry.record);
                    self.ask(now, to, Aim::HandOver, Request::Store { remaining, record });
                }
            }
        }
        if !self.hand_overs.is_empty() {
            self.set_timer(now.after(HAND_OVER_PACE), Timer::HandOver);
        }
    }
}

/// The instant `interval` before `now`, if time goes back that far.
fn before(now: Timestamp, interval: Duration) -> Option<Timestamp> {
    let interval = u64::try_from(interval.as_micros()).ok()?;
    now.0.checked_sub(interval).map(Timestamp)
}
