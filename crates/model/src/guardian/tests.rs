//! Guardians and circles, every action asserted.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::agent::StoreUrl;
use crate::identity::NodeId;
use crate::ids::{Incarnation, JobId};
use crate::time::Timestamp;

mod healing;

fn at(ms: u64) -> Timestamp {
    Timestamp(ms * 1_000)
}

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn run(n: u128) -> Incarnation {
    Incarnation(Uuid::from_u128(n))
}

fn store(name: &str) -> StoreUrl {
    StoreUrl::from(name)
}

fn charge(agent: u8, run_number: u128) -> Charge {
    Charge {
        agent: node(agent),
        run: run(run_number),
        stores: BTreeMap::from([(store("s"), run(run_number))]),
        silence: Silence::FAST,
    }
}

/// An action in a few words.
fn words(action: &WatcherAction) -> String {
    match action {
        WatcherAction::Verdict {
            agent,
            store,
            incarnation,
            cause,
            silent_for,
            ..
        } => {
            let (agent, run) = (agent.0[0], incarnation.0.as_u128());
            let silent = silent_for.as_millis();
            format!("tell {store}: {agent}.{run} {cause:?} after {silent}")
        }
        WatcherAction::Forget { agent, .. } => format!("forget {}", agent.0[0]),
    }
}

struct Guard {
    watcher: Watcher,
    sequence: u64,
}

impl Guard {
    fn new() -> Self {
        Self {
            watcher: Watcher::new(WatcherConfig::default()),
            sequence: 0,
        }
    }

    /// A guardian of agent 1, whose beats came regularly until 1,000 ms.
    fn of_one() -> Self {
        let mut guard = Self::new();
        guard.does(0, WatcherEvent::Entrusted(charge(1, 1)), &[]);
        for ms in (20..=1_000).step_by(20) {
            guard.beat(ms, 1, &[]);
        }
        guard
    }

    #[track_caller]
    fn does(&mut self, ms: u64, event: WatcherEvent, expected: &[&str]) {
        let found: Vec<_> = self
            .watcher
            .handle(at(ms), event)
            .iter()
            .map(words)
            .collect();
        assert_eq!(found, expected, "at {ms} ms");
    }

    #[track_caller]
    fn tick(&mut self, ms: u64, expected: &[&str]) {
        self.does(ms, WatcherEvent::Tick, expected);
    }

    #[track_caller]
    fn beat(&mut self, ms: u64, run_number: u128, expected: &[&str]) {
        self.sequence += 1;
        let beat = Beat {
            run: run(run_number),
            sequence: self.sequence,
            state: StateHash([1; 32]),
        };
        let agent = node(1);
        self.does(ms, WatcherEvent::Beat { agent, beat }, expected);
    }

    #[track_caller]
    fn lost(&mut self, ms: u64, loss: Loss) {
        let (agent, run) = (node(1), run(1));
        self.does(ms, WatcherEvent::Lost { agent, run, loss }, &[]);
    }

    #[track_caller]
    fn answered(&mut self, ms: u64, answer: Answer, expected: &[&str]) {
        let event = WatcherEvent::Answered {
            agent: node(1),
            store: store("s"),
            incarnation: run(1),
            answer,
        };
        self.does(ms, event, expected);
    }

    fn health(&self) -> Option<Health> {
        self.watcher.wards().next().map(|(_, _, health, _)| health)
    }
}

#[test]
fn a_silent_ward_is_suspect_and_reported_once() {
    let mut guard = Guard::of_one();
    assert_eq!(guard.watcher.next_wake(), Some(at(1_060)));
    guard.tick(1_059, &[]);
    assert_eq!(guard.health(), Some(Health::Alive));
    guard.tick(1_060, &["tell s: 1.1 Silent after 60"]);
    assert_eq!(guard.health(), Some(Health::Suspect));
    guard.tick(1_100, &[]);
    guard.answered(1_101, Answer::Counted, &[]);
    guard.tick(30_000, &[]);
    guard.tick(61_060, &["forget 1"]);
    assert_eq!(guard.health(), None);
}

#[test]
fn a_ward_that_speaks_again_is_alive_and_can_be_reported_again() {
    let mut guard = Guard::of_one();
    guard.tick(1_060, &["tell s: 1.1 Silent after 60"]);
    guard.beat(1_070, 1, &[]);
    assert_eq!(guard.health(), Some(Health::Alive));
    // The answer to what was withdrawn changes nothing.
    guard.answered(1_071, Answer::Failed, &[]);
    guard.tick(1_129, &[]);
    guard.tick(1_130, &["tell s: 1.1 Silent after 60"]);
}

#[test]
fn what_the_store_heard_and_what_it_did_not_get_is_told_again() {
    let mut guard = Guard::of_one();
    guard.tick(1_060, &["tell s: 1.1 Silent after 60"]);
    guard.answered(1_062, Answer::Heard(Duration::from_millis(40)), &[]);
    guard.tick(1_081, &[]);
    guard.tick(1_082, &["tell s: 1.1 Silent after 60"]);
    guard.answered(1_090, Answer::Failed, &[]);
    guard.tick(1_189, &[]);
    guard.tick(1_190, &["tell s: 1.1 Silent after 60"]);
    guard.answered(1_191, Answer::Settled, &[]);
    guard.tick(30_000, &[]);
}

#[test]
fn a_store_that_never_answers_is_left_to_its_leases() {
    let mut guard = Guard::of_one();
    guard.lost(1_001, Loss::Refused);
    let (mut now, mut told) = (1_001, 0);
    while let Some(wake) = guard.watcher.next_wake().filter(|_| told < 100) {
        now = wake.0 / 1_000;
        for action in guard.watcher.handle(wake, WatcherEvent::Tick) {
            told += u32::from(matches!(action, WatcherAction::Verdict { .. }));
        }
        guard.watcher.handle(
            wake,
            WatcherEvent::Answered {
                agent: node(1),
                store: store("s"),
                incarnation: run(1),
                answer: Answer::Failed,
            },
        );
    }
    assert_eq!(told, 8);
    assert!(now < 62_000, "and the ward is forgotten: {now}");
}

#[test]
fn the_dead_are_left_to_the_store_for_a_moment_and_forgotten_when_it_knows() {
    let mut guard = Guard::of_one();
    guard.lost(1_010, Loss::Refused);
    assert_eq!(guard.health(), Some(Health::Dead));
    guard.tick(1_109, &[]);
    guard.tick(1_110, &["tell s: 1.1 Closed after 0"]);
    guard.answered(1_112, Answer::Settled, &["forget 1"]);
}

#[test]
fn an_unreachable_ward_is_judged_by_its_beats_and_one_that_left_is_not_judged() {
    let mut guard = Guard::of_one();
    guard.lost(1_001, Loss::Unreachable);
    guard.beat(1_020, 1, &[]);
    assert_eq!(guard.health(), Some(Health::Alive));
    guard.lost(1_021, Loss::Over);
    guard.tick(9_000, &[]);
    assert_eq!(guard.health(), None);
}

#[test]
fn a_replayed_beat_and_one_of_another_run_are_no_sign_of_life() {
    let mut guard = Guard::of_one();
    guard.sequence -= 1;
    guard.beat(1_050, 1, &[]);
    guard.beat(1_055, 2, &[]);
    guard.tick(1_060, &["tell s: 1.1 Silent after 60"]);
}

#[test]
fn a_later_run_takes_the_place_of_an_earlier_one_and_never_the_other_way() {
    let mut guard = Guard::of_one();
    guard.tick(1_060, &["tell s: 1.1 Silent after 60"]);
    guard.does(1_061, WatcherEvent::Entrusted(charge(1, 5)), &[]);
    assert_eq!(guard.health(), Some(Health::Alive));
    guard.does(1_062, WatcherEvent::Entrusted(charge(1, 1)), &[]);
    assert_eq!(guard.watcher.wards().next().unwrap().1, run(5));
    guard.lost(1_063, Loss::Refused);
    assert_eq!(guard.health(), Some(Health::Alive), "another run was lost");
}

#[test]
fn a_new_incarnation_at_a_store_is_what_a_verdict_names() {
    let mut guard = Guard::of_one();
    let mut changed = charge(1, 1);
    changed.stores.insert(store("s"), run(9));
    changed.stores.insert(store("t"), run(1));
    guard.does(1_010, WatcherEvent::Entrusted(changed), &[]);
    guard.tick(
        1_060,
        &["tell s: 1.9 Silent after 60", "tell t: 1.1 Silent after 60"],
    );
}

#[test]
fn a_guardian_that_was_held_up_looks_at_its_mail_before_it_judges() {
    let mut guard = Guard::of_one();
    // It was to be called at 1,060; 400 ms later the beats sent meanwhile are still unread.
    guard.tick(1_460, &[]);
    guard.beat(1_461, 1, &[]);
    assert_eq!(guard.health(), Some(Health::Alive));
}

#[test]
fn a_guardian_whose_own_beats_are_late_is_patient_with_its_wards_up_to_their_bound() {
    let mut guard = Guard::of_one();
    let held_up = |ms| WatcherEvent::HeldUp(Duration::from_millis(ms));
    guard.does(1_001, held_up(30), &[]);
    guard.tick(1_149, &[]);
    guard.tick(1_150, &["tell s: 1.1 Silent after 60"]);
    guard.beat(1_160, 1, &[]);
    guard.does(1_161, held_up(5_000), &[]);
    guard.tick(2_159, &[]);
    guard.tick(2_160, &["tell s: 1.1 Silent after 60"]);
}

#[test]
fn wards_and_their_stores_are_bounded() {
    let mut guard = Guard::new();
    guard.watcher = Watcher::new(WatcherConfig {
        wards_max: 2,
        ..WatcherConfig::default()
    });
    for agent in 1..=3 {
        let mut charge = charge(agent, 1);
        charge.stores = (0..100).map(|n| (store(&n.to_string()), run(1))).collect();
        guard.does(0, WatcherEvent::Entrusted(charge), &[]);
    }
    assert_eq!(guard.watcher.wards().count(), 2);
    let told = guard.watcher.handle(at(10_000), WatcherEvent::Tick).len();
    let told = told + guard.watcher.handle(at(10_040), WatcherEvent::Tick).len();
    assert_eq!(told, 32);
    assert!(guard.watcher.has_place_for(&node(1)) && !guard.watcher.has_place_for(&node(3)));
}

#[test]
fn a_state_hash_names_what_is_held_in_any_order() {
    let job = |n| JobId(Uuid::from_u128(n));
    let fence = |sequence| Fence { epoch: 1, sequence };
    let (one, two) = ((job(1), fence(1), 0), (job(2), fence(1), 3));
    assert_eq!(StateHash::of([one, two]), StateHash::of([two, one]));
    let others = [
        StateHash::of([one]),
        StateHash::of([one, (job(2), fence(2), 3)]),
        StateHash::of([one, (job(2), fence(1), 4)]),
        StateHash::of([]),
    ];
    for other in others {
        assert_ne!(StateHash::of([one, two]), other);
    }
}

/// An action of a circle in a few words.
fn said(action: &CircleAction) -> String {
    match action {
        CircleAction::Ask { guardian } => format!("ask {}", guardian.0[0]),
        CircleAction::Dismiss { guardian } => format!("dismiss {}", guardian.0[0]),
        CircleAction::Look => "look".to_owned(),
    }
}

#[track_caller]
fn circle_does(circle: &mut Circle, ms: u64, event: CircleEvent, expected: &[&str]) {
    let found: Vec<_> = circle.handle(at(ms), event).iter().map(said).collect();
    assert_eq!(found, expected, "at {ms} ms");
}

#[track_caller]
fn answers(circle: &mut Circle, ms: u64, guardian: u8, accepted: bool, expected: &[&str]) {
    let guardian = node(guardian);
    circle_does(
        circle,
        ms,
        CircleEvent::Answered { guardian, accepted },
        expected,
    );
}

/// The circle of node 0, watched by 1, 2 and 4 of six nodes: 3 refused.
fn watched() -> Circle {
    let mut circle = Circle::new(node(0), CircleConfig::default());
    circle_does(&mut circle, 1, CircleEvent::Tick, &["look"]);
    let found = CircleEvent::Found([0, 5, 4, 3, 2, 1, 6].map(node).to_vec());
    circle_does(&mut circle, 2, found, &["ask 1", "ask 2", "ask 3"]);
    answers(&mut circle, 3, 1, true, &[]);
    answers(&mut circle, 3, 2, true, &[]);
    answers(&mut circle, 3, 3, false, &["ask 4"]);
    answers(&mut circle, 4, 4, true, &[]);
    circle
}

fn watching(circle: &Circle) -> Vec<u8> {
    circle.watching().map(|node| node.0[0]).collect()
}

#[test]
fn the_nearest_that_accept_watch() {
    assert_eq!(watching(&watched()), [1, 2, 4]);
}

#[test]
fn a_circle_heals_until_nobody_is_left_to_ask() {
    let mut circle = watched();
    let lost = |n| CircleEvent::Lost { guardian: node(n) };
    circle_does(&mut circle, 10, lost(1), &["ask 5"]);
    circle_does(&mut circle, 10, lost(2), &["ask 6"]);
    answers(&mut circle, 11, 5, true, &[]);
    assert_eq!(watching(&circle), [4, 5]);
    // 6 does not answer; nobody is left, so it looks around.
    circle_does(&mut circle, 1_010, CircleEvent::Tick, &[]);
    assert!(circle.next_wake() <= at(2_010));
    circle_does(&mut circle, 2_010, CircleEvent::Tick, &["look"]);
    let found = CircleEvent::Found([4, 5, 7].map(node).to_vec());
    circle_does(&mut circle, 2_011, found, &["ask 7"]);
    answers(&mut circle, 2_012, 7, true, &[]);
    assert_eq!(watching(&circle), [4, 5, 7]);
}

#[test]
fn a_nearer_guardian_takes_over_only_once_it_watches() {
    let mut circle = watched();
    let found = CircleEvent::Found([1, 2, 3, 4, 5].map(node).to_vec());
    circle_does(&mut circle, 60_000, found, &["ask 3"]);
    assert_eq!(watching(&circle), [1, 2, 4]);
    answers(&mut circle, 60_001, 3, true, &["dismiss 4"]);
    assert_eq!(watching(&circle), [1, 2, 3]);
}

#[test]
fn a_cloud_without_enough_nodes_is_searched_more_and_more_rarely() {
    let mut circle = Circle::new(node(0), CircleConfig::default());
    let (mut now, mut looks) = (at(1), Vec::new());
    while now < at(300_000) {
        for action in circle.handle(now, CircleEvent::Tick) {
            assert_eq!(action, CircleAction::Look);
            looks.push(now.0 / 1_000_000);
            circle.handle(now, CircleEvent::Found(vec![]));
        }
        now = circle.next_wake();
    }
    assert!(looks.len() < 15, "{looks:?}");
    assert!(
        looks.iter().filter(|at| **at < 10).count() >= 3,
        "{looks:?}"
    );
}
