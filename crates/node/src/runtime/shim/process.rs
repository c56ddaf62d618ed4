//! Class `process`: the task as a process of the machine, in its own session, with limits, Landlock and seccomp.
//!
//! Restrictions bind whoever asks for them, so a second stage of the shim takes them on and then becomes the task. The
//! shim itself stays outside them and adopts every orphan (a subreaper), so that nothing outlives it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sys::signalfd::SignalFd;
use rustix::process::{Pid, Signal};

use super::super::wire::{self, Failure, Order, Reaped, Status};
use super::supervise::{News, Supervised, Task};
use super::{TASK_STAGE, confine, failed, init, limits, seccomp, tree};

struct Tree {
    children: SignalFd,
    task: Pid,
    status: Option<Status>,
}

/// Starts the second stage and waits until it has become the task, or has said why it could not.
pub(super) fn begin(order: Order) -> Result<Supervised, Failure> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(failed("becoming a subreaper"))?;
    let children = init::watch_children()?;
    let (ours, theirs) = UnixStream::pair().map_err(failed("opening a socket pair"))?;
    let child = Command::new("/proc/self/exe")
        .args(["shim", TASK_STAGE])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .map_err(failed("starting the second stage"))?;
    let task = Pid::from_child(&child);
    let (dir, watch) = (order.dir.clone(), order.watch);
    let thaw = super::container::open_thaw(&order.thaw);
    if let Some(failure) = hand_over(&ours, &order)? {
        return Err(failure);
    }
    let task = Tree {
        children,
        task,
        status: None,
    };
    Ok(Supervised {
        task: Box::new(task),
        dir,
        watch,
        thaw,
    })
}

/// The second stage's socket closes when it becomes the task: then there is no failure.
fn hand_over(stage: &UnixStream, order: &Order) -> Result<Option<Failure>, Failure> {
    wire::send(stage, order).map_err(failed("handing over the order"))?;
    wire::receive(stage).map_err(failed("waiting for the second stage"))
}

impl Tree {
    fn reap(&mut self) -> io::Result<()> {
        self.status = init::reap(self.task)?.or(self.status);
        Ok(())
    }
}

impl Task for Tree {
    fn wakes(&self) -> BorrowedFd<'_> {
        self.children.as_fd()
    }

    fn news(&mut self) -> io::Result<News> {
        init::drain(&self.children);
        self.reap()?;
        if self.status.is_none() {
            return Ok(News::Nothing);
        }
        let (status, usage) = self.end()?;
        Ok(News::Ended(status, usage))
    }

    fn signal(&mut self, signal: i32) -> io::Result<()> {
        init::signal(self.task, signal)
    }

    fn pause(&mut self, paused: bool) -> io::Result<()> {
        let signal = if paused { Signal::STOP } else { Signal::CONT };
        tree::signal_descendants(self.root(), signal);
        Ok(())
    }

    /// Every orphan comes back to this process, so none is left when it has no children.
    fn end(&mut self) -> io::Result<(Status, Reaped)> {
        loop {
            tree::kill_descendants(self.root());
            self.reap()?;
            match rustix::process::wait(rustix::process::WaitOptions::empty()) {
                Ok(Some((pid, status))) if pid == self.task => {
                    self.status = self.status.or(init::ended(status));
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CHILD) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let killed = Status::Signal(Signal::KILL.as_raw());
        Ok((self.status.unwrap_or(killed), tree::reaped()))
    }

    fn task(&self) -> Pid {
        self.task
    }

    fn root(&self) -> Pid {
        rustix::process::getpid()
    }
}

/// The second stage: takes the order from standard input, restricts itself and becomes the task.
pub(super) fn task_stage() -> io::Result<()> {
    let shim = super::take_stdin()?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let Some(order) = wire::receive::<Order>(&shim)? else {
        return Ok(());
    };
    let failure = become_task(&order);
    wire::send(&shim, &failure)
}

/// Returns only if it fails.
fn become_task(order: &Order) -> Failure {
    if let Err(failure) = restrict(order) {
        return failure;
    }
    let Some((program, arguments)) = order.argv.split_first() else {
        return Failure::setup("empty command");
    };
    let mut command = Command::new(program);
    let error = command.args(arguments).env_clear().envs(&order.env).exec();
    init::not_started(program, &error)
}

fn restrict(order: &Order) -> Result<(), Failure> {
    rustix::process::setsid().map_err(failed("opening a session"))?;
    let join = super::container::open_join(&order.join)?;
    init::join_cgroups(&join)?;
    limits::apply(&order.limits, order.watch.cpu).map_err(failed("setting limits"))?;
    let rules = confine::Rules::of(order)?;
    if let Some(id) = order.identity {
        super::container::drop_identity(id)?;
        // The kernel forgets this wish when the identity changes.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(failed("asking for a death signal"))?;
    }
    init::enter_directory(&order.cwd)?;
    rustix::thread::set_no_new_privs(true).map_err(failed("giving up new privileges"))?;
    rules.apply()?;
    seccomp::compile()?.apply()
}
