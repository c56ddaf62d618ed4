//! Claiming and renewing.

use std::collections::BTreeMap;

use mutual_model::guardian::StateHash;
use mutual_model::identity::NodeId;
use mutual_model::ids::{Incarnation, JobId};
use mutual_model::job::JobState;
use mutual_model::lease::{Claim, Holder};

use super::record::{Past, Record};
use super::state::{Lease, State};
use crate::rules::queue::{self, Packing};
use crate::rules::{SWEEP_BY_CLAIM_MAX, UNLISTED_MAX, bounds, rights};
use crate::{
    Attempt, ClaimGrant, ClaimReply, ClaimRequest, ClaimScope, HeldJob, Lost, LostReason, Offer,
    Phase, Principal, RenewReply, RenewRequest, StoreError, StoreResult,
};

impl State {
    pub(super) fn try_claim(
        &mut self,
        who: &Principal,
        request: &ClaimRequest,
    ) -> StoreResult<ClaimReply> {
        let agent = rights::worker(who)?;
        bounds::claim(request)?;
        let holder = self.living(agent, request.incarnation)?;
        let grants = if self.claimed_nonces.contains(&(holder, request.nonce)) {
            self.granted_before(holder, request)
        } else {
            self.claim_new(who, holder, request)
        };
        if !grants.is_empty() {
            self.extend_lease(holder);
        }
        Ok(ClaimReply {
            grants,
            lease_ms: self.lease_ms(),
            now: self.now,
        })
    }

    /// The incarnation, unless it was declared dead.
    pub(super) fn living(&self, agent: NodeId, incarnation: Incarnation) -> StoreResult<Holder> {
        let holder = Holder { agent, incarnation };
        let floor = self.superseded.get(&agent);
        let is_old = floor.is_some_and(|floor| incarnation < *floor);
        if is_old || self.leases.get(&holder).is_some_and(|lease| lease.revoked) {
            return Err(StoreError::IncarnationRevoked);
        }
        Ok(holder)
    }

    fn extend_lease(&mut self, holder: Holder) {
        let lease = Lease {
            expires_at: self.new_lease_end(),
            heard_at: self.now,
            revoked: false,
        };
        self.leases.insert(holder, lease);
    }

    /// What the same request was granted when it came first, as far as it is still in force.
    fn granted_before(&self, holder: Holder, request: &ClaimRequest) -> Vec<ClaimGrant> {
        let held = self.index.held_by(holder).into_iter();
        held.filter_map(|job| self.records.get(&job))
            .filter_map(|record| {
                let past = record.current()?;
                (past.nonce == request.nonce).then(|| record.grant(past))
            })
            .collect()
    }

    fn claim_new(
        &mut self,
        who: &Principal,
        holder: Holder,
        request: &ClaimRequest,
    ) -> Vec<ClaimGrant> {
        let mut chosen = self.choose(who, request);
        if chosen.is_empty() {
            // Whoever polls and finds an expired lease may reclaim it (DESIGN §7).
            self.sweep(SWEEP_BY_CLAIM_MAX);
            chosen = self.choose(who, request);
        }
        if !chosen.is_empty() {
            self.claimed_nonces.insert((holder, request.nonce));
        }
        chosen
            .into_iter()
            .map(|job| self.assign(job, holder, request))
            .collect()
    }

    fn choose(&self, who: &Principal, request: &ClaimRequest) -> Vec<JobId> {
        let offer = &request.offer;
        let fits = |job: &JobId| {
            let record = self.records.get(job)?;
            let is_mine = rights::sees(who, &record.namespace);
            (is_mine && self.is_claimable(record) && suits(offer, record)).then_some(record)
        };
        let candidates: Vec<&Record> = match &request.scope {
            ClaimScope::Jobs(jobs) => jobs.iter().filter_map(fits).collect(),
            ClaimScope::Any => self.best(who, offer, fits),
        };
        let mut packing = Packing::new(offer);
        let mut taken: Vec<JobId> = Vec::new();
        for record in candidates {
            if !taken.contains(&record.id) && packing.take(&record.spec.resources) {
                taken.push(record.id);
            }
        }
        taken
    }

    fn best<'a>(
        &'a self,
        who: &Principal,
        offer: &Offer,
        fits: impl Fn(&JobId) -> Option<&'a Record>,
    ) -> Vec<&'a Record> {
        let most = queue::candidates(offer.slots) as usize;
        let mut found = Vec::new();
        for namespace in &who.namespaces {
            let queued = self.index.queued(namespace);
            let fitting = queued.filter_map(|(rank, job)| Some((rank, job, fits(&job)?)));
            found.extend(fitting.take(most));
        }
        found.sort_by_key(|(rank, job, _)| (*rank, *job));
        found.truncate(most);
        found.into_iter().map(|(_, _, record)| record).collect()
    }

    fn is_claimable(&self, record: &Record) -> bool {
        record.state == JobState::Queued && (record.waits_until > self.now || self.is_grace())
    }

    fn assign(&mut self, job: JobId, holder: Holder, request: &ClaimRequest) -> ClaimGrant {
        let (now, epoch) = (self.now, self.epoch);
        self.change(job, |record| {
            record.last_fence = record.last_fence.next(epoch);
            record.state = JobState::Assigned;
            record.reason = None;
            record.checkpoint_wanted = false;
            record.unlisted = 0;
            let past = Past {
                attempt: Attempt {
                    log: None,
                    fence: record.last_fence,
                    holder,
                    agent_url: request.agent_url.clone(),
                    claimed_at: now,
                    started_at: None,
                    ended_at: None,
                    end: None,
                },
                nonce: request.nonce,
                finish: None,
            };
            let grant = record.grant(&past);
            record.attempts.push(past);
            grant
        })
    }

    pub(super) fn renew(
        &mut self,
        who: &Principal,
        request: &RenewRequest,
    ) -> StoreResult<RenewReply> {
        let agent = rights::worker(who)?;
        bounds::renewal(request)?;
        let holder = self.living(agent, request.incarnation)?;
        self.extend_lease(holder);
        let listed = bounds::listed(request);
        let state = self.state_of(holder);
        if request.complete {
            self.note_unlisted(holder, &listed);
        }
        let mut reply = RenewReply {
            held: Vec::new(),
            lost: Vec::new(),
            checkpoint_wanted: Vec::new(),
            state,
            lease_ms: self.lease_ms(),
            now: self.now,
        };
        for held in listed.values() {
            self.renew_one(holder, held, &mut reply);
        }
        Ok(reply)
    }

    fn renew_one(&mut self, holder: Holder, held: &HeldJob, reply: &mut RenewReply) {
        let claim = held.claim;
        let record = self.records.get(&claim.job);
        let stands = record.is_some_and(|record| {
            record.is_current(&claim, holder.agent) && record.holder() == Some(holder)
        });
        if !stands {
            let reason = record.map_or(LostReason::Fenced, |record| lost_reason(record, &claim));
            reply.lost.push(Lost { claim, reason });
            return;
        }
        let now = self.now;
        let wanted = self.change(claim.job, |record| {
            advance(record, held.phase, now);
            record.unlisted = 0;
            record.checkpoint_wanted
        });
        reply.held.push(claim.job);
        if wanted {
            reply.checkpoint_wanted.push(claim.job);
        }
    }

    fn state_of(&self, holder: Holder) -> StateHash {
        let jobs = self.index.held_by(holder);
        let records = jobs.into_iter().filter_map(|job| self.records.get(&job));
        let claims: Vec<_> = records.filter_map(Record::claim).collect();
        StateHash::of_claims(&claims)
    }

    fn note_unlisted(&mut self, holder: Holder, listed: &BTreeMap<Claim, HeldJob>) {
        let now = self.now;
        for job in self.index.held_by(holder) {
            let record = self.records.get(&job);
            let is_listed = |record: &Record| {
                let mut claims = listed.keys();
                claims.any(|claim| claim.job == job && record.is_current(claim, holder.agent))
            };
            if record.is_some_and(is_listed) {
                continue;
            }
            self.change(job, |record| {
                record.unlisted += 1;
                if record.unlisted >= UNLISTED_MAX {
                    record.give_back(crate::rules::UNLISTED_REASON.into(), now);
                }
            });
        }
    }
}

/// Whether an agent may run a task at all, apart from how much else it takes.
fn suits(offer: &Offer, record: &Record) -> bool {
    let spec = &record.spec;
    let labels_fit = spec
        .labels
        .iter()
        .all(|(key, value)| offer.labels.get(key) == Some(value));
    labels_fit
        && offer.free.fits(&spec.resources)
        && queue::class_bits(&offer.classes) & queue::accepted_bits(spec.class) != 0
}

fn lost_reason(record: &Record, claim: &Claim) -> LostReason {
    let past = record
        .attempts
        .iter()
        .find(|past| past.attempt.fence == claim.fence && past.nonce == claim.nonce);
    match past {
        Some(past) if past.finish.is_some() => LostReason::Finished,
        Some(past) if past.attempt.end == Some(crate::AttemptEnd::Cancelled) => {
            LostReason::Cancelled
        }
        _ => LostReason::Fenced,
    }
}

/// Moves a held job's state forward, never back.
fn advance(record: &mut Record, phase: Phase, now: mutual_model::time::UnixMillis) {
    let state = match phase {
        Phase::Assigned => JobState::Assigned,
        Phase::Preparing => JobState::Preparing,
        Phase::Running => JobState::Running,
    };
    if state <= record.state {
        return;
    }
    record.state = state;
    if let Some(past) = record
        .attempts
        .last_mut()
        .filter(|_| phase == Phase::Running)
    {
        past.attempt.started_at = Some(now);
    }
}
