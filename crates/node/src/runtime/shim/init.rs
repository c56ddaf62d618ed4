//! The container's first process: starts the task, reaps orphans, passes signals on, and dies with the shim.
//!
//! With an init of our own the task is an ordinary process: signals have their usual effect, its end is told exactly,
//! and a command that is not there is told apart from one that fails. When the shim dies the socket ends; then init
//! exits, and the kernel kills the whole PID namespace.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{SigSet, SigmaskHow, Signal as NixSignal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, wait};

use super::super::spec::Limits;
use super::super::wire::{self, Failure, FailureKind, FromInit, Status, ToInit, Watch};
use super::seccomp::Filter;
use super::{failed, limits, tree};

/// What init needs; everything is opened before the root changes.
pub(super) struct Init<'a> {
    pub(super) shim: &'a UnixStream,
    pub(super) join: &'a [File],
    pub(super) filter: &'a Filter,
    pub(super) argv: &'a [String],
    pub(super) env: &'a BTreeMap<String, String>,
    pub(super) cwd: &'a Path,
    pub(super) limits: &'a Limits,
    pub(super) watch: Watch,
}

impl Init<'_> {
    /// Runs the task to its end and tells the shim.
    pub(super) fn run(&self) -> io::Result<()> {
        match self.start() {
            Ok((child, children)) => self.follow(&child, &children),
            Err(failure) => wire::send(self.shim, &FromInit::Failed(failure)),
        }
    }

    fn start(&self) -> Result<(Child, SignalFd), Failure> {
        self.limit()?;
        enter_directory(self.cwd)?;
        let children = watch_children()?;
        self.filter.apply()?;
        let child = spawn(self.argv, self.env)?;
        super::release_output().map_err(failed("releasing the output"))?;
        wire::send(self.shim, &FromInit::Started).map_err(failed("telling the shim"))?;
        Ok((child, children))
    }

    fn limit(&self) -> Result<(), Failure> {
        join_cgroups(self.join)?;
        limits::apply(self.limits, self.watch.cpu).map_err(failed("setting limits"))?;
        if let (true, Some(count)) = (self.watch.pids, self.limits.pids) {
            // Counted per user namespace; init is one of them.
            limits::processes(count.saturating_add(1)).map_err(failed("limiting processes"))?;
        }
        Ok(())
    }

    fn follow(&self, child: &Child, children: &SignalFd) -> io::Result<()> {
        let task = Pid::from_child(child);
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(self.shim.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(children.as_fd(), PollFlags::IN),
            ];
            poll(&mut fds, None)?;
            if !fds[1].revents().is_empty() {
                drain(children);
                if let Some(status) = reap(task)? {
                    let usage = tree::reaped();
                    return wire::send(self.shim, &FromInit::Ended { status, usage });
                }
            }
            if !fds[0].revents().is_empty() && !self.command(task)? {
                return Ok(());
            }
        }
    }

    /// Obeys one command; `false` when the shim is gone.
    fn command(&self, task: Pid) -> io::Result<bool> {
        match wire::receive(self.shim)? {
            None => return Ok(false),
            Some(ToInit::Signal(number)) => signal(task, number)?,
            Some(ToInit::Pause(true)) => signal_others(Signal::STOP),
            Some(ToInit::Pause(false)) => signal_others(Signal::CONT),
        }
        Ok(true)
    }
}

/// Enters cgroups through files opened before privileges were given up. A thread that moves only itself through
/// `tasks` spares the kernel a wait for all processors, 10 to 25 ms through `cgroup.procs` (measured).
pub(super) fn join_cgroups(files: &[File]) -> Result<(), Failure> {
    for mut file in files {
        file.write_all(b"0")
            .map_err(failed("entering the cgroup"))?;
    }
    Ok(())
}

/// A descriptor that becomes readable when a child ends.
pub(super) fn watch_children() -> Result<SignalFd, Failure> {
    let mut mask = SigSet::empty();
    mask.add(NixSignal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None).map_err(failed("blocking SIGCHLD"))?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(failed("opening a signalfd"))
}

pub(super) fn drain(children: &SignalFd) {
    while let Ok(Some(_)) = children.read_signal() {}
}

/// Reaps everything that has ended; gives the task's status if it is among them.
pub(super) fn reap(task: Pid) -> io::Result<Option<Status>> {
    let mut found = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == task => found = found.or(ended(status)),
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(found),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

pub(super) fn ended(status: WaitStatus) -> Option<Status> {
    let code = status.exit_status().map(Status::Code);
    code.or_else(|| status.terminating_signal().map(Status::Signal))
}

pub(super) fn signal(task: Pid, number: i32) -> io::Result<()> {
    let signal = Signal::from_named_raw(number).ok_or(rustix::io::Errno::INVAL)?;
    match rustix::process::kill_process(task, signal) {
        // It has just ended: the agent will hear of that next.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Signals every process of this PID namespace but init itself.
fn signal_others(signal: Signal) {
    tree::signal_descendants(rustix::process::getpid(), signal);
}

pub(super) fn enter_directory(dir: &Path) -> Result<(), Failure> {
    std::env::set_current_dir(dir).map_err(|error| Failure {
        kind: FailureKind::BadWorkdir,
        message: format!(
            "workdir {}: {error}; it must exist in the task's root file system",
            dir.display()
        ),
    })
}

fn spawn(argv: &[String], env: &BTreeMap<String, String>) -> Result<Child, Failure> {
    let (program, arguments) = argv
        .split_first()
        .ok_or_else(|| Failure::setup("empty command"))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(env)
        .stdin(Stdio::null())
        .process_group(0);
    command
        .spawn()
        .map_err(|error| not_started(program, &error))
}

/// Says which of the usual mistakes kept a command from starting.
pub(super) fn not_started(program: &str, error: &io::Error) -> Failure {
    let (kind, message) = match error
        .raw_os_error()
        .map(rustix::io::Errno::from_raw_os_error)
    {
        Some(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => (
            FailureKind::NotFound,
            format!(
                "command {program:?} was not found in the task's root file system; give its path or install it"
            ),
        ),
        Some(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM | rustix::io::Errno::ISDIR) => (
            FailureKind::NotExecutable,
            format!("command {program:?} may not be executed; set its executable bit (chmod +x)"),
        ),
        Some(rustix::io::Errno::NOEXEC) => (
            FailureKind::NotExecutable,
            format!(
                "command {program:?} is no program for this machine; a script needs a `#!` line"
            ),
        ),
        _ => (FailureKind::Setup, format!("starting {program:?}: {error}")),
    };
    Failure { kind, message }
}
