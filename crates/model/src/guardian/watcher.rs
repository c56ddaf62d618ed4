//! A guardian's judgement of its wards.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rhythm::{Rhythm, quantile};
use super::{Beat, Silence, StateHash};
use crate::agent::StoreUrl;
use crate::identity::NodeId;
use crate::ids::Incarnation;
use crate::time::Timestamp;

/// Stores named for one ward; further ones are not told of its death.
const STORES_MAX: usize = 16;
/// First pause before a verdict that could not be delivered is repeated; doubled each time.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Tries to deliver a verdict; afterwards leases decide.
const TRIES_MAX: u32 = 8;
/// A ward is granted this many times the guardian's own delay: both are late on a busy machine, and
/// the ward need not be the luckier one.
const PATIENCE_FACTOR: u32 = 3;
/// How long a ward that is dead or silent is remembered.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// How a guardian watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatcherConfig {
    /// How long the demand stores, which see a closed session too, are left to act on it first.
    pub patience: Duration,
    /// Wards at once; further ones are refused.
    pub wards_max: usize,
}

impl Default for WatcherConfig {
    /// 100 ms of patience, 64 wards.
    fn default() -> Self {
        Self {
            patience: Duration::from_millis(100),
            wards_max: 64,
        }
    }
}

/// An agent that asks to be watched.
#[derive(Debug, Clone, PartialEq)]
pub struct Charge {
    /// The agent.
    pub agent: NodeId,
    /// The run of its process.
    pub run: Incarnation,
    /// The stores it works for, and the incarnation by which each knows it.
    pub stores: BTreeMap<StoreUrl, Incarnation>,
    /// How often it promises to be heard, and how its silence is judged.
    pub silence: Silence,
}

/// How a session ended for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nobody listens at the agent's port: its process is dead.
    Refused,
    /// It cannot be reached; it may live behind a broken network.
    Unreachable,
    /// It said goodbye, or a later run took its place, which itself ends the earlier one.
    Over,
}

/// What a guardian makes of a ward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Heartbeats come.
    Alive,
    /// None came for too long.
    Suspect,
    /// Its process is gone.
    Dead,
}

/// Why a guardian votes to end a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its session was closed and its port refuses.
    Closed,
    /// It has been silent for too long.
    Silent,
}

/// What a store said to a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The run is over there, or it never knew it, or it will not listen.
    Settled,
    /// The vote counts; others are needed.
    Counted,
    /// The store heard the agent this long ago, more lately than the guardian.
    Heard(Duration),
    /// It could not be reached.
    Failed,
}

/// What happens to a guardian.
#[derive(Debug, Clone, PartialEq)]
pub enum WatcherEvent {
    /// Nothing but time.
    Tick,
    /// An agent asks to be watched, or tells of other stores or incarnations.
    Entrusted(Charge),
    /// How late this node's own heartbeats are lately: its machine may be too busy to judge others
    /// by the millisecond.
    HeldUp(Duration),
    /// A heartbeat came.
    Beat {
        /// From whom.
        agent: NodeId,
        /// What it said.
        beat: Beat,
    },
    /// The session with a ward ended and could not be restored.
    Lost {
        /// Who.
        agent: NodeId,
        /// Its run.
        run: Incarnation,
        /// How.
        loss: Loss,
    },
    /// A store answered a verdict.
    Answered {
        /// About whom.
        agent: NodeId,
        /// Which store.
        store: StoreUrl,
        /// The incarnation that the verdict named.
        incarnation: Incarnation,
        /// What it said.
        answer: Answer,
    },
}

/// What a guardian wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatcherAction {
    /// Tell a store; answer with [`WatcherEvent::Answered`].
    Verdict {
        /// About whom.
        agent: NodeId,
        /// The run of its process.
        run: Incarnation,
        /// Which store.
        store: StoreUrl,
        /// The incarnation that ends there.
        incarnation: Incarnation,
        /// Why.
        cause: Cause,
        /// How long nothing was heard of it, at most the limit that it was judged by; zero if its
        /// session was closed.
        silent_for: Duration,
    },
    /// The ward is none any more: end its session.
    Forget {
        /// Who.
        agent: NodeId,
        /// Its run.
        run: Incarnation,
    },
}

/// A verdict that is to be delivered, or was.
#[derive(Debug)]
struct Pending {
    incarnation: Incarnation,
    cause: Cause,
    /// When to deliver it; `None` while an answer is awaited or after it is settled.
    due: Option<Timestamp>,
    tries: u32,
    settled: bool,
}

#[derive(Debug)]
struct Ward {
    charge: Charge,
    /// Standard deviations that the limit lies above the mean gap.
    z: f64,
    rhythm: Rhythm,
    sequence: u64,
    state: StateHash,
    health: Health,
    /// Since when it is not alive.
    since: Timestamp,
    verdicts: BTreeMap<StoreUrl, Pending>,
}

/// The core of a guardian; see the [module's documentation](super).
#[derive(Debug)]
pub struct Watcher {
    config: WatcherConfig,
    wards: BTreeMap<NodeId, Ward>,
    /// When it was to be called again, at the latest.
    expected: Option<Timestamp>,
    /// What every ward is granted beyond its limit.
    patience: Duration,
}

impl Watcher {
    /// A guardian without wards.
    pub fn new(config: WatcherConfig) -> Self {
        Self {
            config,
            wards: BTreeMap::new(),
            expected: None,
            patience: Duration::ZERO,
        }
    }

    /// Takes in what happened and returns what is to be done, in order. Datagrams that arrived go
    /// before a tick of the same moment.
    pub fn handle(&mut self, now: Timestamp, event: WatcherEvent) -> Vec<WatcherAction> {
        self.excuse_own_delay(now);
        let mut out = Vec::new();
        match event {
            WatcherEvent::Tick => {}
            WatcherEvent::HeldUp(delay) => self.patience = delay * PATIENCE_FACTOR,
            WatcherEvent::Entrusted(charge) => self.on_entrusted(now, charge),
            WatcherEvent::Beat { agent, beat } => self.on_beat(now, agent, &beat),
            WatcherEvent::Lost { agent, run, loss } => self.on_lost(now, agent, run, loss),
            WatcherEvent::Answered {
                agent,
                store,
                incarnation,
                answer,
            } => self.on_answered(now, agent, &store, incarnation, answer),
        }
        self.suspect(now);
        self.deliver(now, &mut out);
        self.forget(now, &mut out);
        self.expected = self.next_wake();
        out
    }

    /// The latest moment for the next [`WatcherEvent::Tick`].
    pub fn next_wake(&self) -> Option<Timestamp> {
        let wards = self.wards.values();
        let wakes = wards.flat_map(|ward| {
            let due = ward.verdicts.values().filter_map(|pending| pending.due);
            due.chain([match ward.health {
                Health::Alive => ward.rhythm.deadline(self.patience),
                Health::Suspect | Health::Dead => ward.since.after(FORGET_AFTER),
            }])
        });
        wakes.min()
    }

    /// Whether there is a place for one more ward, or the agent is one already.
    pub fn has_place_for(&self, agent: &NodeId) -> bool {
        self.wards.contains_key(agent) || self.wards.len() < self.config.wards_max
    }

    /// What it makes of each ward, the run of its process, and what the ward said it holds.
    pub fn wards(&self) -> impl Iterator<Item = (NodeId, Incarnation, Health, StateHash)> {
        let wards = self.wards.iter();
        wards.map(|(agent, ward)| (*agent, ward.charge.run, ward.health, ward.state))
    }

    /// Woken much too late, the guardian was held up itself; its wards need not be silent.
    fn excuse_own_delay(&mut self, now: Timestamp) {
        let Some(expected) = self.expected else {
            return;
        };
        for ward in self.wards.values_mut() {
            let interval = ward.charge.silence.interval;
            if now.since(expected) > interval {
                ward.rhythm.excuse(now, interval * 2);
            }
        }
    }

    fn on_entrusted(&mut self, now: Timestamp, mut charge: Charge) {
        while charge.stores.len() > STORES_MAX {
            charge.stores.pop_last();
        }
        if !self.has_place_for(&charge.agent) {
            return;
        }
        match self.wards.get_mut(&charge.agent) {
            Some(ward) if ward.charge.run > charge.run => {}
            Some(ward) if ward.charge.run == charge.run => {
                let stores = &charge.stores;
                ward.verdicts
                    .retain(|store, pending| stores.get(store) == Some(&pending.incarnation));
                ward.charge = charge;
            }
            _ => {
                let ward = Ward::new(now, charge);
                self.wards.insert(ward.charge.agent, ward);
            }
        }
    }

    fn on_beat(&mut self, now: Timestamp, agent: NodeId, beat: &Beat) {
        let Some(ward) = self.wards.get_mut(&agent) else {
            return;
        };
        if beat.run != ward.charge.run || beat.sequence <= ward.sequence {
            return;
        }
        ward.sequence = beat.sequence;
        ward.state = beat.state;
        match ward.health {
            Health::Alive => ward.rhythm.beat(now, &ward.charge.silence, ward.z),
            // What was reported stands; what was not is withdrawn.
            Health::Suspect | Health::Dead => {
                ward.rhythm.resume(now);
                ward.health = Health::Alive;
                ward.verdicts.clear();
            }
        }
    }

    fn on_lost(&mut self, now: Timestamp, agent: NodeId, run: Incarnation, loss: Loss) {
        let Some(ward) = self.wards.get_mut(&agent) else {
            return;
        };
        if ward.charge.run != run {
            return;
        }
        match loss {
            Loss::Refused => {
                ward.health = Health::Dead;
                ward.since = now;
                ward.accuse(Cause::Closed, now.after(self.config.patience));
            }
            // Heartbeats decide.
            Loss::Unreachable => {}
            Loss::Over => {
                self.wards.remove(&agent);
            }
        }
    }

    fn suspect(&mut self, now: Timestamp) {
        for ward in self.wards.values_mut() {
            if ward.health == Health::Alive && ward.rhythm.deadline(self.patience) <= now {
                ward.health = Health::Suspect;
                ward.since = now;
                ward.accuse(Cause::Silent, now);
            }
        }
    }

    fn deliver(&mut self, now: Timestamp, out: &mut Vec<WatcherAction>) {
        for (agent, ward) in &mut self.wards {
            for (store, pending) in &mut ward.verdicts {
                if pending.due.is_none_or(|due| due > now) {
                    continue;
                }
                pending.due = None;
                pending.tries += 1;
                out.push(WatcherAction::Verdict {
                    agent: *agent,
                    run: ward.charge.run,
                    store: store.clone(),
                    incarnation: pending.incarnation,
                    cause: pending.cause,
                    silent_for: match pending.cause {
                        Cause::Closed => Duration::ZERO,
                        Cause::Silent => ward.rhythm.silent_for(now).min(ward.rhythm.limit()),
                    },
                });
            }
        }
    }

    fn on_answered(
        &mut self,
        now: Timestamp,
        agent: NodeId,
        store: &StoreUrl,
        incarnation: Incarnation,
        answer: Answer,
    ) {
        let ward = self.wards.get_mut(&agent);
        let Some(ward) = ward.filter(|ward| ward.health != Health::Alive) else {
            return;
        };
        let limit = ward.rhythm.limit();
        let pending = ward.verdicts.get_mut(store);
        if let Some(pending) = pending.filter(|pending| pending.incarnation == incarnation) {
            pending.due = pending
                .retry_after(answer, limit)
                .map(|pause| now.after(pause));
            pending.settled = pending.due.is_none();
        }
    }

    fn forget(&mut self, now: Timestamp, out: &mut Vec<WatcherAction>) {
        let gone = self.wards.extract_if(.., |_, ward| ward.is_over(now));
        out.extend(gone.map(|(agent, ward)| WatcherAction::Forget {
            agent,
            run: ward.charge.run,
        }));
    }
}

impl Ward {
    fn new(now: Timestamp, charge: Charge) -> Self {
        Self {
            z: quantile(charge.silence.phi),
            rhythm: Rhythm::new(now, &charge.silence),
            charge,
            sequence: 0,
            state: StateHash::default(),
            health: Health::Alive,
            since: now,
            verdicts: BTreeMap::new(),
        }
    }

    /// Plans a verdict for every store that does not have it yet.
    fn accuse(&mut self, cause: Cause, due: Timestamp) {
        for (store, incarnation) in &self.charge.stores {
            let pending = Pending {
                incarnation: *incarnation,
                cause,
                due: Some(due),
                tries: 0,
                settled: false,
            };
            self.verdicts.entry(store.clone()).or_insert(pending);
        }
    }

    /// Whether there is nothing left to do about it.
    fn is_over(&self, now: Timestamp) -> bool {
        let is_settled = self.verdicts.values().all(|pending| pending.settled);
        match self.health {
            Health::Alive => false,
            // A silent ward may speak again.
            Health::Suspect => self.since.after(FORGET_AFTER) <= now,
            Health::Dead => is_settled || self.since.after(FORGET_AFTER) <= now,
        }
    }
}

impl Pending {
    /// When to tell the store again, if at all.
    fn retry_after(&self, answer: Answer, limit: Duration) -> Option<Duration> {
        match answer {
            Answer::Settled => None,
            // A vote counts for one lease, and others will have spoken by then.
            Answer::Counted => None,
            // The store's word is fresher: the silence is counted from there.
            Answer::Heard(ago) => (self.tries < TRIES_MAX).then(|| limit.saturating_sub(ago)),
            Answer::Failed => (self.tries < TRIES_MAX).then(|| {
                let doubled = RETRY_MIN * 2_u32.saturating_pow(self.tries.saturating_sub(1));
                doubled.min(RETRY_MAX)
            }),
        }
    }
}
