//! Ending other people's claims: verdicts of death and the sweep of what expired.

use std::collections::BTreeSet;

use mutual_model::ids::JobId;
use mutual_model::job::JobState;
use mutual_model::lease::Holder;
use mutual_model::time::{UnixMillis, millis};

use super::state::{Lease, State, Vote};
use crate::rules::{LEASE_MEMORY_MS, bounds, rights};
use crate::{
    AttemptEnd, Principal, Reason, RequeueReport, Revocation, RevocationReply, Right, StoreError,
    StoreResult, Verdict,
};

impl State {
    pub(super) fn revoke(
        &mut self,
        who: &Principal,
        revocation: &Revocation,
    ) -> StoreResult<RevocationReply> {
        rights::judge(who, revocation)?;
        if self.verdict_nonces.contains(&revocation.nonce) {
            return Err(StoreError::Conflict(
                "this verdict was passed before".into(),
            ));
        }
        let condemned = self.condemned(revocation);
        if revocation.verdict != Verdict::Superseded {
            self.check_silence(&condemned, revocation.silent_ms)?;
        }
        self.verdict_nonces.insert(revocation.nonce);
        let mut reply = RevocationReply {
            revoked: false,
            requeued: Vec::new(),
            buried: Vec::new(),
            waiting: Vec::new(),
        };
        let Some(verdict) = self.agreed(who, revocation) else {
            return Ok(reply);
        };
        reply.revoked = true;
        if verdict == Verdict::Superseded {
            let floor = self.superseded.entry(revocation.agent);
            let floor = floor.or_insert(revocation.incarnation);
            *floor = revocation.incarnation.max(*floor);
        }
        for holder in condemned {
            self.end_incarnation(who, holder, verdict, &mut reply);
        }
        Ok(reply)
    }

    /// The incarnations that a verdict is about.
    fn condemned(&self, revocation: &Revocation) -> Vec<Holder> {
        let named = Holder {
            agent: revocation.agent,
            incarnation: revocation.incarnation,
        };
        if revocation.verdict != Verdict::Superseded {
            return vec![named];
        }
        let first = Holder {
            agent: revocation.agent,
            incarnation: mutual_model::ids::Incarnation(uuid::Uuid::nil()),
        };
        self.leases
            .range(first..named)
            .map(|(holder, _)| *holder)
            .collect()
    }

    fn check_silence(&self, condemned: &[Holder], silent_ms: u64) -> StoreResult<()> {
        let heard = condemned
            .iter()
            .filter_map(|holder| self.leases.get(holder));
        for lease in heard.filter(|lease| !lease.revoked) {
            let heard_ms_ago = millis(self.now.since(lease.heard_at));
            if heard_ms_ago < silent_ms {
                return Err(StoreError::HeardFrom { heard_ms_ago });
            }
        }
        Ok(())
    }

    /// The verdict, if enough agree: the mildest of those that count.
    fn agreed(&mut self, who: &Principal, revocation: &Revocation) -> Option<Verdict> {
        if rights::judges_alone(who, revocation) {
            return Some(revocation.verdict);
        }
        let holder = Holder {
            agent: revocation.agent,
            incarnation: revocation.incarnation,
        };
        let vote = Vote {
            verdict: revocation.verdict,
            at: self.now,
        };
        self.votes.insert((holder, rights::voter(who)), vote);
        let oldest = UnixMillis(self.now.0.saturating_sub(self.lease_ms()));
        self.votes.retain(|_, vote| vote.at >= oldest);
        let votes: Vec<_> = self
            .votes
            .iter()
            .filter(|((of, _), _)| *of == holder)
            .collect();
        if votes.len() < self.config.quorum as usize {
            return None;
        }
        let all_closed = votes
            .iter()
            .all(|(_, vote)| vote.verdict == Verdict::Closed);
        Some(if all_closed {
            Verdict::Closed
        } else {
            Verdict::Silent
        })
    }

    fn end_incarnation(
        &mut self,
        who: &Principal,
        holder: Holder,
        verdict: Verdict,
        reply: &mut RevocationReply,
    ) {
        let lease = self.leases.entry(holder).or_insert(Lease {
            expires_at: self.now,
            heard_at: self.now,
            revoked: true,
        });
        lease.revoked = true;
        for job in self.index.held_by(holder) {
            let Some(record) = self.records.get(&job) else {
                continue;
            };
            // Claims of namespaces that the judge does not see end by expiry.
            if !rights::sees(who, &record.namespace) && !rights::has(who, Right::Operate) {
                continue;
            }
            if verdict == Verdict::Silent && record.spec.exclusive {
                reply.waiting.push(job);
            } else if self.lose(job, AttemptEnd::Revoked) == JobState::Queued {
                reply.requeued.push(job);
            } else {
                reply.buried.push(job);
            }
        }
    }

    fn lose(&mut self, job: JobId, end: AttemptEnd) -> JobState {
        let now = self.now;
        self.change(job, |record| {
            record.lose_holder(end, now);
            record.state
        })
    }

    pub(super) fn requeue(&mut self, who: &Principal, limit: u32) -> StoreResult<RequeueReport> {
        rights::require_any(who, &[Right::Operate, Right::Work])?;
        bounds::requeue(limit)?;
        let mut report = self.sweep(limit);
        let mine = |job: &JobId| rights::has(who, Right::Operate) || self.seen(who, *job).is_ok();
        report.requeued.retain(mine);
        report.buried.retain(mine);
        report.expired.retain(mine);
        Ok(report)
    }

    /// Ends what is over by the store's clock.
    pub(super) fn sweep(&mut self, limit: u32) -> RequeueReport {
        let mut report = RequeueReport::default();
        if !self.is_grace() {
            self.sweep_leases(limit as usize, &mut report);
            self.sweep_waits(limit as usize, &mut report);
            self.forget_old_leases();
        }
        report.next_ms = self.next_expiry_ms();
        report
    }

    fn sweep_leases(&mut self, limit: usize, report: &mut RequeueReport) {
        let expired: Vec<Holder> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.expires_at <= self.now)
            .map(|(holder, _)| *holder)
            .collect();
        let jobs = expired
            .into_iter()
            .flat_map(|holder| self.index.held_by(holder));
        let jobs: BTreeSet<JobId> = jobs.take(limit).collect();
        for job in jobs {
            match self.lose(job, AttemptEnd::LeaseExpired) {
                JobState::Queued => report.requeued.push(job),
                _ => report.buried.push(job),
            }
        }
    }

    fn sweep_waits(&mut self, limit: usize, report: &mut RequeueReport) {
        let now = self.now;
        for job in self.index.waited_out(now).into_iter().take(limit) {
            self.change(job, |record| {
                record.end(JobState::Expired, Some(Reason::WaitedTooLong), now);
            });
            report.expired.push(job);
        }
    }

    fn forget_old_leases(&mut self) {
        let oldest = UnixMillis(self.now.0.saturating_sub(LEASE_MEMORY_MS));
        let index = &self.index;
        self.leases
            .retain(|holder, lease| lease.heard_at >= oldest || index.holds_some(*holder));
    }

    fn next_expiry_ms(&self) -> u64 {
        let leases = self.leases.iter();
        let held = leases.filter(|(holder, _)| self.index.holds_some(**holder));
        let first = held
            .map(|(_, lease)| lease.expires_at)
            .chain(self.index.next_wait_end())
            .min();
        let first = first.unwrap_or(self.new_lease_end()).max(self.grace_until);
        millis(first.since(self.now)).min(self.lease_ms())
    }
}
