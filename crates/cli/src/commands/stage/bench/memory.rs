//! Memory of the O(n log n) method: the peak of a process of its own, above what it has resident with the instance made.

use std::process::Command;

use mutual_stage::continuous;
use serde::{Deserialize, Serialize};

use super::paper::Paper;
use super::{Args, Goal, holds, instance, words};
use crate::commands::stage::generate::Kind;
use crate::commands::status;
use crate::failure::{Failure, Naming as _, Outcome};

/// Fewer jobs hide behind what every process takes.
const JOBS_MIN: usize = 10_000;
/// A tree over the jobs has up to twice as many leaves, so linear memory may grow by this for each job.
const GROWTH_GOAL: f64 = 2.0;
/// Larger blocks go back to the kernel when they are freed (mallopt(3)), so that resident memory is memory in use.
const RETURNED_BYTES: &str = "65536";
const BYTES_PER_KIB: u64 = 1_024;

/// What a process measured about itself.
#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    instance_bytes: u64,
    peak_bytes: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Peak {
    jobs: usize,
    instance_bytes: u64,
    /// What the algorithm takes at most, with its answer.
    peak_bytes: u64,
    peak_bytes_per_job: f64,
    /// The same beside that of ten times fewer jobs.
    growth: Option<f64>,
    goal: Option<Goal>,
}

pub(super) fn run(paper: &Paper, args: &Args) -> Outcome<Vec<Peak>> {
    paper.line("\npeak memory of continuous, equal weights, above the instance itself; each in a process of its own");
    let mut peaks: Vec<Peak> = Vec::new();
    for jobs in args.counts(usize::MAX).filter(|jobs| *jobs >= JOBS_MIN) {
        paper.begin(format!("memory for {jobs} jobs"));
        let Measured {
            instance_bytes,
            peak_bytes,
        } = apart(jobs)?;
        let peak_bytes_per_job = peak_bytes as f64 / jobs as f64;
        let growth = peaks
            .last()
            .map(|before| peak_bytes_per_job / before.peak_bytes_per_job);
        let peak = Peak {
            jobs,
            instance_bytes,
            peak_bytes,
            peak_bytes_per_job,
            growth,
            goal: growth.map(|growth| Goal::of(GROWTH_GOAL, growth)),
        };
        paper.line(&line(&peak));
        peaks.push(peak);
    }
    Ok(peaks)
}

fn apart(jobs: usize) -> Outcome<Measured> {
    let program = std::env::current_exe().map_err(Failure::internal)?;
    let mut command = Command::new(program);
    command.args(["stage", "bench", "--memory-of", &jobs.to_string()]);
    let output = command
        .env("MALLOC_MMAP_THRESHOLD_", RETURNED_BYTES)
        .output();
    let output = output.map_err(Failure::internal)?;
    let why = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::internal(format!("memory of {jobs} jobs: {error} {why}")))
}

/// Measures this very process, and prints what it found.
pub(super) fn measure(jobs: usize) -> Outcome {
    let before = kib("VmRSS")?;
    let instance = instance(Kind::Paper, jobs, 70, 0)?;
    // 5 sets the peak to what is resident now (proc(5)).
    let path = "/proc/self/clear_refs";
    std::fs::write(path, "5").naming(path)?;
    let made = kib("VmRSS")?;
    let solution = continuous::most(&instance).map_err(Failure::internal)?;
    let peak = kib("VmHWM")?;
    holds(&instance, mutual_stage::Model::Continuous, &solution)?;
    let measured = Measured {
        instance_bytes: made.saturating_sub(before) * BYTES_PER_KIB,
        peak_bytes: peak.saturating_sub(made) * BYTES_PER_KIB,
    };
    crate::output::Output::new(true).document(&measured);
    Ok(())
}

fn kib(field: &str) -> Outcome<u64> {
    let path = "/proc/self/status";
    let status = std::fs::read_to_string(path).naming(path)?;
    Ok(status::kib(&status, field))
}

fn line(peak: &Peak) -> String {
    let growth = peak
        .growth
        .map_or_else(String::new, |growth| format!(", {growth:.2}x per job"));
    format!(
        "{:>9} jobs: {:>6.1} MB, {:.0} bytes per job{growth} (instance {:.1} MB){}",
        peak.jobs,
        peak.peak_bytes as f64 / 1e6,
        peak.peak_bytes_per_job,
        peak.instance_bytes as f64 / 1e6,
        words(peak.goal, "x"),
    )
}
