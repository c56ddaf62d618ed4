//! Ends of attempts and of jobs (DESIGN §3.1, 3.4, 3.6, 3.7, 3.15, 3.16).

use std::collections::BTreeMap;

use super::ledger::{Job, Ledger, Place};
use super::{Found, violation};
use crate::ids::JobId;
use crate::job::JobState;

/// 1. At most one accepted finish per job; repeats of it are the same claim with the same result.
pub(super) fn one_accepted_finish(ledger: &Ledger<'_>) -> Found {
    let mut found = Found::new();
    for (job, told) in &ledger.jobs {
        let mut accepted = told.answered().filter(|(_, _, ended, _)| *ended);
        let Some((first, known, ..)) = accepted.next() else {
            continue;
        };
        for (place, finish, ..) in accepted {
            if (known.claim, known.digest) != (finish.claim, finish.digest) {
                let what = format!("{job} was finished twice");
                found.push(violation(1, what, &[first, place]));
            }
        }
    }
    found
}

/// 7. The same claim and result get the same reply; another result gets none.
pub(super) fn repeats_are_answered_alike(ledger: &Ledger<'_>) -> Found {
    let mut found = Found::new();
    for (job, told) in &ledger.jobs {
        let mut known = BTreeMap::new();
        for (place, finish, ended, state) in told.answered() {
            let answer = (finish.digest, ended, state);
            let (first, before) = *known.entry(finish.claim).or_insert((place, answer));
            if before != answer {
                let what = format!("two finishes of one claim of {job} were answered differently");
                found.push(violation(7, what, &[first, place]));
            }
        }
    }
    found
}

/// States in which the job was said to be, with the place.
fn states(told: &Job<'_>) -> impl Iterator<Item = (Place, JobState)> {
    let sights = told
        .sights
        .iter()
        .map(|(place, sight)| (*place, sight.state));
    let cancels = told.cancels.iter();
    sights.chain(cancels.filter_map(|(place, state)| Some((*place, (*state)?))))
}

/// For each terminal state that the job was known to be in, since when.
fn known_ends(ledger: &Ledger<'_>, told: &Job<'_>) -> BTreeMap<JobState, Place> {
    let finishes = told.answered().filter(|(_, _, ended, _)| *ended);
    let finishes = finishes.map(|(place, _, _, state)| (place, state));
    let mut ends = BTreeMap::new();
    for (place, state) in finishes
        .chain(states(told))
        .filter(|(_, s)| s.is_terminal())
    {
        let first = ends.entry(state).or_insert(place);
        if ledger.at(place).returned < ledger.at(*first).returned {
            *first = place;
        }
    }
    ends
}

/// 4. Nothing leaves a terminal state: no other state is seen later, and nobody claims the job.
pub(super) fn terminal_states_absorb(ledger: &Ledger<'_>) -> Found {
    let mut found = Found::new();
    for (job, told) in &ledger.jobs {
        for (end, place) in known_ends(ledger, told) {
            found.extend(left(ledger, *job, told, (end, place)));
        }
    }
    found
}

fn left(ledger: &Ledger<'_>, job: JobId, told: &Job<'_>, (end, place): (JobState, Place)) -> Found {
    let other =
        states(told).filter(|(later, state)| *state != end && ledger.is_before(place, *later));
    let other = other.map(|(later, state)| (later, format!("{job} was {end}, then {state}")));
    let claimed = told.grants.iter().map(|grant| grant.place);
    let claimed = claimed.filter(|later| ledger.is_before(place, *later));
    let claimed = claimed.map(|later| (later, format!("{job} was {end}, then claimed")));
    let both = other.chain(claimed);
    both.map(|(later, what)| violation(4, what, &[place, later]))
        .collect()
}

/// 6. An acknowledged finish is never lost or changed.
pub(super) fn no_finish_is_lost(ledger: &Ledger<'_>) -> Found {
    let mut found = Found::new();
    for (job, told) in &ledger.jobs {
        let ended = told.answered().filter(|(_, _, ended, _)| *ended);
        for (place, finish, _, state) in ended {
            let later = told
                .sights
                .iter()
                .filter(|(at, _)| ledger.is_before(place, *at));
            let lost = later
                .filter(|(_, sight)| (sight.state, sight.result) != (state, Some(finish.result)));
            found.extend(
                lost.map(|(at, _)| violation(6, format!("{job} lost its finish"), &[place, *at])),
            );
        }
    }
    found
}

/// 15. Attempts that count are bounded by the retries; a job is buried only when they are used up.
pub(super) fn attempts_are_bounded(ledger: &Ledger<'_>) -> Found {
    let mut found = Found::new();
    let sights = ledger.jobs.values().flat_map(|told| &told.sights);
    for (place, sight) in sights {
        let too_many = sight.counted > sight.retries + 1;
        let too_early = sight.state == JobState::Dead && sight.counted <= sight.retries;
        if too_many || too_early {
            let what = format!(
                "{} is {} after {} counted attempts with {} retries",
                sight.job, sight.state, sight.counted, sight.retries
            );
            found.push(violation(15, what, &[*place]));
        }
    }
    found
}

/// 16. A success is accepted only with enough receipts of other peers.
pub(super) fn success_is_vouched_for(ledger: &Ledger<'_>) -> Found {
    let accepted = ledger.jobs.values().flat_map(Job::answered);
    let unvouched =
        accepted.filter(|(_, finish, ..)| finish.success && finish.copies < finish.copies_needed);
    unvouched
        .map(|(place, finish, ..)| {
            let what = format!(
                "{} succeeded with {} of {} copies",
                finish.claim.job, finish.copies, finish.copies_needed
            );
            violation(16, what, &[place])
        })
        .collect()
}
