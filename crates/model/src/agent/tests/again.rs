//! A job that its agent is granted again while it still holds the old claim.

use super::*;

#[test]
fn a_newer_claim_of_a_held_job_ends_the_older_run() {
    let mut world = World::running(|_| {});
    // Its claim ran out while the agent was cut off, and the store gave it the job again.
    world.offered(&[2], &["answer 1 ", "claim [2]"]);
    let newer = |sequence| Grant {
        claim: claim(1, sequence),
        ..grant(1, spec(|_| {}))
    };
    world.granted(vec![newer(2)], &["prepare 1 as process", "stop 1"]);
    world.ended(1, End::Stopped, &["discard 1", "poll 1 slots"]);
    // An answer that was overtaken brings nothing back.
    world.offered(&[2], &["answer 1 ", "claim [2]"]);
    world.granted(vec![newer(1)], &[]);
}

#[test]
fn a_newer_claim_keeps_its_lease_when_the_older_run_goes_at_once() {
    let mut world = World::running(|_| {});
    world.ended(1, End::Success, &["conclude 1", "poll 2 slots"]);
    world.offered(&[2], &["answer 1 ", "claim [2]"]);
    let newer = Grant {
        claim: claim(1, 2),
        ..grant(1, spec(|_| {}))
    };
    world.granted(vec![newer], &["prepare 1 as process", "discard 1"]);
    world.after(Duration::from_millis(25), &["renew 1 Preparing and more"]);
}
