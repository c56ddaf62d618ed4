//! What the memory store keeps, and the few motions that every operation is made of.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mutual_model::ids::{ClientKey, JobId, Namespace, Nonce, StoreId};
use mutual_model::lease::{Claim, Fence, Holder};
use mutual_model::time::{UnixMillis, millis};

use super::index::Index;
use super::record::Record;
use crate::clock::{Reading, StepWatch};
use crate::config::StoreConfig;
use crate::rules::rights;
use crate::{JobEvent, Principal, StoreError, StoreInfo, StoreResult, Verdict};

/// One incarnation's lease over everything it holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    pub(super) expires_at: UnixMillis,
    pub(super) heard_at: UnixMillis,
    pub(super) revoked: bool,
}

/// One guardian's word against an incarnation.
#[derive(Debug, Clone)]
pub(super) struct Vote {
    pub(super) verdict: Verdict,
    pub(super) at: UnixMillis,
}

/// Events kept; older ones are forgotten, as durable stores prune theirs.
const EVENTS_KEPT: usize = 1_000_000;

#[derive(Debug)]
pub(super) struct State {
    pub(super) config: StoreConfig,
    pub(super) now: UnixMillis,
    pub(super) epoch: u64,
    pub(super) grace_until: UnixMillis,
    pub(super) records: BTreeMap<JobId, Record>,
    pub(super) keys: BTreeMap<(Namespace, ClientKey), JobId>,
    pub(super) index: Index,
    pub(super) leases: BTreeMap<Holder, Lease>,
    /// Runs below this one were superseded by their own node.
    pub(super) superseded: BTreeMap<mutual_model::identity::NodeId, mutual_model::ids::Incarnation>,
    pub(super) claimed_nonces: BTreeSet<(Holder, Nonce)>,
    pub(super) verdict_nonces: BTreeSet<Nonce>,
    pub(super) votes: BTreeMap<(Holder, String), Vote>,
    events: VecDeque<JobEvent>,
    sequence: u64,
    steps: StepWatch,
    store: StoreId,
    seed: u64,
    drawn: u64,
}

impl State {
    pub(super) fn new(config: StoreConfig, seed: u64, first: Reading) -> Self {
        let mut state = Self {
            config,
            now: first.wall,
            epoch: 0,
            grace_until: UnixMillis(0),
            records: BTreeMap::new(),
            keys: BTreeMap::new(),
            index: Index::default(),
            leases: BTreeMap::new(),
            superseded: BTreeMap::new(),
            claimed_nonces: BTreeSet::new(),
            verdict_nonces: BTreeSet::new(),
            votes: BTreeMap::new(),
            events: VecDeque::new(),
            sequence: 0,
            steps: StepWatch::new(first),
            store: StoreId([0; 16]),
            seed,
            drawn: 0,
        };
        state.store = StoreId(state.draw());
        state.begin_epoch(first.wall);
        // Nothing was ever leased from a new store, so nothing needs grace.
        state.grace_until = UnixMillis(0);
        state
    }

    /// Takes note of the time; a set clock stops expiry for one lease.
    pub(super) fn tick(&mut self, reading: Reading) {
        self.now = reading.wall;
        if self.steps.stepped(reading) {
            self.grace_until = self.now.after(self.config.terms.lease());
        }
    }

    pub(super) fn begin_epoch(&mut self, now: UnixMillis) {
        self.now = now;
        self.epoch = now.0.max(self.epoch + 1);
        self.grace_until = now.after(self.config.terms.lease());
    }

    pub(super) fn is_grace(&self) -> bool {
        self.now < self.grace_until
    }

    /// The next random bytes of this store's seed.
    pub(super) fn draw<const N: usize>(&mut self) -> [u8; N] {
        self.drawn += 1;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_be_bytes());
        hasher.update(&self.drawn.to_be_bytes());
        let mut bytes = [0; N];
        hasher.finalize_xof().fill(&mut bytes);
        bytes
    }

    pub(super) fn info(&self) -> StoreInfo {
        StoreInfo {
            store: self.store,
            epoch: self.epoch,
            now: self.now,
            terms: self.config.terms,
            backend: "memory".into(),
            server: None,
            sealing: None,
        }
    }

    /// The last change's number.
    pub(super) const fn position(&self) -> u64 {
        self.sequence
    }

    pub(super) fn events_after(&self, after: u64) -> impl Iterator<Item = &JobEvent> {
        let skipped = self.events.partition_point(|event| event.sequence <= after);
        self.events.range(skipped..)
    }

    pub(super) fn new_lease_end(&self) -> UnixMillis {
        self.now.after(self.config.terms.lease())
    }

    pub(super) fn lease_ms(&self) -> u64 {
        millis(self.config.terms.lease())
    }

    /// A job in the caller's namespaces.
    pub(super) fn seen(&self, who: &Principal, job: JobId) -> StoreResult<&Record> {
        self.records
            .get(&job)
            .filter(|record| rights::sees(who, &record.namespace))
            .ok_or(StoreError::NotFound)
    }

    /// Changes one job, keeping indexes and events in step with it.
    pub(super) fn change<T>(&mut self, job: JobId, edit: impl FnOnce(&mut Record) -> T) -> T {
        let record = self
            .records
            .get_mut(&job)
            .expect("callers change jobs that they just looked up under the same lock");
        let (state, fence, was_held) = (record.state, record.last_fence, record.state.is_held());
        self.index.remove(record);
        let outcome = edit(record);
        self.index.insert(record);
        if (record.state, record.last_fence) != (state, fence) {
            self.sequence += 1;
            let event = record.event(self.sequence, self.now, was_held);
            self.remember(event);
        }
        outcome
    }

    /// Adds a job that was not there.
    pub(super) fn add(&mut self, record: Record) {
        self.sequence += 1;
        let event = record.event(self.sequence, self.now, false);
        self.remember(event);
        self.index.insert(&record);
        self.records.insert(record.id, record);
    }

    fn remember(&mut self, event: JobEvent) {
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// The refusal of a claim that is not in force.
    pub(super) fn fenced(&self, claim: &Claim) -> StoreError {
        let current: Option<Fence> = self
            .records
            .get(&claim.job)
            .map(|record| record.last_fence)
            .filter(|fence| fence.sequence > 0);
        StoreError::Fenced { current }
    }
}
