//! One run's control group: limits, counts, freezing, killing. Version 1, hybrid and version 2.
//!
//! The agent makes a group per run below its own, so that whatever bounds the agent bounds its tasks. Version 1 has one
//! hierarchy per controller, so a group is a set of directories; version 2 has one. In a hybrid set-up the controllers
//! are in version 1.

mod detect;
mod version1;
mod version2;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(super) use self::detect::Hierarchy;
use super::offer::Enforcement;
use super::spec::Limits;
use super::wire::Reaped;

/// How long a group may keep refusing to go: its last processes are being reaped.
const REMOVE_WITHIN: Duration = Duration::from_secs(2);
const REMOVE_EVERY: Duration = Duration::from_millis(2);

/// The group of one run.
#[derive(Debug)]
pub(super) struct Group {
    version: Version,
    /// Directory per controller (version 1) or the only one (version 2).
    dirs: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

impl Group {
    /// Makes the group `name` with `limits`; what cannot be enforced here was told by the probe.
    pub(super) fn create(hierarchy: &Hierarchy, name: &str, limits: &Limits) -> io::Result<Self> {
        let group = Self::named(hierarchy, name);
        let made = group.make(limits);
        if made.is_err() {
            group.remove();
        }
        made.map(|()| group)
    }

    /// The group `name` whether it exists or not.
    pub(super) fn named(hierarchy: &Hierarchy, name: &str) -> Self {
        Self {
            version: hierarchy.version,
            dirs: hierarchy.bases.iter().map(|base| base.join(name)).collect(),
        }
    }

    /// The group with these directories, from the record of an earlier incarnation.
    pub(super) fn of_dirs(dirs: Vec<PathBuf>) -> Self {
        let version2 = dirs
            .first()
            .is_some_and(|dir| dir.join("cgroup.events").exists());
        let version = if version2 { Version::Two } else { Version::One };
        Self { version, dirs }
    }

    fn make(&self, limits: &Limits) -> io::Result<()> {
        for dir in &self.dirs {
            match fs::create_dir(dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        match self.version {
            Version::One => self
                .dirs
                .iter()
                .try_for_each(|dir| version1::limit(dir, limits)),
            Version::Two => self
                .dirs
                .iter()
                .try_for_each(|dir| version2::limit(dir, limits)),
        }
    }

    pub(super) fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// Files to which a single-threaded process writes `0` to enter.
    pub(super) fn join_files(&self) -> Vec<PathBuf> {
        let file = match self.version {
            Version::One => "tasks",
            Version::Two => "cgroup.procs",
        };
        self.dirs.iter().map(|dir| dir.join(file)).collect()
    }

    /// Files to which `THAWED` is written before frozen processes can be killed; version 2 needs none.
    pub(super) fn thaw_files(&self) -> Vec<PathBuf> {
        self.dirs
            .iter()
            .map(|dir| dir.join("freezer.state"))
            .filter(|file| file.exists())
            .collect()
    }

    /// Stops or continues all processes at once; `false` if this machine has no freezer for us.
    pub(super) fn freeze(&self, frozen: bool) -> bool {
        let done = |dir: &PathBuf| match self.version {
            Version::One => version1::freeze(dir, frozen),
            Version::Two => version2::freeze(dir, frozen),
        };
        self.dirs.iter().any(done)
    }

    /// What was used so far.
    pub(super) fn usage(&self) -> Reaped {
        let usage = |dir: &PathBuf| match self.version {
            Version::One => version1::usage(dir),
            Version::Two => version2::usage(dir),
        };
        self.dirs
            .iter()
            .map(usage)
            .fold(Reaped::default(), Reaped::merge)
    }

    /// How many processes the kernel killed because the group was out of memory.
    pub(super) fn oom_kills(&self) -> u64 {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let counts = self
            .dirs
            .iter()
            .map(|dir| keyed(&dir.join(file), "oom_kill"));
        counts.max().unwrap_or(0)
    }

    /// Kills every process in the group, frozen ones too.
    pub(super) fn kill(&self) {
        let at_once = self
            .dirs
            .iter()
            .any(|dir| fs::write(dir.join("cgroup.kill"), "1").is_ok());
        if !at_once {
            for pid in self.pids() {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        self.freeze(false);
    }

    fn pids(&self) -> Vec<rustix::process::Pid> {
        let lists = self
            .dirs
            .iter()
            .filter_map(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok());
        let pids: Vec<i32> = lists
            .flat_map(|list| {
                list.lines()
                    .filter_map(|line| line.parse().ok())
                    .collect::<Vec<_>>()
            })
            .collect();
        pids.into_iter()
            .filter_map(rustix::process::Pid::from_raw)
            .collect()
    }

    /// Kills what is left and removes the group; `false` if something would not go in time.
    pub(super) fn remove(&self) -> bool {
        let deadline = Instant::now() + REMOVE_WITHIN;
        let mut left: Vec<&PathBuf> = self.dirs.iter().collect();
        loop {
            left.retain(|dir| !remove_dir(dir));
            if left.is_empty() {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            self.kill();
            std::thread::sleep(REMOVE_EVERY);
        }
    }
}

fn remove_dir(dir: &Path) -> bool {
    match fs::remove_dir(dir) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Which limits a hierarchy enforces, for the offer.
pub(super) fn enforcement(hierarchy: &Hierarchy, controller: &str) -> Option<Enforcement> {
    let has = hierarchy.controllers.iter().any(|name| name == controller);
    has.then_some(match hierarchy.version {
        Version::One => Enforcement::CgroupV1,
        Version::Two => Enforcement::CgroupV2,
    })
}

/// The number after `key` at the start of a line; 0 if there is none.
fn keyed(path: &Path, key: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = |line: &str| {
        line.strip_prefix(key)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    };
    text.lines().find_map(value).unwrap_or(0)
}

/// The number a file holds; `None` if it is not there.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn write(dir: &Path, file: &str, value: impl ToString) -> io::Result<()> {
    let path = dir.join(file);
    let wrote = fs::write(&path, value.to_string());
    wrote.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
