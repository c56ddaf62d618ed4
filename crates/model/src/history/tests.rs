//! Each invariant is planted broken, and found.

use super::*;
use crate::identity::NodeId;
use crate::ids::{ClientKey, Incarnation, JobId, Nonce};
use crate::job::{JobState, OnDisconnect};
use crate::lease::{Claim, Fence, Holder};
use crate::time::Timestamp;

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
        digest: Digest([digest; 32]),
        result: Digest([digest; 32]),
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
        answer: Answer::Done(vec![claim(sequence)]),
    }
}

fn submitted(payload: u8, job: JobId) -> Deed {
    Deed::Submit {
        namespace: "lab".parse().unwrap(),
        key: "key".parse::<ClientKey>().unwrap(),
        payload: Digest([payload; 32]),
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
fn a_renewal_that_comes_too_late_extends_what_it_does_not_list_no_more() {
    let Deed::Renew { holder, .. } = renewed(1, 1) else {
        unreachable!()
    };
    let lost = Deed::Renew {
        holder,
        listed: vec![claim(1)],
        complete: true,
        answer: Answer::Done(vec![]),
    };
    accepts(vec![
        (0, opened(1, false)),
        (1, granted(1, 1)),
        (1_100, lost),
        (1_200, granted(2, 2)),
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

const HOUR: u64 = 3_600_000;

fn ran(by: u8, sequence: u64, change: impl FnOnce(&mut Execution)) -> Deed {
    let mut run = Execution {
        holder: holder(by),
        job: job(),
        fence: claim(sequence).fence,
        on_disconnect: OnDisconnect::Pause,
        exclusive: false,
        resumed: None,
        unfetched: Vec::new(),
    };
    change(&mut run);
    Deed::Ran(run)
}

fn revoked(number: u8, ground: Option<Ground>) -> Deed {
    Deed::Revoke {
        agent: holder(number).agent,
        incarnation: holder(number).incarnation,
        ground,
        answer: Answer::Done(true),
    }
}

fn died(number: u8) -> Deed {
    Deed::Died {
        holder: holder(number),
    }
}

fn saved(sequence: u64, number: u64) -> Deed {
    Deed::Checkpoint {
        claim: claim(sequence),
        sequence: number,
        answer: Answer::Done(()),
    }
}

/// Deeds that took from one millisecond to another.
fn stretches(deeds: Vec<(u64, u64, Deed)>) -> Vec<Observation> {
    let observe = |(from, to, deed)| Observation {
        called: Timestamp(from * 1_000),
        returned: Timestamp(to * 1_000),
        deed,
    };
    deeds.into_iter().map(observe).collect()
}

/// Two claims, the second after a verdict, and two programs of which the second starts at 300 ms.
fn taken_over(
    ground: Option<Ground>,
    older: (u64, Deed),
    rest: Vec<(u64, u64, Deed)>,
) -> Vec<Observation> {
    let mut deeds = vec![
        (0, 0, opened(1, false)),
        (1, 2, granted(1, 1)),
        (3, 4, renewed(1, 1)),
        (10, older.0, older.1),
        (200, 201, revoked(1, ground)),
        (210, 211, granted(2, 2)),
        (300, 400, ran(2, 2, |_| {})),
    ];
    deeds.extend(rest);
    stretches(deeds)
}

#[track_caller]
fn judges(history: &[Observation], broken: bool) {
    match check(history) {
        Ok(_) => assert!(!broken, "nothing was found"),
        Err(found) => {
            assert!(broken, "{found:?}");
            assert!(found.iter().all(|v| v.invariant == EXECUTIONS), "{found:?}");
        }
    }
}

#[test]
fn overlapping_executions_are_found() {
    let plain = || ran(1, 1, |_| {});
    judges(
        &taken_over(Some(Ground::Closed), (250, plain()), vec![]),
        false,
    );
    judges(
        &taken_over(Some(Ground::Closed), (301, plain()), vec![]),
        true,
    );
    judges(
        &taken_over(Some(Ground::Silent), (900, plain()), vec![]),
        false,
    );
    judges(&taken_over(None, (900, plain()), vec![]), false);
    let exclusive = ran(1, 1, |run| run.exclusive = true);
    judges(
        &taken_over(Some(Ground::Silent), (900, exclusive), vec![]),
        true,
    );
}

#[test]
fn an_overlap_after_a_kill_is_found_whatever_the_verdict_said() {
    let run = ran(1, 1, |run| run.on_disconnect = OnDisconnect::Finish);
    judges(&taken_over(None, (HOUR, run.clone()), vec![]), false);
    judges(
        &taken_over(None, (HOUR, run), vec![(190, 191, died(1))]),
        true,
    );
}

#[test]
fn a_program_that_outlives_its_agent_is_found() {
    let death = || vec![(190, 191, died(1))];
    judges(&taken_over(None, (192, ran(1, 1, |_| {})), death()), true);
    judges(&taken_over(None, (191, ran(1, 1, |_| {})), death()), false);
}

#[test]
fn a_program_that_outlives_its_lease_is_found() {
    let alone = |until, change: fn(&mut Execution), rest: Vec<(u64, u64, Deed)>| {
        let mut deeds = vec![
            (0, 0, opened(1, false)),
            (1, 2, granted(1, 1)),
            (500, 501, renewed(1, 1)),
            (10, until, ran(1, 1, change)),
        ];
        deeds.extend(rest);
        stretches(deeds)
    };
    judges(&alone(1_500, |_| {}, vec![]), false);
    judges(&alone(1_501, |_| {}, vec![]), true);
    judges(
        &alone(HOUR, |run| run.on_disconnect = OnDisconnect::Finish, vec![]),
        false,
    );
    // An answer that came after the lease had ended mends nothing …
    let late = || (1_400, 1_600, renewed(1, 1));
    judges(&alone(1_700, |_| {}, vec![late()]), true);
    // … but what was frozen meanwhile goes on by it.
    let again = (1_601, 2_400, ran(1, 1, |_| {}));
    judges(&alone(1_500, |_| {}, vec![late(), again]), false);
    // A machine that wakes up needs a moment to freeze what it woke with.
    let agent = holder(1).agent;
    let slept = |to| (20, to, Deed::Slept { agent });
    judges(&alone(9_250, |_| {}, vec![slept(9_000)]), false);
    judges(&alone(9_400, |_| {}, vec![slept(9_000)]), true);
}

#[test]
fn a_program_without_a_claim_is_found() {
    let deeds = vec![(1, 2, granted(1, 1)), (5, 6, ran(2, 1, |_| {}))];
    judges(&stretches(deeds), true);
    let deeds = vec![(1, 2, granted(1, 1)), (0, 6, ran(1, 1, |_| {}))];
    judges(&stretches(deeds), true);
}

#[test]
fn going_on_from_a_lower_checkpoint_is_found() {
    let after = |resumed: Option<u64>, unfetched: &[u64]| {
        let fence = claim(1).fence;
        let resume = vec![(fence, 2), (fence, 1)];
        let Deed::Claim { holder, nonce, .. } = granted(2, 2) else {
            unreachable!()
        };
        let answer = Answer::Done(vec![Granted {
            claim: claim(2),
            resume,
        }]);
        vec![
            (1, granted(1, 1)),
            (2, saved(1, 1)),
            (3, saved(1, 2)),
            (
                3_000,
                Deed::Claim {
                    holder,
                    nonce,
                    answer,
                },
            ),
            (
                3_001,
                ran(2, 2, |run| {
                    run.resumed = resumed.map(|number| (fence, number));
                    run.unfetched = unfetched.iter().map(|number| (fence, *number)).collect();
                }),
            ),
        ]
    };
    accepts(after(Some(2), &[]));
    accepts(after(Some(1), &[2]));
    accepts(after(None, &[2, 1]));
    finds(11, after(Some(1), &[]));
    finds(11, after(None, &[]));
    finds(11, after(Some(2), &[2]));
}

#[test]
fn a_job_that_never_ends_is_found() {
    let calm = || Deed::Calm { within_ms: 1_000 };
    let history = |at, state| vec![(1, submitted(1, job())), (2, calm()), (at, seen(state, 0))];
    accepts(history(900, JobState::Queued));
    accepts(history(1_100, JobState::Succeeded));
    finds(LIVENESS, history(1_100, JobState::Queued));
}

#[test]
fn a_verdict_ends_its_own_run_and_no_other() {
    let early = |verdict| {
        vec![
            (0, opened(1, false)),
            (1, granted(1, 1)),
            (5, verdict),
            (9, granted(2, 2)),
        ]
    };
    accepts(early(revoked(1, Some(Ground::Closed))));
    accepts(
        early(revoked(2, None))
            .into_iter()
            .filter(|(at, _)| *at != 9)
            .collect(),
    );
    finds(10, early(revoked(2, Some(Ground::Closed))));
    // A superseding run ends the earlier ones of its agent, not itself.
    let superseded = |by: u8| Deed::Revoke {
        agent: holder(1).agent,
        incarnation: holder(by).incarnation,
        ground: Some(Ground::Superseded),
        answer: Answer::Done(true),
    };
    accepts(early(superseded(2)));
    finds(10, early(superseded(1)));
    let refused = Deed::Revoke {
        agent: holder(1).agent,
        incarnation: holder(1).incarnation,
        ground: Some(Ground::Closed),
        answer: Answer::Refused,
    };
    finds(10, early(refused));
}

#[test]
fn the_order_of_the_list_means_nothing() {
    let mut turned = history(vec![
        (1, granted(1, 1)),
        (2_000, granted(2, 2)),
        (2_001, renewed(1, 1)),
    ]);
    let found = check(&turned).unwrap_err();
    turned.reverse();
    assert_eq!(check(&turned).unwrap_err().len(), found.len());
}
