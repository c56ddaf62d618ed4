//! Every action asserted, and that nothing else happened.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::guardian::StateHash;
use crate::ids::Incarnation;
use crate::job::{Failure, OnDisconnect, TaskSpec};
use crate::lease::{Claim, Fence, Lost, LostReason};
use crate::matching::Need;

mod again;
mod ahead;
mod chaos;
mod storm;

const LEASE: Duration = Duration::from_secs(20);

fn store() -> StoreUrl {
    StoreUrl::from("http://store")
}

fn job(n: u128) -> JobId {
    JobId(Uuid::from_u128(n))
}

fn incarnation(n: u128) -> Incarnation {
    Incarnation(Uuid::from_u128(n))
}

fn one_core() -> Resources {
    Resources {
        cpu_millis: 1_000,
        memory_bytes: 1 << 30,
        gpus: 0,
        scratch_bytes: 1 << 20,
    }
}

fn need() -> Need {
    Need {
        resources: one_core(),
        class: None,
        labels: BTreeMap::new(),
    }
}

fn spec(change: impl FnOnce(&mut TaskSpec)) -> TaskSpec {
    let mut spec = TaskSpec::new(vec!["true".into()], one_core());
    change(&mut spec);
    spec
}

fn claim(n: u128, sequence: u64) -> Claim {
    Claim {
        job: job(n),
        fence: Fence { epoch: 1, sequence },
        nonce: Nonce([9; 16]),
    }
}

/// What a store says of these jobs' claims.
fn state(held: &[u128]) -> StateHash {
    let claims: Vec<_> = held.iter().map(|n| claim(*n, 1)).collect();
    StateHash::of_claims(&claims)
}

fn key(n: u128) -> RunKey {
    RunKey::of(&store(), &claim(n, 1))
}

fn grant(n: u128, spec: TaskSpec) -> Grant {
    Grant {
        claim: claim(n, 1),
        namespace: "lab".parse().unwrap(),
        spec,
    }
}

/// An action in a few words. The store is left out: most tests have one.
fn words(action: &Action) -> String {
    let id = |key: &RunKey| key.job.0.as_u128();
    match action {
        Action::Claim { scope, offer, .. } => match scope {
            Scope::Any => format!("poll {} slots", offer.slots),
            Scope::Jobs(jobs) => {
                let jobs: Vec<_> = jobs.iter().map(|job| job.0.as_u128()).collect();
                format!("claim {jobs:?}")
            }
        },
        Action::Renew { held, complete, .. } => {
            let held: Vec<_> = held
                .iter()
                .map(|held| format!("{} {:?}", held.claim.job.0.as_u128(), held.phase))
                .collect();
            let rest = if *complete { "" } else { " and more" };
            format!("renew {}{rest}", held.join(", "))
        }
        Action::Prepare { key, class } => format!("prepare {} as {}", id(key), class.name()),
        Action::Start { key } => format!("start {}", id(key)),
        Action::Pause { key } => format!("pause {}", id(key)),
        Action::Resume { key } => format!("resume {}", id(key)),
        Action::Stop { key } => format!("stop {}", id(key)),
        Action::Checkpoint { key, sequence } => format!("checkpoint {} #{sequence}", id(key)),
        Action::Conclude { key, failure } => match failure {
            None => format!("conclude {}", id(key)),
            Some(failure) => format!("conclude {}: {failure}", id(key)),
        },
        Action::Release { key, reason, .. } => format!("release {}: {reason}", id(key)),
        Action::Discard { key } => format!("discard {}", id(key)),
        Action::Answer {
            taken, declined, ..
        } => {
            let declined = declined.as_ref().map(ToString::to_string);
            format!("answer {} {}", taken.len(), declined.unwrap_or_default())
        }
        Action::Quiet => "quiet".to_owned(),
    }
}

struct World {
    agent: Agent,
    now: Timestamp,
    /// Nonces of claims sent, latest last.
    nonces: Vec<Nonce>,
}

impl World {
    /// An agent with two slots that polled its store once, in vain.
    fn new() -> Self {
        let mut world = Self::silent();
        world.does(
            Event::StoreAdded {
                store: store(),
                incarnation: incarnation(1),
                classes: vec![IsolationClass::Process],
            },
            &["poll 2 slots"],
        );
        world.granted(vec![], &[]);
        world
    }

    fn silent() -> Self {
        let limits = one_core().saturating_add(&one_core());
        let mut config = Config::new(NodeId([1; 32]), limits, 2);
        // Long pauses keep polls out of tests about other things.
        config.poll_min = Duration::from_secs(10_000);
        config.poll_max = config.poll_min;
        Self {
            agent: Agent::new(config, [7; 32]),
            now: Timestamp(1_000_000),
            nonces: Vec::new(),
        }
    }

    #[track_caller]
    fn does(&mut self, event: Event, expected: &[&str]) {
        let actions = self.agent.handle(self.now, event);
        let found: Vec<_> = actions.iter().map(words).collect();
        assert_eq!(found, expected);
        self.nonces.extend(actions.iter().filter_map(|a| match a {
            Action::Claim { nonce, .. } => Some(*nonce),
            _ => None,
        }));
    }

    #[track_caller]
    fn after(&mut self, pause: Duration, expected: &[&str]) {
        self.now = self.now.after(pause);
        self.does(Event::Tick, expected);
    }

    #[track_caller]
    fn offered(&mut self, jobs: &[u128], expected: &[&str]) {
        let event = Event::Offered {
            offer: OfferId(1),
            store: store(),
            jobs: jobs.iter().map(|n| job(*n)).collect(),
            need: need(),
            ahead: false,
        };
        self.does(event, expected);
    }

    /// Offers jobs whose holder died.
    #[track_caller]
    fn recovered(&mut self, jobs: &[u128], expected: &[&str]) {
        let event = Event::Offered {
            offer: OfferId(1),
            store: store(),
            jobs: jobs.iter().map(|n| job(*n)).collect(),
            need: need(),
            ahead: true,
        };
        self.does(event, expected);
    }

    fn claimed(&self, reply: Result<Claimed, Trouble>) -> Event {
        Event::Claimed {
            nonce: *self.nonces.last().unwrap(),
            store: store(),
            reply,
        }
    }

    #[track_caller]
    fn granted(&mut self, grants: Vec<Grant>, expected: &[&str]) {
        let reply = Claimed {
            grants,
            lease: LEASE,
        };
        let event = self.claimed(Ok(reply));
        self.does(event, expected);
    }

    #[track_caller]
    fn renewed(&mut self, held: &[u128], lost: Vec<Lost>, expected: &[&str]) {
        let reply = Renewed {
            held: held.iter().map(|n| job(*n)).collect(),
            lost,
            state: state(held),
            lease: LEASE,
            ..Renewed::default()
        };
        let event = Event::Renewed {
            store: store(),
            reply: Ok(reply),
        };
        self.does(event, expected);
    }

    #[track_caller]
    fn lost(&mut self, n: u128, reason: LostReason, expected: &[&str]) {
        let lost = Lost {
            claim: claim(n, 1),
            reason,
        };
        self.renewed(&[], vec![lost], expected);
    }

    #[track_caller]
    fn unanswered(&mut self, expected: &[&str]) {
        let event = Event::Renewed {
            store: store(),
            reply: Err(Trouble::Unavailable { after: None }),
        };
        self.does(event, expected);
    }

    #[track_caller]
    fn ended(&mut self, n: u128, end: End, expected: &[&str]) {
        self.does(Event::Ended { key: key(n), end }, expected);
    }

    /// A world in which job 1 runs since just now; one renewal has reported it.
    fn running(change: impl FnOnce(&mut TaskSpec)) -> Self {
        let mut world = Self::new();
        world.offered(&[1], &["answer 1 ", "claim [1]"]);
        let grant = grant(1, spec(change));
        world.granted(vec![grant], &["prepare 1 as process"]);
        world.does(Event::Prepared { key: key(1) }, &["start 1"]);
        world.does(Event::Started { key: key(1) }, &[]);
        world.after(Duration::from_millis(25), &["renew 1 Running"]);
        world.renewed(&[1], vec![], &[]);
        world
    }
}

#[test]
fn an_offered_job_runs_and_ends() {
    let mut world = World::running(|_| ());
    world.ended(1, End::Success, &["conclude 1", "poll 2 slots"]);
    world.granted(vec![], &[]);
    world.does(Event::Recorded { key: key(1) }, &["poll 2 slots"]);
    world.granted(vec![], &[]);
    world.does(Event::Concluded { key: key(1) }, &["discard 1"]);
    assert_eq!(world.agent.runs().count(), 0);
    world.after(Duration::from_secs(60), &[]);
}

#[test]
fn short_tasks_cost_no_renewal() {
    let mut world = World::new();
    world.offered(&[1], &["answer 1 ", "claim [1]"]);
    world.granted(vec![grant(1, spec(|_| ()))], &["prepare 1 as process"]);
    world.does(Event::Prepared { key: key(1) }, &["start 1"]);
    world.does(Event::Started { key: key(1) }, &[]);
    world.ended(1, End::Success, &["conclude 1", "poll 2 slots"]);
    world.granted(vec![], &[]);
    world.does(Event::Recorded { key: key(1) }, &["poll 2 slots"]);
    world.granted(vec![], &[]);
    world.does(Event::Concluded { key: key(1) }, &["discard 1"]);
    world.after(Duration::from_secs(1), &[]);
}

#[test]
fn offers_are_taken_only_while_there_is_room_and_only_once() {
    let mut world = World::new();
    world.offered(
        &[1, 2, 3],
        &["answer 2 does not fit: no slot free", "claim [1, 2]"],
    );
    world.offered(&[1], &["answer 0 the agent has that job already"]);
    world.granted(vec![grant(2, spec(|_| ()))], &["prepare 2 as process"]);
    world.offered(&[1], &["answer 1 ", "claim [1]"]);
    world.granted(vec![], &[]);
}

#[test]
fn offers_of_unknown_stores_and_misfits_are_declined_with_the_reason() {
    let mut world = World::silent();
    world.offered(
        &[1],
        &["answer 0 the agent does not know that demand store"],
    );
    let mut world = World::new();
    let mut need = need();
    need.class = Some(IsolationClass::Vm);
    let event = Event::Offered {
        offer: OfferId(1),
        store: store(),
        jobs: vec![job(1)],
        need,
        ahead: false,
    };
    world.does(event, &["answer 0 does not fit: class vm is not offered"]);
}

#[test]
fn an_ad_waits_for_its_turn_unless_the_agent_is_alone_or_offered_the_job() {
    let ad = |idle| Event::Advertised {
        store: store(),
        jobs: vec![AdvertisedJob {
            job: job(1),
            need: need(),
        }],
        idle,
    };
    let mut world = World::new();
    world.does(ad(1), &["claim [1]"]);

    let mut world = World::new();
    world.does(ad(100), &[]);
    world.does(ad(100), &[]);
    world.after(Duration::from_millis(200), &["claim [1]"]);
    world.after(Duration::from_millis(200), &[]);

    let mut world = World::new();
    world.does(ad(100), &[]);
    world.offered(&[1], &["answer 1 ", "claim [1]"]);
    world.after(Duration::from_millis(200), &[]);
}

#[test]
fn a_lost_claim_reply_is_settled_by_the_same_request() {
    let mut world = World::new();
    world.offered(&[1], &["answer 1 ", "claim [1]"]);
    let event = world.claimed(Err(Trouble::Unknown));
    world.does(event, &[]);
    world.after(Duration::from_millis(100), &["claim [1]"]);
    let last = world.nonces.len() - 1;
    assert_eq!(world.nonces[last], world.nonces[last - 1]);
    // The lease counts from the first try.
    world.granted(vec![grant(1, spec(|_| ()))], &["prepare 1 as process"]);
    world.after(Duration::from_millis(4_900), &["renew 1 Preparing"]);
}

#[test]
fn a_claim_never_answered_is_given_up_and_two_complete_lists_follow() {
    let mut world = World::new();
    world.offered(&[1], &["answer 1 ", "claim [1]"]);
    world.now = world.now.after(LEASE);
    let event = world.claimed(Err(Trouble::Unknown));
    world.does(event, &["renew "]);
    world.renewed(&[], vec![], &[]);
    world.after(LEASE / 4, &["renew "]);
    world.renewed(&[], vec![], &[]);
    world.after(LEASE, &[]);
    assert_eq!(world.agent.capacity(vec![]).slots, 2);
}

#[test]
fn grants_that_do_not_fit_any_more_are_released() {
    let mut world = World::new();
    world.offered(&[1], &["answer 1 ", "claim [1]"]);
    let big = spec(|spec| spec.resources.cpu_millis = 3_000);
    world.granted(
        vec![grant(1, big)],
        &["release 1: does not fit: cpus: needs 3000, has 2000 free"],
    );
    world.does(Event::Released { key: key(1) }, &[]);
    world.after(Duration::from_secs(60), &[]);
}

#[test]
fn renewals_repeat_until_answered_and_list_everything() {
    let mut world = World::running(|_| ());
    world.after(Duration::from_secs(5), &["renew 1 Running"]);
    world.unanswered(&[]);
    world.after(Duration::from_secs(1), &["renew 1 Running"]);
    world.renewed(&[1], vec![], &[]);
    world.offered(&[2], &["answer 1 ", "claim [2]"]);
    world.after(Duration::from_secs(5), &["renew 1 Running and more"]);
}

#[test]
fn a_cut_off_agent_pauses_and_goes_on_only_after_a_renewal() {
    let mut world = World::running(|_| ());
    world.after(Duration::from_secs(5), &["renew 1 Running"]);
    world.after(Duration::from_millis(12_499), &[]);
    world.after(Duration::from_millis(1), &["pause 1"]);
    assert!(world.agent.runs().all(|run| run.paused));
    // The late answer to a request of twelve seconds ago proves nothing about the next second.
    world.after(Duration::from_secs(30), &[]);
    world.renewed(&[1], vec![], &["renew 1 Running"]);
    world.renewed(&[1], vec![], &["resume 1"]);
    world.after(Duration::from_secs(5), &["renew 1 Running"]);
}

#[test]
fn a_paused_run_whose_claim_is_void_never_goes_on() {
    let mut world = World::running(|_| ());
    world.after(LEASE, &["pause 1", "renew 1 Running"]);
    world.lost(1, LostReason::Fenced, &["stop 1"]);
    world.ended(1, End::Stopped, &["discard 1", "poll 2 slots"]);
}

#[test]
fn a_task_that_wants_it_is_stopped_when_cut_off_and_given_back() {
    let mut world = World::running(|spec| spec.on_disconnect = OnDisconnect::Stop);
    world.after(LEASE, &["stop 1", "renew 1 Running"]);
    world.ended(
        1,
        End::Stopped,
        &["release 1: the agent was cut off from the store"],
    );
    world.does(
        Event::Released { key: key(1) },
        &["discard 1", "poll 2 slots"],
    );
}

#[test]
fn a_task_that_wants_it_runs_on_when_cut_off_unless_it_is_exclusive() {
    let mut world = World::running(|spec| spec.on_disconnect = OnDisconnect::Finish);
    world.after(LEASE, &["renew 1 Running"]);
    world.ended(1, End::Success, &["conclude 1"]);
    let mut world = World::running(|spec| {
        spec.on_disconnect = OnDisconnect::Finish;
        spec.exclusive = true;
    });
    world.after(LEASE, &["pause 1", "renew 1 Running"]);
}

#[test]
fn nothing_starts_under_an_old_lease() {
    let mut world = World::new();
    world.offered(&[1], &["answer 1 ", "claim [1]"]);
    world.granted(vec![grant(1, spec(|_| ()))], &["prepare 1 as process"]);
    // The laptop slept: the first thing it hears is that the input is there.
    world.now = world.now.after(LEASE);
    world.does(Event::Prepared { key: key(1) }, &["renew 1 Preparing"]);
    world.renewed(&[1], vec![], &["start 1"]);
}

#[test]
fn runs_that_wait_too_long_for_their_store_are_given_up() {
    let mut world = World::running(|_| ());
    world.after(LEASE, &["pause 1", "renew 1 Running"]);
    world.after(Duration::from_secs(600), &["stop 1"]);
    world.ended(
        1,
        End::Stopped,
        &["release 1: the agent was cut off from the store"],
    );
}

#[test]
fn a_cancelled_job_is_stopped_and_forgotten() {
    let mut world = World::running(|_| ());
    world.does(Event::Poked { store: store() }, &["renew 1 Running"]);
    world.lost(1, LostReason::Cancelled, &["stop 1"]);
    world.ended(1, End::Stopped, &["discard 1", "poll 2 slots"]);
}

#[test]
fn a_claim_that_only_the_store_knows_of_is_settled_by_complete_lists_at_once() {
    let mut world = World::running(|_| ());
    world.after(Duration::from_secs(5), &["renew 1 Running"]);
    let differing = |n| {
        let claims = [claim(1, 1), claim(n, 1)];
        let reply = Renewed {
            held: vec![job(1)],
            state: StateHash::of_claims(&claims),
            lease: LEASE,
            ..Renewed::default()
        };
        Event::Renewed {
            store: store(),
            reply: Ok(reply),
        }
    };
    world.does(differing(2), &["renew 1 Running"]);
    assert_eq!(world.agent.mismatches(), 1);
    world.does(differing(2), &["renew 1 Running"]);
    // The store released it meanwhile.
    world.renewed(&[1], vec![], &[]);
    assert_eq!(world.agent.mismatches(), 2);
    world.after(Duration::from_secs(4), &[]);
}

#[test]
fn a_revoked_incarnation_kills_everything_and_a_new_one_goes_on() {
    let mut world = World::running(|_| ());
    world.after(Duration::from_secs(5), &["renew 1 Running"]);
    let event = Event::Renewed {
        store: store(),
        reply: Err(Trouble::Revoked {
            fresh: incarnation(5),
        }),
    };
    world.does(event, &["stop 1", "poll 1 slots"]);
    let event = Event::Ended {
        key: key(1),
        end: End::Stopped,
    };
    let actions = world.agent.handle(world.now, event);
    assert_eq!(actions.iter().map(words).collect::<Vec<_>>(), ["discard 1"]);
    world.granted(vec![], &[]);
    world.now = world.now.after(Duration::from_secs(20_000));
    let actions = world.agent.handle(world.now, Event::Tick);
    let [
        Action::Claim {
            incarnation: used, ..
        },
    ] = actions.as_slice()
    else {
        panic!("one poll was expected: {actions:?}");
    };
    assert_eq!(*used, incarnation(5));
}

#[test]
fn a_refusal_that_is_heard_late_ends_nothing_of_the_new_incarnation() {
    let mut world = World::running(|_| ());
    world.after(Duration::from_secs(5), &["renew 1 Running"]);
    let refused = |fresh| Event::Renewed {
        store: store(),
        reply: Err(Trouble::Revoked {
            fresh: incarnation(fresh),
        }),
    };
    world.does(refused(5), &["stop 1", "poll 1 slots"]);
    world.granted(vec![grant(2, spec(|_| {}))], &["prepare 2 as process"]);
    world.after(Duration::from_millis(25), &["renew 1 Running, 2 Preparing"]);
    world.does(refused(5), &[]);
    world.after(Duration::from_secs(5), &["renew 1 Running, 2 Preparing"]);
    world.does(refused(6), &["stop 2"]);
}

#[test]
fn the_time_limit_counts_running_time_only() {
    let mut world = World::running(|spec| spec.timeout_ms = 30_000);
    world.after(LEASE, &["pause 1", "renew 1 Running"]);
    world.renewed(&[1], vec![], &["resume 1"]);
    world.after(Duration::from_secs(5), &["renew 1 Running"]);
    world.renewed(&[1], vec![], &[]);
    // 20.025 s ran before the pause, so 9.975 s are left from the resumption on.
    world.after(Duration::from_millis(4_974), &[]);
    world.after(Duration::from_millis(1), &["stop 1"]);
    world.ended(
        1,
        End::Stopped,
        &["conclude 1: time limit reached", "poll 2 slots"],
    );
}

#[test]
fn failures_are_told_apart_from_success() {
    let mut world = World::running(|_| ());
    let failure = Failure::ExitCode { code: 3 };
    world.ended(
        1,
        End::Failure(failure),
        &["conclude 1: exit code 3", "poll 2 slots"],
    );
}

#[test]
fn checkpoints_are_taken_on_interval_and_on_request_one_at_a_time() {
    let mut world = World::running(|spec| spec.checkpoint_ms = Some(1_000));
    world.after(Duration::from_millis(975), &["checkpoint 1 #1"]);
    world.after(Duration::from_secs(2), &[]);
    world.does(checkpointed(true), &[]);
    world.after(Duration::from_secs(1), &["checkpoint 1 #2"]);
    let mut world = World::running(|_| ());
    world.does(Event::Poked { store: store() }, &["renew 1 Running"]);
    world.does(checkpoint_wanted(), &["checkpoint 1 #1"]);
    world.does(checkpointed(true), &[]);
    world.after(Duration::from_secs(4), &[]);
}

fn checkpointed(saved: bool) -> Event {
    Event::Checkpointed { key: key(1), saved }
}

fn checkpoint_wanted() -> Event {
    let reply = Renewed {
        held: vec![job(1)],
        checkpoint_wanted: vec![job(1)],
        state: state(&[1]),
        lease: LEASE,
        ..Renewed::default()
    };
    Event::Renewed {
        store: store(),
        reply: Ok(reply),
    }
}

#[test]
fn a_store_that_never_agrees_on_what_is_held_is_not_asked_all_the_time() {
    let mut world = World::running(|_| ());
    let differing = || Event::Renewed {
        store: store(),
        reply: Ok(Renewed {
            held: vec![job(1)],
            state: state(&[1, 2]),
            lease: LEASE,
            ..Renewed::default()
        }),
    };
    world.does(Event::Poked { store: store() }, &["renew 1 Running"]);
    world.does(differing(), &["renew 1 Running"]);
    world.does(differing(), &["renew 1 Running"]);
    world.does(differing(), &[]);
    world.after(LEASE / 4, &["renew 1 Running"]);
    world.does(differing(), &[]);
}

#[test]
fn one_request_makes_one_checkpoint_however_often_the_store_repeats_it() {
    let mut world = World::running(|_| ());
    let poke = || Event::Poked { store: store() };
    world.does(poke(), &["renew 1 Running"]);
    world.does(checkpoint_wanted(), &["checkpoint 1 #1"]);
    world.does(poke(), &["renew 1 Running"]);
    world.does(checkpoint_wanted(), &[]);
    world.does(poke(), &["renew 1 Running"]);
    world.after(Duration::from_millis(10), &[]);
    world.does(checkpointed(true), &[]);
    world.does(checkpoint_wanted(), &[]);
    // Asked after the last one ended: another.
    world.does(poke(), &["renew 1 Running"]);
    world.does(checkpoint_wanted(), &["checkpoint 1 #2"]);
}

#[test]
fn a_checkpoint_that_could_not_be_saved_is_tried_again_after_a_rest() {
    let mut world = World::running(|_| ());
    world.does(Event::Poked { store: store() }, &["renew 1 Running"]);
    world.does(checkpoint_wanted(), &["checkpoint 1 #1"]);
    world.does(checkpointed(false), &[]);
    world.after(Duration::from_secs(5), &["renew 1 Running"]);
    world.does(checkpoint_wanted(), &[]);
    world.after(
        Duration::from_secs(5),
        &["checkpoint 1 #2", "renew 1 Running"],
    );
}

#[test]
fn a_program_that_minds_being_cut_off_has_a_leash_as_long_as_its_lease_less_the_margin() {
    for (asked, exclusive, expected) in [
        (OnDisconnect::Pause, false, Some(OnDisconnect::Pause)),
        (OnDisconnect::Stop, false, Some(OnDisconnect::Stop)),
        (OnDisconnect::Finish, false, None),
        (OnDisconnect::Finish, true, Some(OnDisconnect::Pause)),
    ] {
        let mut world = World::running(|spec| {
            spec.on_disconnect = asked;
            spec.exclusive = exclusive;
        });
        let leash = |world: &World| {
            let leashes = world.agent.leashes();
            let mut leashes = leashes.map(|(_, until, then)| (until, then));
            leashes.next()
        };
        let first = leash(&world);
        assert_eq!(first.map(|(_, then)| then), expected);
        world.does(Event::Poked { store: store() }, &["renew 1 Running"]);
        let sent = world.now;
        world.renewed(&[1], vec![], &[]);
        let until = sent.after(LEASE * 7 / 8);
        assert_eq!(leash(&world), expected.map(|then| (until, then)));
        world.ended(1, End::Success, &["conclude 1", "poll 2 slots"]);
        assert_eq!(leash(&world), None);
    }
}

#[test]
fn a_fenced_checkpoint_ends_the_run() {
    let mut world = World::running(|_| ());
    world.does(Event::Fenced { key: key(1) }, &["stop 1"]);
    world.does(Event::Fenced { key: key(1) }, &[]);
    world.ended(1, End::Success, &["discard 1", "poll 2 slots"]);
}

#[test]
fn shutdown_gives_back_what_runs_and_drain_lets_it_end() {
    let mut world = World::running(|_| ());
    world.does(Event::Shutdown, &["stop 1"]);
    world.offered(&[2], &["answer 0 the agent is shutting down"]);
    world.ended(1, End::Stopped, &["release 1: the agent shuts down"]);
    world.does(Event::Released { key: key(1) }, &["discard 1", "quiet"]);
    world.after(Duration::from_secs(60), &[]);

    let mut world = World::running(|_| ());
    world.does(Event::Drain, &[]);
    world.ended(1, End::Success, &["conclude 1"]);
    world.does(Event::Recorded { key: key(1) }, &["quiet"]);
}

#[test]
fn claims_that_return_during_a_shutdown_are_given_back() {
    let mut world = World::new();
    world.offered(&[1], &["answer 1 ", "claim [1]"]);
    world.does(Event::Shutdown, &[]);
    world.granted(
        vec![grant(1, spec(|_| ()))],
        &["release 1: the agent is shutting down", "quiet"],
    );
}

#[test]
fn answers_nobody_waits_for_are_released() {
    let mut world = World::new();
    let reply = Claimed {
        grants: vec![grant(1, spec(|_| ()))],
        lease: LEASE,
    };
    let event = Event::Claimed {
        nonce: Nonce([0; 16]),
        store: store(),
        reply: Ok(reply),
    };
    world.does(event, &["release 1: the answer came too late"]);
}

#[test]
fn polls_grow_rarer_while_there_is_nothing() {
    let mut world = World::silent();
    world.agent.config.poll_min = Duration::from_millis(250);
    world.agent.config.poll_max = Duration::from_secs(5);
    let event = Event::StoreAdded {
        store: store(),
        incarnation: incarnation(1),
        classes: vec![IsolationClass::Process],
    };
    world.does(event, &["poll 2 slots"]);
    world.granted(vec![], &[]);
    let mut polls = 1;
    let end = world.now.after(Duration::from_secs(60));
    while let Some(wake) = world.agent.next_wake().filter(|wake| *wake < end) {
        world.now = wake;
        world.does(Event::Tick, &["poll 2 slots"]);
        world.granted(vec![], &[]);
        polls += 1;
    }
    assert!((12..22).contains(&polls), "{polls} polls in a minute");
}
