//! Leases and holders (DESIGN §3.9, 3.10).

use super::{Answer, Deed, Found, History, Observation, grants, signs_of_life, violation};
use crate::ids::JobId;
use crate::lease::{Claim, Holder};
use crate::time::Timestamp;

/// 9. No two claims of one job are both shown in force at the same time.
pub(super) fn one_holder_at_a_time(history: History<'_>) -> Found {
    let signs = signs_of_life(history);
    let mut found = Found::new();
    for (position, claim) in &signs {
        let rivals = signs
            .iter()
            .filter(|(_, other)| other.job == claim.job && other.fence > claim.fence);
        for (at, other) in rivals.filter(|(at, _)| history[*at].is_before(&history[*position])) {
            let what = format!(
                "{} and {} both held {}",
                other.fence, claim.fence, claim.job
            );
            found.push(violation(9, what, &[*at, *position]));
        }
    }
    found
}

/// Length of a lease at some position; 0 if the history does not say.
fn lease_ms(history: History<'_>) -> u64 {
    let mut terms = history
        .iter()
        .filter_map(|observation| match observation.deed {
            Deed::Opened { lease_ms, .. } => Some(lease_ms),
            _ => None,
        });
    terms.next().unwrap_or(0)
}

fn lease_end(history: History<'_>, from: Timestamp) -> Timestamp {
    from.after(std::time::Duration::from_millis(lease_ms(history)))
}

/// When an incarnation last made the store extend its lease, before `until`, at the earliest.
fn last_extension(history: History<'_>, holder: Holder, until: &Observation) -> Option<Timestamp> {
    let extensions = history
        .iter()
        .filter(|observation| observation.is_before(until));
    extensions
        .filter(|observation| match &observation.deed {
            Deed::Claim {
                holder: who,
                answer: Answer::Done(granted),
                ..
            } => *who == holder && !granted.is_empty(),
            Deed::Renew {
                holder: who,
                answer: Answer::Done(_),
                ..
            } => *who == holder,
            _ => false,
        })
        .map(|observation| observation.called)
        .max()
}

/// 10. A claim ends before its lease only by its holder's word, its user's, or a verdict.
pub(super) fn none_ends_early(history: History<'_>) -> Found {
    let mut found = Found::new();
    for (position, holder, granted) in grants(history) {
        let claim = granted.claim;
        let Some((next, successor)) = successor(history, position, &claim) else {
            continue;
        };
        if may_have_been_ended(history, holder, &claim, successor) {
            continue;
        }
        let extended = last_extension(history, holder, successor);
        let end = lease_end(history, extended.unwrap_or(history[position].called));
        if successor.returned < end {
            let what = format!(
                "{} was claimed anew before the lease of {} ended",
                claim.job, claim.fence
            );
            found.push(violation(10, what, &[position, next]));
        }
    }
    found
}

/// The next claim of the same job.
fn successor<'a>(
    history: History<'a>,
    position: usize,
    claim: &Claim,
) -> Option<(usize, &'a Observation)> {
    grants(history)
        .filter(|(at, _, later)| {
            later.claim.job == claim.job && later.claim.fence > claim.fence && *at != position
        })
        .min_by_key(|(_, _, later)| later.claim.fence)
        .map(|(at, _, _)| (at, &history[at]))
}

/// Whether something before the successor may have ended the claim, known or not.
fn may_have_been_ended(
    history: History<'_>,
    holder: Holder,
    claim: &Claim,
    successor: &Observation,
) -> bool {
    let before = history
        .iter()
        .filter(|observation| observation.called < successor.returned);
    let mut unlisted = 0;
    for observation in before {
        match &observation.deed {
            Deed::Release { claim: other, .. } if other == claim => return true,
            Deed::Finish(finish) if finish.claim == *claim => return true,
            Deed::Cancel { job, .. } if *job == claim.job => return true,
            Deed::Revoke { agent, .. } if *agent == holder.agent => return true,
            Deed::Renew {
                holder: who,
                listed,
                complete: true,
                ..
            } if *who == holder && !listed.contains(claim) => {
                unlisted += 1;
            }
            _ => {}
        }
    }
    unlisted >= 2
}

/// 10. After a store start, an epoch change or a clock step nothing expires for one lease.
pub(super) fn nothing_expires_in_grace(history: History<'_>) -> Found {
    let mut found = Found::new();
    for (position, observation) in history.iter().enumerate() {
        let begins_grace = matches!(
            observation.deed,
            Deed::ClockSet | Deed::Opened { reopened: true, .. }
        );
        if !begins_grace {
            continue;
        }
        let end = lease_end(history, observation.called);
        for (later, jobs) in expiries(history) {
            let is_within = observation.is_before(&history[later]) && history[later].returned < end;
            if is_within && !jobs.is_empty() {
                let what = format!("{} jobs expired in the grace after a start", jobs.len());
                found.push(violation(10, what, &[position, later]));
            }
        }
    }
    found
}

fn expiries(history: History<'_>) -> impl Iterator<Item = (usize, &[JobId])> {
    history
        .iter()
        .enumerate()
        .filter_map(|(position, observation)| match &observation.deed {
            Deed::Requeue {
                answer: Answer::Done(jobs),
            } => Some((position, jobs.as_slice())),
            _ => None,
        })
}
