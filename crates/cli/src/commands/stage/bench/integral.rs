//! The integral model: what is proved, in what time, and how much of the gap above the best found the bound closes where it is not.

use std::time::{Duration, Instant};

use mutual_stage::{Model, continuous, solve};
use serde::Serialize;

use super::paper::Paper;
use super::{Args, Goal, holds, instance, millis, words};
use crate::commands::spread::Spread;
use crate::commands::stage::generate::Kind;
use crate::failure::{Failure, Outcome};

const PAPER_COUNT: usize = 369;
const LARGE_COUNT: usize = 10_000;
/// Sizes of the stage in the paper's experiment: the least, a middle and the greatest one.
const CAPACITIES_GB: [u64; 3] = [40, 70, 100];
const PAPER_GOAL_MS: f64 = 1_000.0;
const LARGE_GOAL_MS: f64 = 10_000.0;
/// Kinds that often end without a proof, so that each takes its whole budget: less of it, and fewer seeds.
const OPEN_KINDS: [Kind; 6] = [
    Kind::Weighted,
    Kind::General,
    Kind::Unit,
    Kind::Small,
    Kind::Large,
    Kind::Prestaged,
];
const OPEN_SHARE: u32 = 5;
const OPEN_SEEDS_MAX: u32 = 3;

/// Instances of one kind on stages of one size.
struct Row {
    kind: Kind,
    jobs: usize,
    capacity_gb: u64,
    seeds: u32,
    budget: Duration,
    goal_ms: Option<f64>,
}

/// How near a search comes, over seeds.
#[derive(Debug, Serialize)]
pub(super) struct Quality {
    kind: String,
    jobs: usize,
    capacity_gb: u64,
    instances: usize,
    proved: usize,
    /// Instances whose bound lies below the continuous one, among those where it is not met.
    bound_below_continuous: usize,
    open: usize,
    /// Of what lies between the best found and the continuous bound, the part that the integral bound excludes; nothing if they meet.
    gap_closed_percent: Option<f64>,
    median_ms: f64,
    greatest_ms: f64,
    /// All are proved, and the slowest is below this.
    goal_ms: Option<Goal>,
}

pub(super) fn run(paper: &Paper, args: &Args) -> Outcome<Vec<Quality>> {
    paper.line("\nintegral model; BELOW: instances whose bound is below the continuous one, of those that do not reach that");
    paper.line(&format!(
        "{:<10} {:>6} {:>3} GB {:>9} {:>9} {:>10} {:>10} {:>10}",
        "KIND", "JOBS", "", "PROVED", "BELOW", "GAP CLOSED", "MEDIAN ms", "GREATEST"
    ));
    let mut qualities = Vec::new();
    for row in rows(args) {
        paper.begin(format!(
            "{} jobs of kind {}, {} GB",
            row.jobs,
            row.kind.name(),
            row.capacity_gb
        ));
        let quality = row.measured()?;
        paper.line(&line(&quality));
        qualities.push(quality);
    }
    Ok(qualities)
}

fn rows(args: &Args) -> Vec<Row> {
    let proved = |jobs, seeds, goal_ms| {
        CAPACITIES_GB.map(|capacity_gb| Row {
            kind: Kind::Paper,
            jobs,
            capacity_gb,
            seeds,
            budget: args.budget,
            goal_ms: Some(goal_ms),
        })
    };
    let open = OPEN_KINDS.into_iter().flat_map(|kind| {
        CAPACITIES_GB.map(|capacity_gb| Row {
            kind,
            jobs: PAPER_COUNT,
            capacity_gb,
            seeds: args.repeats.min(OPEN_SEEDS_MAX),
            budget: args.budget / OPEN_SHARE,
            goal_ms: None,
        })
    });
    let mut rows = Vec::from(proved(PAPER_COUNT, 3 * args.repeats, PAPER_GOAL_MS));
    if args.jobs as usize >= LARGE_COUNT {
        rows.extend(proved(LARGE_COUNT, 1, LARGE_GOAL_MS));
    }
    rows.extend(open);
    rows
}

/// What is added up over seeds.
#[derive(Default)]
struct Sums {
    each_ms: Vec<f64>,
    proved: usize,
    below: usize,
    open: usize,
    /// From the continuous bound down to the integral one, and down to the best found.
    closed: u128,
    gap: u128,
}

impl Row {
    fn measured(&self) -> Outcome<Quality> {
        let mut sums = Sums::default();
        for seed in 0..self.seeds {
            self.add(&mut sums, u64::from(seed))?;
        }
        let spread = Spread::of(sums.each_ms);
        let instances = self.seeds as usize;
        let slowest_proof = match sums.proved == instances {
            true => spread.greatest(),
            false => f64::INFINITY,
        };
        Ok(Quality {
            kind: self.kind.name(),
            jobs: self.jobs,
            capacity_gb: self.capacity_gb,
            instances,
            proved: sums.proved,
            bound_below_continuous: sums.below,
            open: sums.open,
            gap_closed_percent: (sums.gap > 0)
                .then(|| 100.0 * sums.closed as f64 / sums.gap as f64),
            median_ms: spread.percentile(50),
            greatest_ms: spread.greatest(),
            goal_ms: self.goal_ms.map(|goal| Goal::of(goal, slowest_proof)),
        })
    }

    fn add(&self, sums: &mut Sums, seed: u64) -> Outcome {
        let instance = instance(self.kind, self.jobs, self.capacity_gb, seed)?;
        let relaxed = continuous::heaviest(&instance)
            .map_err(Failure::internal)?
            .bound;
        let start = Instant::now();
        let end = start + self.budget;
        let solution = solve(&instance, Model::Integral, &mut || Instant::now() >= end);
        sums.each_ms.push(millis(start));
        holds(&instance, Model::Integral, &solution)?;
        sums.proved += usize::from(solution.is_proved_best());
        sums.open += usize::from(solution.weight < relaxed);
        sums.below += usize::from(solution.bound < relaxed);
        sums.closed += relaxed - solution.bound;
        sums.gap += relaxed - solution.weight;
        Ok(())
    }
}

fn line(row: &Quality) -> String {
    let proved = format!("{} of {}", row.proved, row.instances);
    let below = format!("{} of {}", row.bound_below_continuous, row.open);
    let closed = row.gap_closed_percent;
    let closed = closed.map_or("-".to_owned(), |percent| format!("{percent:.0} %"));
    format!(
        "{:<10} {:>6} {:>3} GB {proved:>9} {below:>9} {closed:>10} {:>10.1} {:>10.1}{}",
        row.kind,
        row.jobs,
        row.capacity_gb,
        row.median_ms,
        row.greatest_ms,
        words(row.goal_ms, "ms, all proved"),
    )
}
