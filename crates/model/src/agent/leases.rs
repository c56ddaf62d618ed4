//! Leases: renewing them, noticing that they run out, and going on after a cut.

use std::time::Duration;

use super::event::{Action, Renewed, StoreUrl, Trouble};
use super::run::{Stage, Why};
use super::{Agent, RunKey};
use crate::guardian::StateHash;
use crate::ids::Incarnation;
use crate::job::{IsolationClass, OnDisconnect};
use crate::lease::{Claim, LeaseTerms};
use crate::time::Timestamp;

/// A lease is renewed four times in its length, so that three renewals may be lost (DESIGN §5).
const RENEWALS_PER_LEASE: u32 = 4;
/// The last eighth of a lease is kept for stopping what runs.
const MARGIN_PART: u32 = 8;
/// A failed renewal is repeated after a thirty-second of the lease, give or take, then after twice that, and so on up to
/// an eighth while the lease lasts and a quarter afterwards: then nothing runs that could be saved by haste, and a store
/// that comes back is not to meet all of its agents at once.
const RETRY_PART: u32 = 32;
const RETRY_PART_LEAST: u32 = 8;
/// How long a report of progress waits for others to travel with it. Short tasks end within it and
/// save the store a write.
const REPORT_DELAY: Duration = Duration::from_millis(25);
/// Complete lists a store needs to release a claim it alone knows of.
const OWED_LISTINGS: u8 = 2;

/// What the agent knows of one demand store.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) incarnation: Incarnation,
    pub(super) classes: Vec<IsolationClass>,
    pub(super) poll_due: Timestamp,
    pub(super) poll_pause: Duration,
    /// Length of leases here.
    pub(super) lease: Duration,
    /// When the claims held here may end, by the most careful count; `None` if none is held.
    deadline: Option<Timestamp>,
    pub(super) cut_off: bool,
    renew_due: Timestamp,
    /// The renewal under way.
    renewing: Option<Listing>,
    owed_listings: u8,
    /// Renewals in a row that brought no answer.
    unanswered: u32,
    /// Answers in a row that knew of other claims than this agent does.
    differing: u8,
}

/// A renewal that was sent.
#[derive(Debug)]
struct Listing {
    sent: Timestamp,
    claims: Vec<Claim>,
    complete: bool,
}

impl Listing {
    /// Whether the store had other claims for this run than those listed, lost ones apart.
    fn differs_from(&self, renewed: &Renewed) -> bool {
        let is_lost = |claim: &&Claim| renewed.lost.iter().any(|lost| lost.claim == **claim);
        let stands = self.claims.iter().filter(|claim| !is_lost(claim));
        self.complete && StateHash::of_claims(stands) != renewed.state
    }
}

impl Store {
    fn margin(&self) -> Duration {
        self.lease / MARGIN_PART
    }

    /// From when on nothing may run under the lease.
    fn cut_off_at(&self) -> Option<Timestamp> {
        let usable = self.lease.saturating_sub(self.margin());
        // deadline − margin, written so that it cannot underflow.
        let deadline = self.deadline?;
        let from = deadline
            .0
            .saturating_sub(u64::try_from(self.lease.as_micros()).ok()?);
        Some(Timestamp(from).after(usable))
    }
}

impl Agent {
    pub(super) fn add_store(
        &mut self,
        now: Timestamp,
        store: StoreUrl,
        incarnation: Incarnation,
        classes: Vec<IsolationClass>,
    ) {
        self.stores.entry(store).or_insert_with(|| Store {
            incarnation,
            classes,
            poll_due: now,
            poll_pause: self.config.poll_min,
            lease: LeaseTerms::default().lease(),
            deadline: None,
            cut_off: false,
            renew_due: now,
            renewing: None,
            owed_listings: 0,
            unanswered: 0,
            differing: 0,
        });
    }

    /// Counts a new lease from when the claim was first sent. Claims held already keep their own,
    /// earlier deadline until a renewal moves it.
    pub(super) fn lease_granted(
        &mut self,
        now: Timestamp,
        store: &StoreUrl,
        sent: Timestamp,
        lease: Duration,
    ) {
        let Some(known) = self.stores.get_mut(store) else {
            return;
        };
        known.lease = lease;
        if known.deadline.is_none() {
            known.deadline = Some(sent.after(lease));
            known.renew_due = sent.after(lease / RENEWALS_PER_LEASE);
        } else if known.cut_off {
            known.renew_due = now;
        }
    }

    /// Lets a change of phase be known with the next renewal, soon.
    pub(super) fn report_soon(&mut self, now: Timestamp, store: &StoreUrl) {
        if let Some(known) = self.stores.get_mut(store) {
            known.renew_due = known.renew_due.min(now.after(REPORT_DELAY));
        }
    }

    pub(super) fn on_poke(&mut self, now: Timestamp, store: &StoreUrl) {
        if let Some(known) = self.stores.get_mut(store) {
            known.renew_due = now;
        }
    }

    pub(super) fn owe_listings(&mut self, now: Timestamp, store: &StoreUrl) {
        if let Some(known) = self.stores.get_mut(store) {
            known.owed_listings = OWED_LISTINGS;
            known.renew_due = now;
        }
    }

    pub(super) fn renew_leases(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        let stores: Vec<_> = self.stores.keys().cloned().collect();
        for store in stores {
            if self.renewal_due(&store).is_some_and(|due| due <= now) {
                self.renew(now, store, out);
            }
        }
    }

    fn renewal_due(&self, store: &StoreUrl) -> Option<Timestamp> {
        let known = self.stores.get(store)?;
        let needed = known.deadline.is_some() || known.owed_listings > 0;
        (needed && known.renewing.is_none()).then_some(known.renew_due)
    }

    fn renew(&mut self, now: Timestamp, store: StoreUrl, out: &mut Vec<Action>) {
        let complete = !self.is_claiming(&store);
        let held: Vec<_> = self.runs_at(&store).map(|(_, run)| run.held()).collect();
        let Some(known) = self.stores.get_mut(&store) else {
            return;
        };
        known.renewing = Some(Listing {
            sent: now,
            claims: held.iter().map(|held| held.claim).collect(),
            complete,
        });
        known.renew_due = now.after(known.lease / RENEWALS_PER_LEASE);
        if complete {
            known.owed_listings = known.owed_listings.saturating_sub(1);
        }
        out.push(Action::Renew {
            incarnation: known.incarnation,
            held,
            complete,
            store,
        });
    }

    pub(super) fn on_renewed(
        &mut self,
        now: Timestamp,
        store: &StoreUrl,
        reply: Result<Renewed, Trouble>,
        out: &mut Vec<Action>,
    ) {
        let listing = self.stores.get_mut(store).and_then(|s| s.renewing.take());
        let Some(listing) = listing else { return };
        match reply {
            Ok(renewed) => {
                self.apply_renewal(now, listing.sent, store, &renewed, out);
                if listing.differs_from(&renewed) {
                    // It has a claim whose reply was lost: complete lists settle that.
                    self.mismatches += 1;
                    self.settle_mismatch(now, store);
                } else if let Some(known) = self.stores.get_mut(store) {
                    known.differing = 0;
                }
            }
            Err(Trouble::Revoked { fresh }) => self.on_revoked(now, store, fresh, out),
            Err(Trouble::Unavailable { .. } | Trouble::Unknown | Trouble::Refused) => {
                self.retry_renewal(now, store);
            }
        }
    }

    /// Complete lists at once, but only so many in a row as settle what can be settled: a store that goes on to differ is
    /// not asked all the time.
    fn settle_mismatch(&mut self, now: Timestamp, store: &StoreUrl) {
        let Some(known) = self.stores.get_mut(store) else {
            return;
        };
        known.differing = known.differing.saturating_add(1);
        if known.differing <= OWED_LISTINGS {
            self.owe_listings(now, store);
        }
    }

    fn apply_renewal(
        &mut self,
        now: Timestamp,
        sent: Timestamp,
        store: &StoreUrl,
        renewed: &Renewed,
        out: &mut Vec<Action>,
    ) {
        if let Some(known) = self.stores.get_mut(store) {
            known.lease = renewed.lease;
            known.unanswered = 0;
            known.deadline = known.deadline.map(|_| sent.after(renewed.lease));
            let planned = sent.after(renewed.lease / RENEWALS_PER_LEASE);
            // A report that became due while the renewal was under way goes out next.
            known.renew_due = known.renew_due.min(planned);
            known.cut_off &= known.cut_off_at().is_some_and(|at| at <= now);
        }
        for lost in &renewed.lost {
            self.void(now, &RunKey::of(store, &lost.claim), out);
        }
        self.go_on(now, sent, store, renewed, out);
    }

    fn retry_renewal(&mut self, now: Timestamp, store: &StoreUrl) {
        if let Some(known) = self.stores.get_mut(store) {
            let longest = match known.cut_off {
                true => known.lease / RENEWALS_PER_LEASE,
                false => known.lease / RETRY_PART_LEAST,
            };
            let pause = known.lease / RETRY_PART * 2_u32.saturating_pow(known.unanswered.min(8));
            known.unanswered += 1;
            known.renew_due = now.after(self.entropy.jitter(pause.min(longest)));
        }
    }

    /// Until when each program that is about to run or runs may go on if nothing more is heard of this core, and what
    /// its task wants then. A driver hands it to whatever outlives the driver's own silence: a process that is stopped
    /// can neither pause nor end anything.
    pub fn leashes(&self) -> impl Iterator<Item = (&RunKey, Timestamp, OnDisconnect)> {
        self.runs.iter().filter_map(|(key, run)| {
            let runs = matches!(
                run.stage,
                Stage::Starting | Stage::Running(_) | Stage::Paused
            );
            let until = self.stores.get(&key.store)?.cut_off_at()?;
            let leashed = runs && run.on_disconnect != OnDisconnect::Finish;
            leashed.then_some((key, until, run.on_disconnect))
        })
    }

    /// After a renewal: what it lists as held may start, resume and save checkpoints.
    fn go_on(
        &mut self,
        now: Timestamp,
        sent: Timestamp,
        store: &StoreUrl,
        renewed: &Renewed,
        out: &mut Vec<Action>,
    ) {
        let valid = self.stores.get(store).is_some_and(|known| !known.cut_off);
        for (key, run) in self.runs.iter_mut().filter(|(key, _)| key.store == *store) {
            let key = || key.clone();
            if renewed.checkpoint_wanted.contains(&run.claim.job) {
                run.want_checkpoint(now, sent);
            }
            if !valid || !renewed.held.contains(&run.claim.job) {
                continue;
            }
            match run.stage {
                Stage::Paused => {
                    run.stage = Stage::Running(now);
                    out.push(Action::Resume { key: key() });
                }
                Stage::Ready if run.may_start() => {
                    run.stage = Stage::Starting;
                    out.push(Action::Start { key: key() });
                }
                _ => {}
            }
        }
        self.begin_checkpoints(now, out);
    }

    /// Ends everything of an incarnation that the store declared dead, and goes on with a new one.
    pub(super) fn on_revoked(
        &mut self,
        now: Timestamp,
        store: &StoreUrl,
        fresh: Incarnation,
        out: &mut Vec<Action>,
    ) {
        let known = self.stores.get(store);
        if known.is_some_and(|known| known.incarnation >= fresh) {
            // The refusal of a request that went out before the change is heard late.
            return;
        }
        let keys: Vec<_> = self.runs_at(store).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.void(now, &key, out);
        }
        self.drop_claims(store);
        if let Some(known) = self.stores.get_mut(store) {
            known.incarnation = known.incarnation.max(fresh);
            known.owed_listings = 0;
            known.poll_due = now;
        }
    }

    pub(super) fn cut_off_stores(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        let stores: Vec<_> = self.stores.keys().cloned().collect();
        for store in stores {
            let Some(known) = self.stores.get_mut(&store) else {
                continue;
            };
            if !known.cut_off && known.cut_off_at().is_some_and(|at| at <= now) {
                known.cut_off = true;
                self.act_on_cut(now, &store, out);
            }
            if self.abandon_due(&store).is_some_and(|due| due <= now) {
                self.abandon(&store, out);
            }
        }
    }

    fn act_on_cut(&mut self, now: Timestamp, store: &StoreUrl, out: &mut Vec<Action>) {
        for (key, run) in self.runs.iter_mut().filter(|(key, _)| key.store == *store) {
            match (run.stage, run.on_disconnect) {
                (Stage::Running(_), OnDisconnect::Pause) => {
                    run.pause(now);
                    out.push(Action::Pause { key: key.clone() });
                }
                (Stage::Running(_) | Stage::Starting, OnDisconnect::Stop) => {
                    run.stage = Stage::Stopping(Why::CutOff);
                    out.push(Action::Stop { key: key.clone() });
                }
                _ => {}
            }
        }
    }

    /// When runs that wait for a store which stays away are given up.
    fn abandon_due(&self, store: &StoreUrl) -> Option<Timestamp> {
        let known = self.stores.get(store).filter(|known| known.cut_off)?;
        let waits = |stage| matches!(stage, Stage::Paused | Stage::Ready);
        let mut runs = self.runs_at(store);
        let due = known.deadline?.after(self.config.abandon_after);
        runs.any(|(_, run)| waits(run.stage)).then_some(due)
    }

    fn abandon(&mut self, store: &StoreUrl, out: &mut Vec<Action>) {
        for (key, run) in self.runs.iter_mut().filter(|(key, _)| key.store == *store) {
            if matches!(run.stage, Stage::Paused | Stage::Ready) {
                run.stage = Stage::Stopping(Why::CutOff);
                out.push(Action::Stop { key: key.clone() });
            }
        }
    }

    /// A store at which nothing is held any more has no lease to lose.
    pub(super) fn forget_lease_if_idle(&mut self, store: &StoreUrl) {
        let idle = self.runs_at(store).next().is_none();
        if let Some(known) = self.stores.get_mut(store).filter(|_| idle) {
            known.deadline = None;
            known.cut_off = false;
        }
    }

    pub(super) fn store_wake(&self, store: &StoreUrl) -> Option<Timestamp> {
        let known = self.stores.get(store)?;
        let cut = known.cut_off_at().filter(|_| !known.cut_off);
        let timers = [
            cut,
            self.abandon_due(store),
            self.poll_due(store),
            self.renewal_due(store),
        ];
        timers.into_iter().flatten().min()
    }
}
