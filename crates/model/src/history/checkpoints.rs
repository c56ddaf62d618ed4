//! Checkpoints (DESIGN §3.11).

use super::{Answer, Deed, Found, Granted, History, grants, violation};
use crate::lease::Fence;

type Saved = (usize, Fence, u64);

fn saved_of(history: History<'_>, granted: &Granted) -> Vec<Saved> {
    let saved = history
        .iter()
        .enumerate()
        .filter_map(|(position, observation)| match &observation.deed {
            Deed::Checkpoint {
                claim,
                sequence,
                answer: Answer::Done(()),
            } if claim.job == granted.claim.job => Some((position, claim.fence, *sequence)),
            _ => None,
        });
    saved.collect()
}

/// 11. Checkpoints are offered best first, and none worse than the best acknowledged one.
pub(super) fn resume_from_the_best(history: History<'_>) -> Found {
    let mut found = Found::new();
    for (position, _, granted) in grants(history) {
        if !granted.resume.is_sorted_by(|one, next| one > next) {
            let what = format!("{} offered checkpoints out of order", granted.claim.job);
            found.push(violation(11, what, &[position]));
        }
        let offered = granted.resume.first().copied();
        for (saved_at, fence, sequence) in saved_of(history, granted) {
            let is_known = history[saved_at].is_before(&history[position]);
            if is_known && fence < granted.claim.fence && offered < Some((fence, sequence)) {
                let what = format!(
                    "{} was resumed from {offered:?}, not from {fence} number {sequence}",
                    granted.claim.job
                );
                found.push(violation(11, what, &[saved_at, position]));
            }
        }
    }
    found
}
