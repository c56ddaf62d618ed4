//! Recovered jobs that wait for a slot on a busy agent.

use super::*;

/// Both slots run something; the agent has nothing free.
fn busy() -> World {
    let mut world = World::running(|_| ());
    world.offered(&[2], &["answer 1 ", "claim [2]"]);
    world.granted(vec![grant(2, spec(|_| ()))], &["prepare 2 as process"]);
    world.does(Event::Prepared { key: key(2) }, &["start 2"]);
    world.does(Event::Started { key: key(2) }, &[]);
    world
}

/// As [`busy`], and job 3, whose holder died, is held ahead.
fn one_ahead() -> World {
    let mut world = busy();
    world.recovered(&[3], &["answer 1 ", "claim [3]"]);
    // What a finished task left waits on the scratch disk until it is stored.
    let frugal = spec(|spec| spec.resources.scratch_bytes = 0);
    world.granted(vec![grant(3, frugal)], &["prepare 3 as process"]);
    world
}

#[test]
fn only_recovered_jobs_are_held_ahead_and_only_so_many() {
    let mut world = busy();
    world.offered(&[3], &["answer 0 does not fit: no slot free"]);
    world.recovered(
        &[3, 4, 5],
        &["answer 2 does not fit: no slot free", "claim [3, 4]"],
    );
    world.recovered(&[5], &["answer 0 does not fit: no slot free"]);
    let jobs = [3, 4, 5].map(|n| grant(n, spec(|_| ())));
    world.granted(
        jobs.to_vec(),
        &[
            "prepare 3 as process",
            "prepare 4 as process",
            "release 5: does not fit: no slot free",
        ],
    );
}

#[test]
fn what_no_slot_could_ever_run_is_not_held() {
    let mut world = busy();
    let mut need = need();
    need.resources.cpu_millis = 3_000;
    let event = Event::Offered {
        offer: OfferId(1),
        store: store(),
        jobs: vec![job(3)],
        need,
        ahead: true,
    };
    world.does(event, &["answer 0 does not fit: no slot free"]);
}

#[test]
fn it_starts_when_a_slot_is_free_and_it_is_prepared_whichever_comes_last() {
    let mut world = one_ahead();
    world.does(Event::Prepared { key: key(3) }, &[]);
    world.ended(1, End::Success, &["conclude 1", "start 3"]);
    assert_eq!(world.agent.capacity(vec![]).slots, 0);

    let mut world = one_ahead();
    world.ended(1, End::Success, &["conclude 1"]);
    world.does(Event::Prepared { key: key(3) }, &["start 3"]);
}

#[test]
fn without_a_slot_in_time_it_is_given_back() {
    let mut world = one_ahead();
    world.does(Event::Prepared { key: key(3) }, &[]);
    world.agent.config.ahead_for = Duration::from_secs(1);
    world.after(
        Duration::from_secs(1),
        &["stop 3", "renew 1 Running, 2 Running, 3 Preparing"],
    );
    world.ended(3, End::Stopped, &["release 3: no slot came free in time"]);
    world.does(Event::Released { key: key(3) }, &["discard 3"]);
    world.recovered(&[4], &["answer 1 ", "claim [4]"]);
}

#[test]
fn a_slot_that_comes_free_while_it_is_given_back_is_not_taken() {
    let mut world = one_ahead();
    world.agent.config.ahead_for = Duration::from_secs(1);
    world.after(
        Duration::from_secs(1),
        &["stop 3", "renew 1 Running, 2 Running, 3 Preparing"],
    );
    world.ended(1, End::Success, &["conclude 1", "poll 1 slots"]);
    world.ended(3, End::Stopped, &["release 3: no slot came free in time"]);
}

#[test]
fn it_does_not_start_while_the_agent_is_cut_off() {
    let mut world = one_ahead();
    world.agent.config.ahead_for = LEASE * 10;
    world.does(Event::Prepared { key: key(3) }, &[]);
    world.after(
        LEASE,
        &[
            "pause 1",
            "pause 2",
            "renew 1 Running, 2 Running, 3 Preparing",
        ],
    );
    world.does(
        Event::Ended {
            key: key(1),
            end: End::Success,
        },
        &["conclude 1"],
    );
    world.renewed(&[1, 2, 3], vec![], &["resume 2", "start 3"]);
}
