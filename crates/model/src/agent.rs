//! The agent's mind: which jobs it claims, keeps, runs, pauses and gives back.
//!
//! A driver feeds [`Agent::handle`] with [`Event`]s and carries out the [`Action`]s it returns; at
//! the latest at [`Agent::next_wake`] it sends [`Event::Tick`]. The core knows its owner's limits,
//! every claim with the stage of its run, and one lease per demand store.
//!
//! # What it promises
//! * Reserved and free resources always add up to the owner's limits; a job is claimed only when
//!   its need is reserved. (A poll, or the claim of an advertised job, offers everything free
//!   without reserving it, so that a slow store cannot lock others out; what no longer fits when
//!   the grants arrive is held ahead or released, which costs its user no attempt.)
//! * A few recovered jobs are held *ahead* of the slots: claimed and prepared while everything is
//!   busy, they start the moment there is room. What finds no room in time is given back.
//! * A lease is counted from *before* its request went out: from the `now` at which the
//!   [`Action::Claim`] or [`Action::Renew`] was returned. An eighth of the lease before that
//!   deadline the agent is *cut off* from the store: nothing starts, and what runs is paused,
//!   stopped or left alone as its task asks. It goes on only after a renewal that lists it as held.
//! * [`Agent::leashes`] says the same deadline ahead of time, for whoever stands by when the driver itself stands still.
//! * Every [`Action::Prepare`] is followed by exactly one [`Action::Discard`]; a program is started
//!   at most once per claim.
//!
//! # Absent on purpose
//! The driver owns everything durable (outbox) and everything slow (transfer, runtime); the store
//! alone decides who holds a job.

use std::collections::BTreeMap;
use std::time::Duration;

mod accounts;
mod ahead;
mod claims;
mod entropy;
mod event;
mod leases;
mod run;
mod runs;
#[cfg(test)]
mod tests;

use accounts::{Accounts, Share};
use claims::{ClaimUnderWay, Offered, PendingAd};
use entropy::Entropy;
pub use event::{
    Action, AdvertisedJob, Claimed, Decline, End, Event, Grant, OfferId, Renewed, RunKey, Scope,
    StoreUrl, Trouble,
};
use leases::Store;
pub use run::RunStatus;
use run::{Run, Stage};

use crate::identity::NodeId;
use crate::ids::{JobId, Nonce};
use crate::job::IsolationClass;
use crate::matching::Offer;
use crate::resources::Resources;
use crate::time::Timestamp;

/// What the machine's owner decided.
#[derive(Debug, Clone)]
pub struct Config {
    /// The agent's node.
    pub node: NodeId,
    /// All that tasks may use together.
    pub resources: Resources,
    /// Tasks at once.
    pub slots: u32,
    /// Labels of the machine.
    pub labels: BTreeMap<String, String>,
    /// Pause between polls of a store that had work a moment ago.
    pub poll_min: Duration,
    /// Longest pause between polls of a store that has none.
    pub poll_max: Duration,
    /// How long a frozen run may occupy the machine before it is given up.
    pub abandon_after: Duration,
    /// Finishes that may wait for their stores before nothing new is claimed.
    pub unfinished_max: usize,
    /// Recovered jobs that may be claimed and prepared before there is room to run them.
    pub ahead: u32,
    /// How long such a job may wait for room before it is given back, so that it does not wait
    /// behind a long task while others become idle.
    pub ahead_for: Duration,
}

impl Config {
    /// Defaults for a machine with these resources and slots.
    pub fn new(node: NodeId, resources: Resources, slots: u32) -> Self {
        Self {
            node,
            resources,
            slots,
            labels: BTreeMap::new(),
            poll_min: Duration::from_millis(250),
            poll_max: Duration::from_secs(5),
            abandon_after: Duration::from_secs(600),
            unfinished_max: 256,
            ahead: 2,
            ahead_for: Duration::from_secs(15),
        }
    }
}

/// The core; see the [module's documentation](self).
#[derive(Debug)]
pub struct Agent {
    config: Config,
    entropy: Entropy,
    accounts: Accounts,
    stores: BTreeMap<StoreUrl, Store>,
    claims: BTreeMap<Nonce, ClaimUnderWay>,
    ads: BTreeMap<(StoreUrl, JobId), PendingAd>,
    runs: BTreeMap<RunKey, Run>,
    draining: bool,
    quiet: bool,
    mismatches: u64,
}

impl Agent {
    /// An agent without work. `seed` must be secret and fresh: claims' nonces come from it.
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        Self {
            accounts: Accounts::new(config.resources, config.slots),
            entropy: Entropy::new(seed),
            config,
            stores: BTreeMap::new(),
            claims: BTreeMap::new(),
            ads: BTreeMap::new(),
            runs: BTreeMap::new(),
            draining: false,
            quiet: false,
            mismatches: 0,
        }
    }

    /// Takes in what happened and returns what is to be done, in order.
    ///
    /// # Panics
    /// If the resource accounts do not add up, which is a fault of this module.
    pub fn handle(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        // First of all: after a suspended laptop wakes, nothing may start under an old lease.
        self.cut_off_stores(now, &mut out);
        self.take_in(now, event, &mut out);
        self.pass_time(now, &mut out);
        self.settle_quiet(&mut out);
        self.check_accounts();
        out
    }

    fn take_in(&mut self, now: Timestamp, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Tick => {}
            Event::StoreAdded {
                store,
                incarnation,
                classes,
            } => self.add_store(now, store, incarnation, classes),
            Event::Offered {
                offer,
                store,
                jobs,
                need,
                ahead,
            } => {
                let offered = Offered {
                    store,
                    jobs,
                    need,
                    ahead,
                };
                self.on_offer(now, offer, offered, out);
            }
            Event::Advertised { store, jobs, idle } => self.on_ad(now, &store, jobs, idle),
            Event::Claimed {
                nonce,
                store,
                reply,
            } => self.on_claimed(now, nonce, &store, reply, out),
            Event::Renewed { store, reply } => self.on_renewed(now, &store, reply, out),
            Event::Poked { store } => self.on_poke(now, &store),
            Event::Prepared { key } => self.on_prepared(&key, out),
            Event::Started { key } => self.on_started(now, &key, out),
            Event::Ended { key, end } => self.on_ended(now, &key, end, out),
            Event::Checkpointed { key, saved } => self.on_checkpointed(now, &key, saved),
            Event::Recorded { key } => self.on_recorded(now, &key),
            Event::Concluded { key } | Event::Released { key } => self.discard(now, &key, out),
            Event::Fenced { key } => self.void(now, &key, out),
            Event::Drain => self.draining = true,
            Event::Shutdown => self.shut_down(out),
        }
    }

    fn pass_time(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        self.cut_off_stores(now, out);
        self.enforce_limits(now, out);
        self.seat_ahead(out);
        self.give_up_ahead(now, out);
        self.begin_checkpoints(now, out);
        self.repeat_claims(now, out);
        self.claim_advertised(now, out);
        self.poll_stores(now, out);
        self.renew_leases(now, out);
    }

    /// The latest moment for the next [`Event::Tick`]; `None` if only other events matter.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let stores = self.stores.keys();
        let stores = stores.filter_map(|store| self.store_wake(store));
        let runs = self.runs.values();
        let ahead_for = self.config.ahead_for;
        let runs = runs.flat_map(|run| {
            [
                run.limit_due(),
                run.checkpoint_due(),
                run.ahead_until(ahead_for),
            ]
        });
        let claims = self.claims.values().filter_map(|claim| claim.repeat_at);
        let ads = self.ads.values().map(|ad| ad.due);
        stores.chain(runs.flatten()).chain(claims).chain(ads).min()
    }

    /// What is free for users of a store that may use `classes`.
    pub fn capacity(&self, classes: Vec<IsolationClass>) -> Offer {
        let free = self.accounts.free();
        Offer {
            free: free.resources,
            slots: if self.takes_work() { free.slots } else { 0 },
            classes,
            labels: self.config.labels.clone(),
        }
    }

    /// How often a store held claims for this agent that it did not know of.
    pub const fn mismatches(&self) -> u64 {
        self.mismatches
    }

    /// Every held claim.
    pub fn runs(&self) -> impl Iterator<Item = RunStatus> {
        self.runs.iter().map(|(key, run)| RunStatus {
            key: key.clone(),
            claim: run.claim,
            phase: run.phase,
            checkpoint: run.checkpoint(),
            paused: run.stage == Stage::Paused,
        })
    }

    fn takes_work(&self) -> bool {
        !self.draining && self.unfinished() < self.config.unfinished_max
    }

    fn unfinished(&self) -> usize {
        let waits = |run: &&Run| matches!(run.stage, Stage::Storing | Stage::Recorded);
        self.runs.values().filter(waits).count()
    }

    fn settle_quiet(&mut self, out: &mut Vec<Action>) {
        let over = self.runs.values().all(|run| run.stage == Stage::Recorded);
        if self.draining && !self.quiet && over && self.claims.is_empty() {
            self.quiet = true;
            out.push(Action::Quiet);
        }
    }

    fn check_accounts(&self) {
        let runs = self.runs.values().map(|run| run.reserved);
        let claims = self.claims.values().map(|claim| claim.reserved);
        self.accounts.check(runs.chain(claims));
    }

    fn give_back(&mut self, share: Share) {
        self.accounts.give(&share);
    }
}
