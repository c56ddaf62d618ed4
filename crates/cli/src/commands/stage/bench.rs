//! `mutual stage bench`: how fast the algorithms are, and how good, on this machine.

use std::time::{Duration, Instant};

use comfy_table::Cell;
use mutual_stage::planner::{Admission, Planner, Request, Site};
use mutual_stage::{Instance, Model, Solution, continuous, solve, validate};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::file::{Named, Problem};
use super::generate::{Kind, draft};
use crate::args::Session;
use crate::failure::{Failure, Outcome};
use crate::output::{table, table_text};

const GB: u64 = 1_000;
const PAPER_COUNT: usize = 369;
const OFFERS: u64 = 2_000;
const IN_FORCE: usize = 1_000;

/// Measure the algorithms on this machine: times with spread, growth, and the gap that bounds leave
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Repeats of each measurement
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeats: u32,
    /// The largest number of jobs, from 1,000
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    jobs: u32,
    /// When each search stops
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    budget: Duration,
}

/// Times of one measurement, ms.
#[derive(Debug, Serialize)]
struct Times {
    what: String,
    jobs: usize,
    median_ms: f64,
    least_ms: f64,
    greatest_ms: f64,
    /// Time per job beside that of ten times fewer jobs.
    growth: Option<f64>,
}

/// How near a search comes, over seeds.
#[derive(Debug, Serialize)]
struct Quality {
    what: String,
    instances: usize,
    proved: usize,
    /// Instances whose bound lies below the continuous one, among those where it is not met.
    bound_below_continuous: usize,
    open: usize,
    /// Of what lies between the best found and the continuous bound, the part that the integral bound excludes.
    gap_closed_percent: f64,
    median_ms: f64,
    greatest_ms: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    times: Vec<Times>,
    planner: Offers,
    quality: Vec<Quality>,
}

/// Times of an offer, ms.
#[derive(Debug, Serialize)]
struct Offers {
    in_force: usize,
    offers: usize,
    accepted: usize,
    p50_ms: f64,
    p99_ms: f64,
    greatest_ms: f64,
}

pub(crate) fn run(session: &Session, args: &Args) -> Outcome {
    let mut times = Vec::new();
    growth(
        &mut times,
        args,
        "continuous, equal weights",
        Kind::Paper,
        args.jobs as usize,
    )?;
    growth(
        &mut times,
        args,
        "continuous, weights",
        Kind::Weighted,
        (args.jobs as usize).min(100_000),
    )?;
    let mut quality = Vec::new();
    for capacity in [40, 70, 100] {
        quality.push(measured(args, Kind::Paper, PAPER_COUNT, capacity)?);
    }
    for kind in [Kind::Weighted, Kind::Unit, Kind::General, Kind::Prestaged] {
        quality.push(measured(args, kind, PAPER_COUNT, 40)?);
    }
    quality.push(measured(args, Kind::Paper, 10_000, 40)?);
    let report = Report {
        times,
        planner: offers()?,
        quality,
    };
    session.output.answer(&report, || text(&report));
    Ok(())
}

fn instance(kind: Kind, count: usize, capacity: u64, seed: u64) -> Outcome<Instance> {
    match Named::new(draft(kind, count, capacity * GB, seed))?.problem {
        Problem::Plain(instance) => Ok(instance),
        Problem::Shared(_) => Err(Failure::internal("a plain kind shares nothing")),
    }
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn growth(times: &mut Vec<Times>, args: &Args, what: &str, kind: Kind, most: usize) -> Outcome {
    let (mut count, mut before) = (1_000, None);
    while count <= most {
        let instance = instance(kind, count, 70, 0)?;
        let mut each = Vec::new();
        for _ in 0..args.repeats {
            let start = Instant::now();
            let solution = match kind {
                Kind::Paper => continuous::most(&instance),
                _ => continuous::heaviest(&instance),
            };
            each.push(millis(start));
            holds(
                &instance,
                Model::Continuous,
                &solution.map_err(Failure::internal)?,
            )?;
        }
        each.sort_by(f64::total_cmp);
        let median = each[each.len() / 2];
        times.push(Times {
            what: what.to_owned(),
            jobs: count,
            median_ms: median,
            least_ms: each[0],
            greatest_ms: each[each.len() - 1],
            growth: before.map(|before: f64| median / before / 10.0),
        });
        before = Some(median);
        count *= 10;
    }
    Ok(())
}

fn holds(instance: &Instance, model: Model, solution: &Solution) -> Outcome {
    validate(instance, model, &solution.schedule).map_err(Failure::internal)
}

fn measured(args: &Args, kind: Kind, count: usize, capacity: u64) -> Outcome<Quality> {
    let seeds = if count > PAPER_COUNT {
        1
    } else {
        u64::from(args.repeats)
    };
    let (mut each, mut closed) = (Vec::new(), (0u128, 0u128));
    let (mut proved, mut below, mut open) = (0, 0, 0);
    for seed in 0..seeds {
        let instance = instance(kind, count, capacity, seed)?;
        let relaxed = continuous::heaviest(&instance)
            .map_err(Failure::internal)?
            .bound;
        let start = Instant::now();
        let end = start + args.budget;
        let solution = solve(&instance, Model::Integral, &mut || Instant::now() >= end);
        each.push(millis(start));
        holds(&instance, Model::Integral, &solution)?;
        proved += usize::from(solution.is_proved_best());
        open += usize::from(solution.weight < relaxed);
        below += usize::from(solution.bound < relaxed);
        closed.0 += relaxed - solution.bound;
        closed.1 += relaxed - solution.weight;
    }
    each.sort_by(f64::total_cmp);
    let name = Kind::name(kind);
    Ok(Quality {
        what: format!("integral, {name}, {count} jobs, {capacity} GB"),
        instances: each.len(),
        proved,
        bound_below_continuous: below,
        open,
        gap_closed_percent: 100.0 * closed.0 as f64 / (closed.1 as f64).max(1.0),
        median_ms: each[each.len() / 2],
        greatest_ms: each[each.len() - 1],
    })
}

/// Offers to a planner that has a thousand requests in force, half of them promised, on a link that is asked for more than it can bring.
fn offers() -> Outcome<Offers> {
    let site = Site {
        capacity: 60_000,
        model: Model::Integral,
        rate: 1,
        unload: 0,
    };
    let mut chance = ChaCha8Rng::seed_from_u64(0);
    let mut planner = Planner::new(site, 0).map_err(Failure::internal)?;
    let mut id = 0;
    let mut next = || {
        id += 1;
        Request {
            id,
            image: id,
            size: chance.random_range(1..=1_400),
            due: chance.random_range(1_000..=720_000),
            weight: chance.random_range(1..=100),
            promise: chance.random(),
        }
    };
    for _ in 0..60 * IN_FORCE {
        if planner.requests().count() >= IN_FORCE {
            break;
        }
        let request = next();
        planner.offer(request).map_err(Failure::internal)?;
    }
    let in_force = planner.requests().count();
    let (mut each, mut accepted) = (Vec::new(), 0);
    for _ in 0..OFFERS {
        let request = next();
        let mut asked = planner.clone();
        let start = Instant::now();
        let admission = asked.offer(request).map_err(Failure::internal)?;
        each.push(millis(start));
        accepted += usize::from(matches!(admission, Admission::Accepted { .. }));
    }
    each.sort_by(f64::total_cmp);
    Ok(Offers {
        in_force,
        offers: each.len(),
        accepted,
        p50_ms: each[each.len() / 2],
        p99_ms: each[each.len() * 99 / 100],
        greatest_ms: each[each.len() - 1],
    })
}

fn text(report: &Report) -> String {
    let mut times = table(&[
        "WHAT",
        "JOBS",
        "MEDIAN ms",
        "LEAST",
        "GREATEST",
        "PER JOB, x",
    ]);
    for row in &report.times {
        times.add_row(vec![
            Cell::new(&row.what),
            Cell::new(row.jobs),
            Cell::new(format!("{:.3}", row.median_ms)),
            Cell::new(format!("{:.3}", row.least_ms)),
            Cell::new(format!("{:.3}", row.greatest_ms)),
            Cell::new(
                row.growth
                    .map_or("-".to_owned(), |growth| format!("{growth:.2}")),
            ),
        ]);
    }
    let headings = [
        "WHAT",
        "PROVED",
        "BOUND BELOW",
        "GAP CLOSED",
        "MEDIAN ms",
        "GREATEST",
    ];
    let mut quality = table(&headings);
    for row in &report.quality {
        quality.add_row(vec![
            Cell::new(&row.what),
            Cell::new(format!("{} of {}", row.proved, row.instances)),
            Cell::new(format!("{} of {}", row.bound_below_continuous, row.open)),
            Cell::new(format!("{:.0} %", row.gap_closed_percent)),
            Cell::new(format!("{:.1}", row.median_ms)),
            Cell::new(format!("{:.1}", row.greatest_ms)),
        ]);
    }
    let offers = &report.planner;
    format!(
        "{}\n\nBOUND BELOW: instances whose bound is below the continuous one, of those that do not reach it\n{}\n\n\
         offers beside {} requests in force: median {:.3} ms, p99 {:.3} ms, greatest {:.3} ms; {} of {} accepted",
        table_text(&times),
        table_text(&quality),
        offers.in_force,
        offers.p50_ms,
        offers.p99_ms,
        offers.greatest_ms,
        offers.accepted,
        offers.offers,
    )
}
