//! A whole cloud in virtual time: agents, demand servers, a database and users, and everything that
//! can go wrong between them.
//!
//! The agents', guardians' and sweepers' minds are the very cores that run in production, the store is the
//! in-memory demand store; what is simulated is what surrounds them — network, processes, clocks,
//! disks, programs — as the drivers of `mutual-node` know it. A [`World`] follows from its seed
//! alone: the seed draws a plan (machines, tasks, incidents), the plan is played, faults end, and
//! after a calm every job must be over. Everything that was said and done is judged by
//! [`mutual_model::history`].
//!
//! ```text
//!   users ──▶ servers ──▶ database (memory store)      machine = agent core + programs + outbox
//!               │ ▲                                    server  = sessions, verdicts, sweeps, offers
//!      offers,  ▼ │ claims, renewals, finishes         all of it over `wire`, which loses, delays,
//!      pokes   machines                                reorders, repeats and cuts
//! ```
//!
//! # Adding a fault
//! Name it in `plan::Fault`, let `plan::incident` draw it, and say in `faults` what it does and how
//! it ends. [`Slip`] is for mistakes that must be found: one test each.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use mutual_demand::{Principal, Right, StoreError, StoreResult};
use mutual_model::agent::{RunKey, StoreUrl};
use mutual_model::history::{Deed, Observation, Summary, Violation, check};
use mutual_model::identity::NodeKey;
use mutual_model::ids::Nonce;
use mutual_model::time::Timestamp;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

mod attempts;
mod calls;
mod database;
mod faults;
mod guardians;
mod log;
mod machines;
mod outbox;
mod plan;
mod servers;
mod slips;
mod users;
mod wire;

use database::Database;
use log::Log;
use machines::Machine;
use plan::{CALM_AT, Plan};
use servers::Server;
pub use slips::Slip;
use users::Users;
use wire::{CallId, Message, Net, Place, Reply, Request};

/// A virtual hour is enough for the slowest world; most take half a minute.
const END_AT: Duration = Duration::from_secs(150);
/// Within this time of calm every job must be over.
const CALM_WITHIN: Duration = Duration::from_secs(120);
/// Lines of a trace that a failing test prints.
const TOLD_MAX: usize = 150;
/// How often the end is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Something due at some time.
#[derive(Debug, Clone)]
enum Happening {
    Arrive {
        from: Place,
        to: Place,
        message: Message,
    },
    /// A timer of one process; nothing once the process is gone.
    Timer {
        place: Place,
        run: u32,
        timer: Timer,
    },
    Incident(usize),
    Recovery(usize),
    Calm,
    Look,
}

#[derive(Debug, Clone)]
enum Timer {
    /// A call was not answered in time.
    Unanswered(CallId),
    /// An agent's core wants to be woken, or its driver looks at the clock.
    Wake(Timestamp),
    /// An agent gets to know the store.
    Introduce(u32),
    /// A finish is brought to the store again.
    Deliver(RunKey, u32),
    /// Something about an attempt.
    Attempt(RunKey, attempts::Step),
    /// An agent's heartbeats are due.
    Beat,
    /// A guardian's cores want to be woken.
    Guard(Timestamp),
    /// A server's sweeper wants to be woken.
    Sweep,
    /// A server looks for jobs to offer.
    Offer,
    /// A server dialled back and heard nothing.
    Unheard(usize, mutual_model::ids::Incarnation),
    /// A server passes a verdict, for the so manieth time.
    Judge(usize, mutual_model::ids::Incarnation, u32),
    /// The database carries out what it took in.
    Apply(CallId),
    /// The database answers.
    Respond(CallId, Box<StoreResult<Reply>>),
    /// Users do what they planned.
    User(users::Act),
}

/// How a world ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What the checker says of everything that was observed.
    pub verdict: Result<Summary, Vec<Violation>>,
    /// How long it took, in virtual time.
    pub took: Duration,
    /// Steps that were made.
    pub steps: u64,
}

/// Plays a seed's world. A failure says what is broken, what was planned, and what happened last.
///
/// # Errors
/// What is broken.
pub fn play(seed: u64) -> anyhow::Result<Outcome> {
    let outcome = World::new(seed, None)?.run()?;
    match &outcome.verdict {
        Ok(_) => Ok(outcome),
        Err(_) => Err(anyhow::anyhow!(report(seed, TOLD_MAX)?)),
    }
}

/// The story of a seed, of which the last so many lines are told.
///
/// # Errors
/// If its world itself is at fault.
pub fn report(seed: u64, lines: usize) -> anyhow::Result<String> {
    let mut world = World::new(seed, None)?.traced();
    let outcome = world.run()?;
    let mut text = format!("seed {seed}: {}", world.plan());
    let skipped = world.tail().count().saturating_sub(lines);
    for line in world.tail().skip(skipped) {
        text.push_str(line);
        text.push('\n');
    }
    match outcome.verdict {
        Ok(summary) => text.push_str(&format!("{summary:?} in {:?}\n", outcome.took)),
        Err(violations) => {
            for violation in violations {
                text.push_str(&format!("{violation}\n"));
                let places = violation.observations.iter();
                for observation in places.filter_map(|place| world.history().get(*place)) {
                    text.push_str(&format!("    {observation:?}\n"));
                }
            }
        }
    }
    text.push_str(&format!(
        "again: cargo run -p mutual-sim --example cloud -- {seed}\n"
    ));
    Ok(text)
}

/// A cloud and its clock.
#[derive(Debug)]
pub struct World {
    random: ChaCha8Rng,
    now: Timestamp,
    queue: BTreeMap<(Timestamp, u64), Happening>,
    counter: u64,
    plan: Rc<Plan>,
    net: Net,
    database: Database,
    servers: Vec<Server>,
    machines: Vec<Machine>,
    users: Users,
    calls: BTreeMap<CallId, calls::Call>,
    principals: BTreeMap<Place, Rc<Principal>>,
    store: StoreUrl,
    log: Log,
    slip: Option<Slip>,
    is_calm: bool,
    steps: u64,
}

impl World {
    /// The world of a seed, in which `slip` is made.
    ///
    /// # Errors
    /// If it cannot be set up, which is a fault of this module.
    pub fn new(seed: u64, slip: Option<Slip>) -> anyhow::Result<Self> {
        let plan = Rc::new(Plan::new(seed));
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let database = Database::new(random.next_u64(), plan.quorum, slip)?;
        let machines = (0..plan.agents).map(|index| Machine::new(index, &mut random));
        let machines: Vec<_> = machines.collect();
        let servers = (0..plan.servers).map(|_| Server::new(random.next_u64()));
        let servers = servers.collect();
        let mut world = Self {
            principals: principals(&machines, plan.servers),
            users: Users::new(&plan),
            random,
            now: Timestamp(1_000_000),
            queue: BTreeMap::new(),
            counter: 0,
            net: Net::new(),
            database,
            servers,
            machines,
            calls: BTreeMap::new(),
            store: StoreUrl::from("http://store"),
            log: Log::default(),
            slip,
            is_calm: false,
            steps: 0,
            plan,
        };
        world.set_up()?;
        Ok(world)
    }

    /// Notes what happens in words, to be read after a failure.
    #[must_use]
    pub fn traced(mut self) -> Self {
        self.log.is_traced = true;
        self
    }

    /// What the seed planned, for people.
    pub fn plan(&self) -> String {
        self.plan.to_string()
    }

    /// The last things that happened, if they were traced.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.log.tail()
    }

    /// Everything that was observed.
    pub fn history(&self) -> &[Observation] {
        self.log.history()
    }

    /// Tells two runs apart: a digest of all observations.
    pub fn digest(&self) -> [u8; 32] {
        self.log.digest()
    }

    /// Plays the world to its end.
    ///
    /// # Errors
    /// If the world itself is at fault.
    pub fn run(&mut self) -> anyhow::Result<Outcome> {
        let begin = self.now;
        let end = begin.after(END_AT);
        while let Some(((at, _), happening)) = self.queue.pop_first() {
            if at > end {
                break;
            }
            self.now = at;
            self.steps += 1;
            let looks = matches!(happening, Happening::Look);
            self.happen(happening)?;
            if looks && self.is_over() {
                break;
            }
        }
        self.look_at_everything();
        Ok(Outcome {
            verdict: check(self.log.history()),
            took: self.now.since(begin),
            steps: self.steps,
        })
    }

    fn set_up(&mut self) -> anyhow::Result<()> {
        self.note_opening(false)?;
        let plan = Rc::clone(&self.plan);
        for (number, incident) in plan.incidents.iter().enumerate() {
            self.later(incident.at, Happening::Incident(number));
        }
        self.later(CALM_AT, Happening::Calm);
        self.later(CALM_AT, Happening::Look);
        for server in 0..self.servers.len() {
            self.timer(Place::Server(server), Duration::ZERO, Timer::Sweep);
        }
        for machine in 0..self.machines.len() {
            let delay = self.up_to(Duration::from_millis(50));
            self.boot_after(machine, delay);
        }
        self.plan_users(&plan);
        Ok(())
    }

    fn note_opening(&mut self, reopened: bool) -> anyhow::Result<()> {
        self.database.wind(self.now);
        let info = self.database.info()?;
        let deed = Deed::Opened {
            epoch: info.epoch,
            lease_ms: info.terms.lease_ms,
            reopened,
        };
        self.log.note(self.now, self.now, deed);
        Ok(())
    }

    fn happen(&mut self, happening: Happening) -> anyhow::Result<()> {
        match happening {
            Happening::Arrive { from, to, message } => self.arrive(from, to, message),
            Happening::Timer { place, run, timer } => self.ring(place, run, timer),
            Happening::Incident(number) => self.begin_incident(number)?,
            Happening::Recovery(number) => self.end_incident(number)?,
            Happening::Calm => self.calm_down()?,
            Happening::Look => self.later(LOOK_EVERY, Happening::Look),
        }
        Ok(())
    }

    fn ring(&mut self, place: Place, run: u32, timer: Timer) {
        if self.run_of(place) != Some(run) {
            return;
        }
        match (place, timer) {
            (Place::Agent(machine), timer) if self.sleeps(machine) => {
                self.hold_back(machine, timer);
            }
            (_, Timer::Unanswered(call)) => self.give_up_call(call),
            (Place::Agent(machine), timer) => self.ring_agent(machine, timer),
            (Place::Server(server), timer) => self.ring_server(server, timer),
            (Place::Database, timer) => self.ring_database(timer),
            (Place::Users, Timer::User(act)) => self.act(act),
            (Place::Users, _) => {}
        }
    }

    fn arrive(&mut self, from: Place, to: Place, message: Message) {
        if !self.net.passes(from, to) {
            return;
        }
        match to {
            Place::Agent(machine) => self.reach_agent(machine, from, message),
            Place::Server(server) => self.reach_server(server, from, message),
            Place::Database => self.reach_database(from, message),
            Place::Users => {
                if let Message::Answer { call, answer } = message {
                    self.answered(call, answer);
                }
            }
        }
    }

    /// Which process of a place runs; `None` if none does.
    fn run_of(&self, place: Place) -> Option<u32> {
        match place {
            Place::Agent(machine) => {
                let machine = &self.machines[machine];
                machine.life.as_ref().map(|_| machine.run)
            }
            Place::Server(server) => {
                let server = &self.servers[server];
                server.is_up.then_some(server.run)
            }
            Place::Database => self.database.is_up.then_some(self.database.run),
            Place::Users => Some(0),
        }
    }

    fn later(&mut self, after: Duration, happening: Happening) {
        self.counter += 1;
        let at = self.now.after(after);
        self.queue.insert((at, self.counter), happening);
    }

    fn timer(&mut self, place: Place, after: Duration, timer: Timer) {
        if let Some(run) = self.run_of(place) {
            self.later(after, Happening::Timer { place, run, timer });
        }
    }

    /// Sends a message; it may be lost, late or repeated.
    fn send(&mut self, from: Place, to: Place, message: Message) {
        if !self.net.passes(from, to) {
            return;
        }
        let may_repeat = matches!(&message, Message::Ask { request, .. } if request.may_repeat());
        for delay in self.net.delays(&mut self.random, may_repeat) {
            let message = message.clone();
            self.later(delay, Happening::Arrive { from, to, message });
        }
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        self.random.random_range(Duration::ZERO..=most)
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; 16];
        self.random.fill_bytes(&mut nonce);
        Nonce(nonce)
    }

    fn principal(&self, place: Place) -> Rc<Principal> {
        Rc::clone(&self.principals[&place])
    }

    /// Whether nothing is left to wait for.
    fn is_over(&mut self) -> bool {
        let known = self.users.jobs();
        let over = known
            .iter()
            .all(|job| self.state(*job).is_none_or(|state| state.is_terminal()));
        self.is_calm && over && self.users.is_settled()
    }

    fn state(&self, job: mutual_model::ids::JobId) -> Option<mutual_model::job::JobState> {
        let who = self.principal(Place::Users);
        match self.database.apply(self.now, &who, &Request::Look(job)) {
            Ok(Reply::View(view)) => Some(view.state),
            _ => None,
        }
    }

    /// The last look at every job, from where nothing is in between.
    fn look_at_everything(&mut self) {
        let who = self.principal(Place::Users);
        for job in self.users.jobs() {
            let request = Request::Look(job);
            let answer = self.database.apply(self.now, &who, &request);
            self.note_call(Place::Users, self.now, &request, &answer);
        }
        self.end_stretches();
    }
}

fn principals(machines: &[Machine], servers: usize) -> BTreeMap<Place, Rc<Principal>> {
    let of = |subject: String, key: &NodeKey, is_node: bool, rights: &[Right]| {
        Rc::new(Principal {
            subject,
            node: is_node.then(|| key.id()),
            sealing: key.sealing_public(),
            namespaces: vec![users::namespace()],
            rights: rights.to_vec(),
        })
    };
    let workers = machines.iter().enumerate().map(|(index, machine)| {
        let rights = [Right::Work, Right::Read, Right::Guard];
        let who = of(format!("agent-{index}"), &machine.key, true, &rights);
        (Place::Agent(index), who)
    });
    let key = log::key(99);
    let operators = (0..servers).map(|index| {
        let rights = [Right::Operate, Right::Read];
        let who = of(format!("server-{index}"), &key, false, &rights);
        (Place::Server(index), who)
    });
    let user = of(
        "user".to_owned(),
        &key,
        false,
        &[Right::Read, Right::Submit],
    );
    let all = workers.chain(operators).chain([(Place::Users, user)]);
    all.collect()
}

fn unknown(why: &str) -> StoreError {
    StoreError::Unknown(why.to_owned())
}
