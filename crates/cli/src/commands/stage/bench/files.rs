//! What reading a file and validating the answer add to `mutual stage solve`.

use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::paper::Paper;
use super::{Args, Goal};
use crate::commands::spread::Spread;
use crate::commands::stage::generate::{self, Kind};
use crate::failure::{Failure, Naming as _, Outcome};
use crate::scratch::Scratch;

/// Fewer jobs are done in less than the clock's noise.
const JOBS_MIN: usize = 100_000;
/// Reading and validating may at most triple the time of the algorithm.
const RATIO_GOAL: f64 = 3.0;

/// What a run of the program says of itself.
#[derive(Debug, Deserialize)]
struct Answer {
    solve_ms: f64,
    elapsed_ms: f64,
}

/// Medians over repeats.
#[derive(Debug, Serialize)]
pub(super) struct Reading {
    jobs: usize,
    repeats: u32,
    file_bytes: u64,
    solve_ms: f64,
    elapsed_ms: f64,
    ratio: f64,
    goal: Goal,
}

pub(super) fn run(paper: &Paper, args: &Args) -> Outcome<Vec<Reading>> {
    paper.line("\n`mutual stage solve`, continuous, equal weights: from the file's first byte to the validated answer (elapsed_ms), beside the algorithm (solve_ms)");
    let scratch = Scratch::new("mutual-bench-")?;
    let file = scratch.path().join("instance.json");
    let mut readings = Vec::new();
    for jobs in args.counts(usize::MAX).filter(|jobs| *jobs >= JOBS_MIN) {
        paper.begin(format!("a file of {jobs} jobs"));
        write(&file, jobs)?;
        let reading = measured(&file, jobs, args.repeats(jobs))?;
        paper.line(&line(&reading));
        readings.push(reading);
    }
    scratch.close().map_err(Failure::internal)?;
    Ok(readings)
}

fn write(file: &Path, jobs: usize) -> Outcome {
    let draft = generate::draft(Kind::Paper, jobs, 70 * generate::GB, 0);
    let mut out = BufWriter::new(std::fs::File::create(file).naming(file.display())?);
    serde_json::to_writer(&mut out, &draft).map_err(Failure::internal)?;
    out.flush().naming(file.display())
}

fn measured(file: &Path, jobs: usize, repeats: u32) -> Outcome<Reading> {
    let (mut solving, mut elapsing) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        let answer = answer(file)?;
        solving.push(answer.solve_ms);
        elapsing.push(answer.elapsed_ms);
    }
    let solve_ms = Spread::of(solving).percentile(50);
    let elapsed_ms = Spread::of(elapsing).percentile(50);
    let ratio = elapsed_ms / solve_ms;
    Ok(Reading {
        jobs,
        repeats,
        file_bytes: std::fs::metadata(file).naming(file.display())?.len(),
        solve_ms,
        elapsed_ms,
        ratio,
        goal: Goal::of(RATIO_GOAL, ratio),
    })
}

fn answer(file: &Path) -> Outcome<Answer> {
    let program = std::env::current_exe().map_err(Failure::internal)?;
    let mut command = Command::new(program);
    command
        .args(["--json", "stage", "solve", "--model", "continuous"])
        .arg(file);
    let output = command.output().map_err(Failure::internal)?;
    let why = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::internal(format!("mutual stage solve: {error} {why}")))
}

fn line(reading: &Reading) -> String {
    format!(
        "{:>9} jobs, {:.1} MB: solve {:.1} ms, elapsed {:.1} ms, {:.2} times{}",
        reading.jobs,
        reading.file_bytes as f64 / 1e6,
        reading.solve_ms,
        reading.elapsed_ms,
        reading.ratio,
        reading.goal.words("times"),
    )
}
