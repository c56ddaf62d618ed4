//! Fences and epochs (DESIGN §3.2, §3.3, §10).

use std::collections::BTreeMap;

use super::{Deed, Found, History, grants, signs_of_life, violation};
use crate::ids::JobId;
use crate::lease::{Claim, Holder};

type Taken = (usize, Holder, Claim);

pub(super) fn by_job(history: History<'_>) -> BTreeMap<JobId, Vec<Taken>> {
    let mut taken: BTreeMap<JobId, Vec<Taken>> = BTreeMap::new();
    for (position, holder, granted) in grants(history) {
        let claim = granted.claim;
        taken
            .entry(claim.job)
            .or_default()
            .push((position, holder, claim));
    }
    taken
}

/// 2. Fences strictly increase per claim and are never reused.
pub(super) fn grow_per_claim(history: History<'_>) -> Found {
    let mut found = Found::new();
    for claims in by_job(history).values() {
        for (index, earlier) in claims.iter().enumerate() {
            for later in &claims[index + 1..] {
                found.extend(check_pair(history, earlier, later));
            }
        }
    }
    found
}

fn check_pair(history: History<'_>, one: &Taken, other: &Taken) -> Option<super::Violation> {
    let is_repeat = (one.1, one.2.nonce) == (other.1, other.2.nonce);
    let (first, second) = (one.2.fence, other.2.fence);
    if first == second {
        let what = format!("fence {first} of {} was given to two claims", one.2.job);
        return (!is_repeat).then(|| violation(2, what, &[one.0, other.0]));
    }
    let is_ordered = history[one.0].is_before(&history[other.0]);
    // A repeated request gives back old claims, so its order says nothing.
    (is_ordered && !is_repeat && second < first && !is_given_back(history, other)).then(|| {
        let what = format!("{} was claimed under {second} after {first}", one.2.job);
        violation(2, what, &[one.0, other.0])
    })
}

/// Whether a grant may be the repeat of one whose reply was lost.
fn is_given_back(history: History<'_>, grant: &Taken) -> bool {
    history[..grant.0].iter().any(|earlier| {
        matches!(&earlier.deed, Deed::Claim { holder, nonce, .. }
            if (*holder, *nonce) == (grant.1, grant.2.nonce))
    })
}

/// 3. Nothing is accepted under a fence that is not current.
pub(super) fn nothing_stale_is_accepted(history: History<'_>) -> Found {
    let taken = by_job(history);
    let mut found = Found::new();
    for (position, claim) in signs_of_life(history) {
        let later = taken.get(&claim.job).into_iter().flatten();
        let overtaken = later.filter(|(at, _, other)| {
            other.fence > claim.fence && history[*at].is_before(&history[position])
        });
        for (at, _, other) in overtaken {
            let (stale, current) = (claim.fence, other.fence);
            let what = format!(
                "{} took word under {stale} while {current} was current",
                claim.job
            );
            found.push(violation(3, what, &[*at, position]));
        }
    }
    found
}

/// Epochs never fall (DESIGN §10); a restart that changed nothing may keep its own.
pub(super) fn epochs_never_fall(history: History<'_>) -> Found {
    let mut found = Found::new();
    let mut last: Option<(usize, u64)> = None;
    for (position, observation) in history.iter().enumerate() {
        let Deed::Opened { epoch, .. } = observation.deed else {
            continue;
        };
        if let Some((before, known)) = last.filter(|(_, known)| epoch < *known) {
            let what = format!("epoch {epoch} followed {known}");
            found.push(violation(2, what, &[before, position]));
        }
        last = Some((position, epoch));
    }
    found
}
