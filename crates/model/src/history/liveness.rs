//! What must happen at last (DESIGN §3, liveness): the eighteenth promise.

use super::ledger::{Job, Ledger, Place};
use super::{Found, LIVENESS, violation};

/// Once faults stop and a capable agent lives, every job becomes terminal in time.
pub(super) fn every_job_ends(ledger: &Ledger<'_>) -> Found {
    let mut found = Found::new();
    for (calm, within) in &ledger.calms {
        let due = ledger.at(*calm).called.after(*within);
        let known = ledger.jobs.iter();
        let known = known.filter(|(_, told)| is_acknowledged(ledger, told, *calm));
        for (job, told) in known {
            let late = told
                .sights
                .iter()
                .filter(|(place, _)| ledger.at(*place).called >= due);
            for (place, sight) in late.filter(|(_, sight)| !sight.state.is_terminal()) {
                let what = format!("{job} is still {} after {within:?} of calm", sight.state);
                found.push(violation(LIVENESS, what, &[*calm, *place]));
            }
        }
    }
    found
}

fn is_acknowledged(ledger: &Ledger<'_>, told: &Job<'_>, calm: Place) -> bool {
    let mut acknowledged = told.acknowledged.iter();
    acknowledged.any(|place| ledger.is_before(*place, calm))
}
