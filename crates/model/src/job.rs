//! What a user submits and how it changes: task specification and job life cycle (DESIGN §5).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::resources::{Resources, check_range};

mod state;
pub mod steps;

pub use state::{Failure, JobState, Transition};

/// What is wrong with one field of a foreign document, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{field}: {problem}; {fix}")]
pub struct FieldError {
    /// The field, as the user wrote it.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub fix: String,
}

impl FieldError {
    /// Describes a problem with `field`.
    pub fn new(
        field: impl Into<String>,
        problem: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
            fix: fix.into(),
        }
    }
}

/// Where a task's root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Image {
    /// The machine's own programs and libraries, read-only (DESIGN §9).
    #[default]
    Host,
    /// An OCI image in a registry, such as `registry.example/tools:1`.
    Registry(String),
    /// An OCI image that peers hold, by the CID of its DAG.
    Content(String),
}

const REGISTRY_PREFIX: &str = "oci:";
const CONTENT_PREFIX: &str = "cid:";
const IMAGE_BYTES_MAX: usize = 512;

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Registry(reference) => write!(f, "{REGISTRY_PREFIX}{reference}"),
            Self::Content(root) => write!(f, "{CONTENT_PREFIX}{root}"),
        }
    }
}

impl From<Image> for String {
    fn from(image: Image) -> Self {
        image.to_string()
    }
}

impl TryFrom<String> for Image {
    type Error = FieldError;

    fn try_from(text: String) -> Result<Self, FieldError> {
        let is_plain = |rest: &str| {
            !rest.is_empty()
                && rest.len() <= IMAGE_BYTES_MAX
                && rest.chars().all(|c| c.is_ascii_graphic())
        };
        if text == "host" {
            return Ok(Self::Host);
        }
        if let Some(reference) = text.strip_prefix(REGISTRY_PREFIX).filter(|r| is_plain(r)) {
            return Ok(Self::Registry(reference.to_owned()));
        }
        if let Some(root) = text.strip_prefix(CONTENT_PREFIX).filter(|r| is_plain(r)) {
            return Ok(Self::Content(root.to_owned()));
        }
        Err(FieldError::new(
            "image",
            format!(
                "{:?} is no image",
                text.chars().take(80).collect::<String>()
            ),
            "write host, oci:REGISTRY/NAME:TAG or cid:CID",
        ))
    }
}

/// How strongly a task is kept apart from the machine it runs on, weakest first (DESIGN §9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IsolationClass {
    /// A process of its own session with resource limits; only for the machine owner's own tasks.
    Process,
    /// An OCI container.
    Container,
    /// A container on a kernel in user space (gVisor).
    Sandbox,
    /// A virtual machine (Kata).
    Vm,
}

impl IsolationClass {
    /// Every class, weakest first.
    pub const ALL: [Self; 4] = [Self::Process, Self::Container, Self::Sandbox, Self::Vm];

    /// The name used in job files and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Container => "container",
            Self::Sandbox => "sandbox",
            Self::Vm => "vm",
        }
    }
}

/// What an agent that is cut off does with a running task before its lease can be re-issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// Freeze it; go on if the claim still stands once the store answers again.
    #[default]
    Pause,
    /// Kill it.
    Stop,
    /// Let it run to its end; the result counts only if nobody else claimed the job meanwhile.
    Finish,
}

/// One member of an array of like tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArrayIndex {
    /// 1 to `count`.
    pub index: u32,
    /// Members in the array.
    pub count: u32,
}

/// A task as its user describes it. Immutable once submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// A name for people.
    #[serde(default)]
    pub name: String,
    /// Program and arguments; the program is looked up in the task's own `PATH`.
    pub command: Vec<String>,
    /// Environment beside the variables that the agent sets.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Root file system.
    #[serde(default)]
    pub image: Image,
    /// Isolation asked for; `None` takes the strongest class the agent offers. Never downgraded.
    #[serde(default)]
    pub class: Option<IsolationClass>,
    /// Whether an input object follows; the job waits for its manifest.
    #[serde(default)]
    pub has_input: bool,
    /// Globs below the task's output directory; everything there if empty.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// What it needs.
    pub resources: Resources,
    /// Longest run from `running` on, in milliseconds.
    pub timeout_ms: u64,
    /// Longest wait in the queue, in milliseconds.
    pub expires_ms: u64,
    /// Further attempts after a failed one or a holder's death; [`RETRIES_DEFAULT`] if absent.
    #[serde(default = "retries_default")]
    pub retries: u32,
    /// −100 to 100; higher goes first.
    #[serde(default)]
    pub priority: i32,
    /// What a cut-off agent does with it.
    #[serde(default)]
    pub on_disconnect: OnDisconnect,
    /// Whether two executions must never overlap, even after a verdict of silence.
    #[serde(default)]
    pub exclusive: bool,
    /// Whether it may use the network.
    #[serde(default)]
    pub network: bool,
    /// Its place in an array.
    #[serde(default)]
    pub array: Option<ArrayIndex>,
    /// Labels that an agent must carry.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Peers other than the producer that must hold the result before it counts; 0 only if the
    /// user says so (DESIGN §3.16).
    #[serde(default = "one")]
    pub result_copies: u32,
    /// Interval of automatic checkpoints in milliseconds; none if absent.
    #[serde(default)]
    pub checkpoint_ms: Option<u64>,
}

const fn one() -> u32 {
    1
}

const fn retries_default() -> u32 {
    RETRIES_DEFAULT
}

/// Time limit if the user gives none: one hour.
pub const TIMEOUT_MS_DEFAULT: u64 = 3_600_000;
/// Wait in the queue if the user gives none: seven days.
pub const EXPIRES_MS_DEFAULT: u64 = 7 * 24 * 3_600_000;
/// Further attempts if the user gives no number.
pub const RETRIES_DEFAULT: u32 = 3;

/// One year; longer limits are taken for mistakes.
const DURATION_MS_MAX: u64 = 366 * 24 * 3_600_000;
const ARGUMENTS_MAX: usize = 4_096;
const SPEC_BYTES_MAX: usize = 256 * 1024;
const NAME_BYTES_MAX: usize = 128;
const OUTPUTS_MAX: usize = 256;
const LABELS_MAX: usize = 64;
const RETRIES_MAX: u64 = 100;
const ARRAY_MAX: u64 = 100_000;
const COPIES_MAX: u64 = 16;
/// Variables that the agent sets and a task cannot.
pub const RESERVED_ENV_PREFIX: &str = "MUTUAL_";

impl TaskSpec {
    /// A task with every default: runs `command` on the host's root file system.
    pub fn new(command: Vec<String>, resources: Resources) -> Self {
        Self {
            name: String::new(),
            command,
            env: BTreeMap::new(),
            image: Image::Host,
            class: None,
            has_input: false,
            outputs: Vec::new(),
            resources,
            timeout_ms: TIMEOUT_MS_DEFAULT,
            expires_ms: EXPIRES_MS_DEFAULT,
            retries: RETRIES_DEFAULT,
            priority: 0,
            on_disconnect: OnDisconnect::default(),
            exclusive: false,
            network: false,
            array: None,
            labels: BTreeMap::new(),
            result_copies: 1,
            checkpoint_ms: None,
        }
    }

    /// Checks every field against its bounds.
    ///
    /// # Errors
    /// [`FieldError`] for the first field that is out of bounds.
    pub fn check(&self) -> Result<(), FieldError> {
        self.check_sizes()?;
        self.check_command()?;
        self.check_env()?;
        self.check_numbers()?;
        self.check_array()
    }

    fn check_sizes(&self) -> Result<(), FieldError> {
        let too_many = |field: &str, found: usize, most: usize| {
            FieldError::new(
                field,
                format!("{found} entries"),
                format!("give at most {most}"),
            )
        };
        if self.name.len() > NAME_BYTES_MAX || self.name.chars().any(char::is_control) {
            return Err(FieldError::new(
                "name",
                "too long or with control characters",
                format!("give at most {NAME_BYTES_MAX} printable bytes"),
            ));
        }
        for (field, found, most) in [
            ("command", self.command.len(), ARGUMENTS_MAX),
            ("outputs", self.outputs.len(), OUTPUTS_MAX),
            ("labels", self.labels.len(), LABELS_MAX),
            ("env", self.env.len(), ARGUMENTS_MAX),
        ] {
            if found > most {
                return Err(too_many(field, found, most));
            }
        }
        let texts = self.command.iter().chain(&self.outputs);
        let pairs = self.env.iter().chain(&self.labels);
        let bytes: usize = texts.map(String::len).sum::<usize>()
            + pairs
                .map(|(key, value)| key.len() + value.len())
                .sum::<usize>();
        if bytes > SPEC_BYTES_MAX {
            return Err(FieldError::new(
                "command",
                format!("command, outputs, env and labels take {bytes} bytes"),
                format!("keep them within {SPEC_BYTES_MAX} and put data into the input"),
            ));
        }
        Ok(())
    }

    fn check_command(&self) -> Result<(), FieldError> {
        if self.command.first().is_none_or(String::is_empty) {
            return Err(FieldError::new(
                "command",
                "empty",
                "name the program to run, then its arguments",
            ));
        }
        match self.command.iter().find(|argument| argument.contains('\0')) {
            Some(_) => Err(FieldError::new(
                "command",
                "an argument holds a NUL byte",
                "remove it",
            )),
            None => Ok(()),
        }
    }

    fn check_env(&self) -> Result<(), FieldError> {
        for (key, value) in &self.env {
            let field = || format!("env.{}", key.chars().take(40).collect::<String>());
            if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
                return Err(FieldError::new(
                    field(),
                    "empty name, '=' in the name, or a NUL byte",
                    "use NAME = \"value\"",
                ));
            }
            if key.starts_with(RESERVED_ENV_PREFIX) {
                return Err(FieldError::new(
                    field(),
                    "names starting with MUTUAL_ are set by the agent",
                    "choose another name",
                ));
            }
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), FieldError> {
        self.resources.check_need()?;
        check_range("timeout", self.timeout_ms, 1, DURATION_MS_MAX, "ms")?;
        check_range("expires", self.expires_ms, 1, DURATION_MS_MAX, "ms")?;
        check_range("retries", self.retries.into(), 0, RETRIES_MAX, "retries")?;
        check_range(
            "result_copies",
            self.result_copies.into(),
            0,
            COPIES_MAX,
            "copies",
        )?;
        if let Some(interval) = self.checkpoint_ms {
            check_range("checkpoint", interval, 100, DURATION_MS_MAX, "ms")?;
        }
        if !(-100..=100).contains(&self.priority) {
            return Err(FieldError::new(
                "priority",
                format!("{} is out of range", self.priority),
                "give -100 to 100",
            ));
        }
        Ok(())
    }

    fn check_array(&self) -> Result<(), FieldError> {
        let Some(ArrayIndex { index, count }) = self.array else {
            return Ok(());
        };
        check_range("array", count.into(), 1, ARRAY_MAX, "tasks")?;
        check_range("array.index", index.into(), 1, count.into(), "(index)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid() -> TaskSpec {
        let resources = Resources {
            cpu_millis: 1_000,
            memory_bytes: 64 << 20,
            ..Resources::ZERO
        };
        TaskSpec::new(vec!["true".into()], resources)
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut TaskSpec), field: &str) {
        let mut spec = valid();
        change(&mut spec);
        assert_eq!(spec.check().unwrap_err().field, field);
    }

    #[test]
    fn what_is_absent_has_the_same_default_everywhere() {
        let document = serde_json::json!({
            "command": ["true"],
            "resources": {"cpu_millis": 1_000, "memory_bytes": 64 << 20},
            "timeout_ms": TIMEOUT_MS_DEFAULT,
            "expires_ms": EXPIRES_MS_DEFAULT,
        });
        let read: TaskSpec = serde_json::from_value(document).unwrap();
        assert_eq!(read, valid());
        assert_eq!(read.retries, RETRIES_DEFAULT);
    }

    #[test]
    fn each_bad_field_is_named() {
        assert_eq!(valid().check(), Ok(()));
        check(|spec| spec.command.clear(), "command");
        check(|spec| spec.command = vec![String::new()], "command");
        check(|spec| spec.command.push("a\0b".into()), "command");
        check(|spec| spec.name = "x".repeat(200), "name");
        check(|spec| spec.resources.cpu_millis = 0, "cpus");
        check(|spec| spec.resources.cpu_millis = u32::MAX, "cpus");
        check(|spec| spec.resources.memory_bytes = 0, "memory");
        check(|spec| spec.resources.memory_bytes = u64::MAX, "memory");
        check(|spec| spec.timeout_ms = 0, "timeout");
        check(|spec| spec.expires_ms = u64::MAX, "expires");
        check(|spec| spec.retries = 101, "retries");
        check(|spec| spec.priority = 101, "priority");
        check(|spec| spec.priority = i32::MIN, "priority");
        check(|spec| spec.checkpoint_ms = Some(0), "checkpoint");
        check(
            |spec| spec.array = Some(ArrayIndex { index: 3, count: 2 }),
            "array.index",
        );
        check(
            |spec| drop(spec.env.insert("MUTUAL_JOB".into(), String::new())),
            "env.MUTUAL_JOB",
        );
        check(
            |spec| drop(spec.env.insert("A=B".into(), String::new())),
            "env.A=B",
        );
    }

    #[test]
    fn unknown_fields_are_refused_by_name() {
        let mut json = serde_json::to_value(valid()).unwrap();
        json["colour"] = "red".into();
        let error = serde_json::from_value::<TaskSpec>(json).unwrap_err();
        assert!(error.to_string().contains("colour"), "{error}");
    }

    #[test]
    fn images_read_what_they_print() {
        for text in ["host", "oci:registry.example/a:1", "cid:bafy"] {
            let image = Image::try_from(text.to_owned()).unwrap();
            assert_eq!(image.to_string(), text);
        }
        for text in ["", "oci:", "ubuntu", "cid:a b"] {
            assert!(Image::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
