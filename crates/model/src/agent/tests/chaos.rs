//! A store that answers at random, late, or not at all, and a runtime that does what it is told.

use super::*;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Wait(u16),
    Offer { first: u8, ahead: bool },
    AnswerClaim { which: u8, grant: bool, trouble: u8 },
    AnswerRenewal { keep: bool, trouble: u8 },
    Driver(u8),
    End { which: u8, good: bool },
    Shutdown,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..6_000_u16).prop_map(Step::Wait),
        3 => (any::<u8>(), any::<bool>())
            .prop_map(|(first, ahead)| Step::Offer { first, ahead }),
        4 => (any::<u8>(), any::<bool>(), 0..8_u8)
            .prop_map(|(which, grant, trouble)| Step::AnswerClaim { which, grant, trouble }),
        3 => (prop::bool::weighted(0.8), 0..8_u8)
            .prop_map(|(keep, trouble)| Step::AnswerRenewal { keep, trouble }),
        8 => any::<u8>().prop_map(Step::Driver),
        3 => (any::<u8>(), any::<bool>())
            .prop_map(|(which, good)| Step::End { which, good }),
        1 => Just(Step::Shutdown),
    ]
}

#[derive(Debug, Default)]
struct Track {
    prepared: u32,
    started: u32,
    concluded: u32,
    discarded: u32,
    /// A program that could be running now.
    alive: bool,
    frozen: bool,
}

#[derive(Debug)]
struct Chaos {
    world_agent: Agent,
    now: Timestamp,
    claims: Vec<(Nonce, Scope)>,
    renewals: Vec<Vec<Claim>>,
    /// What the driver still has to report.
    owed: Vec<Event>,
    tracks: BTreeMap<RunKey, Track>,
    sequence: u64,
    incarnations: u128,
    quiet: u32,
}

impl Chaos {
    fn new() -> Self {
        let world = World::new();
        Self {
            world_agent: world.agent,
            now: world.now,
            claims: Vec::new(),
            renewals: Vec::new(),
            owed: Vec::new(),
            tracks: BTreeMap::new(),
            sequence: 0,
            incarnations: 1,
            quiet: 0,
        }
    }

    fn give(&mut self, event: Event) {
        let actions = self.world_agent.handle(self.now, event);
        for action in actions {
            self.note(action);
        }
    }

    fn note(&mut self, action: Action) {
        let track = |chaos: &mut Self, key: &RunKey, f: &dyn Fn(&mut Track)| {
            f(chaos.tracks.entry(key.clone()).or_default());
        };
        match action {
            Action::Claim { nonce, scope, .. } => self.claims.push((nonce, scope)),
            Action::Renew { held, .. } => {
                self.renewals.push(held.iter().map(|h| h.claim).collect());
            }
            Action::Prepare { key, .. } => {
                track(self, &key, &|t| t.prepared += 1);
                self.owed.push(Event::Prepared { key });
            }
            Action::Start { key } => {
                track(self, &key, &|t| {
                    t.started += 1;
                    t.alive = true;
                });
                self.owed.push(Event::Started { key });
            }
            Action::Pause { key } => track(self, &key, &|t| t.frozen = true),
            Action::Resume { key } => track(self, &key, &|t| t.frozen = false),
            Action::Stop { key } => {
                self.owed.retain(|event| !concerns(event, &key));
                self.owed.push(Event::Ended {
                    key,
                    end: End::Stopped,
                });
            }
            Action::Checkpoint { key, .. } => {
                let saved = true;
                self.owed.push(Event::Checkpointed { key, saved });
            }
            Action::Conclude { key, .. } => {
                track(self, &key, &|t| {
                    t.concluded += 1;
                    t.alive = false;
                });
                self.owed.push(Event::Recorded { key: key.clone() });
                self.owed.push(Event::Concluded { key });
            }
            Action::Release { key, .. } => {
                track(self, &key, &|t| t.alive = false);
                self.owed.push(Event::Released { key });
            }
            Action::Discard { key } => {
                self.owed.retain(|event| !concerns(event, &key));
                track(self, &key, &|t| {
                    t.discarded += 1;
                    t.alive = false;
                });
            }
            Action::Answer { .. } => {}
            Action::Quiet => self.quiet += 1,
        }
    }

    fn trouble(&mut self, kind: u8) -> Option<Trouble> {
        match kind {
            0 => Some(Trouble::Unknown),
            1 => Some(Trouble::Unavailable { after: None }),
            2 => {
                self.incarnations += 1;
                let fresh = incarnation(self.incarnations);
                Some(Trouble::Revoked { fresh })
            }
            3 => Some(Trouble::Refused),
            _ => None,
        }
    }

    fn make_grants(&mut self, scope: &Scope) -> Vec<Grant> {
        let jobs = match scope {
            Scope::Jobs(jobs) => jobs.clone(),
            Scope::Any => vec![job(u128::from(self.sequence) + 1_000)],
        };
        jobs.into_iter()
            .map(|job| {
                self.sequence += 1;
                let policy = match self.sequence % 3 {
                    0 => OnDisconnect::Pause,
                    1 => OnDisconnect::Stop,
                    _ => OnDisconnect::Finish,
                };
                let spec = spec(|spec| {
                    spec.on_disconnect = policy;
                    spec.timeout_ms = 40_000;
                    spec.checkpoint_ms = Some(3_000);
                });
                let claim = Claim {
                    job,
                    fence: Fence {
                        epoch: 1,
                        sequence: self.sequence,
                    },
                    nonce: Nonce([9; 16]),
                };
                Grant {
                    claim,
                    namespace: "lab".parse().unwrap(),
                    spec,
                }
            })
            .collect()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wait(millis) => self.wait(Duration::from_millis(millis.into())),
            Step::Offer { first, ahead } => self.give(Event::Offered {
                offer: OfferId(0),
                store: store(),
                jobs: vec![job(u128::from(first)), job(u128::from(first) + 1)],
                need: need(),
                ahead,
            }),
            Step::AnswerClaim {
                which,
                grant,
                trouble,
            } => self.answer_claim(which, grant, trouble),
            Step::AnswerRenewal { keep, trouble } => self.answer_renewal(keep, trouble),
            Step::Driver(which) => {
                if !self.owed.is_empty() {
                    let event = self.owed.remove(usize::from(which) % self.owed.len());
                    self.give(event);
                }
            }
            Step::End { which, good } => self.end(which, good),
            Step::Shutdown => self.give(Event::Shutdown),
        }
    }

    /// Lets time pass as a driver does: waking whenever the core asks for it.
    fn wait(&mut self, pause: Duration) {
        let end = self.now.after(pause);
        let mut wakes = 0;
        while let Some(wake) = self.world_agent.next_wake().filter(|w| *w <= end) {
            self.now = self.now.max(wake);
            self.give(Event::Tick);
            wakes += 1;
            assert!(wakes < 1_000, "the core asks to be woken without end");
        }
        self.now = end;
        self.give(Event::Tick);
    }

    fn answer_claim(&mut self, which: u8, grant: bool, trouble: u8) {
        if self.claims.is_empty() {
            return;
        }
        let at = usize::from(which) % self.claims.len();
        let (nonce, scope) = self.claims.remove(at);
        let grants = if grant {
            self.make_grants(&scope)
        } else {
            vec![]
        };
        let reply = match self.trouble(trouble) {
            Some(trouble) => Err(trouble),
            None => Ok(Claimed {
                grants,
                lease: LEASE,
            }),
        };
        self.give(Event::Claimed {
            nonce,
            store: store(),
            reply,
        });
    }

    fn answer_renewal(&mut self, keep: bool, trouble: u8) {
        let Some(listed) = self.renewals.pop() else {
            return;
        };
        let split = if keep { listed.len() } else { 0 };
        let lost = |claim: &Claim| Lost {
            claim: *claim,
            reason: LostReason::Fenced,
        };
        let reply = match self.trouble(trouble) {
            Some(trouble) => Err(trouble),
            None => Ok(Renewed {
                held: listed[..split].iter().map(|claim| claim.job).collect(),
                lost: listed[split..].iter().map(lost).collect(),
                checkpoint_wanted: vec![],
                state: StateHash::of_claims(&listed[..split]),
                lease: LEASE,
            }),
        };
        self.give(Event::Renewed {
            store: store(),
            reply,
        });
    }

    fn end(&mut self, which: u8, good: bool) {
        let running = self.tracks.iter().filter(|(_, track)| track.alive);
        let running: Vec<_> = running.map(|(key, _)| key.clone()).collect();
        if running.is_empty() {
            return;
        }
        let key = running[usize::from(which) % running.len()].clone();
        self.owed.retain(|event| !concerns(event, &key));
        let end = match good {
            true => End::Success,
            false => End::Failure(Failure::OutOfMemory),
        };
        self.tracks.entry(key.clone()).or_default().alive = false;
        self.give(Event::Ended { key, end });
    }

    /// Answers everything until nothing is left to answer.
    fn calm_down(&mut self) {
        self.give(Event::Shutdown);
        for _ in 0..200 {
            while !self.claims.is_empty() {
                self.answer_claim(0, false, 9);
            }
            while !self.owed.is_empty() {
                let event = self.owed.remove(0);
                self.give(event);
            }
            while !self.renewals.is_empty() {
                self.answer_renewal(true, 9);
            }
            self.wait(Duration::from_secs(1));
        }
    }

    fn check(&self) {
        for (key, track) in &self.tracks {
            assert!(track.prepared <= 1, "{key} prepared twice");
            assert!(track.started <= track.prepared, "{key} started oddly");
            assert!(track.concluded <= 1, "{key} concluded twice");
            assert!(track.discarded <= 1, "{key} discarded twice");
        }
    }
}

fn concerns(event: &Event, about: &RunKey) -> bool {
    match event {
        Event::Prepared { key }
        | Event::Started { key }
        | Event::Ended { key, .. }
        | Event::Checkpointed { key, .. }
        | Event::Recorded { key }
        | Event::Concluded { key }
        | Event::Released { key } => key == about,
        _ => false,
    }
}

impl Track {
    const fn is_over(&self) -> bool {
        !self.alive && self.discarded == self.prepared
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever stores and runtimes do: the accounts add up (asserted inside the core after every
    /// event), each run has one life, and a shutdown ends with nothing left.
    #[test]
    fn every_run_has_one_life(steps in prop::collection::vec(step(), 1..120)) {
        let mut chaos = Chaos::new();
        for step in steps {
            chaos.step(step);
            chaos.check();
        }
        chaos.calm_down();
        chaos.check();
        prop_assert_eq!(chaos.world_agent.runs().count(), 0);
        prop_assert_eq!(chaos.quiet, 1);
        prop_assert!(chaos.tracks.values().all(Track::is_over), "{:?}", chaos.tracks);
        prop_assert_eq!(chaos.world_agent.capacity(vec![]).free, one_core().saturating_add(&one_core()));
    }
}
