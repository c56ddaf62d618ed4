//! `mutual stage solve`: the best schedule for an instance file.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use mutual_stage::continuous::Epsilon;
use mutual_stage::shared;
use mutual_stage::{Instance, Model, continuous, validate};

use super::algorithm::{self, Algorithm};
use super::answer::{Answer, Planned, Weight};
use super::file::{Named, Problem};
use super::plot;
use crate::args::Session;
use crate::failure::{Failure, Outcome};

/// Solve an instance: which images to load, and when
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance, JSON; `mutual stage gen` makes one
    file: PathBuf,
    /// What a load under way occupies: what has arrived, or the whole image
    #[arg(long, value_name = "MODEL", value_parser = model)]
    model: Model,
    /// How to solve it
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Algorithm::Best)]
    algorithm: Algorithm,
    /// The part of the best that `fptas` and `weighted` may lose
    #[arg(long, value_name = "E", default_value = "0.1", value_parser = algorithm::epsilon)]
    epsilon: Epsilon,
    /// When to stop improving: 500ms, 10s, 2m
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    budget: Duration,
    /// Draw the link and the stage over time: an .svg or .png file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// A model by its name.
pub(super) fn model(text: &str) -> Result<Model, String> {
    match text {
        "continuous" => Ok(Model::Continuous),
        "integral" => Ok(Model::Integral),
        _ => Err("must be continuous or integral".to_owned()),
    }
}

/// A schedule, its weight and a bound.
struct Solved {
    planned: Planned,
    weight: u128,
    bound: Option<u128>,
}

pub(crate) fn run(session: &Session, args: &Args) -> Outcome {
    let began = Instant::now();
    if let Some(path) = &args.plot {
        super::picture::check_name(path)?;
    }
    let named = Named::read(&args.file)?;
    let start = Instant::now();
    let solved = solve(&named, args)?;
    let solve_ms = millis(start);
    let bound = solved
        .bound
        .or_else(|| relaxed_bound(&named))
        .unwrap_or(u128::MAX);
    holds(&named, args.model, &solved.planned)?;
    let proved = solved.weight == bound;
    let answer = Answer {
        model: args.model,
        algorithm: args.algorithm.name(),
        weight: Weight(solved.weight),
        upper_bound: Weight(bound),
        proved,
        schedule: named.entries(&solved.planned),
        rejected: named.rejected(&solved.planned, proved),
        solve_ms,
        elapsed_ms: millis(began),
    };
    if let Some(path) = &args.plot {
        plot::draw(&named, args.model, &solved.planned)?.save(path)?;
    }
    session.output.answer(&answer, || text(&named, &answer));
    Ok(())
}

fn millis(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 1e6).round() / 1e3
}

fn solve(named: &Named, args: &Args) -> Outcome<Solved> {
    let end = Instant::now() + args.budget;
    let mut stop = || Instant::now() >= end;
    match &named.problem {
        Problem::Plain(instance) => {
            let ran = args
                .algorithm
                .run(instance, args.model, args.epsilon, &mut stop)?;
            Ok(Solved {
                weight: ran.0.weight(instance),
                planned: Planned::Plain(ran.0),
                bound: ran.1,
            })
        }
        Problem::Shared(shared) if args.algorithm == Algorithm::Best => {
            let found = shared::solve(shared, args.model, &mut stop);
            Ok(Solved {
                weight: found.weight,
                bound: Some(found.bound),
                planned: Planned::Shared(found.schedule),
            })
        }
        Problem::Shared(_) => Err(Failure::user("jobs share images or layers")
            .hint("only --algorithm best knows shared images")),
    }
}

/// What no schedule can exceed, for algorithms that do not say.
fn relaxed_bound(named: &Named) -> Option<u128> {
    let Problem::Plain(instance) = &named.problem else {
        return None;
    };
    let total = |instance: &Instance| {
        let weights = instance
            .reservations()
            .iter()
            .map(|one| u128::from(one.weight));
        weights.sum()
    };
    let relaxed = continuous::heaviest(instance);
    Some(relaxed.map_or_else(|_| total(instance), |relaxed| relaxed.bound))
}

/// No answer leaves that the validator has not passed.
fn holds(named: &Named, model: Model, planned: &Planned) -> Outcome {
    let violation = match (&named.problem, planned) {
        (Problem::Plain(instance), Planned::Plain(schedule)) => validate(instance, model, schedule)
            .err()
            .map(|why| why.to_string()),
        (Problem::Shared(shared), Planned::Shared(schedule)) => shared
            .validate(model, schedule)
            .err()
            .map(|why| why.to_string()),
        _ => Some("the schedule is of another kind".to_owned()),
    };
    match violation {
        Some(why) => Err(Failure::internal(format!(
            "the schedule found is wrong: {why}"
        ))),
        None => Ok(()),
    }
}

fn text(named: &Named, answer: &Answer) -> String {
    let quality = match answer.proved {
        true => "proved best".to_owned(),
        false => format!("at most {} is possible", answer.upper_bound.0),
    };
    let mut lines = vec![format!(
        "weight {} ({quality}); {} of {} jobs served, {:.1} ms",
        answer.weight.0,
        answer.schedule.len(),
        named.jobs.len(),
        answer.solve_ms
    )];
    lines.extend(
        answer
            .schedule
            .iter()
            .map(|entry| format!("{:>14}  {}", entry.start, entry.id)),
    );
    if !answer.rejected.is_empty() {
        lines.push("not served:".to_owned());
    }
    let rejected = answer.rejected.iter();
    lines.extend(rejected.map(|rejected| format!("  {}: {}", rejected.id, rejected.reason)));
    lines.join("\n")
}
