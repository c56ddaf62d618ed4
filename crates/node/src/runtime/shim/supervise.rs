//! The shim's loop: commands from the agent, news from the task, deadlines, and limits that need watching.
//!
//! One thread, one `poll`. Whatever ends the task, the whole tree is gone before the agent hears of it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::spec::{Leash, Limits};
use super::super::wire::{self, Cause, Ended, Failure, FromShim, Reaped, Status, ToShim, Watch};
use super::leash::{Pull, Watchdog};
use super::tree;

/// How often memory and processes are looked at where no cgroup bounds them.
const WATCH_EVERY: Duration = Duration::from_millis(50);
/// How often the task directory is measured at most; a slow scan is spaced by ten times its own length.
const SCRATCH_EVERY: Duration = Duration::from_millis(250);

/// What the loop needs to know of a started task, whatever started it.
pub(super) struct Supervised {
    /// Does the class's own part.
    pub(super) task: Box<dyn Task>,
    /// The task directory and what is watched.
    pub(super) dir: PathBuf,
    pub(super) watch: Watch,
    /// Opened freezers: a frozen process does not die before it is thawed (cgroup v1).
    pub(super) thaw: Vec<File>,
}

/// News of a task.
pub(super) enum News {
    Nothing,
    Ended(Status, Reaped),
    /// It never became the command; known late only to engines that are not ours.
    Failed(Failure),
}

/// A started task of one class.
pub(super) trait Task {
    /// Becomes readable when [`Task::news`] should be asked.
    fn wakes(&self) -> BorrowedFd<'_>;
    /// Takes what has happened; never blocks.
    fn news(&mut self) -> io::Result<News>;
    fn signal(&mut self, signal: i32) -> io::Result<()>;
    fn pause(&mut self, paused: bool) -> io::Result<()>;
    /// Kills all processes and returns when they are gone. Gives the main process's status if it is known.
    fn end(&mut self) -> io::Result<(Status, Reaped)>;
    /// The process to remember the task by.
    fn task(&self) -> rustix::process::Pid;
    /// The process whose descendants are the task's processes.
    fn root(&self) -> rustix::process::Pid;
}

/// Running time without pauses.
struct Clock {
    ran: Duration,
    since: Option<Instant>,
}

impl Clock {
    fn start() -> Self {
        Self {
            ran: Duration::ZERO,
            since: Some(Instant::now()),
        }
    }

    fn ran(&self) -> Duration {
        self.ran + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn pause(&mut self, paused: bool) {
        self.ran = self.ran();
        self.since = (!paused).then(Instant::now);
    }

    /// Time until `limit` is reached; `None` while paused.
    fn left(&self, limit: Duration) -> Option<Duration> {
        self.since.map(|_| limit.saturating_sub(self.ran()))
    }
}

struct Loop<'a> {
    control: &'a UnixStream,
    run: Supervised,
    limits: Limits,
    watchdog: Watchdog,
    clock: Clock,
    seen: Reaped,
    next_watch: Option<Instant>,
    next_scratch: Option<Instant>,
}

/// Why the loop stops.
enum Stop {
    Ended(Status, Reaped),
    Failed(Failure),
    Cause(Cause),
    AgentGone,
}

/// Tells the agent that the task runs, follows it to its end and reports that.
///
/// # Errors
/// Only if the agent can no longer be told; the task is gone by then.
pub(super) fn run(
    control: &UnixStream,
    run: Supervised,
    (limits, leash): (Limits, Option<Leash>),
) -> io::Result<()> {
    super::release_output()?;
    let now = Instant::now();
    let watching = run.watch != Watch::default();
    let mut work = Loop {
        control,
        limits,
        watchdog: Watchdog::new(leash)?,
        clock: Clock::start(),
        seen: Reaped::default(),
        next_watch: watching.then_some(now),
        next_scratch: limits.scratch_bytes.map(|_| now + SCRATCH_EVERY),
        run,
    };
    let pid = work.run.task.task().as_raw_pid();
    let told = wire::send(control, &FromShim::Started(pid));
    let stop = if told.is_ok() {
        work.follow()
    } else {
        Stop::AgentGone
    };
    work.finish(stop)
}

impl Loop<'_> {
    fn follow(&mut self) -> Stop {
        loop {
            match self.turn() {
                Ok(None) => {}
                Ok(Some(stop)) => return stop,
                Err(_) => return Stop::AgentGone,
            }
        }
    }

    /// One wait and what it brought.
    fn turn(&mut self) -> io::Result<Option<Stop>> {
        let (from_agent, from_task, leash_over) = self.wait()?;
        if from_task {
            match self.run.task.news()? {
                News::Nothing => {}
                News::Ended(status, usage) => return Ok(Some(Stop::Ended(status, usage))),
                News::Failed(failure) => return Ok(Some(Stop::Failed(failure))),
            }
        }
        if from_agent && let Some(stop) = self.command()? {
            return Ok(Some(stop));
        }
        if leash_over && let Some(stop) = self.bite()? {
            return Ok(Some(stop));
        }
        Ok(self.overdue().or_else(|| self.watch()).map(Stop::Cause))
    }

    fn bite(&mut self) -> io::Result<Option<Stop>> {
        match self.watchdog.bite()? {
            Pull::Kill => return Ok(Some(Stop::Cause(Cause::Killed))),
            pull => self.pull(pull),
        }
        Ok(None)
    }

    /// Pauses or resumes by signals: the freezer is the agent's.
    fn pull(&mut self, pull: Pull) {
        match pull {
            Pull::Pause => self.pause(true, true),
            Pull::Resume => self.pause(false, true),
            Pull::Nothing | Pull::Kill => {}
        }
    }

    fn wait(&self) -> io::Result<(bool, bool, bool)> {
        let mut fds = [
            PollFd::from_borrowed_fd(self.control.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.run.task.wakes(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.watchdog.wakes(), PollFlags::IN),
        ];
        let timeout = self
            .timeout()
            .and_then(|wait| Timespec::try_from(wait).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {
                let [agent, task, leash] = fds.map(|fd| !fd.revents().is_empty());
                Ok((agent, task, leash))
            }
            Err(rustix::io::Errno::INTR) => Ok((false, false, false)),
            Err(error) => Err(error.into()),
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let deadline = self.limits.time.and_then(|limit| self.clock.left(limit));
        let ticks = [self.next_watch, self.next_scratch];
        let ticks = ticks
            .into_iter()
            .flatten()
            .map(|at| at.saturating_duration_since(now));
        deadline.into_iter().chain(ticks).min()
    }

    fn command(&mut self) -> io::Result<Option<Stop>> {
        let Some(command) = wire::receive(self.control)? else {
            return Ok(Some(Stop::AgentGone));
        };
        match command {
            ToShim::Kill => return Ok(Some(Stop::Cause(Cause::Killed))),
            // A task that has just ended can no longer be signalled; its end is the next news.
            ToShim::Signal(signal) => {
                let _ = self.run.task.signal(signal);
            }
            ToShim::Pause { paused, signal } => {
                self.watchdog.is_paused = paused;
                // What the watchdog stopped by signals, no freezer lets go.
                let is_held = !paused && self.watchdog.let_go();
                self.pause(paused, signal || is_held);
            }
            ToShim::Leash(leash) => {
                let pull = self.watchdog.lengthen(leash)?;
                self.pull(pull);
            }
            ToShim::Start(_) => {}
        }
        Ok(None)
    }

    fn pause(&mut self, paused: bool, signal: bool) {
        self.clock.pause(paused);
        if signal {
            // A task that has just ended cannot be paused; its end is the next news.
            let _ = self.run.task.pause(paused);
        }
    }

    fn overdue(&self) -> Option<Cause> {
        let limit = self.limits.time?;
        (self.clock.left(limit)? == Duration::ZERO).then_some(Cause::TimeLimit)
    }

    fn watch(&mut self) -> Option<Cause> {
        let now = Instant::now();
        if self.next_watch.is_some_and(|at| at <= now) {
            self.next_watch = Some(now + WATCH_EVERY);
            if let Some(cause) = self.watch_processes() {
                return Some(cause);
            }
        }
        if self.next_scratch.is_some_and(|at| at <= now) {
            return self.watch_scratch(now);
        }
        None
    }

    fn watch_processes(&mut self) -> Option<Cause> {
        let now = tree::look(self.run.task.root());
        self.seen = self.seen.merge(now.usage);
        let over_memory = self
            .limits
            .memory_bytes
            .is_some_and(|limit| now.memory_bytes > limit);
        if self.run.watch.memory && over_memory {
            return Some(Cause::MemoryWatch);
        }
        let over_pids = self.limits.pids.is_some_and(|limit| now.threads > limit);
        (self.run.watch.pids && over_pids).then_some(Cause::PidsWatch)
    }

    fn watch_scratch(&mut self, now: Instant) -> Option<Cause> {
        let limit = self.limits.scratch_bytes?;
        let used = tree::directory_bytes(&self.run.dir, limit);
        let pause = SCRATCH_EVERY.max(now.elapsed() * 10);
        self.next_scratch = Some(Instant::now() + pause);
        (used > limit).then_some(Cause::ScratchLimit)
    }

    fn thaw(&mut self) {
        for freezer in &mut self.run.thaw {
            let _ = freezer.write_all(b"THAWED");
        }
    }

    /// Makes sure that nothing is left, then reports. A write over the file-size limit counts as the scratch limit.
    fn finish(mut self, stop: Stop) -> io::Result<()> {
        let ran = self.clock.ran();
        self.thaw();
        let (status, usage, cause) = match stop {
            Stop::Ended(status, usage) => (status, usage, None),
            Stop::Cause(cause) => {
                // What is killed unreaped takes its counts along.
                let last = tree::look(self.run.task.root()).usage;
                self.seen = self.seen.merge(last);
                let (status, usage) = self.run.task.end()?;
                (status, usage, Some(cause))
            }
            Stop::Failed(failure) => {
                self.run.task.end()?;
                return wire::send(self.control, &FromShim::Failed(failure));
            }
            Stop::AgentGone => return self.run.task.end().map(drop),
        };
        let file_too_long = status == Status::Signal(rustix::process::Signal::XFSZ.as_raw());
        let scratch =
            (file_too_long && self.limits.scratch_bytes.is_some()).then_some(Cause::ScratchLimit);
        let ended = Ended {
            status,
            cause: cause.or(scratch),
            usage: usage.merge(self.seen),
            ran_us: u64::try_from(ran.as_micros()).unwrap_or(u64::MAX),
        };
        wire::send(self.control, &FromShim::Ended(ended))
    }
}
