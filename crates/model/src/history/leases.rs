//! Leases (DESIGN §3.10).

use super::ledger::{Grant, Job, Ledger, Place};
use super::{Found, violation};
use crate::lease::Claim;
use crate::time::Timestamp;

/// Complete lists that may miss a claim before the store takes it for one whose reply was lost.
const UNLISTED_MAX: usize = 2;

/// When the lease of a claim ends that its holder last saw extended before `until`, at the earliest.
///
/// A renewal that does not list the claim says nothing of it: it may have been lost already.
fn last_lease_end(
    ledger: &Ledger<'_>,
    told: &Job<'_>,
    grant: &Grant<'_>,
    until: Place,
) -> Timestamp {
    let kept = told.kept.iter();
    let kept =
        kept.filter(|(place, claim)| *claim == grant.claim && ledger.is_before(*place, until));
    let ends = kept.map(|(place, _)| ledger.lease_end(*place));
    ends.fold(ledger.lease_end(grant.place), Timestamp::max)
}

/// 10. A claim ends before its lease only by its holder's word, its user's, or a verdict.
pub(super) fn none_ends_early(ledger: &Ledger<'_>) -> Found {
    let mut found = Found::new();
    for (job, told) in &ledger.jobs {
        for grant in &told.grants {
            let Some(next) = successor(told, grant) else {
                continue;
            };
            if may_have_been_ended(ledger, told, grant, next.place) {
                continue;
            }
            let end = last_lease_end(ledger, told, grant, next.place);
            if ledger.at(next.place).returned < end {
                let fence = grant.claim.fence;
                let what = format!("{job} was claimed anew before the lease of {fence} ended");
                found.push(violation(10, what, &[grant.place, next.place]));
            }
        }
    }
    found
}

/// The next claim of the same job.
fn successor<'l>(told: &'l Job<'_>, grant: &Grant<'_>) -> Option<&'l Grant<'l>> {
    let later = told.grants.iter();
    let later = later.filter(|later| later.claim.fence > grant.claim.fence);
    later.min_by_key(|later| later.claim.fence)
}

/// Whether something before the successor may have ended the claim, known or not.
fn may_have_been_ended(
    ledger: &Ledger<'_>,
    told: &Job<'_>,
    grant: &Grant<'_>,
    successor: Place,
) -> bool {
    let until = ledger.at(successor).returned;
    let in_time = |place: Place| ledger.at(place).called < until;
    let of_claim = |place: Place, claim: &Claim| *claim == grant.claim && in_time(place);
    let mut releases = told.releases.iter();
    let mut finishes = told.finishes.iter();
    let mut cancels = told.cancels.iter();
    let mut verdicts = ledger.verdicts_on(grant.holder);
    releases.any(|(place, claim)| of_claim(*place, claim))
        || finishes.any(|(place, finish)| of_claim(*place, &finish.claim))
        || cancels.any(|(place, _)| in_time(*place))
        || verdicts.any(|verdict| in_time(verdict.place))
        || was_unlisted(ledger, grant, until)
}

fn was_unlisted(ledger: &Ledger<'_>, grant: &Grant<'_>, until: Timestamp) -> bool {
    let lists = ledger.run(grant.holder).map(|run| run.lists.as_slice());
    let granted = ledger.at(grant.place).called;
    let lists = lists.unwrap_or_default().iter();
    // A list is what its holder knew when it went out; one from before the claim may arrive after it.
    let silent = lists.filter(|(place, listed)| {
        let list = ledger.at(*place);
        list.called < until && granted < list.returned && !listed.contains(&grant.claim)
    });
    silent.count() >= UNLISTED_MAX
}

/// 10. After a store start, an epoch change or a clock step nothing expires for one lease.
pub(super) fn nothing_expires_in_grace(ledger: &Ledger<'_>) -> Found {
    let mut found = Found::new();
    for start in &ledger.graces {
        let end = ledger.lease_end(*start);
        for (place, jobs) in &ledger.expiries {
            let is_within = ledger.is_before(*start, *place) && ledger.at(*place).returned < end;
            if is_within && !jobs.is_empty() {
                let what = format!("{} jobs expired in the grace after a start", jobs.len());
                found.push(violation(10, what, &[*start, *place]));
            }
        }
    }
    found
}
