//! Whole clouds, thousands of seeds, and mistakes that must be found.

use mutual_model::history::{Answer, Deed, EXECUTIONS, Ground, LIVENESS, Summary, Violation};
use mutual_sim::cloud::{Outcome, Slip, World, play};

/// Seeds of each of the tests that play them; there are eight, so that machines with several cores
/// play them side by side.
const SEEDS: u64 = 250;

fn play_from(first: u64) -> Vec<Outcome> {
    let outcomes = (first..first + SEEDS).map(|seed| match play(seed) {
        Ok(outcome) => outcome,
        Err(report) => panic!("{report}"),
    });
    outcomes.collect()
}

fn sum(outcomes: &[Outcome], of: impl Fn(&Summary) -> usize) -> usize {
    let summaries = outcomes
        .iter()
        .filter_map(|outcome| outcome.verdict.as_ref().ok());
    summaries.map(of).sum()
}

#[test]
fn no_cloud_breaks_a_promise_and_much_befalls_them() {
    let outcomes = play_from(0);
    // What the checker is to judge must occur.
    assert!(sum(&outcomes, |seen| seen.jobs) > 2_000);
    assert!(sum(&outcomes, |seen| seen.deaths) > 250);
    assert!(sum(&outcomes, |seen| seen.unknown) > 1_000);
    assert!(sum(&outcomes, |seen| seen.refused_finishes) > 10);
    assert!(sum(&outcomes, |seen| seen.executions) > sum(&outcomes, |seen| seen.jobs));
}

/// Declares tests that play further seeds.
macro_rules! lots {
    ($($name:ident: $lot:literal),*) => {
        $(#[test]
        fn $name() {
            play_from($lot * SEEDS);
        })*
    };
}

lots! {
    no_cloud_of_the_second_lot_breaks_a_promise: 1,
    no_cloud_of_the_third_lot_breaks_a_promise: 2,
    no_cloud_of_the_fourth_lot_breaks_a_promise: 3,
    no_cloud_of_the_fifth_lot_breaks_a_promise: 4,
    no_cloud_of_the_sixth_lot_breaks_a_promise: 5,
    no_cloud_of_the_seventh_lot_breaks_a_promise: 6,
    no_cloud_of_the_eighth_lot_breaks_a_promise: 7
}

#[test]
fn guardians_vote_and_are_heard() {
    let votes = (0..30).flat_map(|seed| {
        let mut world = World::new(seed, None).unwrap();
        world.run().unwrap();
        let deeds = world.history().iter().map(|seen| seen.deed.clone());
        let votes = deeds.filter_map(|deed| match deed {
            Deed::Revoke {
                ground: Some(Ground::Silent),
                answer: Answer::Done(ended),
                ..
            } => Some(ended),
            _ => None,
        });
        votes.collect::<Vec<_>>()
    });
    let votes: Vec<bool> = votes.collect();
    // Only a guardian's vote may not suffice, and only with others it does.
    assert!(votes.contains(&false) && votes.contains(&true), "{votes:?}");
}

fn run(seed: u64, slip: Option<Slip>) -> Outcome {
    World::new(seed, slip).unwrap().run().unwrap()
}

#[test]
fn one_seed_gives_one_trace() {
    let digest = |seed| {
        let mut world = World::new(seed, None).unwrap();
        world.run().unwrap();
        world.digest()
    };
    for seed in 0..5 {
        assert_eq!(digest(seed), digest(seed), "seed {seed}");
    }
    assert_ne!(digest(0), digest(1));
}

/// How many seeds may pass before a mistake is found.
const PATIENCE: u64 = 200;

#[track_caller]
fn is_found(slip: Slip, expected: &[u8]) {
    let broken = |violation: &Violation| expected.contains(&violation.invariant);
    let found = (0..PATIENCE).any(|seed| match run(seed, Some(slip)).verdict {
        Ok(_) => false,
        Err(violations) => violations.iter().any(broken),
    });
    assert!(found, "{slip:?} goes unnoticed in {PATIENCE} seeds");
}

#[test]
fn a_store_that_forgets_fences_is_found() {
    is_found(Slip::ForgetFences, &[1, 3]);
}

#[test]
fn a_store_that_renews_whatever_is_listed_is_found() {
    is_found(Slip::RenewAnything, &[3, 9]);
}

#[test]
fn a_store_that_requeues_too_early_is_found() {
    is_found(Slip::RequeueEarly, &[10]);
}

#[test]
fn a_store_that_forgets_submissions_is_found() {
    is_found(Slip::ForgetSubmissions, &[5]);
}

#[test]
fn agents_that_never_deliver_what_they_finished_are_found() {
    is_found(Slip::NeverDeliver, &[LIVENESS]);
}

#[test]
fn an_agent_that_ignores_being_cut_off_is_found() {
    is_found(Slip::IgnoreCutOff, &[EXECUTIONS]);
}

#[test]
fn programs_that_outlive_their_agent_are_found() {
    is_found(Slip::LeaveOrphans, &[EXECUTIONS]);
}

#[test]
fn going_on_from_an_older_checkpoint_is_found() {
    is_found(Slip::ResumeFromOlder, &[11]);
}
