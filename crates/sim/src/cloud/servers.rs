//! Demand servers: sessions and verdicts, sweeps, offers, and the way to the database.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mutual_demand::{JobView, Revocation, StoreError, StoreResult, Verdict};
use mutual_model::ids::Incarnation;
use mutual_model::matching::Need;
use mutual_model::requeue::{Action, Event, Pace, Sweeper};
use rand::RngExt as _;

use super::calls::{Purpose, swept};
use super::wire::{Message, Place, Reply, Request};
use super::{Timer, World};

/// As `mutual_node::demand_service::verdicts`.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);
/// As `mutual_node::liveness::WatchConfig`.
const DIAL_WITHIN: Duration = Duration::from_millis(500);
const OFFER_PAUSE: Duration = Duration::from_millis(20);
/// Share of jobs that are advertised beside being offered.
const ADVERTISED: f64 = 0.2;

/// One demand server.
#[derive(Debug)]
pub(super) struct Server {
    /// Counts its processes.
    pub(super) run: u32,
    pub(super) is_up: bool,
    sessions: BTreeSet<(usize, Incarnation)>,
    /// Agents that are dialled back.
    knocking: BTreeMap<usize, Incarnation>,
    sweeper: Sweeper,
    seed: u64,
    offering: bool,
}

impl Server {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            run: 0,
            is_up: true,
            sessions: BTreeSet::new(),
            knocking: BTreeMap::new(),
            sweeper: sweeper(seed),
            seed,
            offering: false,
        }
    }
}

fn sweeper(seed: u64) -> Sweeper {
    let pace = Pace {
        most: Duration::from_secs(1),
        ..Pace::default()
    };
    Sweeper::new(pace, seed)
}

impl World {
    pub(super) fn kill_server(&mut self, index: usize) {
        self.abandon_calls(Place::Server(index));
        let server = &mut self.servers[index];
        server.is_up = false;
        server.run += 1;
        for (machine, incarnation) in std::mem::take(&mut server.sessions) {
            let message = Message::Closed { incarnation };
            self.send(Place::Server(index), Place::Agent(machine), message);
        }
    }

    pub(super) fn start_server(&mut self, index: usize) {
        let server = &mut self.servers[index];
        server.is_up = true;
        server.knocking.clear();
        server.offering = false;
        server.sweeper = sweeper(server.seed + u64::from(server.run));
        self.timer(Place::Server(index), Duration::ZERO, Timer::Sweep);
    }

    pub(super) fn reach_server(&mut self, index: usize, from: Place, message: Message) {
        if !self.servers[index].is_up {
            if let Message::Ask { call, .. } = message {
                let answer = Err(StoreError::Unavailable("nobody listens".to_owned()));
                self.send(Place::Server(index), from, Message::Answer { call, answer });
            }
            return;
        }
        match (message, from) {
            (Message::Ask { call, request, .. }, from) => self.forward(index, from, call, request),
            (Message::Answer { call, answer }, _) => self.answered(call, answer),
            (Message::Hello { incarnation }, Place::Agent(machine)) => {
                self.servers[index].sessions.insert((machine, incarnation));
            }
            (Message::Closed { incarnation }, Place::Agent(machine)) => {
                self.dial_back(index, machine, incarnation);
            }
            (Message::Here { asked, found }, Place::Agent(machine)) => {
                self.heard_back(index, machine, asked, found);
            }
            _ => {}
        }
    }

    fn dial_back(&mut self, index: usize, machine: usize, incarnation: Incarnation) {
        let server = &mut self.servers[index];
        if !server.sessions.remove(&(machine, incarnation)) {
            return;
        }
        server.knocking.insert(machine, incarnation);
        let knock = Message::Knock { incarnation };
        self.send(Place::Server(index), Place::Agent(machine), knock);
        let unheard = Timer::Unheard(machine, incarnation);
        self.timer(Place::Server(index), DIAL_WITHIN, unheard);
    }

    fn heard_back(
        &mut self,
        index: usize,
        machine: usize,
        asked: Incarnation,
        found: Option<Incarnation>,
    ) {
        let server = &mut self.servers[index];
        if server.knocking.get(&machine) != Some(&asked) {
            return;
        }
        server.knocking.remove(&machine);
        if let Some(found) = found {
            server.sessions.insert((machine, found));
        }
        // Refused, or a later run answers: the process is gone.
        if found != Some(asked) {
            self.judge(index, machine, asked, 0);
        }
    }

    fn judge(&mut self, index: usize, machine: usize, incarnation: Incarnation, tries: u32) {
        let verdict = Revocation {
            agent: self.machines[machine].key.id(),
            incarnation,
            verdict: Verdict::Closed,
            silent_ms: 0,
            nonce: self.nonce(),
        };
        let purpose = Purpose::Verdict(machine, incarnation, tries);
        self.ask(Place::Server(index), Request::Revoke(verdict), purpose);
    }

    pub(super) fn ring_server(&mut self, index: usize, timer: Timer) {
        match timer {
            Timer::Sweep => self.sweep(index, Event::Tick),
            Timer::Offer => {
                self.servers[index].offering = false;
                self.ask(Place::Server(index), Request::Queued, Purpose::Queued);
            }
            Timer::Unheard(machine, incarnation) => {
                let knocking = &mut self.servers[index].knocking;
                if knocking.get(&machine) == Some(&incarnation) {
                    // It may live behind a broken network: its leases decide.
                    knocking.remove(&machine);
                    self.sweep(index, Event::Alarm);
                }
            }
            Timer::Judge(machine, incarnation, tries) => {
                self.judge(index, machine, incarnation, tries);
            }
            _ => {}
        }
    }

    fn sweep(&mut self, index: usize, event: Event) {
        let now = self.now;
        let sweeper = &mut self.servers[index].sweeper;
        let actions = sweeper.handle(now, event);
        let wake = sweeper.next_wake();
        for Action::Sweep { limit } in actions {
            self.ask(
                Place::Server(index),
                Request::Requeue(limit),
                Purpose::Sweep,
            );
        }
        if let Some(wake) = wake {
            let nap = wake.since(now).max(Duration::from_millis(1));
            self.timer(Place::Server(index), nap, Timer::Sweep);
        }
    }

    pub(super) fn server_answered(
        &mut self,
        index: usize,
        purpose: Purpose,
        answer: StoreResult<Reply>,
    ) {
        if let Ok(reply) = &answer {
            self.notice_queued(index, reply);
        }
        match purpose {
            Purpose::Sweep => {
                let event = match Self::expect(answer, swept) {
                    Ok(report) => Event::Swept {
                        changed: u32::try_from(report.requeued.len()).unwrap_or(u32::MAX),
                        next: Duration::from_millis(report.next_ms),
                    },
                    Err(_) => Event::Failed,
                };
                self.sweep(index, event);
            }
            Purpose::Verdict(machine, incarnation, tries) => {
                let is_open = answer.is_err_and(|error| error.is_retryable());
                if is_open && tries + 1 < TRIES {
                    let again = Timer::Judge(machine, incarnation, tries + 1);
                    let pause = PAUSE * 2_u32.saturating_pow(tries);
                    self.timer(Place::Server(index), pause, again);
                }
                self.sweep(index, Event::Alarm);
            }
            Purpose::Queued => {
                if let Ok(Reply::Views(views)) = answer {
                    self.offer(index, &views);
                }
            }
            _ => {}
        }
    }

    /// Looks for jobs to offer when an answer says that there may be some.
    pub(super) fn notice_queued(&mut self, index: usize, reply: &Reply) {
        let may_have_queued = match reply {
            Reply::Submitted(_) | Reply::Done => true,
            Reply::Finished(reply) => !reply.state.is_terminal(),
            Reply::Revoked(reply) => !reply.requeued.is_empty(),
            Reply::Swept(report) => !report.requeued.is_empty(),
            _ => false,
        };
        let server = &mut self.servers[index];
        if may_have_queued && !server.offering {
            server.offering = true;
            let pause = self.up_to(OFFER_PAUSE);
            self.timer(Place::Server(index), pause, Timer::Offer);
        }
        if let Reply::View(view) = reply {
            self.poke(index, view);
        }
    }

    /// Tells the holder of a job that its user did something to it.
    fn poke(&mut self, index: usize, view: &JobView) {
        let Some(last) = view.attempts.last() else {
            return;
        };
        let machines = self.machines.iter();
        let holder = machines
            .enumerate()
            .find(|(_, m)| m.key.id() == last.holder.agent);
        if let Some((machine, _)) = holder {
            let incarnation = last.holder.incarnation;
            let poke = Message::Poke { incarnation };
            self.send(Place::Server(index), Place::Agent(machine), poke);
        }
    }

    fn offer(&mut self, index: usize, views: &[JobView]) {
        let sessions = &self.servers[index].sessions;
        let agents: BTreeSet<_> = sessions.iter().map(|(machine, _)| *machine).collect();
        let agents: Vec<_> = agents.into_iter().collect();
        if agents.is_empty() {
            return;
        }
        for view in views {
            let need = Need::from(&view.spec);
            let chosen = agents[self.random.random_range(0..agents.len())];
            let offer = Message::Offer {
                jobs: vec![view.id],
                need: need.clone(),
                recovered: view.has_lost_holder(),
            };
            self.send(Place::Server(index), Place::Agent(chosen), offer);
            if self.random.random_bool(ADVERTISED) {
                let idle = u32::try_from(agents.len()).unwrap_or(1);
                let ad = Message::Ad {
                    jobs: vec![view.id],
                    need,
                    idle,
                };
                for machine in &agents {
                    self.send(Place::Server(index), Place::Agent(*machine), ad.clone());
                }
            }
        }
    }

    /// Somebody with the right to do so declares an agent silent.
    pub(super) fn slander(&mut self, machine: usize) {
        let Some(life) = &self.machines[machine].life else {
            return;
        };
        let incarnation = life.incarnation;
        let verdict = Revocation {
            agent: self.machines[machine].key.id(),
            incarnation,
            verdict: Verdict::Silent,
            silent_ms: self.random.random_range(0..=200),
            nonce: self.nonce(),
        };
        let server = self.random.random_range(0..self.servers.len());
        let purpose = Purpose::Slander;
        self.ask(Place::Server(server), Request::Revoke(verdict), purpose);
    }
}
