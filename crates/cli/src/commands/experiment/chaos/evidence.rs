//! What tasks note of themselves, in files that nobody but they write to.
//!
//! One file for each job, in memory, to which every execution of the job appends: that it begins,
//! four times a second that it lives, and that it ends. An execution that begins looks whether an
//! earlier one of its job still lives, by the process table: so an overlap is seen exactly, not by
//! comparing clocks.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use mutual_node::model::ids::JobId;
use mutual_node::model::job::{IsolationClass, TaskSpec};
use mutual_node::model::lease::Fence;
use mutual_node::model::resources::Resources;

use crate::failure::{Failure, Naming as _, Outcome};
use crate::scratch::Scratch;

/// The only directory in memory that a task of class `process` may write to.
const MEMORY: &str = "/dev/shm";
const BASH: [&str; 2] = ["/bin/bash", "/usr/bin/bash"];
const SCRIPT: &str = include_str!("task.sh");
/// How often a task notes that it lives.
const BEAT: Duration = Duration::from_millis(250);
/// A task that says nothing for so long was paused, or its machine has no time for it.
const PAUSED_US: u64 = 1_000_000;
/// Whoever runs the tasks, they may make files there; like /tmp.
const MODE: u32 = 0o1777;

/// What each task needs: next to nothing, so that hundreds fit a small machine.
pub(crate) const NEED: Resources = Resources {
    cpu_millis: 100,
    memory_bytes: 64 << 20,
    gpus: 0,
    scratch_bytes: 0,
};

/// One execution of a job, by its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Execution {
    pub(crate) fence: Fence,
    pub(crate) began_us: u64,
    /// From when until when it surely ran; a pause parts two of them. There is always one.
    pub(crate) stretches: Vec<(u64, u64)>,
    pub(crate) ended_us: Option<u64>,
    /// When it found an earlier one alive.
    pub(crate) overlap_us: Option<u64>,
}

impl Execution {
    const fn begun(at_us: u64, fence: Fence) -> Self {
        Self {
            fence,
            began_us: at_us,
            stretches: Vec::new(),
            ended_us: None,
            overlap_us: None,
        }
    }

    /// When it last said that it lived.
    pub(crate) fn alive_us(&self) -> u64 {
        self.stretches.last().map_or(self.began_us, |(_, to)| *to)
    }

    fn lives(&mut self, at_us: u64) {
        match self.stretches.last_mut() {
            Some((_, to)) if at_us <= to.saturating_add(PAUSED_US) => *to = at_us.max(*to),
            _ => self.stretches.push((at_us, at_us)),
        }
    }
}

/// Where the tasks of one run leave their evidence. Gone with it.
#[derive(Debug)]
pub(crate) struct Evidence {
    scratch: Scratch,
    bash: &'static str,
}

impl Evidence {
    pub(crate) fn new() -> Outcome<Self> {
        let bash = BASH.into_iter().find(|bash| Path::new(bash).exists());
        let bash = bash.ok_or_else(|| {
            Failure::configuration("the experiment's tasks are bash scripts, and there is no bash")
                .hint("install bash")
        })?;
        let scratch = Scratch::new_in(Path::new(MEMORY), "mutual-experiment-")?;
        fs::set_permissions(scratch.path(), Permissions::from_mode(MODE)).naming(MEMORY)?;
        Ok(Self { scratch, bash })
    }

    /// A task that runs for a while.
    pub(crate) fn task(&self, duration: Duration) -> TaskSpec {
        let command = [self.bash, "-c", SCRIPT].map(str::to_owned).to_vec();
        let mut spec = TaskSpec::new(command, NEED);
        spec.name = "experiment".to_owned();
        spec.class = Some(IsolationClass::Process);
        let variables = [
            ("EVIDENCE", self.scratch.path().display().to_string()),
            ("DURATION_US", duration.as_micros().to_string()),
            ("BEAT_US", BEAT.as_micros().to_string()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        spec.env.extend(variables);
        spec
    }

    /// Every execution of every job so far, in the order in which they began.
    pub(crate) fn read(&self) -> Outcome<BTreeMap<JobId, Vec<Execution>>> {
        let dir = self.scratch.path();
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(dir).naming(dir.display())? {
            let entry = entry.naming(dir.display())?;
            let Ok(job) = entry.file_name().to_string_lossy().parse::<JobId>() else {
                continue;
            };
            let text = fs::read_to_string(entry.path()).naming(entry.path().display())?;
            found.insert(job, executions(&text)?);
        }
        Ok(found)
    }

    /// Clears it away.
    pub(crate) fn close(self) -> Outcome {
        self.scratch.close().naming(MEMORY)
    }
}

/// Reads a job's file. Each line was written in one piece.
fn executions(text: &str) -> Outcome<Vec<Execution>> {
    let mut found = Vec::<(u32, Execution)>::new();
    for line in text.lines() {
        let wrong = || Failure::internal(format!("a task noted {line:?}"));
        hear(line, &mut found).ok_or_else(wrong)?;
    }
    found.sort_by_key(|(_, execution)| execution.began_us);
    Ok(found.into_iter().map(|(_, execution)| execution).collect())
}

/// Adds what one line says of a process.
fn hear(line: &str, found: &mut Vec<(u32, Execution)>) -> Option<()> {
    let words: Vec<_> = line.split(' ').collect();
    let (what, at_us) = (*words.first()?, unix_us_of(words.get(1)?)?);
    let pid = words.get(2)?.parse().ok()?;
    if what == "begin" {
        let fence = fence_of(words.get(4)?)?;
        found.push((pid, Execution::begun(at_us, fence)));
    }
    // An id may come again; the last process that had it is meant.
    let own = found.iter_mut().rev().find(|(known, _)| *known == pid);
    let (_, own) = own?;
    own.lives(at_us);
    match what {
        "begin" | "alive" => {}
        "end" => own.ended_us = Some(at_us),
        "overlap" => own.overlap_us = Some(at_us),
        _ => return None,
    }
    Some(())
}

/// Bash's `EPOCHREALTIME`: seconds, six digits after the point.
fn unix_us_of(text: &str) -> Option<u64> {
    let (seconds, micros) = text.split_once('.')?;
    let is_exact = micros.len() == 6;
    let (seconds, micros) = (seconds.parse::<u64>().ok()?, micros.parse::<u64>().ok()?);
    is_exact.then(|| seconds.saturating_mul(1_000_000).saturating_add(micros))
}

fn fence_of(text: &str) -> Option<Fence> {
    let (epoch, sequence) = text.split_once('.')?;
    Some(Fence {
        epoch: epoch.parse().ok()?,
        sequence: sequence.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    #[test]
    fn lines_become_executions() {
        let text = "begin 10.000001 7 99 1.1\nalive 10.250000 7\nbegin 11.000000 8 99 1.2\n\
                    overlap 11.000100 8\nalive 11.100000 7\nend 12.000000 8\n";
        let found = executions(text).unwrap();
        assert_eq!(
            (found[0].began_us, found[0].alive_us()),
            (10_000_001, 11_100_000)
        );
        assert_eq!((found[0].ended_us, found[0].overlap_us), (None, None));
        assert_eq!(
            found[1].fence,
            Fence {
                epoch: 1,
                sequence: 2
            }
        );
        assert_eq!(found[1].ended_us, Some(12_000_000));
        assert_eq!(found[1].overlap_us, Some(11_000_100));
        let paused = executions("begin 1.000000 7 9 1.1\nalive 1.250000 7\nalive 9.000000 7\n");
        let stretches = [(1_000_000, 1_250_000), (9_000_000, 9_000_000)];
        assert_eq!(paused.unwrap()[0].stretches, stretches);
        for wrong in ["alive 1.000000 7\n", "begin 1.0 7 9 1.1\n", "x\n"] {
            assert!(executions(wrong).is_err(), "{wrong}");
        }
    }

    fn run(evidence: &Evidence, job: &str, fence: &str, duration: Duration) -> Child {
        let spec = evidence.task(duration);
        Command::new(&spec.command[0])
            .args(&spec.command[1..])
            .env_clear()
            .envs(&spec.env)
            .env("MUTUAL_JOB", job)
            .env("MUTUAL_FENCE", fence)
            .spawn()
            .unwrap()
    }

    #[test]
    fn the_script_notes_its_life_and_sees_an_earlier_one() {
        let evidence = Evidence::new().unwrap();
        let job = "01930000-0000-7000-8000-000000000001";
        let mut first = run(&evidence, job, "5.1", Duration::from_secs(600));
        let of_job = || {
            evidence
                .read()
                .unwrap()
                .into_values()
                .next()
                .unwrap_or_default()
        };
        while of_job()
            .first()
            .is_none_or(|one| one.alive_us() == one.began_us)
        {
            // may sleep: polls for the event; nextest bounds it
            std::thread::sleep(Duration::from_millis(5));
        }
        let second = run(&evidence, job, "5.2", Duration::from_millis(1)).wait();
        assert!(second.unwrap().success());
        first.kill().unwrap();
        first.wait().unwrap();
        let third = run(&evidence, job, "5.3", Duration::from_millis(1)).wait();
        assert!(third.unwrap().success());
        let found = of_job();
        let overlaps: Vec<_> = found.iter().map(|one| one.overlap_us.is_some()).collect();
        let ended: Vec<_> = found.iter().map(|one| one.ended_us.is_some()).collect();
        assert_eq!(overlaps, [false, true, false]);
        assert_eq!(ended, [false, true, true]);
        evidence.close().unwrap();
    }
}
