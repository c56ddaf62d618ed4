//! How an agent gets work: direct offers, ads, polls, and claims whose reply was lost.

use std::collections::BTreeMap;
use std::time::Duration;

use super::accounts::Share;
use super::event::{Action, AdvertisedJob, Claimed, Decline, Grant, OfferId, RunKey, Scope};
use super::event::{StoreUrl, Trouble};
use super::run::{Ahead, Run};
use super::{Agent, Nonce};
use crate::ids::JobId;
use crate::job::IsolationClass;
use crate::matching::{Need, Offer, herd_delay};
use crate::time::Timestamp;

/// Ads waiting for their turn; more are not remembered, the next ad brings them back.
const ADS_MAX: usize = 1_024;
/// Jobs in one claim, as stores allow.
const CLAIM_JOBS_MAX: usize = 256;
/// First pause before a claim is repeated; doubles up to [`REPEAT_MAX`].
const REPEAT_MIN: Duration = Duration::from_millis(50);
const REPEAT_MAX: Duration = Duration::from_secs(2);
/// Repeats of a claim that certainly changed nothing.
const UNAVAILABLE_REPEATS_MAX: u32 = 3;

/// A claim that was sent and not answered for good.
#[derive(Debug)]
pub(super) struct ClaimUnderWay {
    pub(super) store: StoreUrl,
    scope: Scope,
    offer: Offer,
    pub(super) reserved: Share,
    /// How many of its jobs are to be held ahead of the slots.
    pub(super) ahead: u32,
    first_sent: Timestamp,
    repeats: u32,
    /// When to send it again; `None` while an answer is awaited.
    pub(super) repeat_at: Option<Timestamp>,
}

/// A job read from an ad.
#[derive(Debug)]
pub(super) struct PendingAd {
    pub(super) due: Timestamp,
    need: Need,
}

impl Agent {
    pub(super) fn on_offer(
        &mut self,
        now: Timestamp,
        offer: OfferId,
        offered: Offered,
        out: &mut Vec<Action>,
    ) {
        let (taken, declined) = self.reserve_offered(&offered);
        out.push(Action::Answer {
            offer,
            taken: taken.jobs.clone(),
            declined,
        });
        self.claim_jobs(now, offered.store, taken, out);
    }

    fn reserve_offered(&mut self, offered: &Offered) -> (Taken, Option<Decline>) {
        let mut taken = Taken::default();
        let mut declined = None;
        for job in &offered.jobs {
            self.ads.remove(&(offered.store.clone(), *job));
            if taken.jobs.len() == CLAIM_JOBS_MAX {
                break;
            }
            match self.reserve(offered, job, taken.ahead) {
                Ok(reserved) => taken.add(*job, &offered.need, reserved),
                Err(reason) => declined = Some(reason),
            }
        }
        (taken, declined)
    }

    /// Reserves what an offered job needs, or nothing if it is to be held ahead of the slots.
    fn reserve(&mut self, offered: &Offered, job: &JobId, ahead: u32) -> Result<Share, Decline> {
        match self.may_claim(&offered.store, job, &offered.need) {
            Ok(()) => {
                let share = Share::task(offered.need.resources);
                let taken = self.accounts.take(&share);
                assert!(taken, "what fits into the capacity can be reserved");
                Ok(share)
            }
            Err(Decline::Unfit(_))
                if offered.ahead && self.may_wait(&offered.store, &offered.need, ahead) =>
            {
                Ok(Share::NOTHING)
            }
            Err(why) => Err(why),
        }
    }

    fn may_claim(&self, store: &StoreUrl, job: &JobId, need: &Need) -> Result<(), Decline> {
        let Some(known) = self.stores.get(store) else {
            return Err(Decline::UnknownStore);
        };
        if self.draining {
            return Err(Decline::Draining);
        }
        if !self.takes_work() {
            return Err(Decline::OutboxFull);
        }
        if self.has(store, job) {
            return Err(Decline::Known);
        }
        let capacity = self.capacity(known.classes.clone());
        capacity.fits(need).map_err(Decline::Unfit)
    }

    /// Whether the job is held or being claimed, so that a second offer of it changes nothing.
    fn has(&self, store: &StoreUrl, job: &JobId) -> bool {
        let held = self.runs.keys();
        let mut held = held.filter(|key| key.store == *store && key.job == *job);
        let mut claims = self.claims.values().filter(|claim| claim.store == *store);
        held.next().is_some()
            || claims.any(|claim| matches!(&claim.scope, Scope::Jobs(jobs) if jobs.contains(job)))
    }

    pub(super) fn on_ad(
        &mut self,
        now: Timestamp,
        store: &StoreUrl,
        jobs: Vec<AdvertisedJob>,
        idle: u32,
    ) {
        if !self.stores.contains_key(store) || !self.takes_work() {
            return;
        }
        for AdvertisedJob { job, need } in jobs {
            if self.ads.len() >= ADS_MAX {
                return;
            }
            if !self.has(store, &job) {
                let due = now.after(herd_delay(&job, &self.config.node, idle));
                let ad = PendingAd { due, need };
                self.ads.entry((store.clone(), job)).or_insert(ad);
            }
        }
    }

    /// Claims every advertised job whose turn has come, one request for each store. An ad tells
    /// no more than the least that its job needs, so everything free is offered, as in a poll.
    pub(super) fn claim_advertised(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        let due = self.ads.extract_if(.., |_, ad| ad.due <= now);
        let due: Vec<_> = due.collect();
        let mut batches = BTreeMap::<StoreUrl, Vec<_>>::new();
        for ((store, job), ad) in due {
            let batch = batches.entry(store);
            if self.may_claim(batch.key(), &job, &ad.need).is_ok() {
                batch.or_default().push(job);
            }
        }
        for (store, mut jobs) in batches {
            jobs.truncate(CLAIM_JOBS_MAX);
            let ask = Ask::free(Scope::Jobs(jobs), self.accounts.free());
            self.send_claim(now, store, ask, out);
        }
    }

    fn claim_jobs(&mut self, now: Timestamp, store: StoreUrl, taken: Taken, out: &mut Vec<Action>) {
        if taken.jobs.is_empty() {
            return;
        }
        let ask = Ask {
            scope: Scope::Jobs(taken.jobs),
            offered: taken.offered,
            reserved: taken.reserved,
            ahead: taken.ahead,
        };
        self.send_claim(now, store, ask, out);
    }

    pub(super) fn poll_stores(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        let due: Vec<_> = self.stores.keys().cloned().collect();
        for store in due {
            if self.poll_due(&store).is_some_and(|due| due <= now) {
                let ask = Ask::free(Scope::Any, self.accounts.free());
                self.send_claim(now, store, ask, out);
            }
        }
    }

    /// When to ask a store for anything it has; `None` while there is no room or no need.
    pub(super) fn poll_due(&self, store: &StoreUrl) -> Option<Timestamp> {
        let known = self.stores.get(store)?;
        let may = self.takes_work()
            && self.accounts.free().slots > 0
            && self.accounts.free().resources.cpu_millis > 0
            && !known.cut_off
            && !known.classes.is_empty()
            && !self.is_polling(store);
        may.then_some(known.poll_due)
    }

    fn is_polling(&self, store: &StoreUrl) -> bool {
        let mut claims = self.claims.values();
        claims.any(|claim| claim.store == *store && claim.scope == Scope::Any)
    }

    fn send_claim(&mut self, now: Timestamp, store: StoreUrl, ask: Ask, out: &mut Vec<Action>) {
        let Some(known) = self.stores.get(&store) else {
            return self.give_back(ask.reserved);
        };
        let offer = Offer {
            free: ask.offered.resources,
            slots: ask.offered.slots.min(1_024),
            classes: known.classes.clone(),
            labels: self.config.labels.clone(),
        };
        let nonce = self.entropy.nonce();
        let claim = ClaimUnderWay {
            store,
            scope: ask.scope,
            offer,
            reserved: ask.reserved,
            ahead: ask.ahead,
            first_sent: now,
            repeats: 0,
            repeat_at: None,
        };
        out.push(claim.action(nonce, known));
        self.claims.insert(nonce, claim);
    }

    pub(super) fn repeat_claims(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        for (nonce, claim) in &mut self.claims {
            let due = claim.repeat_at.is_some_and(|at| at <= now);
            if let Some(store) = self.stores.get(&claim.store).filter(|_| due) {
                claim.repeat_at = None;
                claim.repeats += 1;
                out.push(claim.action(*nonce, store));
            }
        }
    }

    pub(super) fn on_claimed(
        &mut self,
        now: Timestamp,
        nonce: Nonce,
        store: &StoreUrl,
        reply: Result<Claimed, Trouble>,
        out: &mut Vec<Action>,
    ) {
        let Some(claim) = self.claims.remove(&nonce) else {
            return release_all(store, reply, out);
        };
        match reply {
            Ok(claimed) => self.admit_all(now, &claim, claimed, out),
            Err(trouble) => self.on_claim_trouble(now, nonce, claim, trouble, out),
        }
    }

    fn admit_all(
        &mut self,
        now: Timestamp,
        claim: &ClaimUnderWay,
        claimed: Claimed,
        out: &mut Vec<Action>,
    ) {
        self.give_back(claim.reserved);
        let polled = claim.scope == Scope::Any;
        self.plan_poll(now, &claim.store, polled, claimed.grants.is_empty());
        if !claimed.grants.is_empty() {
            self.lease_granted(now, &claim.store, claim.first_sent, claimed.lease);
        }
        for grant in claimed.grants {
            self.admit(now, &claim.store, &grant, out);
        }
        self.forget_lease_if_idle(&claim.store);
    }

    fn admit(&mut self, now: Timestamp, store: &StoreUrl, grant: &Grant, out: &mut Vec<Action>) {
        let key = RunKey::of(store, &grant.claim);
        let known = self.runs_at(store).map(|(known, _)| known.clone());
        let known: Vec<_> = known.filter(|known| known.job == key.job).collect();
        if known.iter().any(|known| known.fence >= key.fence) {
            return;
        }
        match self.room_for(now, store, grant) {
            Ok((class, run)) => {
                self.runs.insert(key.clone(), run);
                self.report_soon(now, store);
                out.push(Action::Prepare { key, class });
            }
            Err(decline) => out.push(Action::Release {
                key,
                claim: grant.claim,
                reason: decline.to_string(),
            }),
        }
        // A new claim of a job is its store's word that the older ones are over.
        for older in known {
            self.void(now, &older, out);
        }
    }

    fn room_for(
        &mut self,
        now: Timestamp,
        store: &StoreUrl,
        grant: &Grant,
    ) -> Result<(IsolationClass, Run), Decline> {
        let classes = self.stores.get(store).map(|known| known.classes.clone());
        let capacity = self.capacity(classes.unwrap_or_default());
        if self.draining {
            return Err(Decline::Draining);
        }
        let need = Need::from(&grant.spec);
        let share = Share::task(need.resources);
        // The outbox limit stops new claims, not what was granted meanwhile.
        let fits = Offer {
            slots: self.accounts.free().slots,
            ..capacity
        };
        let class = fits.class_for(need.class);
        let run = match fits.fits(&need) {
            Ok(()) => {
                let taken = self.accounts.take(&share);
                assert!(taken, "what fits into the capacity can be reserved");
                Run::new(grant, share)
            }
            Err(_) if self.may_wait(store, &need, 0) => {
                let ahead = Ahead {
                    needs: share,
                    since: now,
                };
                Run::waiting(grant, ahead)
            }
            Err(why) => return Err(Decline::Unfit(why)),
        };
        Ok((class.expect("a fitting task has a class"), run))
    }

    fn on_claim_trouble(
        &mut self,
        now: Timestamp,
        nonce: Nonce,
        mut claim: ClaimUnderWay,
        trouble: Trouble,
        out: &mut Vec<Action>,
    ) {
        let polled = claim.scope == Scope::Any;
        let lease = self.stores.get(&claim.store).map(|store| store.lease);
        let hopeful = match &trouble {
            Trouble::Unknown => now.since(claim.first_sent) < lease.unwrap_or_default(),
            Trouble::Unavailable { .. } => !polled && claim.repeats < UNAVAILABLE_REPEATS_MAX,
            Trouble::Revoked { .. } | Trouble::Refused => false,
        };
        if hopeful {
            let pause = REPEAT_MIN * 2_u32.saturating_pow(claim.repeats.min(8));
            let pause = self.entropy.jitter(pause.min(REPEAT_MAX));
            claim.repeat_at = Some(now.after(asked_pause(&trouble).unwrap_or(pause)));
            self.claims.insert(nonce, claim);
            return;
        }
        self.give_back(claim.reserved);
        self.plan_poll(now, &claim.store, true, true);
        match trouble {
            Trouble::Unknown => self.owe_listings(now, &claim.store),
            Trouble::Revoked { fresh } => self.on_revoked(now, &claim.store, fresh, out),
            Trouble::Unavailable { .. } | Trouble::Refused => {}
        }
    }

    /// Plans the next poll: later and later while there is nothing, soon after there was something.
    fn plan_poll(&mut self, now: Timestamp, store: &StoreUrl, polled: bool, empty: bool) {
        let (least, most) = (self.config.poll_min, self.config.poll_max);
        let Some(known) = self.stores.get_mut(store).filter(|_| polled || !empty) else {
            return;
        };
        known.poll_pause = match empty {
            true => (known.poll_pause * 2).clamp(least, most),
            false => least,
        };
        known.poll_due = now.after(self.entropy.jitter(known.poll_pause));
    }

    /// Room was made, and where there was work there may be more.
    pub(super) fn poll_now(&mut self, now: Timestamp, store: &StoreUrl) {
        let least = self.config.poll_min;
        if let Some(known) = self.stores.get_mut(store) {
            known.poll_pause = least;
            known.poll_due = now;
        }
    }

    pub(super) fn is_claiming(&self, store: &StoreUrl) -> bool {
        self.claims.values().any(|claim| claim.store == *store)
    }

    /// Forgets claims under way at a store; whatever they bring is released.
    pub(super) fn drop_claims(&mut self, store: &StoreUrl) {
        let dropped = self.claims.extract_if(.., |_, claim| claim.store == *store);
        for (_, claim) in dropped.collect::<Vec<_>>() {
            self.give_back(claim.reserved);
        }
    }
}

/// A direct offer.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) store: StoreUrl,
    pub(super) jobs: Vec<JobId>,
    pub(super) need: Need,
    pub(super) ahead: bool,
}

/// Offered jobs that are to be claimed.
#[derive(Debug)]
struct Taken {
    jobs: Vec<JobId>,
    /// What was reserved for them.
    reserved: Share,
    /// What they will take once they run, which is what the store is told.
    offered: Share,
    ahead: u32,
}

impl Default for Taken {
    fn default() -> Self {
        Self {
            jobs: Vec::new(),
            reserved: Share::NOTHING,
            offered: Share::NOTHING,
            ahead: 0,
        }
    }
}

impl Taken {
    fn add(&mut self, job: JobId, need: &Need, reserved: Share) {
        self.jobs.push(job);
        self.ahead += u32::from(reserved == Share::NOTHING);
        self.reserved = self.reserved.plus(&reserved);
        self.offered = self.offered.plus(&Share::task(need.resources));
    }
}

/// What a claim asks for.
struct Ask {
    scope: Scope,
    offered: Share,
    reserved: Share,
    ahead: u32,
}

impl Ask {
    /// Offers everything free and reserves nothing.
    const fn free(scope: Scope, free: &Share) -> Self {
        Self {
            scope,
            offered: *free,
            reserved: Share::NOTHING,
            ahead: 0,
        }
    }
}

impl ClaimUnderWay {
    fn action(&self, nonce: Nonce, store: &super::Store) -> Action {
        Action::Claim {
            store: self.store.clone(),
            incarnation: store.incarnation,
            nonce,
            scope: self.scope.clone(),
            offer: self.offer.clone(),
        }
    }
}

fn asked_pause(trouble: &Trouble) -> Option<Duration> {
    match trouble {
        Trouble::Unavailable { after } => after.map(|pause| pause.min(REPEAT_MAX)),
        _ => None,
    }
}

fn release_all(store: &StoreUrl, reply: Result<Claimed, Trouble>, out: &mut Vec<Action>) {
    let grants = reply.map(|claimed| claimed.grants).unwrap_or_default();
    out.extend(grants.iter().map(|grant| Action::Release {
        key: RunKey::of(store, &grant.claim),
        claim: grant.claim,
        reason: "the answer came too late".to_owned(),
    }));
}
