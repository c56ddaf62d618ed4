//! Checkpoints (DESIGN §3.11).

use super::ledger::{Grant, Job, Ledger, Place};
use super::{Found, Saved, Violation, violation};

/// 11. Checkpoints are offered best first, and none worse than the best acknowledged one.
pub(super) fn the_best_is_offered(ledger: &Ledger<'_>) -> Found {
    let mut found = Found::new();
    for (job, told) in &ledger.jobs {
        for grant in &told.grants {
            if !grant.granted.resume.is_sorted_by(|one, next| one > next) {
                let what = format!("{job} offered checkpoints out of order");
                found.push(violation(11, what, &[grant.place]));
            }
            found.extend(better_than_offered(ledger, told, grant));
        }
    }
    found
}

fn better_than_offered(
    ledger: &Ledger<'_>,
    told: &Job<'_>,
    grant: &Grant<'_>,
) -> Option<Violation> {
    let offered = grant.granted.resume.first().copied();
    let earlier = told.saved.iter().filter(|(place, claim, _)| {
        claim.fence < grant.claim.fence && ledger.is_before(*place, grant.place)
    });
    let best = earlier.map(|(place, claim, sequence)| ((claim.fence, *sequence), *place));
    let (best, place): (Saved, Place) = best.max()?;
    (offered < Some(best)).then(|| {
        let (job, (fence, sequence)) = (grant.claim.job, best);
        let what = format!("{job} was offered {offered:?}, not {fence} number {sequence}");
        violation(11, what, &[place, grant.place])
    })
}

/// 11. A program goes on from the best checkpoint offered that could be fetched.
pub(super) fn the_best_is_taken(ledger: &Ledger<'_>) -> Found {
    let mut found = Found::new();
    for (job, told) in &ledger.jobs {
        for (place, run) in &told.runs {
            let Some(grant) = told.grant(run.fence) else {
                continue;
            };
            let mut offered = grant.granted.resume.iter();
            let best = offered.find(|saved| !run.unfetched.contains(saved));
            if run.resumed.as_ref() != best {
                let what = format!("{job} went on from {:?}, not from {best:?}", run.resumed);
                found.push(violation(11, what, &[grant.place, *place]));
            }
        }
    }
    found
}
