//! Landlock rules of class `process`: which files a task may touch.
//!
//! Best effort by the kernel's version: what it has is enforced, and the probe tells the owner what it lacks. Landlock
//! cannot take a directory out of one that is allowed, so `input/` is writable to a task of this class unless the
//! agent runs as root and the task does not.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, Scope,
};

use super::super::host_root;
use super::super::wire::{Failure, Order};
use super::failed;

/// The newest interface whose rights are understood here.
const NEWEST: ABI = ABI::V6;
/// Files of the machine that an ordinary process reads beside programs and libraries.
const READABLE: &[&str] = &[
    "/etc/passwd",
    "/etc/group",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/proc",
    "/sys",
];
/// Devices that an ordinary process uses.
const DEVICES: &[&str] = &[
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/shm",
    "/dev/tty",
    "/dev/ptmx",
];

/// Rules made while all paths can still be opened.
pub(super) struct Rules(RulesetCreated);

impl Rules {
    /// The rules for one order.
    pub(super) fn of(order: &Order) -> Result<Self, Failure> {
        let mut rules = create(order.network)?;
        let read = AccessFs::from_read(NEWEST);
        for path in host_root::readable()
            .iter()
            .map(Path::new)
            .chain(READABLE.iter().map(Path::new))
        {
            rules = allow(rules, path, read)?;
        }
        let all = AccessFs::from_all(NEWEST);
        for path in DEVICES.iter().map(Path::new).chain([order.dir.as_path()]) {
            rules = allow(rules, path, all)?;
        }
        Ok(Self(rules))
    }

    /// Binds this process and all it starts.
    pub(super) fn apply(self) -> Result<(), Failure> {
        self.0
            .restrict_self()
            .map(drop)
            .map_err(failed("restricting file access"))
    }
}

fn create(network: bool) -> Result<RulesetCreated, Failure> {
    let wrong = failed("creating Landlock rules");
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .map_err(&wrong)?
        .scope(Scope::Signal | Scope::AbstractUnixSocket)
        .map_err(&wrong)?;
    if !network {
        rules = rules
            .handle_access(AccessNet::from_all(NEWEST))
            .map_err(&wrong)?;
    }
    rules.create().map_err(&wrong)
}

/// A path that is not there needs no rule. Rights that make sense for directories only are left out for files.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, Failure> {
    let Ok(file) = PathFd::new(path) else {
        return Ok(rules);
    };
    let rights = if path.is_dir() {
        rights
    } else {
        rights & AccessFs::from_file(NEWEST)
    };
    rules
        .add_rule(PathBeneath::new(file, rights))
        .map_err(failed("allowing a path"))
}

/// How far this kernel enforces Landlock: for the probe.
pub(in super::super) fn enforced() -> &'static str {
    let strict = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let files = strict().handle_access(AccessFs::from_all(ABI::V1));
    let network = strict().handle_access(AccessNet::from_all(ABI::V4));
    let signals = strict().scope(Scope::Signal);
    if !files.is_ok_and(|rules| rules.create().is_ok()) {
        "not enforced: the kernel has no Landlock"
    } else if !network.is_ok_and(|rules| rules.create().is_ok()) {
        "landlock: files only"
    } else if !signals.is_ok_and(|rules| rules.create().is_ok()) {
        "landlock: files and TCP"
    } else {
        "landlock: files, TCP and signals"
    }
}
