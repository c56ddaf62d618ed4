//! Guardians: every agent watches others, is watched by its nearest, and votes when one is gone.

use std::time::Duration;

use mutual_demand::{Revocation, StoreError, StoreResult, Verdict};
use mutual_model::guardian::{
    Answer, Beat, Cause, Charge, Circle, CircleAction, CircleConfig, CircleEvent, Loss, Silence,
    StateHash, Watcher, WatcherAction, WatcherConfig, WatcherEvent,
};
use mutual_model::identity::NodeId;
use mutual_model::ids::Incarnation;
use mutual_model::time::{Timestamp, millis};

use super::calls::{Purpose, revoked};
use super::wire::{Message, Place, Reply, Request};
use super::{Timer, World};

/// Few beats, since each of them is a step of every world; silence is still judged within a lease.
const SILENCE: Silence = Silence {
    interval: Duration::from_millis(250),
    phi: 8.0,
    least: Duration::from_millis(800),
    most: Duration::from_millis(1_300),
};

/// The two cores of one agent.
#[derive(Debug)]
pub(super) struct Guards {
    watcher: Watcher,
    circle: Circle,
    beats: u64,
    wake: Option<Timestamp>,
}

impl Guards {
    pub(super) fn new(own: NodeId) -> Self {
        let circle = CircleConfig {
            avoid_for: Duration::from_secs(3),
            ..CircleConfig::default()
        };
        Self {
            watcher: Watcher::new(WatcherConfig::default()),
            circle: Circle::new(own, circle),
            beats: 0,
            wake: None,
        }
    }
}

impl World {
    pub(super) fn start_guarding(&mut self, index: usize) {
        self.guard(index);
        self.timer(Place::Agent(index), SILENCE.interval, Timer::Beat);
    }

    /// Lets time pass for both cores.
    pub(super) fn guard(&mut self, index: usize) {
        self.tell_circle(index, CircleEvent::Tick);
        self.tell_watcher(index, WatcherEvent::Tick);
    }

    pub(super) fn guard_if_due(&mut self, index: usize, at: Timestamp) {
        let life = self.machines[index].life.as_ref();
        if life.is_some_and(|life| life.guards.wake == Some(at)) {
            self.guard(index);
        }
    }

    fn plan_guard(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        let origin = machine.origin;
        let Some(life) = machine.life.as_mut() else {
            return;
        };
        let circle = life.guards.circle.next_wake();
        let next = life.guards.watcher.next_wake();
        let next = next.map_or(circle, |watcher| watcher.min(circle));
        let next = Timestamp(next.0.saturating_sub(origin)).max(self.now);
        let at = next.max(self.now.after(Duration::from_millis(1)));
        if life.guards.wake != Some(at) {
            life.guards.wake = Some(at);
            self.timer(Place::Agent(index), at.since(self.now), Timer::Guard(at));
        }
    }

    fn index_of(&self, node: NodeId) -> Option<usize> {
        let mut machines = self.machines.iter();
        machines.position(|machine| machine.key.id() == node)
    }

    fn tell_circle(&mut self, index: usize, event: CircleEvent) {
        let machine = &mut self.machines[index];
        let time = machine.time(self.now);
        let Some(life) = machine.life.as_mut() else {
            return;
        };
        for action in life.guards.circle.handle(time, event) {
            match action {
                CircleAction::Ask { guardian } => self.entrust(index, guardian),
                CircleAction::Dismiss { guardian } => {
                    let run = self.process(index);
                    if let (Some(to), Some(run)) = (self.index_of(guardian), run) {
                        let farewell = Message::Farewell { run };
                        self.send(Place::Agent(index), Place::Agent(to), farewell);
                    }
                }
                CircleAction::Look => {
                    let all = self.machines.iter().map(|machine| machine.key.id());
                    let found = CircleEvent::Found(all.collect());
                    self.tell_circle(index, found);
                }
            }
        }
        self.plan_guard(index);
    }

    /// The run of an agent's process, as guardians know it.
    pub(super) fn process(&self, index: usize) -> Option<Incarnation> {
        self.machines[index].life.as_ref()?.had.first().copied()
    }

    fn entrust(&mut self, index: usize, guardian: NodeId) {
        let Some(to) = self.index_of(guardian) else {
            return;
        };
        let machine = &self.machines[index];
        let (Some(life), Some(run)) = (&machine.life, self.process(index)) else {
            return;
        };
        let charge = Charge {
            agent: machine.key.id(),
            run,
            stores: [(self.store.clone(), life.incarnation)].into(),
            silence: SILENCE,
        };
        let message = Message::Watch(Box::new(charge));
        self.send(Place::Agent(index), Place::Agent(to), message);
    }

    /// Tells the guardians of a new incarnation.
    pub(super) fn entrust_again(&mut self, index: usize) {
        let life = self.machines[index].life.as_ref();
        let watching = life.map(|life| life.guards.circle.watching().collect::<Vec<_>>());
        for guardian in watching.unwrap_or_default() {
            self.entrust(index, guardian);
        }
    }

    pub(super) fn beat(&mut self, index: usize) {
        self.timer(Place::Agent(index), SILENCE.interval, Timer::Beat);
        let run = self.process(index);
        let life = self.machines[index].life.as_mut();
        let (Some(life), Some(run)) = (life, run) else {
            return;
        };
        life.guards.beats += 1;
        let beat = Beat {
            run,
            sequence: life.guards.beats,
            state: StateHash::default(),
        };
        let guardians: Vec<_> = life.guards.circle.watching().collect();
        for guardian in guardians {
            let Some(to) = self.index_of(guardian) else {
                continue;
            };
            self.send(Place::Agent(index), Place::Agent(to), Message::Beat(beat));
        }
    }

    /// What one agent's process hears of another's.
    pub(super) fn reach_guard(&mut self, index: usize, from: usize, message: Message) {
        let agent = self.machines[from].key.id();
        match message {
            Message::Watch(charge) => {
                let life = self.machines[index].life.as_ref();
                let accepted = life.is_some_and(|life| life.guards.watcher.has_place_for(&agent));
                self.tell_watcher(index, WatcherEvent::Entrusted(*charge));
                let answer = Message::Watched { accepted };
                self.send(Place::Agent(index), Place::Agent(from), answer);
            }
            Message::Watched { accepted } => {
                let guardian = agent;
                self.tell_circle(index, CircleEvent::Answered { guardian, accepted });
            }
            Message::Beat(beat) => self.tell_watcher(index, WatcherEvent::Beat { agent, beat }),
            Message::Farewell { run } => self.lost(index, agent, run, Loss::Over),
            Message::Closed { incarnation } => {
                self.tell_circle(index, CircleEvent::Lost { guardian: agent });
                let knock = Message::Knock { incarnation };
                self.send(Place::Agent(index), Place::Agent(from), knock);
            }
            Message::Here { asked, found: None } => self.lost(index, agent, asked, Loss::Refused),
            Message::Here { asked, found } if found != Some(asked) => {
                self.lost(index, agent, asked, Loss::Over);
            }
            _ => {}
        }
    }

    fn lost(&mut self, index: usize, agent: NodeId, run: Incarnation, loss: Loss) {
        self.tell_watcher(index, WatcherEvent::Lost { agent, run, loss });
    }

    fn tell_watcher(&mut self, index: usize, event: WatcherEvent) {
        let machine = &mut self.machines[index];
        let time = machine.time(self.now);
        let Some(life) = machine.life.as_mut() else {
            return;
        };
        for action in life.guards.watcher.handle(time, event) {
            let verdict = match action {
                WatcherAction::Verdict {
                    agent,
                    incarnation,
                    cause,
                    silent_for,
                    ..
                } => (agent, incarnation, cause, silent_for),
                WatcherAction::Forget { .. } => continue,
            };
            self.vote(index, verdict);
        }
        self.plan_guard(index);
    }

    fn vote(
        &mut self,
        index: usize,
        (agent, incarnation, cause, silent_for): (NodeId, Incarnation, Cause, Duration),
    ) {
        let (verdict, silent_ms) = match cause {
            Cause::Closed => (Verdict::Closed, 0),
            Cause::Silent => (Verdict::Silent, millis(silent_for)),
        };
        let revocation = Revocation {
            agent,
            incarnation,
            verdict,
            silent_ms,
            nonce: self.nonce(),
        };
        self.log.say(self.now, || {
            format!("guardian {index} votes {revocation:?}")
        });
        let purpose = Purpose::Vote(agent, incarnation);
        self.ask(Place::Agent(index), Request::Revoke(revocation), purpose);
    }

    pub(super) fn vote_answered(
        &mut self,
        index: usize,
        (agent, incarnation): (NodeId, Incarnation),
        answer: StoreResult<Reply>,
    ) {
        let answer = match Self::expect(answer, revoked) {
            Ok(reply) if reply.revoked => Answer::Settled,
            Ok(_) => Answer::Counted,
            Err(StoreError::HeardFrom { heard_ms_ago }) => {
                Answer::Heard(Duration::from_millis(heard_ms_ago))
            }
            Err(error) if error.is_retryable() => Answer::Failed,
            Err(_) => Answer::Settled,
        };
        let event = WatcherEvent::Answered {
            agent,
            store: self.store.clone(),
            incarnation,
            answer,
        };
        self.tell_watcher(index, event);
    }
}
