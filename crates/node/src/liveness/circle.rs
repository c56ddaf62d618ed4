//! An agent's driver for its circle of guardians: finding them, and beating for them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mutual_model::agent::StoreUrl;
use mutual_model::guardian::{
    Beat, Circle, CircleAction, CircleConfig, CircleEvent, Silence, StateHash,
};
use mutual_model::identity::{NodeId, PublicKey};
use mutual_model::ids::Incarnation;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;

use super::entrust::{Entrust, encode};
use super::guard::accepted_port;
use super::metrics::GuardianMetrics;
use super::pulse::Pulse;
use super::session::{AgentDoor, Guarded};
use super::wire::Pass;
use crate::clock;

/// Events that wait for the loop.
const EVENTS_MAX: usize = 256;
/// How long a guardian may take to open its session.
const OPEN_WITHIN: Duration = Duration::from_secs(2);
/// How long a broken session may take to be restored.
const RESTORE_WITHIN: Duration = Duration::from_millis(500);

/// A node that may be asked to watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its key.
    pub key: PublicKey,
    /// Its discovery address.
    pub address: SocketAddr,
}

/// The way to possible guardians.
#[async_trait]
pub trait Vicinity: Send + Sync + std::fmt::Debug {
    /// Agents nearby, as far as known.
    async fn agents(&self) -> Vec<Candidate>;

    /// Asks one to watch; its answer, if one came.
    async fn ask(&self, candidate: Candidate, question: Vec<u8>) -> Option<Vec<u8>>;
}

/// What an agent tells its guardians.
#[derive(Debug, Clone)]
pub struct Ward {
    /// Its id.
    pub id: NodeId,
    /// The run of its process.
    pub run: Incarnation,
    /// How often it beats, and how its silence is judged.
    pub silence: Silence,
    /// How many guardians it wants.
    pub guardians: usize,
    /// The stores it works for, and the incarnation by which each knows it.
    pub stores: watch::Receiver<BTreeMap<StoreUrl, Incarnation>>,
    /// What it holds.
    pub state: watch::Receiver<StateHash>,
}

/// Where one guardian hears beats.
#[derive(Debug)]
struct Member {
    candidate: Candidate,
    pass: Pass,
    /// None until it accepted.
    beats: Option<SocketAddr>,
    _follow: AbortOnDropHandle<()>,
}

/// What reaches the loop.
enum Input {
    Core(CircleEvent),
    Found(Vec<Candidate>),
    Accepted {
        guardian: NodeId,
        pass: Pass,
        beats: u16,
    },
}

struct Driver {
    core: Circle,
    ward: Ward,
    door: AgentDoor,
    pulse: Arc<Pulse>,
    vicinity: Arc<dyn Vicinity>,
    known: BTreeMap<NodeId, Candidate>,
    members: BTreeMap<NodeId, Member>,
    inputs: mpsc::Sender<Input>,
    sequence: u64,
    metrics: GuardianMetrics,
}

/// Keeps guardians and beats for them until the future is dropped.
pub(super) async fn run(
    ward: Ward,
    door: AgentDoor,
    pulse: Arc<Pulse>,
    vicinity: Arc<dyn Vicinity>,
    metrics: GuardianMetrics,
) {
    let (inputs, received) = mpsc::channel(EVENTS_MAX);
    let config = CircleConfig {
        size: ward.guardians,
        ..CircleConfig::default()
    };
    let driver = Driver {
        core: Circle::new(ward.id, config),
        ward,
        door,
        pulse,
        vicinity,
        known: BTreeMap::new(),
        members: BTreeMap::new(),
        inputs,
        sequence: 0,
        metrics,
    };
    driver.run(received).await;
}

impl Driver {
    async fn run(mut self, mut received: mpsc::Receiver<Input>) {
        let mut stores = self.ward.stores.clone();
        // Without a store there is nothing to recover.
        if stores.wait_for(|stores| !stores.is_empty()).await.is_err() {
            return;
        }
        let mut beats = tokio::time::interval(self.ward.silence.interval);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wake = self.core.next_wake().since(clock::now());
            tokio::select! {
                biased;
                due = beats.tick() => {
                    self.pulse.is_late(due.elapsed());
                    self.beat();
                }
                Some(input) = received.recv() => self.take_in(input),
                changed = stores.changed() => match changed {
                    Ok(()) => self.tell_all(),
                    Err(_) => return,
                },
                () = tokio::time::sleep(wake) => self.handle(CircleEvent::Tick),
            }
        }
    }

    fn beat(&mut self) {
        self.sequence += 1;
        let beat = Beat {
            run: self.ward.run,
            sequence: self.sequence,
            state: *self.ward.state.borrow(),
        };
        for member in self.members.values() {
            if let Some(address) = member.beats {
                self.pulse.send(&member.candidate.key, address, &beat);
                self.metrics.sent();
            }
        }
    }

    fn take_in(&mut self, input: Input) {
        match input {
            Input::Core(event) => self.handle(event),
            Input::Found(found) => {
                let by_id = |candidate: Candidate| (candidate.key.node_id(), candidate);
                self.known = found.into_iter().map(by_id).collect();
                let nodes = self.known.keys().copied().collect();
                self.handle(CircleEvent::Found(nodes));
            }
            Input::Accepted {
                guardian,
                pass,
                beats,
            } => {
                let member = self.members.get_mut(&guardian);
                if let Some(member) = member.filter(|member| member.pass == pass) {
                    member.beats = Some(SocketAddr::new(member.candidate.address.ip(), beats));
                }
                let accepted = true;
                self.handle(CircleEvent::Answered { guardian, accepted });
            }
        }
    }

    fn handle(&mut self, event: CircleEvent) {
        for action in self.core.handle(clock::now(), event) {
            match action {
                CircleAction::Ask { guardian } => self.ask(guardian),
                // Forgotten below, with the pass that opens its session.
                CircleAction::Dismiss { .. } => {}
                CircleAction::Look => self.look(),
            }
        }
        self.members.retain(|guardian, _| self.core.has(guardian));
        self.metrics.guardians(self.core.watching().count());
    }

    fn look(&self) {
        let (vicinity, inputs) = (Arc::clone(&self.vicinity), self.inputs.clone());
        tokio::spawn(async move {
            // The loop is gone only when the agent stops.
            let _ = inputs.send(Input::Found(vicinity.agents().await)).await;
        });
    }

    fn ask(&mut self, guardian: NodeId) {
        let Some(candidate) = self.known.get(&guardian).copied() else {
            let accepted = false;
            return self.handle(CircleEvent::Answered { guardian, accepted });
        };
        let pass: Pass = rand::random();
        let guarded = self.door.expect(pass, self.ward.run);
        let follow = follow(guarded, guardian, self.inputs.clone());
        let member = Member {
            candidate,
            pass,
            beats: None,
            _follow: AbortOnDropHandle::new(tokio::spawn(follow)),
        };
        self.members.insert(guardian, member);
        self.put(guardian, candidate, pass);
    }

    /// Puts the question to one node.
    fn put(&self, guardian: NodeId, candidate: Candidate, pass: Pass) {
        let question = {
            let stores = self.ward.stores.borrow();
            let port = self.door.address().port();
            Entrust::new(self.ward.run, port, pass, &stores, &self.ward.silence)
        };
        let (vicinity, inputs) = (Arc::clone(&self.vicinity), self.inputs.clone());
        tokio::spawn(async move {
            let Some(question) = encode(&question) else {
                return;
            };
            let answer = vicinity.ask(candidate, question).await;
            let input = match answer.as_deref().and_then(accepted_port) {
                Some(beats) => Input::Accepted {
                    guardian,
                    pass,
                    beats,
                },
                None => Input::Core(CircleEvent::Answered {
                    guardian,
                    accepted: false,
                }),
            };
            // The loop is gone only when the agent stops.
            let _ = inputs.send(input).await;
        });
    }

    /// Tells every guardian what has changed.
    fn tell_all(&self) {
        for (guardian, member) in &self.members {
            self.put(*guardian, member.candidate, member.pass);
        }
    }
}

/// Watches over a guardian's session and tells when it is gone for good.
async fn follow(mut guarded: Guarded, guardian: NodeId, inputs: mpsc::Sender<Input>) {
    let mut within = OPEN_WITHIN;
    while let Ok(true) = tokio::time::timeout(within, guarded.becomes(true)).await {
        if !guarded.becomes(false).await {
            break;
        }
        within = RESTORE_WITHIN;
    }
    // The loop is gone only when the agent stops.
    let _ = inputs
        .send(Input::Core(CircleEvent::Lost { guardian }))
        .await;
}
