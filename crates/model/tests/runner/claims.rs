//! Claim, renew, revoke, finish and failover in every order that bounds allow (model checking).
//!
//! Agents and one store with a standby, over a network that loses, repeats and reorders: a message
//! once sent may arrive at any later moment, any number of times, or never. Time goes in ticks. The
//! store answers when its standby has what it wrote; a failover goes on from the standby alone. The
//! rules of fences and of a job's life are those of `mutual_model`.
//!
//! [`Rules`] has a switch for each rule. With all of them on, no order breaks a property; with one
//! off, the checker finds an order that does, which shows that the properties can fail.

#[path = "claims/agents.rs"]
mod agents;
#[path = "claims/properties.rs"]
mod properties;
#[path = "claims/store.rs"]
mod store;

use std::collections::BTreeSet;

use mutual_model::lease::Fence;
use stateright::{Checker as _, HasDiscoveries, Model, Property};

use agents::Agent;
use store::Store;

/// Length of a lease, in ticks.
const LEASE: u8 = 2;

/// An agent, by number.
type Who = u8;
/// One run of one agent.
type Run = (Who, u8);

/// What proves a claim: its fence and the nonce that its agent chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Token {
    fence: Fence,
    nonce: (Run, u8),
}

/// A message between an agent and the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Message {
    Claim {
        nonce: (Run, u8),
        job: u8,
        sent: u8,
    },
    Renew {
        run: Run,
        job: u8,
        token: Token,
        sent: u8,
    },
    Finish {
        job: u8,
        token: Token,
        well: bool,
    },
    Granted {
        job: u8,
        token: Token,
        sent: u8,
    },
    Renewed {
        job: u8,
        token: Token,
        sent: u8,
    },
    Finished {
        job: u8,
        token: Token,
        ended: bool,
        well: bool,
    },
    Lost {
        job: u8,
        token: Token,
    },
}

/// What may happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    Tick,
    Ask(Who, u8),
    Renew(Who),
    Finish(Who, bool),
    Crash(Who),
    Deliver(Message),
    Replicate,
    Expire(u8),
    RevokeClosed(Run),
    RevokeSilent(Run),
    Failover,
}

/// Rules, each of which can be left out.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// A write needs the current fence and nonce.
    fenced: bool,
    /// An answer waits until the standby has what it tells of, repeats of a finish too.
    synchronous: bool,
    /// A failover begins an epoch.
    new_epoch: bool,
    /// After a failover nothing expires for one lease.
    grace: bool,
    /// An agent counts its lease from before it sent the request.
    from_sent: bool,
    /// A finish that is repeated gets its first answer.
    idempotent: bool,
    /// Only what has expired is queued again.
    expiry: bool,
}

const ALL_RULES: Rules = Rules {
    fenced: true,
    synchronous: true,
    new_epoch: true,
    grace: true,
    from_sent: true,
    idempotent: true,
    expiry: true,
};

/// How much may happen.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    jobs: u8,
    ticks: u8,
    asks: u8,
    crashes: u8,
    verdicts: u8,
    failovers: u8,
    /// Whether programs fail.
    failures: bool,
}

#[derive(Debug, Clone)]
struct World {
    rules: Rules,
    bounds: Bounds,
}

/// Everything there is at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Moment {
    now: u8,
    agents: [Agent; 2],
    store: Store,
    /// What was ever sent.
    sent: BTreeSet<Message>,
    crashes: u8,
    silenced: BTreeSet<Run>,
    verdicts: u8,
    failovers: u8,
    /// Fences in the order in which they were given, with the job, lost ones included.
    fences: Vec<(u8, Fence)>,
    /// Whether a word under an old fence ever changed a row.
    stale_effect: bool,
}

impl Model for World {
    type State = Moment;
    type Action = Step;

    fn init_states(&self) -> Vec<Moment> {
        vec![Moment {
            now: 0,
            agents: [Agent::new(0), Agent::new(1)],
            store: Store::new(self.bounds.jobs),
            sent: BTreeSet::new(),
            crashes: 0,
            silenced: BTreeSet::new(),
            verdicts: 0,
            failovers: 0,
            fences: Vec::new(),
            stale_effect: false,
        }]
    }

    fn actions(&self, moment: &Moment, steps: &mut Vec<Step>) {
        if moment.now < self.bounds.ticks {
            steps.push(Step::Tick);
        }
        for agent in &moment.agents {
            agent.steps(moment.now, &self.bounds, steps);
            if moment.crashes < self.bounds.crashes {
                steps.push(Step::Crash(agent.run.0));
            }
        }
        let arriving = moment.sent.iter().filter(|message| moment.matters(message));
        steps.extend(arriving.map(|message| Step::Deliver(*message)));
        self.store_steps(moment, steps);
    }

    fn next_state(&self, last: &Moment, step: Step) -> Option<Moment> {
        let mut next = last.clone();
        next.take(step, &self.rules);
        if next.failovers == self.bounds.failovers {
            // Nobody can tell any more how late the standby is.
            next.sent.extend(next.store.replicate());
        }
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

impl World {
    fn store_steps(&self, moment: &Moment, steps: &mut Vec<Step>) {
        if moment.store.is_ahead() {
            steps.push(Step::Replicate);
        }
        let jobs = 0..self.bounds.jobs;
        let due = jobs.filter(|job| moment.store.may_expire(*job, moment.now, &self.rules));
        steps.extend(due.map(Step::Expire));
        if moment.verdicts < self.bounds.verdicts {
            for agent in &moment.agents {
                steps.push(Step::RevokeSilent(agent.run));
                if let Some(former) = agent.run.1.checked_sub(1) {
                    steps.push(Step::RevokeClosed((agent.run.0, former)));
                }
            }
        }
        if moment.failovers < self.bounds.failovers {
            steps.push(Step::Failover);
        }
    }
}

impl Moment {
    /// Whether a message can still change anything: the others are not delivered, to keep the
    /// number of orders small.
    fn matters(&self, message: &Message) -> bool {
        match message {
            Message::Claim { .. } | Message::Renew { .. } | Message::Finish { .. } => true,
            Message::Granted { token, .. }
            | Message::Renewed { token, .. }
            | Message::Lost { token, .. }
            | Message::Finished { token, .. } => {
                let ((who, _), _) = token.nonce;
                self.agents[usize::from(who)].awaits(message)
            }
        }
    }

    fn take(&mut self, step: Step, rules: &Rules) {
        match step {
            Step::Tick => self.now += 1,
            Step::Ask(who, job) => self.ask(who, job),
            Step::Renew(who) => self
                .sent
                .extend(self.agents[usize::from(who)].renewal(self.now)),
            Step::Finish(who, well) => {
                self.sent.extend(self.agents[usize::from(who)].finish(well));
            }
            Step::Crash(who) => {
                self.crashes += 1;
                self.agents[usize::from(who)].crash();
            }
            Step::Deliver(message) => self.deliver(message, rules),
            Step::Replicate => self.sent.extend(self.store.replicate()),
            Step::Expire(job) => self.store.lose(job),
            Step::RevokeClosed(run) => self.revoke(run),
            Step::RevokeSilent(run) => {
                self.silenced.insert(run);
                self.revoke(run);
            }
            Step::Failover => {
                self.failovers += 1;
                self.store.fail_over(self.now, rules);
            }
        }
    }

    fn ask(&mut self, who: Who, job: u8) {
        let message = self.agents[usize::from(who)].ask(job, self.now);
        self.sent.insert(message);
    }

    fn revoke(&mut self, run: Run) {
        self.verdicts += 1;
        self.store.revoke(run);
    }

    fn deliver(&mut self, message: Message, rules: &Rules) {
        let before = self.store.clone();
        match message {
            Message::Claim { nonce, job, sent } => {
                self.store.claim(nonce, job, sent, self.now);
                let fence = self.store.row(job).fence;
                if fence != before.row(job).fence {
                    self.fences.push((job, fence));
                }
            }
            Message::Renew {
                run,
                job,
                token,
                sent,
            } => self.store.renew(run, (job, token), sent, self.now, rules),
            Message::Finish { job, token, well } => {
                self.store.finish(job, token, well, rules);
            }
            _ => self.deliver_to_agent(message, rules),
        }
        if let Some((job, token)) = written_under(&message) {
            let was_stale = !before.is_current(job, token);
            self.stale_effect |= was_stale && before.row(job) != self.store.row(job);
        }
        if !rules.synchronous {
            self.sent.extend(self.store.answers());
        }
    }

    fn deliver_to_agent(&mut self, message: Message, rules: &Rules) {
        let (Message::Granted { token, .. }
        | Message::Renewed { token, .. }
        | Message::Lost { token, .. }
        | Message::Finished { token, .. }) = message
        else {
            return;
        };
        let ((who, _), _) = token.nonce;
        self.agents[usize::from(who)].hear(message, self.now, rules);
    }
}

/// The claim under which a message asks for a change of a row.
fn written_under(message: &Message) -> Option<(u8, Token)> {
    match message {
        Message::Renew { job, token, .. } | Message::Finish { job, token, .. } => {
            Some((*job, *token))
        }
        _ => None,
    }
}

/// Explores a world until `decided` or to its last state; gives the number of states and the names
/// of the properties that were decided.
fn explore(
    rules: Rules,
    bounds: Bounds,
    decided: HasDiscoveries,
) -> (usize, BTreeSet<&'static str>) {
    let world = World { rules, bounds };
    let checker = world.checker().threads(2).finish_when(decided);
    let checker = checker.spawn_bfs().join();
    let found = checker.discoveries().into_keys().collect();
    (checker.unique_state_count(), found)
}
