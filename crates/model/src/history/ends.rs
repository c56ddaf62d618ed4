//! Ends of attempts and of jobs (DESIGN §3.1, 3.4, 3.6, 3.7, 3.15, 3.16).

use std::collections::BTreeMap;

use super::{Answer, Deed, Finish, Found, History, grants, violation};
use crate::ids::JobId;
use crate::job::JobState;

fn finishes(history: History<'_>) -> impl Iterator<Item = (usize, &Finish, bool, JobState)> {
    history
        .iter()
        .enumerate()
        .filter_map(|(position, observation)| {
            let Deed::Finish(finish) = &observation.deed else {
                return None;
            };
            let (ended, state) = *finish.answer.done()?;
            Some((position, finish, ended, state))
        })
}

/// 1. At most one accepted finish per job; repeats of it are the same claim with the same result.
pub(super) fn one_accepted_finish(history: History<'_>) -> Found {
    let mut accepted: BTreeMap<JobId, (usize, &Finish)> = BTreeMap::new();
    let mut found = Found::new();
    for (position, finish, _, _) in finishes(history).filter(|(_, _, ended, _)| *ended) {
        let (first, known) = *accepted
            .entry(finish.claim.job)
            .or_insert((position, finish));
        if (known.claim, known.digest) != (finish.claim, finish.digest) {
            let what = format!("{} was finished twice", finish.claim.job);
            found.push(violation(1, what, &[first, position]));
        }
    }
    found
}

/// 7. The same claim and result get the same reply; another result gets none.
pub(super) fn repeats_are_answered_alike(history: History<'_>) -> Found {
    let mut known = BTreeMap::new();
    let mut found = Found::new();
    for (position, finish, ended, state) in finishes(history) {
        let answer = (finish.digest, ended, state);
        let (first, before) = *known.entry(finish.claim).or_insert((position, answer));
        if before != answer {
            let what = format!(
                "two finishes of one claim of {} were answered differently",
                finish.claim.job
            );
            found.push(violation(7, what, &[first, position]));
        }
    }
    found
}

/// What is known of a job's end, and since when.
fn known_ends(history: History<'_>) -> Vec<(usize, JobId, JobState)> {
    let mut ends: Vec<_> = finishes(history)
        .filter(|(_, _, ended, _)| *ended)
        .map(|(position, finish, _, state)| (position, finish.claim.job, state))
        .collect();
    for (position, observation) in history.iter().enumerate() {
        match &observation.deed {
            Deed::Seen(sight) => ends.push((position, sight.job, sight.state)),
            Deed::Cancel {
                job,
                answer: Answer::Done(state),
            } => ends.push((position, *job, *state)),
            _ => {}
        }
    }
    ends.retain(|(_, _, state)| state.is_terminal());
    ends
}

/// 4. Nothing leaves a terminal state: no other state is seen later, and nobody claims the job.
pub(super) fn terminal_states_absorb(history: History<'_>) -> Found {
    let mut found = Found::new();
    for (position, job, state) in known_ends(history) {
        let end = &history[position];
        for (later, observation) in history.iter().enumerate().filter(|(_, o)| end.is_before(o)) {
            let other = match &observation.deed {
                Deed::Seen(sight) if sight.job == job => Some(sight.state),
                Deed::Cancel {
                    job: named,
                    answer: Answer::Done(seen),
                } if *named == job => Some(*seen),
                _ => None,
            };
            if let Some(other) = other.filter(|other| *other != state) {
                let what = format!("{job} was {state}, then {other}");
                found.push(violation(4, what, &[position, later]));
            }
        }
        for (later, _, _) in grants(history).filter(|(_, _, granted)| granted.claim.job == job) {
            if end.is_before(&history[later]) {
                let what = format!("{job} was {state}, then claimed");
                found.push(violation(4, what, &[position, later]));
            }
        }
    }
    found
}

/// 6. An acknowledged finish is never lost or changed.
pub(super) fn no_finish_is_lost(history: History<'_>) -> Found {
    let mut found = Found::new();
    for (position, finish, ended, state) in finishes(history) {
        if !ended {
            continue;
        }
        for (later, observation) in history.iter().enumerate() {
            let Deed::Seen(sight) = &observation.deed else {
                continue;
            };
            let is_later =
                sight.job == finish.claim.job && history[position].is_before(observation);
            if is_later && (sight.state, sight.result) != (state, Some(finish.result)) {
                let what = format!("{} lost its finish", sight.job);
                found.push(violation(6, what, &[position, later]));
            }
        }
    }
    found
}

/// 15. Attempts that count are bounded by the retries; a job is buried only when they are used up.
pub(super) fn attempts_are_bounded(history: History<'_>) -> Found {
    let mut found = Found::new();
    for (position, observation) in history.iter().enumerate() {
        let Deed::Seen(sight) = &observation.deed else {
            continue;
        };
        let too_many = sight.counted > sight.retries + 1;
        let too_early = sight.state == JobState::Dead && sight.counted <= sight.retries;
        if too_many || too_early {
            let what = format!(
                "{} is {} after {} counted attempts with {} retries",
                sight.job, sight.state, sight.counted, sight.retries
            );
            found.push(violation(15, what, &[position]));
        }
    }
    found
}

/// 16. A success is accepted only with enough receipts of other peers.
pub(super) fn success_is_vouched_for(history: History<'_>) -> Found {
    let accepted = finishes(history).filter(|(_, finish, _, _)| finish.success);
    let unvouched = accepted.filter(|(_, finish, _, _)| finish.copies < finish.copies_needed);
    unvouched
        .map(|(position, finish, _, _)| {
            let what = format!(
                "{} succeeded with {} of {} copies",
                finish.claim.job, finish.copies, finish.copies_needed
            );
            violation(16, what, &[position])
        })
        .collect()
}
