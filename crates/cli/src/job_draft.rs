//! A task as its user writes it: a job file in TOML, flags, or both; one struct serves for each.
//!
//! Flags go before the file. What is written nowhere takes the defaults of
//! [`TaskSpec`]. Errors of meaning name the field; those in a file also their place.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use mutual_node::config::document::{Document, DocumentError};
use mutual_node::config::{Period, Size};
use mutual_node::model::ids::Namespace;
use mutual_node::model::job::{
    ArrayIndex, FieldError, Image, IsolationClass, OnDisconnect, TaskSpec,
};
use mutual_node::model::resources::Resources;
use serde::{Deserialize, Deserializer};

use crate::failure::{Failure, Outcome};

/// Cores if the user gives none.
const CPUS_DEFAULT: f64 = 1.0;
/// Memory if the user gives none.
const MEMORY_DEFAULT: Size = Size(512 << 20);
/// Most members of one array; the model's own bound.
const ARRAY_MAX: u32 = 100_000;
/// Longest job file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Most entries of `inputs`.
const INPUTS_MAX: usize = 1_024;

/// `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair(String, String);

impl std::str::FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self(key.to_owned(), value.to_owned())),
            _ => Err("write KEY=VALUE".to_owned()),
        }
    }
}

fn pairs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Pair>, D::Error> {
    let map = BTreeMap::<String, String>::deserialize(deserializer)?;
    Ok(map
        .into_iter()
        .map(|(key, value)| Pair(key, value))
        .collect())
}

/// The number of members of an array: `8` or `"1-8"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ArrayCount(pub(crate) u32);

impl std::str::FromStr for ArrayCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = text.strip_prefix("1-").unwrap_or(text);
        match count.parse() {
            Ok(count) if (1..=ARRAY_MAX).contains(&count) => Ok(Self(count)),
            _ => Err(format!(
                "no array size; give N or 1-N, N from 1 to {ARRAY_MAX}"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for ArrayCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "no array size; give N or \"1-N\"")]
        enum Written {
            Number(i64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Number(number) => number.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn parse_class(text: &str) -> Result<IsolationClass, String> {
    let known = IsolationClass::ALL
        .into_iter()
        .find(|class| class.name() == text);
    known.ok_or_else(|| {
        format!(
            "use one of {}",
            IsolationClass::ALL.map(IsolationClass::name).join(", ")
        )
    })
}

fn parse_on_disconnect(text: &str) -> Result<OnDisconnect, String> {
    match text {
        "pause" => Ok(OnDisconnect::Pause),
        "stop" => Ok(OnDisconnect::Stop),
        "finish" => Ok(OnDisconnect::Finish),
        _ => Err("use pause, stop or finish".to_owned()),
    }
}

fn parse_image(text: &str) -> Result<Image, FieldError> {
    Image::try_from(text.to_owned())
}

/// A flag that may stand alone, or say `=false` to overrule the job file.
const ALONE: &str = "true";

/// Everything a user can say of a task; what is `None` or empty was not said.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Task")]
pub(crate) struct JobDraft {
    /// A name for people
    #[arg(long)]
    pub(crate) name: Option<String>,

    /// Program and its arguments
    #[arg(skip)]
    pub(crate) command: Vec<String>,

    /// Root file system: `host`, `oci:REGISTRY/NAME:TAG` or `cid:CID`
    #[arg(long, value_parser = parse_image)]
    pub(crate) image: Option<Image>,

    /// A variable of the task's environment; repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    #[serde(deserialize_with = "pairs")]
    pub(crate) env: Vec<Pair>,

    /// A file or directory for the task to read; repeatable. One directory: its content is
    /// $MUTUAL_INPUT. Otherwise each stands there under its own name
    #[arg(long = "input", value_name = "PATH")]
    pub(crate) inputs: Vec<PathBuf>,

    /// A glob of files below $MUTUAL_OUTPUT to keep; repeatable, everything if absent
    #[arg(long = "output-glob", value_name = "GLOB")]
    pub(crate) outputs: Vec<String>,

    /// Cores, fractions allowed [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<f64>,

    /// Memory, such as 2GiB [default: 512MiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<Size>,

    /// Whole GPUs [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) gpus: Option<u32>,

    /// Scratch disk, such as 10GiB [default: 0]
    #[arg(long, value_name = "SIZE")]
    pub(crate) scratch: Option<Size>,

    /// Longest run, such as 10m [default: 1h]
    #[arg(long, value_name = "TIME")]
    pub(crate) timeout: Option<Period>,

    /// Longest wait in the queue, such as 2h [default: 7d]
    #[arg(long, value_name = "TIME")]
    pub(crate) expires: Option<Period>,

    /// Further attempts after a failure or a machine's death [default: 3]
    #[arg(long, value_name = "N")]
    pub(crate) retries: Option<u32>,

    /// -100 to 100, higher goes first [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) priority: Option<i32>,

    /// The namespace to submit to [default: that of the context file]
    #[arg(long, value_name = "NAME")]
    pub(crate) namespace: Option<Namespace>,

    /// Submit N like tasks; each finds its number in $MUTUAL_ARRAY_INDEX
    #[arg(long, value_name = "N")]
    pub(crate) array: Option<ArrayCount>,

    /// What a cut-off machine does with it: pause, stop or finish [default: pause]
    #[arg(long, value_parser = parse_on_disconnect, value_name = "ACTION")]
    pub(crate) on_disconnect: Option<OnDisconnect>,

    /// Never let two executions overlap, even if that delays a recovery
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = ALONE, value_name = "BOOL")]
    pub(crate) exclusive: Option<bool>,

    /// Let it use the network
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = ALONE, value_name = "BOOL")]
    pub(crate) network: Option<bool>,

    /// Isolation: process, container, sandbox or vm [default: the strongest there is]
    #[arg(long, value_parser = parse_class)]
    pub(crate) class: Option<IsolationClass>,

    /// A label that the machine must carry; repeatable
    #[arg(long = "label", value_name = "NAME=VALUE")]
    #[serde(deserialize_with = "pairs")]
    pub(crate) labels: Vec<Pair>,

    /// Other peers that must hold the result before it counts [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) result_copies: Option<u32>,

    /// Save a checkpoint this often, such as 30s [default: never]
    #[arg(long, value_name = "TIME")]
    pub(crate) checkpoint: Option<Period>,
}

/// A job file: the draft in it and the text that errors point into.
#[derive(Debug)]
pub(crate) struct JobFile<'text> {
    document: Document<'text, JobDraft>,
}

impl<'text> JobFile<'text> {
    /// Reads and checks a text. Paths are left relative.
    pub(crate) fn parse(text: &'text str) -> Result<Self, DocumentError> {
        let document = Document::<JobDraft>::parse(text)?;
        let checked = document.value.spec();
        match checked {
            Ok(_) => Ok(Self { document }),
            Err(error) => Err(document.locate(error)),
        }
    }

    pub(crate) fn into_draft(self) -> JobDraft {
        self.document.value
    }
}

/// Why a glob would never match a file below the output directory.
fn glob_problem(glob: &str) -> Option<String> {
    if glob.starts_with('/') || glob.split('/').any(|part| part == "..") {
        return Some("leads out of $MUTUAL_OUTPUT".to_owned());
    }
    let error = globset::Glob::new(glob).err()?;
    Some(error.kind().to_string())
}

/// The bytes of a file that is read as a whole.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1);
    file.read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(
            "longer than 1 MiB; is it a job file?",
        ));
    }
    Ok(bytes)
}

impl JobDraft {
    /// Reads a job file; relative inputs are taken from its directory.
    pub(crate) fn load(path: &Path) -> Outcome<Self> {
        let failure =
            |error: &dyn std::fmt::Display| Failure::user(format!("{}: {error}", path.display()));
        let bytes = read_bounded(path).map_err(|error| failure(&error))?;
        let text = String::from_utf8(bytes)
            .map_err(|_| failure(&"not UTF-8").hint("save the job file as UTF-8 text"))?;
        let file = JobFile::parse(&text).map_err(|error| {
            let place = error.place.map_or(String::new(), |place| {
                format!(":{}:{}", place.line, place.column)
            });
            let error = error.error;
            Failure::user(format!(
                "{}{place}: {}: {}",
                path.display(),
                error.field,
                error.problem
            ))
            .hint(error.fix)
        })?;
        let mut draft = file.into_draft();
        let base = path.parent().unwrap_or(Path::new(""));
        for input in &mut draft.inputs {
            *input = base.join(&input);
        }
        Ok(draft)
    }

    /// What this draft says goes before what `other` says; lists that say something replace lists,
    /// environment and labels are joined.
    pub(crate) fn or(self, other: Self) -> Self {
        let list = |mine: Vec<String>, theirs| if mine.is_empty() { theirs } else { mine };
        Self {
            name: self.name.or(other.name),
            command: list(self.command, other.command),
            image: self.image.or(other.image),
            env: [other.env, self.env].concat(),
            inputs: if self.inputs.is_empty() {
                other.inputs
            } else {
                self.inputs
            },
            outputs: list(self.outputs, other.outputs),
            cpus: self.cpus.or(other.cpus),
            memory: self.memory.or(other.memory),
            gpus: self.gpus.or(other.gpus),
            scratch: self.scratch.or(other.scratch),
            timeout: self.timeout.or(other.timeout),
            expires: self.expires.or(other.expires),
            retries: self.retries.or(other.retries),
            priority: self.priority.or(other.priority),
            namespace: self.namespace.or(other.namespace),
            array: self.array.or(other.array),
            on_disconnect: self.on_disconnect.or(other.on_disconnect),
            exclusive: self.exclusive.or(other.exclusive),
            network: self.network.or(other.network),
            class: self.class.or(other.class),
            labels: [other.labels, self.labels].concat(),
            result_copies: self.result_copies.or(other.result_copies),
            checkpoint: self.checkpoint.or(other.checkpoint),
        }
    }

    /// The task, checked; an array's members differ from it only in [`TaskSpec::array`].
    pub(crate) fn spec(&self) -> Result<TaskSpec, FieldError> {
        let mut spec = TaskSpec::new(self.command.clone(), self.resources()?);
        spec.name = self.name.clone().unwrap_or_default();
        spec.image = self.image.clone().unwrap_or_default();
        spec.env = self
            .env
            .iter()
            .cloned()
            .map(|Pair(key, value)| (key, value))
            .collect();
        spec.labels = self
            .labels
            .iter()
            .cloned()
            .map(|Pair(key, value)| (key, value))
            .collect();
        spec.outputs = self.outputs.clone();
        spec.class = self.class;
        spec.has_input = !self.inputs.is_empty();
        self.set_numbers(&mut spec);
        self.check_lists()?;
        spec.check()?;
        Ok(spec)
    }

    fn set_numbers(&self, spec: &mut TaskSpec) {
        spec.timeout_ms = self.timeout.map_or(spec.timeout_ms, Period::millis);
        spec.expires_ms = self.expires.map_or(spec.expires_ms, Period::millis);
        spec.retries = self.retries.unwrap_or(spec.retries);
        spec.priority = self.priority.unwrap_or_default();
        spec.on_disconnect = self.on_disconnect.unwrap_or_default();
        spec.exclusive = self.exclusive.unwrap_or_default();
        spec.network = self.network.unwrap_or_default();
        spec.result_copies = self.result_copies.unwrap_or(spec.result_copies);
        spec.checkpoint_ms = self.checkpoint.map(Period::millis);
    }

    fn check_lists(&self) -> Result<(), FieldError> {
        if self.inputs.len() > INPUTS_MAX {
            return Err(FieldError::new(
                "inputs",
                format!("{} entries", self.inputs.len()),
                format!("give at most {INPUTS_MAX}; a directory counts as one"),
            ));
        }
        let bad = |(number, glob): (usize, &String)| Some((number, glob_problem(glob)?));
        match self.outputs.iter().enumerate().find_map(bad) {
            Some((number, problem)) => Err(FieldError::new(
                format!("outputs[{number}]"),
                problem,
                "write a glob such as *.csv or plots/**",
            )),
            None => Ok(()),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to lie between 0 and 4,096"
    )]
    fn resources(&self) -> Result<Resources, FieldError> {
        let cpus = self.cpus.unwrap_or(CPUS_DEFAULT);
        if !(0.001..=4096.0).contains(&cpus) {
            return Err(FieldError::new(
                "cpus",
                format!("{cpus} cores is out of range"),
                "give 0.001 to 4096",
            ));
        }
        Ok(Resources {
            cpu_millis: (cpus * 1000.0).round() as u32,
            memory_bytes: self.memory.unwrap_or(MEMORY_DEFAULT).0,
            gpus: self.gpus.unwrap_or_default(),
            scratch_bytes: self.scratch.map_or(0, |Size(bytes)| bytes),
        })
    }

    /// The members: one spec, or one for each number of the array.
    pub(crate) fn members(&self) -> Result<Vec<TaskSpec>, FieldError> {
        let spec = self.spec()?;
        let Some(ArrayCount(count)) = self.array else {
            return Ok(vec![spec]);
        };
        let member = |index| TaskSpec {
            array: Some(ArrayIndex { index, count }),
            ..spec.clone()
        };
        Ok((1..=count).map(member).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
        name = "count"
        command = ["/bin/sh", "-c", "wc -l *"]
        image = "host"
        inputs = ["data"]
        outputs = ["*.csv"]
        cpus = 0.5
        memory = "2GiB"
        gpus = 1
        scratch = "10GiB"
        timeout = "10m"
        expires = "2h"
        retries = 0
        priority = -5
        namespace = "lab"
        array = "1-3"
        on_disconnect = "finish"
        exclusive = true
        network = false
        class = "container"
        result_copies = 2
        checkpoint = "30s"
        [env]
        LANG = "C"
        [labels]
        site = "north"
    "#;

    #[test]
    fn every_field_arrives() {
        let members = JobFile::parse(FULL)
            .unwrap()
            .into_draft()
            .members()
            .unwrap();
        assert_eq!(members.len(), 3);
        let spec = &members[2];
        assert_eq!(spec.array, Some(ArrayIndex { index: 3, count: 3 }));
        assert_eq!(spec.resources.cpu_millis, 500);
        assert_eq!(spec.resources.memory_bytes, 2 << 30);
        assert_eq!((spec.timeout_ms, spec.expires_ms), (600_000, 7_200_000));
        assert_eq!(
            (spec.priority, spec.retries, spec.result_copies),
            (-5, 0, 2)
        );
        assert_eq!(spec.checkpoint_ms, Some(30_000));
        assert_eq!(spec.env["LANG"], "C");
        assert_eq!(spec.labels["site"], "north");
        assert!(spec.has_input && spec.exclusive && !spec.network);
    }

    #[test]
    fn flags_go_before_the_file() {
        let file = JobFile::parse(FULL).unwrap().into_draft();
        let flags = JobDraft {
            cpus: Some(2.0),
            exclusive: Some(false),
            env: vec!["LANG=de".parse().unwrap()],
            ..JobDraft::default()
        };
        let spec = flags.or(file).spec().unwrap();
        assert_eq!(spec.resources.cpu_millis, 2_000);
        assert!(!spec.exclusive);
        assert_eq!(spec.env["LANG"], "de");
        assert_eq!(spec.priority, -5);
    }

    #[test]
    fn fuzz_job_files_never_panic_and_never_pass_a_bad_spec() {
        bolero::check!().with_type::<String>().for_each(|text| {
            if let Ok(file) = JobFile::parse(text) {
                assert!(file.into_draft().spec().is_ok());
            }
        });
    }
}
