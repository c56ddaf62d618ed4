//! Runs a task in a container or as a process, bounded and watched, and tells how it ended.
//!
//! ```text
//! agent ── socket ── shim ── socket ── init (first process of the container) ── the task
//!    ▲       │ order, commands, end         │ pipes straight to the agent
//!    └───────┴──────────────────────────────┘ stdout, stderr
//! ```
//!
//! Each socket is a lifeline: its end means that the other side is dead, and whoever sees it kills what it started. So
//! a SIGKILL that hits only the agent takes its tasks along. Limits are the kernel's where it lets us (control groups,
//! resource limits) and watched by the shim elsewhere; [`Offer`] says which, after a probe has tried.
//!
//! # Common pitfalls
//! - The shim must be dispatched first thing in `main`: namespaces and forks need a single thread. See [`shim::main`].
//! - Read the output ([`Running::take_output`]) or discard it, or the task waits at a full pipe.
//! - Dropping [`Running`] kills the task.

pub mod bench;
mod cgroup;
mod host_root;
mod images;
mod launch;
mod oci;
mod offer;
mod output;
mod probe;
mod record;
mod running;
pub mod shim;
mod spec;
mod wire;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use self::cgroup::{Group, Hierarchy};
pub use self::images::{ImageRoot, Images, RootError};
use self::launch::Shim;
pub use self::offer::{Absent, ClassOffer, Enforcement, Enforcements, Offer};
pub use self::output::{Output, Piece, Stream};
use self::record::Record;
use self::running::Remains;
pub use self::running::{Exit, Gone, Outcome, Running, Usage};
pub use self::spec::{
    Backend, CONTAINER_DIR, Class, Layout, Leash, Limits, Rootfs, RunSpec, Slack, SpecError,
};
use self::wire::{Failure, FailureKind, Kind, Order, Watch};

/// User and group that tasks of a root agent run under: a number that distributions and systemd leave unused
/// (systemd.io, "Users, Groups, UIDs and GIDs").
pub const TASK_USER: u32 = 60_999;

/// What the machine's owner decides.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the runtime keeps records of its runs; one agent at a time.
    pub state_dir: PathBuf,
    /// Program to start as a shim; `None` means this one. Its `main` must dispatch to [`shim::main`].
    pub shim: Option<PathBuf>,
    /// Whether class `process` is offered.
    pub allow_process: bool,
    /// What runs containers.
    pub backend: Backend,
    /// User that tasks run under when the agent is root.
    pub task_user: u32,
    /// Whether a shim is kept waiting, so that starting does not include loading the program.
    pub warm: bool,
    /// Whether control groups are used where they can be.
    pub cgroups: bool,
}

impl Config {
    /// The defaults with state in `state_dir`: embedded containers only.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            shim: None,
            allow_process: false,
            backend: Backend::Embedded,
            task_user: TASK_USER,
            warm: true,
            cgroups: true,
        }
    }
}

/// Why the runtime could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state directory cannot be used.
    #[error("state directory {}: {source}", dir.display())]
    State {
        /// The directory.
        dir: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// Another agent uses the state directory.
    #[error("state directory {} is in use by another agent; give each its own", dir.display())]
    Busy {
        /// The directory.
        dir: PathBuf,
    },
}

/// Why a run was not started. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The specification is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The class is not offered here; it is never replaced by a weaker one.
    #[error("class {class} is not offered here: {reason}")]
    ClassAbsent {
        /// The class asked for.
        class: Class,
        /// Why it is missing.
        reason: String,
    },
    /// The command is not there.
    #[error("{0}")]
    NotFound(String),
    /// The command is there but is no program that may be run.
    #[error("{0}")]
    NotExecutable(String),
    /// The image's root cannot be used.
    #[error("{0}")]
    BadImage(String),
    /// The working directory is not there.
    #[error("{0}")]
    BadWorkdir(String),
    /// Isolation or limits could not be set up.
    #[error("setting up the task: {0}")]
    Setup(String),
}

impl From<Failure> for StartError {
    fn from(failure: Failure) -> Self {
        let Failure { kind, message } = failure;
        match kind {
            FailureKind::NotFound => Self::NotFound(message),
            FailureKind::NotExecutable => Self::NotExecutable(message),
            FailureKind::BadImage => Self::BadImage(message),
            FailureKind::BadWorkdir => Self::BadWorkdir(message),
            FailureKind::Setup => Self::Setup(message),
        }
    }
}

/// What a sweep found and cleared away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Names of runs that an earlier incarnation left.
    pub runs: Vec<String>,
}

/// Runs tasks on this machine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Runtime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    hierarchy: Option<Hierarchy>,
    /// Whom tasks run as, if that is not the agent itself.
    identity: Option<u32>,
    images: Images,
    offer: Offer,
    swept: Swept,
    warm: Mutex<Option<Shim>>,
    /// Held for as long as the state directory is used.
    _lock: fs::File,
}

impl Runtime {
    /// Takes the state directory, clears away what an earlier incarnation left there, and tries which classes work.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`OpenError::Busy`] if another agent uses the directory, [`OpenError::State`] if it cannot be used.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        let lock = take_state(&config.state_dir)?;
        let swept =
            clear(&config.state_dir).map_err(|source| state_error(&config.state_dir, source))?;
        let found = if config.cgroups {
            Hierarchy::find(&group_name(&config.state_dir))
        } else {
            Err("switched off by the owner".to_owned())
        };
        if let Ok(hierarchy) = &found {
            clear_groups(hierarchy);
        }
        let identity = can_become(config.task_user).then_some(config.task_user);
        let images = Images::open(config.state_dir.join(IMAGES), identity)
            .map_err(|source| state_error(&config.state_dir, source))?;
        let mut inner = Inner {
            config,
            identity,
            images,
            hierarchy: found.as_ref().ok().cloned(),
            offer: Offer::default(),
            swept,
            warm: Mutex::new(None),
            _lock: lock,
        };
        inner.offer = probe::probe(&inner, found.err()).await;
        let runtime = Self {
            inner: Arc::new(inner),
        };
        runtime.inner.prewarm();
        Ok(runtime)
    }

    /// Clears away what an earlier incarnation left in `state_dir`: processes, control groups, bundles, task
    /// directories. [`Runtime::open`] does this by itself.
    ///
    /// # Errors
    /// [`OpenError::Busy`] if an agent uses the directory, [`OpenError::State`] if it cannot be used.
    pub fn sweep(state_dir: &Path) -> Result<Swept, OpenError> {
        let _lock = take_state(state_dir)?;
        clear(state_dir).map_err(|source| state_error(state_dir, source))
    }

    /// Unpacked images, to be roots of tasks.
    #[must_use]
    pub fn images(&self) -> &Images {
        &self.inner.images
    }

    /// What works here, and why the rest does not.
    #[must_use]
    pub fn offer(&self) -> &Offer {
        &self.inner.offer
    }

    /// What [`Runtime::open`] cleared away.
    #[must_use]
    pub fn swept(&self) -> &Swept {
        &self.inner.swept
    }

    /// Gives a directory, and all below it, to the user that tasks run as; does nothing if that is this process's own.
    /// Blocking.
    ///
    /// # Errors
    /// Whatever changing an owner reports.
    pub fn give(&self, dir: &Path) -> io::Result<()> {
        self.inner.identity.map_or(Ok(()), |id| give(dir, id))
    }

    /// Starts a run and returns when its command runs.
    ///
    /// # Errors
    /// [`StartError`]; nothing of the run is left then.
    pub async fn start(&self, spec: RunSpec) -> Result<Running, StartError> {
        spec.check()?;
        if self.inner.offer.class(spec.class).is_none() {
            let reason = self.inner.offer.reason(spec.class).to_owned();
            return Err(StartError::ClassAbsent {
                class: spec.class,
                reason,
            });
        }
        let running = self.inner.launch(spec).await;
        let inner = self.inner.clone();
        tokio::spawn(async move { inner.prewarm() });
        running
    }
}

impl Inner {
    /// Starts a shim that waits, if there is none and the owner wants one.
    fn prewarm(&self) {
        let mut warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner);
        if self.config.warm && warm.is_none() {
            // Starting one when it is needed will tell what is wrong.
            *warm = Shim::spawn(&self.shim_program()).ok();
        }
    }

    fn shim_program(&self) -> PathBuf {
        self.config.shim.clone().unwrap_or_else(launch::own_program)
    }

    fn shim(&self) -> io::Result<Shim> {
        let waiting = self
            .warm
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut shim) = waiting
            && matches!(shim.child.try_wait(), Ok(None))
        {
            return Ok(shim);
        }
        Shim::spawn(&self.shim_program())
    }

    async fn launch(&self, spec: RunSpec) -> Result<Running, StartError> {
        let shim = self
            .shim()
            .map_err(|error| StartError::Setup(format!("starting the shim: {error}")))?;
        let pid = shim.child.id().unwrap_or(0);
        let prepared = self.prepare(&spec, pid)?;
        let Prepared {
            order,
            group,
            record,
        } = prepared;
        let freezer = group
            .as_ref()
            .map(|group| Group::of_dirs(group.dirs().to_vec()));
        Running::begin(shim, order, Remains { group, record }, freezer).await
    }

    /// Makes the group and the record. A few small writes to memory-backed files, so it is done in place.
    fn prepare(&self, spec: &RunSpec, shim: u32) -> Result<Prepared, StartError> {
        let name = spec.name();
        let wrong = |doing: &'static str| {
            move |error: io::Error| StartError::Setup(format!("{doing}: {error}"))
        };
        let identity = self.identity;
        if let Some(id) = identity {
            give(&spec.dir, id).map_err(wrong("handing over the task directory"))?;
        }
        let embedded = !(spec.class == Class::Container && self.config.backend == Backend::Runc);
        let group = match &self.hierarchy {
            Some(hierarchy) if embedded => Some(Group::create(hierarchy, &name, &spec.limits)),
            _ => None,
        };
        let group = group
            .transpose()
            .map_err(wrong("making the control group"))?;
        let runs = self.config.state_dir.join(RUNS);
        let runc = (!embedded).then(|| (self.bundle(&name), self.config.state_dir.join(RUNC)));
        let groups = group
            .as_ref()
            .map_or_else(Vec::new, |group| group.dirs().to_vec());
        let record = Record::write(&runs, &name, shim, groups, &spec.dir, runc)
            .map_err(wrong("recording the run"))?;
        let order = self.order(spec, name, identity, group.as_ref());
        Ok(Prepared {
            order,
            group,
            record,
        })
    }

    fn bundle(&self, name: &str) -> PathBuf {
        self.config.state_dir.join(BUNDLES).join(name)
    }

    fn order(
        &self,
        spec: &RunSpec,
        name: String,
        identity: Option<u32>,
        group: Option<&Group>,
    ) -> Order {
        let rootfs = spec.rootfs.clone();
        let kind = match (spec.class, self.config.backend) {
            (Class::Container, Backend::Embedded) => Kind::Embedded { rootfs },
            (Class::Container, Backend::Runc) => Kind::Runc {
                rootfs,
                bundle: self.bundle(&name),
                root: self.config.state_dir.join(RUNC),
                cgroup: self.hierarchy.as_ref().map(|_| Path::new("/").join(&name)),
            },
            _ => Kind::Process,
        };
        let home = if spec.class == Class::Process {
            spec.dir.as_path()
        } else {
            Path::new(CONTAINER_DIR)
        };
        Order {
            kind,
            argv: spec.argv.clone(),
            env: spec::environment(spec),
            cwd: spec.workdir.clone().unwrap_or_else(|| home.to_owned()),
            dir: spec.dir.clone(),
            input: spec.input.clone(),
            limits: spec.limits,
            leash: spec.leash,
            network: spec.network,
            join: group.map(Group::join_files).unwrap_or_default(),
            thaw: group.map(Group::thaw_files).unwrap_or_default(),
            identity,
            watch: self.watch(),
            name,
        }
    }

    /// What no control group bounds.
    fn watch(&self) -> Watch {
        let lacks = |controller| {
            self.hierarchy
                .as_ref()
                .is_none_or(|found| cgroup::enforcement(found, controller).is_none())
        };
        Watch {
            memory: lacks("memory"),
            pids: lacks("pids"),
            cpu: lacks("cpu"),
        }
    }
}

struct Prepared {
    order: Order,
    group: Option<Group>,
    record: Record,
}

/// Whether this process may become user `id` and give files away: root with the needed capabilities, in a user
/// namespace that has such a user. Root in somebody else's container is often neither.
fn can_become(id: u32) -> bool {
    use rustix::thread::CapabilitySet;
    let needed = CapabilitySet::CHOWN | CapabilitySet::SETUID | CapabilitySet::SETGID;
    let able = rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
    let maps = ["/proc/self/uid_map", "/proc/self/gid_map"];
    let mapped = |file: &str| fs::read_to_string(file).is_ok_and(|map| maps_id(&map, id));
    rustix::process::geteuid().is_root() && able && maps.into_iter().all(mapped)
}

/// Whether a `uid_map` (lines of inside, outside, count) has `id` inside.
fn maps_id(map: &str, id: u32) -> bool {
    let has = |line: &str| {
        let mut numbers = line
            .split_whitespace()
            .map_while(|word| word.parse::<u64>().ok());
        let (inside, count) = (numbers.next()?, numbers.nth(1)?);
        Some((inside..inside.saturating_add(count)).contains(&u64::from(id)))
    };
    map.lines().any(|line| has(line).unwrap_or(false))
}

const IMAGES: &str = "images";
const RUNS: &str = "runs";
const BUNDLES: &str = "bundles";
const RUNC: &str = "runc";

fn state_error(dir: &Path, source: io::Error) -> OpenError {
    OpenError::State {
        dir: dir.to_owned(),
        source,
    }
}

/// Creates the state directory, for its owner alone, and locks it.
fn take_state(dir: &Path) -> Result<fs::File, OpenError> {
    let wrong = |source| state_error(dir, source);
    fs::create_dir_all(dir).map_err(wrong)?;
    for part in [RUNS, BUNDLES, RUNC] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir.join(part))
            .map_err(wrong)?;
    }
    let lock = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("lock"))
        .map_err(wrong)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::Busy {
            dir: dir.to_owned(),
        }),
        Err(fs::TryLockError::Error(source)) => Err(wrong(source)),
    }
}

fn clear(state_dir: &Path) -> io::Result<Swept> {
    let mut swept = Swept::default();
    for record in Record::all(&state_dir.join(RUNS))? {
        record.kill();
        let _ = fs::remove_dir_all(&record.dir);
        record.remove();
        swept.runs.push(record.name);
    }
    Ok(swept)
}

/// Groups below this agent's own that no record names.
fn clear_groups(hierarchy: &Hierarchy) {
    for base in hierarchy.bases() {
        let entries = fs::read_dir(base).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.path().is_dir()) {
            Group::of_dirs(vec![entry.path()]).remove();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(hierarchy) = &self.hierarchy {
            hierarchy.remove();
        }
    }
}

/// A name for this agent's groups: no other state directory has the same.
fn group_name(state_dir: &Path) -> String {
    let real = fs::canonicalize(state_dir).unwrap_or_else(|_| state_dir.to_owned());
    let hash = blake3::hash(real.as_os_str().as_encoded_bytes());
    format!("mutual-{}", &hash.to_hex()[..12])
}

/// Gives a directory and all below it to `id`. Links are not followed, so nothing outside can be given away.
fn give(dir: &Path, id: u32) -> io::Result<()> {
    std::os::unix::fs::lchown(dir, Some(id), Some(id))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            give(&entry.path(), id)?;
        } else {
            std::os::unix::fs::lchown(entry.path(), Some(id), Some(id))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::maps_id;

    #[test]
    fn a_user_is_one_the_namespace_maps() {
        assert!(maps_id("         0          0 4294967295\n", 60_999));
        assert!(!maps_id("0 1000 1\n", 60_999));
        assert!(maps_id("0 1000 1\n1 100000 65536\n", 60_999));
        assert!(!maps_id("", 0));
    }
}
