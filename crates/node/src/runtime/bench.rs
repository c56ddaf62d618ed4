//! What a container costs: start to exit of `true`, beside `runc run` and plain fork and exec in the same run.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Backend, Class, Config, Layout, OpenError, Outcome, RunSpec, Runtime, StartError};

/// Rounds before counting, in which caches fill.
const WARM_UP: usize = 5;

/// Times of one way to run `true`, sorted.
#[derive(Clone, Debug)]
pub struct Times {
    /// What was run.
    pub name: &'static str,
    /// Start to exit.
    pub whole: Vec<Duration>,
    /// Start to the command's first instruction, where we can tell.
    pub first: Vec<Duration>,
}

/// All times of one bench.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One entry per way.
    pub times: Vec<Times>,
    /// Ways that do not work here, and why.
    pub absent: Vec<String>,
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The machine's word.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The runtime does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A run does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// `true` failed.
    #[error("`true` ended with {0}")]
    Failed(String),
}

/// The value below which `percent` of the sorted `times` lie.
#[must_use]
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    let last = times.len().saturating_sub(1);
    times
        .get((times.len() * percent / 100).min(last))
        .copied()
        .unwrap_or_default()
}

impl Report {
    /// The median of one way, if it was measured.
    #[must_use]
    pub fn median(&self, name: &str) -> Option<Duration> {
        let times = self.times.iter().find(|times| times.name == name)?;
        Some(percentile(&times.whole, 50))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        writeln!(
            f,
            "{:<22}{:>8}{:>8}{:>8}{:>8}   ms, start to exit of `true`",
            "", "p10", "p50", "p90", "first"
        )?;
        for times in &self.times {
            write!(f, "{:<22}", times.name)?;
            for percent in [10, 50, 90] {
                write!(f, "{:>8.2}", ms(percentile(&times.whole, percent)))?;
            }
            match times.first.is_empty() {
                true => writeln!(f)?,
                false => writeln!(f, "{:>8.2}", ms(percentile(&times.first, 50)))?,
            }
        }
        self.absent
            .iter()
            .try_for_each(|absent| writeln!(f, "{absent}"))
    }
}

/// Our own ways to run, with the runtime that runs each.
struct Way {
    name: &'static str,
    class: Class,
    runtime: Runtime,
}

/// Measures all ways in turn, `rounds` times each.
///
/// # Errors
/// [`BenchError`] if one of our own ways that the probe proved does not work after all.
pub async fn containers(rounds: usize) -> Result<Report, BenchError> {
    let dir = tempfile::tempdir()?;
    let mut report = Report::default();
    let ways = open_ways(dir.path(), &mut report).await?;
    let mut times: Vec<Times> = ways.iter().map(|way| Times::new(way.name)).collect();
    let bundle = match bundle(dir.path()) {
        Ok(bundle) if Command::new("runc").arg("--version").output().is_ok() => Some(bundle),
        _ => None,
    };
    let mut runc = Times::new("runc run");
    let mut plain = Times::new("fork and exec");
    for round in 0..rounds + WARM_UP {
        for (way, times) in ways.iter().zip(&mut times) {
            times.add(round, way.once(dir.path(), round).await?);
        }
        if let Some(bundle) = &bundle {
            runc.add(round, (time(&mut runc_run(bundle, round))?, None));
        }
        plain.add(round, (time(&mut Command::new("true"))?, None));
    }
    times.extend(
        [runc, plain]
            .into_iter()
            .filter(|times| !times.whole.is_empty()),
    );
    times.iter_mut().for_each(Times::sort);
    report.times = times;
    Ok(report)
}

impl Times {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            whole: Vec::new(),
            first: Vec::new(),
        }
    }

    fn add(&mut self, round: usize, (whole, first): (Duration, Option<Duration>)) {
        if round >= WARM_UP {
            self.whole.push(whole);
            self.first.extend(first);
        }
    }

    fn sort(&mut self) {
        self.whole.sort();
        self.first.sort();
    }
}

async fn open_ways(dir: &Path, report: &mut Report) -> Result<Vec<Way>, BenchError> {
    let mut ways = Vec::new();
    let kinds = [
        ("container", Class::Container, Backend::Embedded, true),
        (
            "container, cold shim",
            Class::Container,
            Backend::Embedded,
            false,
        ),
        ("process", Class::Process, Backend::Embedded, true),
    ];
    for (name, class, backend, warm) in kinds {
        let mut config = Config::new(dir.join(name.replace([' ', ','], "-")));
        config.backend = backend;
        config.warm = warm;
        config.allow_process = true;
        let runtime = Runtime::open(config).await?;
        if runtime.offer().class(class).is_some() {
            ways.push(Way {
                name,
                class,
                runtime,
            });
        } else {
            report
                .absent
                .push(format!("{name}: {}", runtime.offer().reason(class)));
        }
    }
    Ok(ways)
}

impl Way {
    async fn once(
        &self,
        dir: &Path,
        round: usize,
    ) -> Result<(Duration, Option<Duration>), BenchError> {
        let layout = Layout::prepare(dir.join("task"))?;
        let mut spec = RunSpec::new("bench", self.class, vec!["true".to_owned()], layout.dir);
        spec.attempt = u32::try_from(round).unwrap_or(0);
        spec.limits.memory_bytes = Some(1 << 30);
        spec.limits.cpu_millis = Some(1000);
        spec.limits.pids = Some(64);
        let start = Instant::now();
        let running = self.runtime.start(spec).await?;
        let first = start.elapsed();
        let exit = running.wait().await;
        let whole = start.elapsed();
        match exit.outcome {
            Outcome::Code(0) => Ok((whole, Some(first))),
            other => Err(BenchError::Failed(format!("{other:?}"))),
        }
    }
}

fn time(command: &mut Command) -> Result<Duration, BenchError> {
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let whole = start.elapsed();
    match output.status.success() {
        true => Ok(whole),
        false => Err(BenchError::Failed(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )),
    }
}

fn runc_run(bundle: &Path, round: usize) -> Command {
    let mut command = Command::new("runc");
    command
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg(format!("mutual-bench-{round}"));
    command
}

/// What `runc spec` writes, with the machine's `/usr` and `true` in it: the usual container of its own making.
fn bundle(dir: &Path) -> io::Result<std::path::PathBuf> {
    let bundle = dir.join("bundle");
    let root = bundle.join("rootfs");
    for part in ["usr", "proc", "dev", "sys", "tmp"] {
        std::fs::create_dir_all(root.join(part))?;
    }
    for link in ["bin", "sbin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{link}"), root.join(link))?;
    }
    Command::new("runc")
        .arg("spec")
        .current_dir(&bundle)
        .status()?;
    let file = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = serde_json::json!(["/usr/bin/true"]);
    let usr = serde_json::json!({"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]});
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.push(usr);
    }
    std::fs::write(file, serde_json::to_vec(&config)?)?;
    Ok(bundle)
}
