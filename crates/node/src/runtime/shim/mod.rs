//! `mutual shim`: the small process between the agent and one task.
//!
//! It is this very program again, dispatched before any thread starts, because entering namespaces and forking are
//! only sound in a single-threaded process. Its standard input is a socket to the agent: the order comes in, commands
//! follow, events go out, and end of file means that the agent is dead: then everything the shim started is killed.
//! Its standard output and error are the task's own pipes; it writes nothing to them.
//!
//! An agent keeps one shim waiting for an order, so that loading the program is not part of a task's start.

mod confine;
mod container;
mod init;
mod leash;
mod limits;
mod process;
mod runc;
mod seccomp;
mod supervise;
mod tree;

use std::cell::RefCell;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use self::supervise::Supervised;
use super::wire::{self, Failure, FromShim, Kind, Order, ToShim};

pub(super) use self::confine::enforced as landlock_enforced;
pub(super) use self::seccomp::names as allowed_calls;

/// First argument of the second stage of class `process`.
pub(super) const TASK_STAGE: &str = "task";

/// Runs the shim and returns when the task is gone. Call it first thing in `main`, before any thread exists, when the
/// first argument is `shim`; `args` are the arguments after it.
pub fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let stage = args.next();
    let outcome = match stage.as_ref().and_then(|name| name.to_str()) {
        None => serve(),
        Some(TASK_STAGE) => process::task_stage(),
        Some(_) => Err(io::Error::other("unknown stage")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Takes over standard input as a socket and leaves `/dev/null` in its place.
fn take_stdin() -> io::Result<UnixStream> {
    let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin().as_fd(), 3)?;
    rustix::stdio::dup2_stdin(null()?)?;
    Ok(UnixStream::from(socket))
}

/// Gives up the task's pipes, so that their readers see the end when the task's processes are gone.
fn release_output() -> io::Result<()> {
    let null = null()?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

fn null() -> io::Result<OwnedFd> {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    Ok(file.into())
}

fn serve() -> io::Result<()> {
    let control = take_stdin()?;
    // One session of its own: a terminal's signals to the agent are not meant for its tasks.
    let _ = rustix::process::setsid();
    let filter = seccomp::compile();
    let Some(ToShim::Start(order)) = wire::receive(&control)? else {
        return Ok(());
    };
    let bounds = (order.limits, order.leash);
    let held = container::Held::new(RefCell::new(Some(control)));
    let begun = begin(*order, filter, &held);
    let control = held
        .take()
        .ok_or_else(|| io::Error::other("the control socket is gone"))?;
    match begun {
        Ok(run) => supervise::run(&control, run, bounds),
        Err(failure) => wire::send(&control, &FromShim::Failed(failure)),
    }
}

fn begin(
    order: Order,
    filter: Result<seccomp::Filter, Failure>,
    control: &container::Held,
) -> Result<Supervised, Failure> {
    let filter = filter?;
    match order.kind {
        Kind::Process => process::begin(order),
        Kind::Embedded { .. } => container::begin(order, filter, control),
        Kind::Runc { .. } => runc::begin(order),
    }
}

/// Turns an error into a [`Failure`] that says what was being done.
fn failed<E: std::fmt::Display>(doing: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure::setup(format!("{doing}: {error}"))
}

/// Kills all descendants of a process, for whoever finds a shim that outlived its agent.
pub(super) fn kill_tree(root: rustix::process::Pid) {
    tree::kill_descendants(root);
}
