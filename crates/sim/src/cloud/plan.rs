//! What one seed puts into its world: machines, tasks, and everything that goes wrong.

use std::fmt;
use std::time::Duration;

use mutual_model::job::{OnDisconnect, TaskSpec};
use mutual_model::resources::Resources;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Faults begin within this time, and so do submissions.
const ROUGH: Duration = Duration::from_secs(8);
/// When the last fault has ended.
pub(super) const CALM_AT: Duration = Duration::from_secs(14);

/// How a task behaves.
#[derive(Debug, Clone)]
pub(super) struct Task {
    /// When it is submitted.
    pub(super) at: Duration,
    pub(super) spec: TaskSpec,
    /// How long its program has to run in all.
    pub(super) work: Duration,
    /// Attempts that fail, by the number of the attempt.
    pub(super) fails: u32,
    /// When its user ends it.
    pub(super) cancelled: Option<Duration>,
    /// When its user asks for a checkpoint.
    pub(super) wanted: Option<Duration>,
    /// Whether it is submitted a second time at once.
    pub(super) twice: bool,
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fault {
    /// An agent's process is killed; the kernel closes its connections.
    Kill(usize),
    /// A machine loses its power; nobody is told.
    PowerCut(usize),
    /// A laptop sleeps.
    Sleep(usize),
    /// An agent shuts down in order.
    Shutdown(usize),
    /// An agent's session is closed by something in between.
    Sever(usize),
    /// An agent and the servers do not hear each other.
    Cut(usize),
    /// The servers do not hear an agent.
    Mute(usize),
    /// An agent does not hear the servers.
    Deafen(usize),
    /// An agent's wall clock is set, by this many milliseconds.
    AgentClock(usize, i64),
    /// Somebody declares an agent silent.
    Slander(usize),
    /// A demand server is killed.
    KillServer(usize),
    /// A demand server does not reach the database.
    CutDatabase(usize),
    /// The database is killed.
    KillDatabase,
    /// The database's disk is slow.
    SlowDisk,
    /// The store's wall clock is set, by this many milliseconds.
    StoreClock(i64),
    /// The store begins an epoch.
    Epoch,
    /// Messages are lost, late and repeated.
    Storm,
}

/// A fault and its time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Incident {
    pub(super) at: Duration,
    pub(super) lasts: Duration,
    pub(super) fault: Fault,
}

/// Everything that a seed decides beforehand.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) agents: usize,
    pub(super) slots: u32,
    pub(super) servers: usize,
    pub(super) quorum: u32,
    pub(super) tasks: Vec<Task>,
    pub(super) incidents: Vec<Incident>,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        // Apart from the world's own dice, so that a plan stays when the world changes.
        let mut dice = ChaCha8Rng::seed_from_u64(seed ^ 0x706c_616e);
        let agents = dice.random_range(3..=8);
        let servers = dice.random_range(1..=2);
        let tasks = (0..dice.random_range(5..=16)).map(|number| task(&mut dice, number));
        let tasks: Vec<_> = tasks.collect();
        let incidents =
            (0..dice.random_range(3..=14)).map(|_| incident(&mut dice, agents, servers));
        let mut incidents: Vec<_> = incidents.collect();
        incidents.sort_by_key(|incident| incident.at);
        Self {
            agents,
            slots: dice.random_range(1..=3),
            servers,
            quorum: dice.random_range(1..=2),
            tasks,
            incidents,
        }
    }
}

fn millis(dice: &mut ChaCha8Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(dice.random_range(from..=to))
}

fn sometimes<T>(
    dice: &mut ChaCha8Rng,
    share: f64,
    what: impl FnOnce(&mut ChaCha8Rng) -> T,
) -> Option<T> {
    dice.random_bool(share).then(|| what(dice))
}

/// What each task needs.
pub(super) const NEED: Resources = Resources {
    cpu_millis: 1_000,
    memory_bytes: 64 << 20,
    gpus: 0,
    scratch_bytes: 0,
};

fn task(dice: &mut ChaCha8Rng, number: usize) -> Task {
    let mut spec = TaskSpec::new(vec!["true".into()], NEED);
    spec.name = format!("t{number}");
    spec.retries = dice.random_range(0..=6);
    spec.priority = dice.random_range(-1..=1);
    spec.on_disconnect = match dice.random_range(0..5) {
        0 => OnDisconnect::Stop,
        1 => OnDisconnect::Finish,
        _ => OnDisconnect::Pause,
    };
    spec.exclusive = dice.random_bool(0.2);
    spec.result_copies = u32::from(dice.random_bool(0.1));
    spec.checkpoint_ms = sometimes(dice, 0.4, |dice| dice.random_range(150..=600));
    spec.timeout_ms = if dice.random_bool(0.05) { 400 } else { 20_000 };
    spec.expires_ms = if dice.random_bool(0.05) {
        900
    } else {
        3_600_000
    };
    let at = millis(dice, 0, 6_000);
    Task {
        at,
        spec,
        work: millis(dice, 20, 2_500),
        fails: if dice.random_bool(0.15) {
            dice.random_range(1..=3)
        } else {
            0
        },
        cancelled: sometimes(dice, 0.08, |dice| at + millis(dice, 0, 2_000)),
        wanted: sometimes(dice, 0.1, |dice| at + millis(dice, 200, 2_000)),
        twice: dice.random_bool(0.1),
    }
}

fn incident(dice: &mut ChaCha8Rng, agents: usize, servers: usize) -> Incident {
    let agent = dice.random_range(0..agents);
    let server = dice.random_range(0..servers);
    // Half of all faults befall one agent: that is where most can go wrong.
    let fault = match dice.random_range(0..25) {
        0..=4 => Fault::Kill(agent),
        5 => Fault::PowerCut(agent),
        6..=7 => Fault::Sleep(agent),
        8 => Fault::Shutdown(agent),
        9 => Fault::Sever(agent),
        10..=11 => Fault::Cut(agent),
        12 => Fault::Mute(agent),
        13 => Fault::Deafen(agent),
        14 => Fault::AgentClock(agent, step(dice)),
        15..=16 => Fault::Slander(agent),
        17 => Fault::KillServer(server),
        18 => Fault::CutDatabase(server),
        19..=20 => Fault::KillDatabase,
        21 => Fault::SlowDisk,
        22 => Fault::StoreClock(step(dice)),
        23 => Fault::Epoch,
        _ => Fault::Storm,
    };
    Incident {
        at: millis(dice, 100, u64::try_from(ROUGH.as_millis()).unwrap_or(0)),
        lasts: millis(dice, 20, 5_000),
        fault,
    }
}

/// A step of a clock that is large enough to be noticed. One set back makes leases last longer by so
/// much, and what nobody renews waits for it.
fn step(dice: &mut ChaCha8Rng) -> i64 {
    match dice.random_bool(0.5) {
        true => dice.random_range(700..=3_600_000),
        false => -dice.random_range(700..=30_000),
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} agents of {} slots, {} servers, {} tasks",
            self.agents,
            self.slots,
            self.servers,
            self.tasks.len()
        )?;
        for Incident { at, lasts, fault } in &self.incidents {
            writeln!(f, "  at {at:?} for {lasts:?}: {fault:?}")?;
        }
        Ok(())
    }
}
