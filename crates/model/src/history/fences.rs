//! Fences and epochs (DESIGN §3.2, §3.3, §10).

use std::collections::BTreeMap;

use super::ledger::{Grant, Ledger};
use super::{Found, Violation, violation};

/// 2. Fences strictly increase per claim and are never reused.
pub(super) fn grow_per_claim(ledger: &Ledger<'_>) -> Found {
    let mut found = Found::new();
    for told in ledger.jobs.values() {
        for (index, earlier) in told.grants.iter().enumerate() {
            let later = told.grants[index + 1..].iter();
            found.extend(later.filter_map(|later| check_pair(ledger, earlier, later)));
        }
    }
    found
}

fn check_pair(ledger: &Ledger<'_>, one: &Grant<'_>, other: &Grant<'_>) -> Option<Violation> {
    let is_repeat = (one.holder, one.claim.nonce) == (other.holder, other.claim.nonce);
    let (first, second) = (one.claim.fence, other.claim.fence);
    let job = one.claim.job;
    if first == second {
        let what = format!("fence {first} of {job} was given to two claims");
        return (!is_repeat).then(|| violation(2, what, &[one.place, other.place]));
    }
    let is_ordered = ledger.is_before(one.place, other.place);
    // A repeated request gives back old claims, so its order says nothing.
    (is_ordered && !is_repeat && second < first && !is_given_back(ledger, other)).then(|| {
        let what = format!("{job} was claimed under {second} after {first}");
        violation(2, what, &[one.place, other.place])
    })
}

/// Whether a grant may be the repeat of one whose reply was lost.
fn is_given_back(ledger: &Ledger<'_>, grant: &Grant<'_>) -> bool {
    let first = ledger.first_claims.get(&(grant.holder, grant.claim.nonce));
    first.is_some_and(|first| *first != grant.place)
}

/// 3. Nothing is accepted under a fence that is not current.
pub(super) fn nothing_stale_is_accepted(ledger: &Ledger<'_>) -> Found {
    let mut found = Found::new();
    for (job, told) in &ledger.jobs {
        for (place, claim) in told.signs_of_life() {
            let later = told
                .grants
                .iter()
                .filter(|grant| grant.claim.fence > claim.fence);
            let overtaken = later.filter(|grant| ledger.is_before(grant.place, place));
            for current in overtaken {
                let what = format!(
                    "{job} took word under {} while {} was current",
                    claim.fence, current.claim.fence
                );
                found.push(violation(3, what, &[current.place, place]));
            }
        }
    }
    found
}

/// Epochs never fall (DESIGN §10); a restart that changed nothing may keep its own.
pub(super) fn epochs_never_fall(ledger: &Ledger<'_>) -> Found {
    let pairs = ledger.epochs.windows(2);
    let falling = pairs.filter(|pair| pair[1].1 < pair[0].1);
    falling
        .map(|pair| {
            let what = format!("epoch {} followed {}", pair[1].1, pair[0].1);
            violation(2, what, &[pair[0].0, pair[1].0])
        })
        .collect()
}

/// 9. No two claims of one job are both shown in force at the same time.
pub(super) fn one_holder_at_a_time(ledger: &Ledger<'_>) -> Found {
    let mut found = Found::new();
    for (job, told) in &ledger.jobs {
        let signs = told.signs_of_life();
        // Of each fence the first word alone matters: whoever comes later under a lower one is late.
        let mut first = BTreeMap::new();
        for (place, claim) in &signs {
            let known = first.entry(claim.fence).or_insert(*place);
            if ledger.at(*place).returned < ledger.at(*known).returned {
                *known = *place;
            }
        }
        for (place, claim) in &signs {
            let rivals = first.iter().filter(|(fence, _)| **fence > claim.fence);
            for (fence, at) in rivals.filter(|(_, at)| ledger.is_before(**at, *place)) {
                let what = format!("{fence} and {} both held {job}", claim.fence);
                found.push(violation(9, what, &[*at, *place]));
            }
        }
    }
    found
}
