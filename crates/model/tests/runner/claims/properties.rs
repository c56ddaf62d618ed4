//! What must hold in every order, and what must happen in some.

use stateright::{Expectation, HasDiscoveries, Property};

use super::{ALL_RULES, Bounds, Message, Moment, Rules, Run, Token, World, explore};

const ONE_FINISH: &str = "at most one finish of a job is accepted";
const FENCES_GROW: &str = "fences strictly increase";
const ONE_RUNS: &str = "two run one job at once only after a verdict of silence";
const NO_STALE_EFFECT: &str = "nothing under an old fence changes anything";
const ANSWERED_ALIKE: &str = "a repeated finish gets the same reply";
const FINISHES_STAY: &str = "an acknowledged finish survives a failover";

const SUCCEEDS: &str = "a job succeeds";
const TAKEN_OVER: &str = "a job is taken over and then finished";
const SURVIVES: &str = "a claim survives a failover and is finished";
const LOST: &str = "a holder learns that it lost its claim";
const RETRIED: &str = "a failed job is tried again";
const BOTH_RUN: &str = "after a verdict of silence two run at once";

pub(super) fn all() -> Vec<Property<World>> {
    vec![
        Property::always(ONE_FINISH, |_, moment| one_finish(moment)),
        Property::always(FENCES_GROW, |_, moment| fences_grow(moment)),
        Property::always(ONE_RUNS, |_, moment| one_runs(moment)),
        Property::always(NO_STALE_EFFECT, |_, moment: &Moment| !moment.stale_effect),
        Property::always(ANSWERED_ALIKE, |_, moment| answered_alike(moment)),
        Property::always(FINISHES_STAY, |_, moment| finishes_stay(moment)),
        Property::sometimes(SUCCEEDS, |_, moment| {
            finished(moment).any(|(_, _, ended, well)| ended && well)
        }),
        Property::sometimes(TAKEN_OVER, |_, moment| {
            finished(moment).any(|(_, token, ended, _)| ended && token.fence.sequence > 1)
        }),
        Property::sometimes(SURVIVES, |_, moment: &Moment| {
            moment.failovers > 0 && finished(moment).any(|(_, token, ..)| is_last(moment, token))
        }),
        Property::sometimes(LOST, |_, moment: &Moment| {
            let mut sent = moment.sent.iter();
            sent.any(|message| matches!(message, Message::Lost { .. }))
        }),
        Property::sometimes(RETRIED, |_, moment| {
            finished(moment).any(|(_, _, ended, _)| !ended)
        }),
        Property::sometimes(BOTH_RUN, |_, moment| running(moment).is_some()),
    ]
}

type Told = (u8, Token, bool, bool);

/// Finishes that were acknowledged: job, claim, whether the job was over, whether it went well.
fn finished(moment: &Moment) -> impl Iterator<Item = Told> {
    moment.sent.iter().filter_map(|message| match *message {
        Message::Finished {
            job,
            token,
            ended,
            well,
        } => Some((job, token, ended, well)),
        _ => None,
    })
}

fn is_last(moment: &Moment, token: Token) -> bool {
    token.fence.epoch == 1
        && moment
            .fences
            .last()
            .is_some_and(|(_, last)| *last == token.fence)
}

fn one_finish(moment: &Moment) -> bool {
    let accepted = || finished(moment).filter(|(_, _, ended, _)| *ended);
    accepted().all(|(job, token, _, well)| {
        accepted().all(|other| other.0 != job || (other.1, other.3) == (token, well))
    })
}

fn fences_grow(moment: &Moment) -> bool {
    let of = |job| {
        let fences = moment.fences.iter().filter(move |(of, _)| *of == job);
        fences.map(|(_, fence)| *fence)
    };
    let mut jobs = moment.fences.iter().map(|(job, _)| *job);
    jobs.all(|job| of(job).is_sorted_by(|one, next| one < next))
}

/// Two agents that run one job at once.
fn running(moment: &Moment) -> Option<(Run, Run)> {
    let [one, other] = moment.agents.each_ref();
    let (first, second) = (one.executes(moment.now)?, other.executes(moment.now)?);
    (first.job == second.job).then_some((one.run, other.run))
}

fn one_runs(moment: &Moment) -> bool {
    running(moment).is_none_or(|(one, other)| {
        moment.silenced.contains(&one) || moment.silenced.contains(&other)
    })
}

fn answered_alike(moment: &Moment) -> bool {
    finished(moment).all(|one| {
        let mut others = finished(moment).filter(|other| (other.0, other.1) == (one.0, one.1));
        others.all(|other| other == one)
    })
}

fn finishes_stay(moment: &Moment) -> bool {
    let mut ended = finished(moment).filter(|(_, _, ended, _)| *ended);
    ended.all(|(job, token, _, well)| moment.store.remembers(job, token, well))
}

/// Two agents and one job, and nothing that goes wrong but the network and time.
const QUIET: Bounds = Bounds {
    jobs: 1,
    ticks: 3,
    asks: 1,
    crashes: 0,
    verdicts: 0,
    failovers: 0,
    failures: true,
};

/// The standby takes over.
const FAILOVER: Bounds = Bounds {
    ticks: 2,
    failovers: 1,
    failures: false,
    ..QUIET
};

/// An agent dies, or is taken for dead.
const DEATH: Bounds = Bounds {
    ticks: 1,
    crashes: 1,
    verdicts: 1,
    failures: false,
    ..QUIET
};

/// Two jobs, one of which a verdict may take away.
const TWO_JOBS: Bounds = Bounds {
    jobs: 2,
    ticks: 1,
    verdicts: 1,
    ..QUIET
};

/// Explores every order within bounds: nothing is broken, and each of `happens` occurs in some.
#[track_caller]
fn check_promises(bounds: Bounds, happens: &[&'static str]) {
    let (states, decided) = explore(ALL_RULES, bounds, HasDiscoveries::All);
    for property in all() {
        let is_broken =
            property.expectation == Expectation::Always && decided.contains(property.name);
        assert!(!is_broken, "broken: {}", property.name);
    }
    for name in happens {
        assert!(decided.contains(name), "never: {name}");
    }
    assert!(states > 1_000, "only {states} states");
}

#[test]
fn no_order_of_losses_and_delays_breaks_a_promise() {
    check_promises(QUIET, &[SUCCEEDS, TAKEN_OVER, LOST, RETRIED]);
}

#[test]
fn no_order_with_a_failover_breaks_a_promise() {
    check_promises(FAILOVER, &[SUCCEEDS, SURVIVES]);
}

#[test]
fn no_order_with_deaths_and_verdicts_breaks_a_promise() {
    check_promises(DEATH, &[SUCCEEDS, TAKEN_OVER, LOST, BOTH_RUN]);
}

#[test]
fn no_order_of_two_jobs_breaks_a_promise() {
    check_promises(TWO_JOBS, &[SUCCEEDS, RETRIED]);
}

/// Leaves one rule out and expects that a property notices.
#[track_caller]
fn check_without(bounds: Bounds, leave_out: impl FnOnce(&mut Rules), noticed_by: &'static str) {
    let mut rules = ALL_RULES;
    leave_out(&mut rules);
    let first = HasDiscoveries::AllOf([noticed_by].into());
    let (states, decided) = explore(rules, bounds, first);
    let broken = decided.contains(noticed_by);
    assert!(broken, "{rules:?}: {decided:?} in {states} states");
}

#[test]
fn without_fences_old_words_take_effect() {
    check_without(QUIET, |rules| rules.fenced = false, NO_STALE_EFFECT);
}

#[test]
fn without_a_synchronous_standby_a_failover_loses_a_finish() {
    check_without(FAILOVER, |rules| rules.synchronous = false, FINISHES_STAY);
}

#[test]
fn without_a_new_epoch_a_failover_gives_a_fence_again() {
    check_without(FAILOVER, |rules| rules.new_epoch = false, FENCES_GROW);
}

#[test]
fn without_grace_the_standbys_clock_ends_a_lease_too_early() {
    check_without(FAILOVER, |rules| rules.grace = false, ONE_RUNS);
}

#[test]
fn a_lease_counted_from_the_answer_lasts_too_long() {
    check_without(QUIET, |rules| rules.from_sent = false, ONE_RUNS);
}

#[test]
fn a_repeat_judged_by_the_present_state_is_answered_differently() {
    check_without(QUIET, |rules| rules.idempotent = false, ANSWERED_ALIKE);
}

#[test]
fn requeueing_before_expiry_lets_two_run() {
    check_without(QUIET, |rules| rules.expiry = false, ONE_RUNS);
}
