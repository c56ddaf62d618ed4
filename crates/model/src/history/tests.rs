//! Each invariant is planted broken, and found.

use super::*;
use crate::ids::{ClientKey, Incarnation, JobId, Nonce};

const LEASE_MS: u64 = 1_000;

fn job() -> JobId {
    JobId(uuid::Uuid::from_u128(1))
}

fn holder(number: u8) -> Holder {
    Holder {
        agent: NodeId([number; 32]),
        incarnation: Incarnation(uuid::Uuid::from_u128(number.into())),
    }
}

fn claim(sequence: u64) -> Claim {
    Claim {
        job: job(),
        fence: Fence { epoch: 1, sequence },
        nonce: Nonce([u8::try_from(sequence).unwrap(); 16]),
    }
}

fn granted(to: u8, sequence: u64) -> Deed {
    Deed::Claim {
        holder: holder(to),
        nonce: claim(sequence).nonce,
        answer: Answer::Done(vec![Granted {
            claim: claim(sequence),
            resume: Vec::new(),
        }]),
    }
}

fn finish(sequence: u64, digest: u8, ended: bool) -> Deed {
    Deed::Finish(Finish {
        claim: claim(sequence),
        digest: [digest; 32],
        result: [digest; 32],
        success: ended,
        copies: 1,
        copies_needed: 1,
        answer: Answer::Done((
            ended,
            if ended {
                JobState::Succeeded
            } else {
                JobState::Queued
            },
        )),
    })
}

fn renewed(by: u8, sequence: u64) -> Deed {
    Deed::Renew {
        holder: holder(by),
        listed: vec![claim(sequence)],
        complete: true,
        answer: Answer::Done(vec![job()]),
    }
}

fn submitted(payload: u8, job: JobId) -> Deed {
    Deed::Submit {
        namespace: "lab".parse().unwrap(),
        key: "key".parse::<ClientKey>().unwrap(),
        payload: [payload; 32],
        answer: Answer::Done(job),
    }
}

fn seen(state: JobState, counted: u32) -> Deed {
    Deed::Seen(Sight {
        job: job(),
        namespace: "lab".parse().unwrap(),
        seen_by: vec!["lab".parse().unwrap()],
        state,
        counted,
        retries: 1,
        result: None,
    })
}

fn opened(epoch: u64, reopened: bool) -> Deed {
    Deed::Opened {
        epoch,
        lease_ms: LEASE_MS,
        reopened,
    }
}

/// One deed after another, each at its own millisecond.
fn history(deeds: Vec<(u64, Deed)>) -> Vec<Observation> {
    let at = |ms: u64| Timestamp(ms * 1_000);
    let observe = |(ms, deed)| Observation {
        called: at(ms),
        returned: Timestamp(at(ms).0 + 10),
        deed,
    };
    deeds.into_iter().map(observe).collect()
}

#[track_caller]
fn finds(invariant: u8, deeds: Vec<(u64, Deed)>) {
    let found = check(&history(deeds)).unwrap_err();
    assert!(
        found
            .iter()
            .any(|violation| violation.invariant == invariant),
        "{found:?}"
    );
}

#[track_caller]
fn accepts(deeds: Vec<(u64, Deed)>) {
    if let Err(found) = check(&history(deeds)) {
        panic!("{found:?}");
    }
}

#[test]
fn an_ordinary_life_is_accepted() {
    accepts(vec![
        (0, opened(1, false)),
        (1, submitted(1, job())),
        (2, submitted(1, job())),
        (3, granted(1, 1)),
        (500, renewed(1, 1)),
        (600, finish(1, 1, false)),
        (700, granted(2, 2)),
        (800, renewed(2, 2)),
        (1_900, granted(3, 3)),
        (1_901, finish(3, 2, true)),
        (1_902, finish(3, 2, true)),
        (1_903, finish(1, 1, false)),
    ]);
}

#[test]
fn a_second_finish_is_found() {
    finds(1, vec![(1, finish(1, 1, true)), (2, finish(2, 1, true))]);
}

#[test]
fn a_reused_or_falling_fence_is_found() {
    finds(2, vec![(1, granted(1, 1)), (2, granted(2, 1))]);
    finds(2, vec![(1, granted(1, 2)), (2, granted(2, 1))]);
    finds(2, vec![(1, opened(5, false)), (2, opened(4, true))]);
}

#[test]
fn a_stale_word_is_found() {
    let stale = vec![
        (1, granted(1, 1)),
        (2_000, granted(2, 2)),
        (2_001, renewed(1, 1)),
    ];
    finds(3, stale);
    finds(
        3,
        vec![
            (1, granted(1, 1)),
            (2, granted(2, 2)),
            (3, finish(1, 1, true)),
        ],
    );
}

#[test]
fn a_rising_from_the_dead_is_found() {
    finds(
        4,
        vec![(1, seen(JobState::Dead, 2)), (2, seen(JobState::Queued, 2))],
    );
    finds(4, vec![(1, seen(JobState::Dead, 2)), (2, granted(1, 1))]);
}

#[test]
fn a_lost_submission_is_found() {
    finds(
        5,
        vec![(1, submitted(1, job())), (2, Deed::Missing { job: job() })],
    );
}

#[test]
fn a_lost_finish_is_found() {
    finds(
        6,
        vec![(1, finish(1, 1, true)), (2, seen(JobState::Succeeded, 0))],
    );
}

#[test]
fn different_replies_to_one_finish_are_found() {
    finds(7, vec![(1, finish(1, 1, false)), (2, finish(1, 2, false))]);
    finds(7, vec![(1, finish(1, 1, false)), (2, finish(1, 1, true))]);
}

#[test]
fn one_key_for_two_jobs_is_found() {
    finds(8, vec![(1, submitted(1, job())), (2, submitted(2, job()))]);
    let other = JobId(uuid::Uuid::from_u128(2));
    finds(8, vec![(1, submitted(1, job())), (2, submitted(1, other))]);
}

#[test]
fn two_holders_are_found() {
    let both = vec![
        (1, granted(1, 1)),
        (2, granted(2, 2)),
        (3, renewed(2, 2)),
        (4, renewed(1, 1)),
    ];
    finds(9, both);
}

#[test]
fn an_early_requeue_is_found() {
    finds(
        10,
        vec![
            (0, opened(1, false)),
            (1, granted(1, 1)),
            (900, granted(2, 2)),
        ],
    );
    let renewed_once = vec![
        (0, opened(1, false)),
        (1, granted(1, 1)),
        (900, renewed(1, 1)),
        (1_500, granted(2, 2)),
    ];
    finds(10, renewed_once);
    accepts(vec![
        (0, opened(1, false)),
        (1, granted(1, 1)),
        (1_100, granted(2, 2)),
    ]);
}

#[test]
fn an_expiry_in_grace_is_found() {
    let expired = || Deed::Requeue {
        answer: Answer::Done(vec![job()]),
    };
    finds(
        10,
        vec![
            (0, opened(1, false)),
            (5, opened(2, true)),
            (900, expired()),
        ],
    );
    finds(
        10,
        vec![(0, opened(1, false)), (5, Deed::ClockSet), (900, expired())],
    );
    accepts(vec![
        (0, opened(1, false)),
        (5, opened(2, true)),
        (1_200, expired()),
    ]);
}

#[test]
fn a_forgotten_checkpoint_is_found() {
    let saved = Deed::Checkpoint {
        claim: claim(1),
        sequence: 3,
        answer: Answer::Done(()),
    };
    finds(
        11,
        vec![(1, granted(1, 1)), (2, saved), (3_000, granted(2, 2))],
    );
}

#[test]
fn a_foreign_look_is_found() {
    let Deed::Seen(mut sight) = seen(JobState::Queued, 0) else {
        unreachable!()
    };
    sight.seen_by.clear();
    finds(13, vec![(1, Deed::Seen(sight))]);
}

#[test]
fn unbounded_attempts_are_found() {
    finds(15, vec![(1, seen(JobState::Queued, 3))]);
    finds(15, vec![(1, seen(JobState::Dead, 1))]);
}

#[test]
fn an_unvouched_success_is_found() {
    let Deed::Finish(mut unvouched) = finish(1, 1, true) else {
        unreachable!()
    };
    unvouched.copies = 0;
    finds(16, vec![(1, Deed::Finish(unvouched))]);
}
