//! What to run and with which limits: plain data, checked before anything is started.
//!
//! The same layout holds in every class, so that a task need not know where it runs. Its working directory is the
//! task directory, in which it finds `input/` (read-only in containers), `output/`, `checkpoint/` and `tmp/`. In a
//! container that directory is `/mutual` and `/tmp` is its `tmp/`; in class `process` it is the real path. The
//! environment gives the absolute paths: `MUTUAL_DIR`, `MUTUAL_INPUT`, `MUTUAL_OUTPUT`, `MUTUAL_CHECKPOINT_DIR`,
//! `TMPDIR`, `HOME`; and `MUTUAL_JOB`, `MUTUAL_ATTEMPT`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mutual_model::job::IsolationClass;
use serde::{Deserialize, Serialize};

/// Where the task directory appears inside a container.
pub const CONTAINER_DIR: &str = "/mutual";

/// Most bytes of one argument or variable: the kernel's own `MAX_ARG_STRLEN`.
const ARGUMENT_BYTES_MAX: usize = 128 * 1024;
/// Most bytes of all arguments and variables together; the kernel allows a quarter of the stack limit, 2 MiB usually.
const ARGUMENTS_BYTES_MAX: usize = 1024 * 1024;
/// Longest run id: it names directories and cgroups.
const ID_BYTES_MAX: usize = 200;
/// A second of one processor is 1,000 of these; a machine has fewer than a hundred thousand processors.
const CPU_MILLIS_MAX: u32 = 100_000_000;
/// Less than this and the container itself cannot start.
pub(super) const MEMORY_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// The container's init needs one and the task one.
const PIDS_MIN: u32 = 1;

/// How strongly a task is kept apart from the machine, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// A virtual machine of its own (Kata); needs containerd, which this version does not drive.
    Vm,
    /// A kernel in user space (gVisor); needs containerd, which this version does not drive.
    Sandbox,
    /// Namespaces, cgroups, seccomp, no capabilities, read-only root.
    Container,
    /// An ordinary process in its own session with limits; only where the machine's owner allows it.
    Process,
}

impl From<IsolationClass> for Class {
    fn from(class: IsolationClass) -> Self {
        match class {
            IsolationClass::Process => Self::Process,
            IsolationClass::Container => Self::Container,
            IsolationClass::Sandbox => Self::Sandbox,
            IsolationClass::Vm => Self::Vm,
        }
    }
}

impl Class {
    /// All classes, strongest first.
    pub const ALL: [Self; 4] = [Self::Vm, Self::Sandbox, Self::Container, Self::Process];

    /// The word used in job files and offers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vm => "vm",
            Self::Sandbox => "sandbox",
            Self::Container => "container",
            Self::Process => "process",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What runs containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// `libcontainer` inside the shim; needs nothing installed.
    #[default]
    Embedded,
    /// The external program `runc`.
    Runc,
}

/// The root file system a container sees. Class `process` always sees the machine's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rootfs {
    /// The machine's programs and libraries by an allow-list, read-only (see `host_root`).
    Host,
    /// An unpacked image; never written to, so tasks may share it.
    Image {
        /// The directory that holds the unpacked root.
        dir: PathBuf,
    },
}

/// Bounds of one run; `None` means unbounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Processor time, in thousandths of one processor.
    pub cpu_millis: Option<u32>,
    /// Memory of all processes together, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads at once.
    pub pids: Option<u32>,
    /// Bytes in the task directory (`input/` not counted).
    pub scratch_bytes: Option<u64>,
    /// Running time, pauses not counted.
    pub time: Option<Duration>,
}

/// One run of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSpec {
    /// The job, as the task sees it in `MUTUAL_JOB`. With `attempt` it names the run.
    pub job: String,
    /// Which attempt this is, from 1; `MUTUAL_ATTEMPT`.
    pub attempt: u32,
    /// The class asked for; it is never weakened.
    pub class: Class,
    /// Root file system (class `container`).
    pub rootfs: Rootfs,
    /// The command: a path, or a name looked up in the task's `PATH`, and its arguments.
    pub argv: Vec<String>,
    /// Variables of the task beside those the runtime sets; none is inherited from the agent.
    pub env: BTreeMap<String, String>,
    /// Working directory inside the container instead of the task directory (an image's own, say).
    pub workdir: Option<PathBuf>,
    /// The prepared task directory, see [`Layout`].
    pub dir: PathBuf,
    /// What a container sees, read-only, as its input instead of the task directory's own, so that tasks may share it.
    /// Other classes, which could write to it, take no notice.
    pub input: Option<PathBuf>,
    /// Bounds.
    pub limits: Limits,
    /// Whether the task may use the machine's network.
    pub network: bool,
    /// Until when it may go on if nothing more is heard of the agent; as long as it likes if absent.
    pub leash: Option<Leash>,
}

/// Until when a task may go on if nothing more is heard of its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leash {
    /// Microseconds of CLOCK_BOOTTIME, which goes on while the machine sleeps.
    pub until_us: u64,
    /// What happens then.
    pub then: Slack,
}

/// What happens to a task whose leash is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slack {
    /// It is frozen until there is more time.
    Pause,
    /// It is killed.
    Kill,
}

/// Why a [`RunSpec`] was refused; nothing was started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A field has a value that cannot be run.
    #[error("{field}: {problem}")]
    Field {
        /// The field as the job file names it.
        field: &'static str,
        /// What is wrong and how to mend it.
        problem: String,
    },
}

fn field(field: &'static str, problem: impl Into<String>) -> SpecError {
    SpecError::Field {
        field,
        problem: problem.into(),
    }
}

impl RunSpec {
    /// A run of `argv` in `dir` with no limits, no network and the machine's own programs.
    #[must_use]
    pub fn new(job: impl Into<String>, class: Class, argv: Vec<String>, dir: PathBuf) -> Self {
        Self {
            job: job.into(),
            attempt: 1,
            class,
            rootfs: Rootfs::Host,
            argv,
            env: BTreeMap::new(),
            workdir: None,
            dir,
            input: None,
            limits: Limits::default(),
            leash: None,
            network: false,
        }
    }

    /// Directory and cgroup name of the run: `job-attempt` with every unusual byte replaced.
    #[must_use]
    pub fn name(&self) -> String {
        let job: String = self.job.chars().map(name_char).collect();
        format!("{job}-{}", self.attempt)
    }

    /// Checks everything that can be known before a start.
    ///
    /// # Errors
    /// [`SpecError::Field`] names the first bad field.
    pub fn check(&self) -> Result<(), SpecError> {
        self.check_id()?;
        self.check_command()?;
        self.check_paths()?;
        self.limits.check()
    }

    fn check_id(&self) -> Result<(), SpecError> {
        if self.job.is_empty() || self.job.len() > ID_BYTES_MAX {
            return Err(field("job", format!("must have 1 to {ID_BYTES_MAX} bytes")));
        }
        Ok(())
    }

    fn check_command(&self) -> Result<(), SpecError> {
        if self.argv.first().is_none_or(String::is_empty) {
            return Err(field("command", "is empty; give a program to run"));
        }
        for argument in &self.argv {
            check_string("command", argument)?;
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.contains('=') {
                return Err(field("env", format!("{name:?} is no variable name")));
            }
            check_string("env", name)?;
            check_string("env", value)?;
        }
        let arguments = self.argv.iter().map(String::len);
        let variables = self
            .env
            .iter()
            .map(|(name, value)| name.len() + value.len());
        if arguments.chain(variables).sum::<usize>() > ARGUMENTS_BYTES_MAX {
            let problem =
                format!("with env exceeds {ARGUMENTS_BYTES_MAX} bytes; pass data as input files");
            return Err(field("command", problem));
        }
        Ok(())
    }

    fn check_paths(&self) -> Result<(), SpecError> {
        check_path("dir", &self.dir)?;
        if let Some(workdir) = &self.workdir {
            check_path("workdir", workdir)?;
        }
        if let Rootfs::Image { dir } = &self.rootfs {
            check_path("image", dir)?;
        }
        if let Some(input) = &self.input {
            check_path("input", input)?;
        }
        Ok(())
    }
}

pub(super) fn name_char(c: char) -> char {
    if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') {
        c
    } else {
        '_'
    }
}

fn check_string(name: &'static str, text: &str) -> Result<(), SpecError> {
    if text.contains('\0') {
        return Err(field(name, "contains a NUL byte"));
    }
    if text.len() > ARGUMENT_BYTES_MAX {
        return Err(field(
            name,
            format!("one value exceeds {ARGUMENT_BYTES_MAX} bytes"),
        ));
    }
    Ok(())
}

fn check_path(name: &'static str, path: &Path) -> Result<(), SpecError> {
    let plain = path.is_absolute()
        && !path
            .components()
            .any(|part| part == std::path::Component::ParentDir);
    match path.to_str() {
        None => Err(field(name, "path is not UTF-8")),
        Some(text) if !plain || text.contains('\0') => Err(field(
            name,
            format!("{text:?} must be an absolute path without `..`"),
        )),
        Some(_) => Ok(()),
    }
}

impl Limits {
    fn check(&self) -> Result<(), SpecError> {
        if self
            .cpu_millis
            .is_some_and(|millis| millis == 0 || millis > CPU_MILLIS_MAX)
        {
            return Err(field("cpus", "must be above 0 and below 100,000"));
        }
        if self
            .memory_bytes
            .is_some_and(|bytes| !(MEMORY_BYTES_MIN..=1 << 62).contains(&bytes))
        {
            return Err(field(
                "memory",
                format!("must be at least {MEMORY_BYTES_MIN} bytes"),
            ));
        }
        if self
            .pids
            .is_some_and(|pids| !(PIDS_MIN..=4_000_000).contains(&pids))
        {
            return Err(field("pids", "must be between 1 and 4,000,000"));
        }
        if self.scratch_bytes == Some(0) {
            return Err(field("scratch", "must be above 0"));
        }
        if self.time == Some(Duration::ZERO) {
            return Err(field("timeout", "must be above 0"));
        }
        Ok(())
    }
}

/// The task directory and its four parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The task directory: the task's working directory.
    pub dir: PathBuf,
}

impl Layout {
    /// Names the parts below `dir` without touching the disk.
    #[must_use]
    pub fn of(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Creates the directory and its parts; existing ones are kept.
    ///
    /// # Errors
    /// Whatever creating a directory reports.
    pub fn prepare(dir: impl Into<PathBuf>) -> std::io::Result<Self> {
        let layout = Self::of(dir);
        for part in [
            layout.input(),
            layout.output(),
            layout.checkpoint(),
            layout.tmp(),
        ] {
            std::fs::create_dir_all(part)?;
        }
        Ok(layout)
    }

    /// What the task reads.
    #[must_use]
    pub fn input(&self) -> PathBuf {
        self.dir.join("input")
    }

    /// What the task leaves as its result.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        self.dir.join("output")
    }

    /// What survives into the next attempt.
    #[must_use]
    pub fn checkpoint(&self) -> PathBuf {
        self.dir.join("checkpoint")
    }

    /// Temporary files.
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }
}

/// The full environment of a run, the runtime's own variables last so that a task's cannot replace them.
pub(super) fn environment(spec: &RunSpec) -> BTreeMap<String, String> {
    let dir = match spec.class {
        Class::Process => spec.dir.as_path(),
        _ => Path::new(CONTAINER_DIR),
    };
    let layout = Layout::of(dir);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), path.to_owned()),
        ("HOME".to_owned(), text(dir)),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
    ]);
    env.extend(spec.env.clone());
    env.extend([
        ("TMPDIR".to_owned(), text(&layout.tmp())),
        ("MUTUAL_DIR".to_owned(), text(dir)),
        ("MUTUAL_INPUT".to_owned(), text(&layout.input())),
        ("MUTUAL_OUTPUT".to_owned(), text(&layout.output())),
        (
            "MUTUAL_CHECKPOINT_DIR".to_owned(),
            text(&layout.checkpoint()),
        ),
        ("MUTUAL_JOB".to_owned(), spec.job.clone()),
        ("MUTUAL_ATTEMPT".to_owned(), spec.attempt.to_string()),
    ]);
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> RunSpec {
        RunSpec::new(
            "job",
            Class::Process,
            vec!["true".into()],
            "/scratch".into(),
        )
    }

    fn refused(change: impl FnOnce(&mut RunSpec), name: &'static str) {
        let mut spec = valid();
        change(&mut spec);
        let SpecError::Field { field, .. } = spec.check().expect_err("a bad spec passed");
        assert_eq!(field, name);
    }

    #[test]
    fn bad_fields_are_named() {
        assert_eq!(valid().check(), Ok(()));
        refused(|spec| spec.argv.clear(), "command");
        refused(|spec| spec.argv = vec![String::new()], "command");
        refused(|spec| spec.argv.push("a\0b".into()), "command");
        refused(
            |spec| spec.argv.push("x".repeat(ARGUMENT_BYTES_MAX + 1)),
            "command",
        );
        refused(
            |spec| drop(spec.env.insert("A=B".into(), String::new())),
            "env",
        );
        refused(
            |spec| drop(spec.env.insert(String::new(), String::new())),
            "env",
        );
        refused(|spec| spec.dir = "relative".into(), "dir");
        refused(|spec| spec.dir = "/a/../b".into(), "dir");
        refused(|spec| spec.job.clear(), "job");
        refused(|spec| spec.limits.cpu_millis = Some(0), "cpus");
        refused(|spec| spec.limits.memory_bytes = Some(1), "memory");
        refused(|spec| spec.limits.memory_bytes = Some(u64::MAX), "memory");
        refused(|spec| spec.limits.pids = Some(0), "pids");
        refused(|spec| spec.limits.scratch_bytes = Some(0), "scratch");
        refused(|spec| spec.limits.time = Some(Duration::ZERO), "timeout");
    }

    #[test]
    fn names_stay_inside_their_directory() {
        let mut spec = valid();
        spec.job = "../../etc/x y".into();
        assert_eq!(spec.name(), "______etc_x_y-1");
    }

    #[test]
    fn a_task_cannot_replace_the_runtimes_variables() {
        let mut spec = valid();
        spec.env.insert("MUTUAL_JOB".into(), "forged".into());
        spec.env.insert("PATH".into(), "/mine".into());
        let env = environment(&spec);
        assert_eq!(env["MUTUAL_JOB"], "job");
        assert_eq!(env["PATH"], "/mine");
        assert_eq!(env["MUTUAL_INPUT"], "/scratch/input");
    }
}
