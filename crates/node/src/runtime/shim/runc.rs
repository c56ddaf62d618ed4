//! Class `container` through the external program `runc`: the same description, another engine.
//!
//! `runc` is no parent that takes its container along, so the shim kills the container by name when the agent dies.
//! `runc run` ends with 128 plus the signal's number when a signal ended the task: such codes are read as signals.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signalfd::SignalFd;
use rustix::process::{Pid, Signal};

use super::super::spec::{Layout, Rootfs};
use super::super::wire::{Failure, FailureKind, Kind, Order, Reaped, Status};
use super::super::{host_root, oci};
use super::supervise::{News, Supervised, Task};
use super::{failed, init, tree};

/// Codes above this mean a signal.
const SIGNAL_BASE: i32 = 128;
const LOG: &str = "log.json";

struct Run {
    children: SignalFd,
    runc: Pid,
    root: PathBuf,
    bundle: PathBuf,
    name: String,
    status: Option<Status>,
}

/// Writes the bundle and starts `runc run` on it.
pub(super) fn begin(order: Order) -> Result<Supervised, Failure> {
    let Kind::Runc {
        rootfs,
        bundle,
        root,
        cgroup,
    } = order.kind.clone()
    else {
        return Err(Failure::setup("not a container for runc"));
    };
    write_bundle(&order, &rootfs, &bundle, cgroup)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(failed("becoming a subreaper"))?;
    let children = init::watch_children()?;
    if let Some(id) = order.identity {
        hand_over_output(id)?;
    }
    let child = Command::new("runc")
        .arg("--root")
        .arg(&root)
        .args(["--log-format", "json", "--log"])
        .arg(bundle.join(LOG))
        .args(["run", "--bundle"])
        .arg(&bundle)
        .arg(&order.name)
        .stdin(Stdio::null())
        .spawn()
        .map_err(failed("starting runc; is it installed?"))?;
    let runc = Pid::from_child(&child);
    let run = Run {
        children,
        runc,
        root,
        bundle,
        name: order.name,
        status: None,
    };
    Ok(Supervised {
        task: Box::new(run),
        dir: order.dir,
        watch: order.watch,
        thaw: Vec::new(),
    })
}

fn hand_over_output(id: u32) -> Result<(), Failure> {
    let owner = (
        Some(rustix::fs::Uid::from_raw(id)),
        Some(rustix::fs::Gid::from_raw(id)),
    );
    for pipe in [io::stdout().as_fd(), io::stderr().as_fd()] {
        rustix::fs::fchown(pipe, owner.0, owner.1).map_err(failed("handing over the output"))?;
    }
    Ok(())
}

fn write_bundle(
    order: &Order,
    rootfs: &Rootfs,
    bundle: &Path,
    cgroup: Option<PathBuf>,
) -> Result<(), Failure> {
    let root = match rootfs {
        Rootfs::Host => bundle.join("rootfs"),
        Rootfs::Image { dir } => dir.clone(),
    };
    fs::create_dir_all(bundle).map_err(failed("creating the bundle"))?;
    let binds = match rootfs {
        Rootfs::Host => {
            fs::create_dir_all(&root).map_err(failed("creating the root"))?;
            host_root::build(&root, order.network).map_err(failed("building the root"))?
        }
        Rootfs::Image { .. } => Vec::new(),
    };
    let layout = Layout::of(&order.dir);
    let task = oci::TaskDirs {
        input: order.input.clone().unwrap_or_else(|| layout.input()),
        layout,
    };
    let host = oci::Host::Runc {
        identity: order.identity,
        cgroup,
    };
    let spec = oci::describe(order, &root, &task, &binds, host)
        .map_err(failed("describing the container"))?;
    spec.save(bundle.join("config.json"))
        .map_err(failed("writing the bundle"))
}

impl Run {
    fn command(&self, arguments: &[&str]) -> io::Result<()> {
        let mut command = Command::new("runc");
        command
            .arg("--root")
            .arg(&self.root)
            .args(arguments)
            .stdin(Stdio::null());
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map(drop)
    }

    fn reap(&mut self) -> io::Result<()> {
        self.status = init::reap(self.runc)?.or(self.status);
        Ok(())
    }

    fn task_status(&self) -> Status {
        match self.status {
            Some(Status::Code(code)) if code > SIGNAL_BASE && code <= SIGNAL_BASE + 64 => {
                Status::Signal(code - SIGNAL_BASE)
            }
            Some(status) => status,
            None => Status::Signal(Signal::KILL.as_raw()),
        }
    }

    /// What `runc` itself had to say, if it did not get as far as running the command.
    fn failure(&self) -> Option<Failure> {
        let log = fs::read_to_string(self.bundle.join(LOG)).ok()?;
        let last = log.lines().rev().find_map(|line| {
            let entry: serde_json::Value = serde_json::from_str(line).ok()?;
            (entry["level"] == "error").then_some(entry)
        })?;
        let message = last["msg"].as_str()?.to_owned();
        let kind = if message.contains("executable file not found")
            || message.contains("no such file or directory")
        {
            FailureKind::NotFound
        } else if message.contains("permission denied") || message.contains("exec format error") {
            FailureKind::NotExecutable
        } else {
            FailureKind::Setup
        };
        Some(Failure { kind, message })
    }
}

impl Task for Run {
    fn wakes(&self) -> BorrowedFd<'_> {
        self.children.as_fd()
    }

    fn news(&mut self) -> io::Result<News> {
        init::drain(&self.children);
        self.reap()?;
        if self.status.is_none() {
            return Ok(News::Nothing);
        }
        if let Some(failure) = self.failure() {
            return Ok(News::Failed(failure));
        }
        let status = self.task_status();
        self.end()?;
        Ok(News::Ended(status, tree::reaped()))
    }

    fn signal(&mut self, signal: i32) -> io::Result<()> {
        self.command(&["kill", &self.name, &signal.to_string()])
    }

    fn pause(&mut self, paused: bool) -> io::Result<()> {
        self.command(&[if paused { "pause" } else { "resume" }, &self.name])
    }

    fn end(&mut self) -> io::Result<(Status, Reaped)> {
        self.command(&["delete", "--force", &self.name])?;
        loop {
            tree::kill_descendants(self.root());
            self.reap()?;
            match rustix::process::wait(rustix::process::WaitOptions::empty()) {
                Err(rustix::io::Errno::CHILD) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok((self.task_status(), tree::reaped()))
    }

    fn task(&self) -> Pid {
        self.runc
    }

    fn root(&self) -> Pid {
        rustix::process::getpid()
    }
}
