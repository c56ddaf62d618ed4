//! `mutual stage bench`: how fast the algorithms are, and how good, on this machine, beside the goals set for them.
//!
//! A line is printed as soon as it is measured, and with `--json` one document at the end. Whatever is held against a goal says whether it
//! is met. Every schedule passes the validator, outside the time that is measured.

use std::time::{Duration, Instant};

use mutual_stage::{Instance, Model, Solution, validate};
use serde::Serialize;

use super::file::{Named, Problem};
use super::generate::{self, Kind};
use crate::args::Session;
use crate::failure::{Failure, Outcome};

mod files;
mod front;
mod growth;
mod integral;
mod memory;
mod offers;
mod paper;

/// Measure the algorithms on this machine: times and memory with their growth, and the gap that bounds leave
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Repeats of a time, fewer if they take more than three seconds together, and seeds of an integral row; thrice as many up to 10,000 jobs
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeats: u32,
    /// The largest number of jobs, from 1,000
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    jobs: u32,
    /// When each search stops; those that need not end with a proof stop after a fifth of it
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    budget: Duration,
    /// Only the memory of one run with as many jobs, in this process
    #[arg(long, value_name = "N", hide = true)]
    memory_of: Option<u32>,
}

/// What a figure is held against.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Goal {
    below: f64,
    is_met: bool,
}

impl Goal {
    fn of(below: f64, figure: f64) -> Self {
        let is_met = figure < below;
        Self { below, is_met }
    }

    fn words(self, unit: &str) -> String {
        let verdict = match self.is_met {
            true => "met",
            false => "MISSED",
        };
        format!("  goal < {} {unit}: {verdict}", self.below)
    }
}

/// The goal of a line, or nothing.
fn words(goal: Option<Goal>, unit: &str) -> String {
    goal.map_or_else(String::new, |goal| goal.words(unit))
}

#[derive(Debug, Serialize)]
struct Report {
    growth: Vec<growth::Times>,
    offers: offers::Offers,
    memory: Vec<memory::Peak>,
    files: Vec<files::Reading>,
    integral: Vec<integral::Quality>,
}

pub(crate) fn run(session: &Session, args: &Args) -> Outcome {
    if let Some(jobs) = args.memory_of {
        return memory::measure(jobs as usize);
    }
    let paper = paper::Paper::new(session.output);
    let report = Report {
        growth: growth::run(&paper, args)?,
        offers: offers::run(&paper)?,
        memory: memory::run(&paper, args)?,
        files: files::run(&paper, args)?,
        integral: integral::run(&paper, args)?,
    };
    session.output.document(&report);
    Ok(())
}

impl Args {
    /// 1,000 and ten times as many and so on, up to a number and to what was asked for.
    fn counts(&self, most: usize) -> impl Iterator<Item = usize> {
        let most = most.min(self.jobs as usize);
        std::iter::successors(Some(1_000), |count| Some(count * 10))
            .take_while(move |count| *count <= most)
    }

    /// Few jobs take little time, in which little else may happen.
    fn repeats(&self, jobs: usize) -> u32 {
        match jobs {
            0..=10_000 => 3 * self.repeats,
            _ => self.repeats,
        }
    }
}

fn instance(kind: Kind, count: usize, capacity_gb: u64, seed: u64) -> Outcome<Instance> {
    let draft = generate::draft(kind, count, capacity_gb * generate::GB, seed);
    match Named::new(draft)?.problem {
        Problem::Plain(instance) => Ok(instance),
        Problem::Shared(_) => Err(Failure::internal("a plain kind shares nothing")),
    }
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn holds(instance: &Instance, model: Model, solution: &Solution) -> Outcome {
    validate(instance, model, &solution.schedule).map_err(Failure::internal)
}
