//! Attempts on a machine: preparing, the program, checkpoints, the finish.
//!
//! A program is a span of work. It executes in stretches, each of which is observed; its checkpoints
//! hold how much of the work is done.

use std::time::Duration;

use mutual_demand::{
    CheckpointReport, ClaimGrant, FinishRequest, Manifest, Metrics, Outcome, ResultView,
};
use mutual_model::agent::{Action, End, Event, RunKey};
use mutual_model::history::{Deed, Execution, Saved};
use mutual_model::job::Failure;
use mutual_model::lease::Holder;
use mutual_model::time::Timestamp;
use rand::RngExt as _;

use super::calls::Purpose;
use super::wire::{Place, Request};
use super::{Slip, Timer, World};

const PREPARE_MAX: Duration = Duration::from_millis(120);
const START_MAX: Duration = Duration::from_millis(20);
const KILL_MAX: Duration = Duration::from_millis(8);
const SAVE_MAX: Duration = Duration::from_millis(60);
const STORE_MAX: Duration = Duration::from_millis(50);
/// Share of checkpoints that no peer serves when they are wanted.
const UNFETCHABLE: f64 = 0.1;
const UNPREPARED: f64 = 0.03;

/// What happens to an attempt in time.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Prepared,
    Started,
    /// The program's work is done, unless it was interrupted since.
    Exits(u32),
    Killed,
    /// A checkpoint with so much work done is stored.
    Saved(u64, Duration),
    Concluded(Option<Failure>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Preparing,
    Prepared,
    Starting,
    /// The program executes, since then.
    Running(Timestamp),
    Frozen,
    Dying,
    Over,
}

/// One attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    grant: ClaimGrant,
    stage: Stage,
    done: Duration,
    work: Duration,
    fails: bool,
    resumed: Option<Saved>,
    unfetched: Vec<Saved>,
    holder: Holder,
    /// Counts interruptions, so that an exit that was planned before one is not one.
    turns: u32,
}

impl Attempt {
    fn stretch(&self) -> Execution {
        let claim = &self.grant.claim;
        Execution {
            holder: self.holder,
            job: claim.job,
            fence: claim.fence,
            on_disconnect: self.grant.spec.on_disconnect,
            exclusive: self.grant.spec.exclusive,
            resumed: self.resumed,
            unfetched: self.unfetched.clone(),
        }
    }

    fn done_by(&self, now: Timestamp) -> Duration {
        match self.stage {
            Stage::Running(since) => self.done + now.since(since),
            _ => self.done,
        }
    }
}

impl World {
    pub(super) fn begin_attempt(&mut self, index: usize, key: RunKey, grant: ClaimGrant) {
        let (resumed, unfetched) = self.fetch_checkpoint(&grant);
        let behaviour = self.users.behaviour(&grant.spec.name);
        let machine = &self.machines[index];
        let Some(life) = &machine.life else { return };
        let (agent, incarnation) = (machine.key.id(), life.incarnation);
        let attempt = Attempt {
            stage: Stage::Preparing,
            done: resumed.map_or(Duration::ZERO, |(_, done)| done),
            work: behaviour.0,
            fails: grant.attempt <= behaviour.1,
            resumed: resumed.map(|(saved, _)| saved),
            unfetched,
            holder: Holder { agent, incarnation },
            turns: 0,
            grant,
        };
        if let Some(life) = self.machines[index].life.as_mut() {
            life.attempts.insert(key.clone(), attempt);
        }
        let takes = self.up_to(PREPARE_MAX);
        self.attempt_timer(index, &key, takes, Step::Prepared);
    }

    /// The best checkpoint that a peer serves, and those before it that none does.
    fn fetch_checkpoint(&mut self, grant: &ClaimGrant) -> (Option<(Saved, Duration)>, Vec<Saved>) {
        let mut offered = grant.checkpoints.clone();
        if self.slip == Some(Slip::ResumeFromOlder) {
            offered.reverse();
        }
        let mut unfetched = Vec::new();
        for kept in offered {
            let saved = (kept.fence, kept.sequence);
            if self.slip.is_none() && self.random.random_bool(UNFETCHABLE) {
                unfetched.push(saved);
                continue;
            }
            let done = Duration::from_micros(kept.manifest.bytes);
            return (Some((saved, done)), unfetched);
        }
        (None, unfetched)
    }

    fn attempt_timer(&mut self, index: usize, key: &RunKey, after: Duration, step: Step) {
        let timer = Timer::Attempt(key.clone(), step);
        self.timer(Place::Agent(index), after, timer);
    }

    fn attempt(&mut self, index: usize, key: &RunKey) -> Option<&mut Attempt> {
        self.machines[index].life.as_mut()?.attempts.get_mut(key)
    }

    pub(super) fn step_attempt(&mut self, index: usize, key: &RunKey, step: Step) {
        let unprepared = self.random.random_bool(UNPREPARED);
        let Some(attempt) = self.attempt(index, key) else {
            return;
        };
        let stage = attempt.stage;
        match (step, stage) {
            (Step::Prepared, Stage::Preparing) if unprepared => {
                let failure = Failure::NotStarted {
                    reason: "input: no peer serves it".to_owned(),
                    retryable: true,
                };
                self.end_attempt(index, key, End::Failure(failure));
            }
            (Step::Prepared, Stage::Preparing) => {
                attempt.stage = Stage::Prepared;
                self.tell(index, Event::Prepared { key: key.clone() });
            }
            (Step::Started, Stage::Starting) => {
                self.go(index, key);
                self.tell(index, Event::Started { key: key.clone() });
            }
            (Step::Exits(turn), Stage::Running(_)) if turn == attempt.turns => {
                let end = match attempt.fails {
                    true => End::Failure(Failure::ExitCode { code: 1 }),
                    false => End::Success,
                };
                self.halt(index, key);
                self.end_attempt(index, key, end);
            }
            (Step::Killed, Stage::Dying) => {
                self.halt(index, key);
                self.end_attempt(index, key, End::Stopped);
            }
            (Step::Saved(sequence, done), _) => self.report_checkpoint(index, key, sequence, done),
            (Step::Concluded(failure), _) => self.record_finish(index, key, failure),
            _ => {}
        }
    }

    fn end_attempt(&mut self, index: usize, key: &RunKey, end: End) {
        if let Some(attempt) = self.attempt(index, key) {
            attempt.stage = Stage::Over;
        }
        let key = key.clone();
        self.tell(index, Event::Ended { key, end });
    }

    /// Carries out what the core wants of an attempt.
    pub(super) fn order(&mut self, index: usize, order: Action) {
        let ignores = self.slip == Some(Slip::IgnoreCutOff);
        match order {
            Action::Start { key } => {
                let takes = self.up_to(START_MAX);
                if let Some(attempt) = self.attempt(index, &key) {
                    attempt.stage = Stage::Starting;
                    self.attempt_timer(index, &key, takes, Step::Started);
                }
            }
            Action::Pause { .. } if ignores => {}
            Action::Pause { key } => self.freeze(index, &key),
            Action::Resume { key } => {
                let is_frozen = |attempt: &mut Attempt| attempt.stage == Stage::Frozen;
                if self.attempt(index, &key).is_some_and(is_frozen) {
                    self.go(index, &key);
                }
            }
            Action::Stop { key } => self.stop(index, &key),
            Action::Checkpoint { key, sequence } => self.save(index, key, sequence),
            Action::Conclude { key, failure } => {
                let takes = self.up_to(STORE_MAX);
                self.attempt_timer(index, &key, takes, Step::Concluded(failure));
            }
            _ => {}
        }
    }

    /// Lets the program execute.
    fn go(&mut self, index: usize, key: &RunKey) {
        let now = self.now;
        let Some(attempt) = self.attempt(index, key) else {
            return;
        };
        attempt.stage = Stage::Running(now);
        attempt.turns += 1;
        let (turn, rest) = (attempt.turns, attempt.work.saturating_sub(attempt.done));
        self.attempt_timer(index, key, rest, Step::Exits(turn));
    }

    fn freeze(&mut self, index: usize, key: &RunKey) {
        self.halt(index, key);
        if let Some(attempt) = self.attempt(index, key) {
            attempt.stage = Stage::Frozen;
        }
    }

    /// The program executes no more: its stretch is over.
    fn halt(&mut self, index: usize, key: &RunKey) {
        let now = self.now;
        let Some(attempt) = self.attempt(index, key) else {
            return;
        };
        let Stage::Running(since) = attempt.stage else {
            return;
        };
        attempt.done += now.since(since);
        attempt.turns += 1;
        attempt.stage = Stage::Over;
        let deed = Deed::Ran(attempt.stretch());
        self.log.note(since, now, deed);
    }

    /// Kills the program; it takes its processes a moment to be gone.
    fn stop(&mut self, index: usize, key: &RunKey) {
        let takes = self.up_to(KILL_MAX);
        // The kernel stops scheduling it at once; what takes time is to hear of it.
        self.halt(index, key);
        let Some(attempt) = self.attempt(index, key) else {
            return;
        };
        attempt.stage = Stage::Dying;
        self.attempt_timer(index, key, takes, Step::Killed);
    }

    fn save(&mut self, index: usize, key: RunKey, sequence: u64) {
        let takes = self.up_to(SAVE_MAX);
        let now = self.now;
        if let Some(attempt) = self.attempt(index, &key) {
            let done = attempt.done_by(now);
            self.attempt_timer(index, &key, takes, Step::Saved(sequence, done));
        }
    }

    fn report_checkpoint(&mut self, index: usize, key: &RunKey, sequence: u64, done: Duration) {
        let Some(attempt) = self.attempt(index, key) else {
            return;
        };
        let grant = attempt.grant.clone();
        // An attempt that is over takes its checkpoints under way with it.
        if attempt.stage == Stage::Over {
            let (key, saved) = (key.clone(), false);
            return self.tell(index, Event::Checkpointed { key, saved });
        }
        let mut manifest = self.object("c", &grant.spec.name);
        manifest.bytes = u64::try_from(done.as_micros()).unwrap_or(u64::MAX);
        let report = CheckpointReport {
            claim: grant.claim,
            sequence,
            manifest,
        };
        let purpose = Purpose::Checkpoint(key.clone());
        self.ask(Place::Agent(index), Request::Checkpoint(report), purpose);
    }

    fn record_finish(&mut self, index: usize, key: &RunKey, failure: Option<Failure>) {
        let Some(attempt) = self.attempt(index, key) else {
            return;
        };
        let grant = attempt.grant.clone();
        let metrics = Metrics {
            running_ms: u64::try_from(attempt.done.as_millis()).unwrap_or(u64::MAX),
            ..Metrics::default()
        };
        let output = failure
            .is_none()
            .then(|| self.object("r", &grant.spec.name));
        let finish = FinishRequest {
            claim: grant.claim,
            outcome: failure.map_or(Outcome::Success, Outcome::Failure),
            result: ResultView {
                output,
                artifacts: Vec::new(),
                log: None,
                metrics,
            },
        };
        self.machines[index].disk.outbox.insert(key.clone(), finish);
        self.tell(index, Event::Recorded { key: key.clone() });
        self.deliver(index, key, 0);
    }

    /// An object that another peer vouches for, if the task asks for that.
    fn object(&self, kind: &str, task: &str) -> Manifest {
        let root = users_root(kind, task);
        let receipts = self.users.receipts(&root);
        super::users::plain(root, 0, receipts)
    }

    pub(super) fn discard(&mut self, index: usize, key: &RunKey) {
        self.halt(index, key);
        if let Some(life) = self.machines[index].life.as_mut() {
            life.attempts.remove(key);
        }
    }

    /// Programs stand still while their machine sleeps.
    pub(super) fn fall_asleep(&mut self, index: usize) {
        for (key, _) in self.running(index) {
            self.freeze(index, &key);
            if let Some(attempt) = self.attempt(index, &key) {
                attempt.stage = Stage::Running(Timestamp(u64::MAX));
            }
        }
    }

    /// What a machine woke with executes again, until its agent looks at the clock.
    pub(super) fn thaw(&mut self, index: usize) {
        for (key, _) in self.running(index) {
            self.go(index, &key);
        }
    }

    fn running(&self, index: usize) -> Vec<(RunKey, Timestamp)> {
        let life = self.machines[index].life.iter();
        let attempts = life.flat_map(|life| &life.attempts);
        let running = attempts.filter_map(|(key, attempt)| match attempt.stage {
            Stage::Running(since) => Some((key.clone(), since)),
            _ => None,
        });
        running.collect()
    }

    /// The programs of a machine end with its agent, or run on for a while if `orphaned`.
    pub(super) fn end_stretches_of(&mut self, index: usize, orphaned: bool) {
        for (key, since) in self.running(index) {
            if self.machines[index].asleep.is_some() {
                continue;
            }
            if orphaned && let Some(attempt) = self.attempt(index, &key) {
                let deed = Deed::Ran(attempt.stretch());
                let until = self.now.after(Duration::from_millis(500));
                self.log.note(since, until, deed);
            } else {
                self.halt(index, &key);
            }
        }
    }

    pub(super) fn end_stretches(&mut self) {
        for index in 0..self.machines.len() {
            self.end_stretches_of(index, false);
        }
    }
}

pub(super) fn users_root(kind: &str, task: &str) -> mutual_model::ids::ContentId {
    let text = format!("{kind}{task}");
    text.parse()
        .unwrap_or_else(|_| unreachable!("letters and digits"))
}
