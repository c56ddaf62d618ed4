//! Agents' machines: the core, its driver, and what survives a death.
//!
//! The driver here honours the contract of `mutual_node::agent`: requests beside the core, one answer
//! for each action, a durable outbox that is delivered first after a start, then the end of earlier
//! runs, and only then the first claim.

use std::collections::BTreeMap;
use std::time::Duration;

use mutual_demand::{
    ClaimGrant, ClaimRequest, ClaimScope, FinishRequest, ReleaseRequest, RenewRequest, StoreError,
    StoreResult,
};
use mutual_model::agent::{
    Action, AdvertisedJob, Agent, Claimed, Config, Event, Grant, OfferId, Renewed, RunKey, Scope,
    Trouble,
};
use mutual_model::history::Deed;
use mutual_model::identity::NodeKey;
use mutual_model::ids::Incarnation;
use mutual_model::lease::Holder;
use mutual_model::resources::Resources;
use mutual_model::time::{Timestamp, UnixMillis};
use rand::{Rng as _, RngExt as _};
use rand_chacha::ChaCha8Rng;

use super::attempts::Attempt;
use super::calls::{Purpose, claimed, renewed};
use super::guardians::Guards;
use super::plan::NEED;
use super::wire::{Message, Place, Reply, Request};
use super::{Happening, Slip, Timer, World, log};

/// As the driver of `mutual_node::agent`: timers stand still while a machine sleeps.
const LOOK_AT_CLOCK_EVERY: Duration = Duration::from_millis(250);

/// A machine that may run an agent.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) key: NodeKey,
    /// Counts its processes.
    pub(super) run: u32,
    pub(super) life: Option<Life>,
    pub(super) disk: Disk,
    /// Whether the machine answers at all.
    pub(super) has_power: bool,
    /// Since when it sleeps.
    pub(super) asleep: Option<Timestamp>,
    /// What waits until it wakes.
    pub(super) held_back: Vec<(Duration, Happening)>,
    /// How far its wall clock is off.
    pub(super) skew_ms: i64,
    /// What its monotonic clock showed at the origin of time.
    pub(super) origin: u64,
    /// The server that it talks to.
    pub(super) server: usize,
}

/// What survives the process.
#[derive(Debug, Default)]
pub(super) struct Disk {
    last: u128,
    pub(super) outbox: BTreeMap<RunKey, FinishRequest>,
}

/// One process.
#[derive(Debug)]
pub(super) struct Life {
    core: Agent,
    pub(super) incarnation: Incarnation,
    /// Every incarnation that this process had.
    pub(super) had: Vec<Incarnation>,
    pub(super) attempts: BTreeMap<RunKey, Attempt>,
    grants: BTreeMap<RunKey, ClaimGrant>,
    wake: Option<Timestamp>,
    pub(super) guards: Guards,
    offers: u64,
}

impl Machine {
    pub(super) fn new(index: usize, random: &mut ChaCha8Rng) -> Self {
        Self {
            key: log::key(index),
            run: 0,
            life: None,
            disk: Disk::default(),
            has_power: true,
            asleep: None,
            held_back: Vec::new(),
            skew_ms: 0,
            origin: random.random_range(0..1 << 40),
            server: 0,
        }
    }

    pub(super) fn time(&self, now: Timestamp) -> Timestamp {
        Timestamp(now.0 + self.origin)
    }

    /// Later than every incarnation before, whatever the wall clock shows.
    fn next_incarnation(&mut self, now: Timestamp) -> Incarnation {
        let wall = 1_800_000_000_000_u64.saturating_add(now.0 / 1_000);
        let wall = UnixMillis(wall.saturating_add_signed(self.skew_ms));
        let by_clock = Incarnation::new(wall, [1; 10]).0.as_u128();
        self.disk.last = by_clock.max(self.disk.last + 1);
        Incarnation(uuid::Uuid::from_u128(self.disk.last))
    }
}

impl World {
    pub(super) fn boot_after(&mut self, machine: usize, delay: Duration) {
        // A process that does not run yet has no timers: its number is the one it will have.
        self.later(delay, Happening::Recovery(super::faults::BOOT + machine));
    }

    /// Starts an agent's process.
    pub(super) fn boot(&mut self, index: usize) {
        if self.machines[index].life.is_some() {
            return;
        }
        let slots = self.plan.slots;
        let mut seed = [0; 32];
        self.random.fill_bytes(&mut seed);
        let now = self.now;
        let machine = &mut self.machines[index];
        let mut config = Config::new(machine.key.id(), times(slots), slots);
        config.poll_max = Duration::from_secs(1);
        config.abandon_after = Duration::from_secs(5);
        config.ahead_for = Duration::from_secs(2);
        let incarnation = machine.next_incarnation(now);
        let own = machine.key.id();
        machine.has_power = true;
        machine.run += 1;
        machine.life = Some(Life {
            core: Agent::new(config, seed),
            incarnation,
            had: vec![incarnation],
            attempts: BTreeMap::new(),
            grants: BTreeMap::new(),
            wake: None,
            guards: Guards::new(own),
            offers: 0,
        });
        self.log.say(now, || format!("agent {index} starts"));
        self.timer(Place::Agent(index), Duration::ZERO, Timer::Introduce(0));
    }

    /// Ends an agent's process and everything in it. `told`: the kernel closes its connections.
    pub(super) fn kill_agent(&mut self, index: usize, told: bool) {
        if self.machines[index].life.is_none() {
            return;
        }
        self.log.say(self.now, || format!("agent {index} dies"));
        self.end_stretches_of(index, self.slip == Some(Slip::LeaveOrphans));
        self.abandon_calls(Place::Agent(index));
        let machine = &mut self.machines[index];
        machine.held_back.clear();
        machine.asleep = None;
        let Some(life) = machine.life.take() else {
            return;
        };
        let agent = machine.key.id();
        let first = life.had.first().copied().unwrap_or(life.incarnation);
        for incarnation in life.had {
            let holder = Holder { agent, incarnation };
            self.log.note(self.now, self.now, Deed::Died { holder });
        }
        if told {
            self.close_sessions(index, life.incarnation);
            self.close_guards(index, first);
        }
    }

    /// The kernel tells every server that a session is over.
    pub(super) fn close_sessions(&mut self, index: usize, incarnation: Incarnation) {
        for server in 0..self.servers.len() {
            let message = Message::Closed { incarnation };
            self.send(Place::Agent(index), Place::Server(server), message);
        }
    }

    /// The kernel tells guardians and wards too.
    fn close_guards(&mut self, index: usize, incarnation: Incarnation) {
        for other in (0..self.machines.len()).filter(|other| *other != index) {
            let message = Message::Closed { incarnation };
            self.send(Place::Agent(index), Place::Agent(other), message);
        }
    }

    pub(super) fn sleeps(&self, index: usize) -> bool {
        self.machines[index].asleep.is_some()
    }

    /// Timers stand still while the machine sleeps.
    pub(super) fn hold_back(&mut self, index: usize, timer: Timer) {
        let machine = &mut self.machines[index];
        let rest = self.now.since(machine.asleep.unwrap_or(self.now));
        let (place, run) = (Place::Agent(index), machine.run);
        let later = Happening::Timer { place, run, timer };
        machine.held_back.push((rest, later));
    }

    pub(super) fn ring_agent(&mut self, index: usize, timer: Timer) {
        match timer {
            Timer::Wake(at) => {
                let life = self.machines[index].life.as_mut();
                if life.is_some_and(|life| life.wake == Some(at)) {
                    self.tell(index, Event::Tick);
                }
            }
            Timer::Introduce(tries) => self.introduce(index, tries),
            Timer::Deliver(key, tries) => self.deliver(index, &key, tries),
            Timer::Beat => self.beat(index),
            Timer::Guard(at) => self.guard_if_due(index, at),
            Timer::Attempt(key, step) => self.step_attempt(index, &key, step),
            _ => {}
        }
    }

    pub(super) fn reach_agent(&mut self, index: usize, from: Place, message: Message) {
        let machine = &mut self.machines[index];
        if machine.asleep.is_some() {
            let to = Place::Agent(index);
            let later = Happening::Arrive { from, to, message };
            return machine.held_back.push((Duration::ZERO, later));
        }
        let incarnation = machine.life.as_ref().map(|life| life.incarnation);
        match message {
            Message::Knock { incarnation: asked } if machine.has_power => {
                let found = match from {
                    Place::Agent(_) => self.process(index),
                    _ => incarnation,
                };
                self.send(Place::Agent(index), from, Message::Here { asked, found });
            }
            _ if incarnation.is_none() => {}
            message if let Place::Agent(other) = from => self.reach_guard(index, other, message),
            Message::Answer { call, answer } => self.answered(call, answer),
            Message::Poke { incarnation: of } if incarnation == Some(of) => {
                let store = self.store.clone();
                self.tell(index, Event::Poked { store });
            }
            Message::Closed { incarnation: of } if incarnation == Some(of) => {
                self.send(
                    Place::Agent(index),
                    from,
                    Message::Hello { incarnation: of },
                );
            }
            Message::Offer {
                jobs,
                need,
                recovered,
            } => self.offered(index, jobs, need, recovered),
            Message::Ad { jobs, need, idle } => {
                let store = self.store.clone();
                let jobs = jobs.into_iter().map(|job| AdvertisedJob {
                    job,
                    need: need.clone(),
                });
                let jobs = jobs.collect();
                self.tell(index, Event::Advertised { store, jobs, idle });
            }
            _ => {}
        }
    }

    fn offered(
        &mut self,
        index: usize,
        jobs: Vec<mutual_model::ids::JobId>,
        need: mutual_model::matching::Need,
        recovered: bool,
    ) {
        let Some(life) = self.machines[index].life.as_mut() else {
            return;
        };
        life.offers += 1;
        let event = Event::Offered {
            offer: OfferId(life.offers),
            store: self.store.clone(),
            jobs,
            need,
            ahead: recovered,
        };
        self.tell(index, event);
    }

    /// Feeds the core and carries out what it decides.
    pub(super) fn tell(&mut self, index: usize, event: Event) {
        let machine = &mut self.machines[index];
        let time = machine.time(self.now);
        let Some(life) = machine.life.as_mut() else {
            return;
        };
        self.log
            .say(self.now, || format!("agent {index} hears {event:?}"));
        let actions = life.core.handle(time, event);
        for action in actions {
            self.log
                .say(self.now, || format!("agent {index} wants {action:?}"));
            self.perform(index, action);
        }
        if let Some(life) = self.machines[index].life.as_mut() {
            life.grants.clear();
        }
        self.plan_wake(index);
    }

    fn plan_wake(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        let origin = machine.origin;
        let Some(life) = machine.life.as_mut() else {
            return;
        };
        let due = life.core.next_wake();
        let due = due.map(|due| Timestamp(due.0.saturating_sub(origin)).max(self.now));
        let look = (!life.attempts.is_empty()).then(|| self.now.after(LOOK_AT_CLOCK_EVERY));
        let next = [due, look].into_iter().flatten().min();
        life.wake = next;
        if let Some(at) = next {
            self.timer(Place::Agent(index), at.since(self.now), Timer::Wake(at));
        }
    }

    fn perform(&mut self, index: usize, action: Action) {
        let place = Place::Agent(index);
        match action {
            Action::Claim {
                incarnation,
                nonce,
                scope,
                offer,
                ..
            } => {
                let scope = match scope {
                    Scope::Any => ClaimScope::Any,
                    Scope::Jobs(jobs) => ClaimScope::Jobs(jobs),
                };
                let request = ClaimRequest {
                    incarnation,
                    nonce,
                    scope,
                    offer,
                    agent_url: String::new(),
                };
                self.ask(
                    place,
                    Request::Claim(request),
                    Purpose::Claim(nonce, incarnation),
                );
            }
            Action::Renew {
                incarnation,
                held,
                complete,
                ..
            } => {
                let request = RenewRequest {
                    incarnation,
                    held,
                    complete,
                };
                self.ask(place, Request::Renew(request), Purpose::Renew(incarnation));
            }
            Action::Release { key, claim, reason } => {
                let request = ReleaseRequest { claim, reason };
                self.ask(place, Request::Release(request), Purpose::Release(key));
            }
            Action::Prepare { key, .. } => self.prepare(index, key),
            Action::Discard { key } => self.discard(index, &key),
            Action::Answer { .. } | Action::Quiet => {}
            order => self.order(index, order),
        }
    }

    fn prepare(&mut self, index: usize, key: RunKey) {
        let life = self.machines[index].life.as_mut();
        if let Some(grant) = life.and_then(|life| life.grants.remove(&key)) {
            self.begin_attempt(index, key, grant);
        }
    }

    pub(super) fn agent_answered(
        &mut self,
        index: usize,
        purpose: Purpose,
        answer: StoreResult<Reply>,
    ) {
        match purpose {
            Purpose::Claim(nonce, asked) => self.claim_answered(index, (nonce, asked), answer),
            Purpose::Renew(asked) => {
                let reply = Self::expect(answer, renewed).map(|reply| Renewed {
                    held: reply.held,
                    lost: reply.lost,
                    checkpoint_wanted: reply.checkpoint_wanted,
                    state: reply.state,
                    lease: Duration::from_millis(reply.lease_ms),
                });
                let reply = reply.map_err(|error| self.trouble(index, asked, &error));
                let store = self.store.clone();
                self.tell(index, Event::Renewed { store, reply });
            }
            Purpose::Checkpoint(key) => {
                if matches!(answer, Err(StoreError::Fenced { .. })) {
                    self.tell(index, Event::Fenced { key: key.clone() });
                }
                let saved = answer.is_ok();
                self.tell(index, Event::Checkpointed { key, saved });
            }
            Purpose::Vote(agent, incarnation) => {
                self.vote_answered(index, (agent, incarnation), answer);
            }
            Purpose::Release(key) => self.tell(index, Event::Released { key }),
            Purpose::Finish(key, tries) => self.finish_answered(index, key, tries, answer),
            Purpose::Leftover(key) => self.leftover_answered(index, &key, answer),
            Purpose::Supersede(tries) => self.supersede_answered(index, tries, answer),
            _ => {}
        }
    }

    fn claim_answered(
        &mut self,
        index: usize,
        (nonce, asked): (mutual_model::ids::Nonce, Incarnation),
        answer: StoreResult<Reply>,
    ) {
        let store = self.store.clone();
        let reply = match Self::expect(answer, claimed) {
            Ok(reply) => {
                let grants = reply.grants.iter().map(|grant| Grant {
                    claim: grant.claim,
                    namespace: grant.namespace.clone(),
                    spec: grant.spec.clone(),
                });
                let seen = Claimed {
                    grants: grants.collect(),
                    lease: Duration::from_millis(reply.lease_ms),
                };
                if let Some(life) = self.machines[index].life.as_mut() {
                    let keyed = reply.grants.into_iter();
                    let keyed = keyed.map(|grant| (RunKey::of(&store, &grant.claim), grant));
                    life.grants.extend(keyed);
                }
                Ok(seen)
            }
            Err(error) => Err(self.trouble(index, asked, &error)),
        };
        let event = Event::Claimed {
            nonce,
            store,
            reply,
        };
        self.tell(index, event);
    }

    /// The core's view of a refusal, as `mutual_node::agent::stores` has it.
    fn trouble(&mut self, index: usize, asked: Incarnation, error: &StoreError) -> Trouble {
        match error {
            StoreError::IncarnationRevoked => Trouble::Revoked {
                fresh: self.renew_incarnation(index, asked),
            },
            StoreError::Unknown(_) => Trouble::Unknown,
            StoreError::Unavailable(_) => Trouble::Unavailable { after: None },
            _ => Trouble::Refused,
        }
    }

    /// A later incarnation than the one that was refused; a second refusal of one gives the same.
    pub(super) fn renew_incarnation(&mut self, index: usize, refused: Incarnation) -> Incarnation {
        let now = self.now;
        let machine = &mut self.machines[index];
        let current = machine.life.as_ref().map(|life| life.incarnation);
        if let Some(current) = current.filter(|current| *current > refused) {
            return current;
        }
        let fresh = machine.next_incarnation(now);
        if let Some(life) = machine.life.as_mut() {
            life.incarnation = fresh;
            life.had.push(fresh);
        }
        self.say_hello(index);
        self.entrust_again(index);
        fresh
    }

    pub(super) fn say_hello(&mut self, index: usize) {
        let Some(life) = &self.machines[index].life else {
            return;
        };
        let incarnation = life.incarnation;
        for server in 0..self.servers.len() {
            let message = Message::Hello { incarnation };
            self.send(Place::Agent(index), Place::Server(server), message);
        }
    }

    /// Lets a machine wake up: what waited for it is due now, or as much later as it slept.
    pub(super) fn wake_up(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        let Some(since) = machine.asleep.take() else {
            return;
        };
        let agent = machine.key.id();
        for (after, happening) in std::mem::take(&mut machine.held_back) {
            self.later(after, happening);
        }
        self.log.note(since, self.now, Deed::Slept { agent });
        self.thaw(index);
    }
}

fn times(slots: u32) -> Resources {
    (0..slots).fold(Resources::ZERO, |sum, _| sum.saturating_add(&NEED))
}
