//! Times of the fast algorithms from 1,000 jobs on, ten times as many in each line.

use std::time::Instant;

use mutual_stage::{Model, Solution, Unsupported, continuous, integral};
use serde::Serialize;

use super::paper::Paper;
use super::{Args, Goal, front, holds, instance, millis, words};
use crate::commands::spread::Spread;
use crate::commands::stage::generate::Kind;
use crate::failure::{Failure, Outcome};

/// Times of one measurement.
#[derive(Debug, Serialize)]
pub(super) struct Times {
    what: &'static str,
    jobs: usize,
    repeats: usize,
    median_ms: f64,
    least_ms: f64,
    greatest_ms: f64,
    /// Time for a job beside that of ten times fewer jobs.
    growth: Option<f64>,
    /// Of the median.
    goal_ms: Option<Goal>,
    /// States that Algorithm 1 keeps on average.
    front: Option<f64>,
}

/// An algorithm and what it is measured with.
struct Course {
    what: &'static str,
    kind: Kind,
    capacity_gb: u64,
    model: Model,
    solve: fn(&mutual_stage::Instance) -> Result<Solution, Unsupported>,
    most: usize,
    has_front: bool,
    /// For so many jobs, below so many milliseconds.
    goals: &'static [(usize, f64)],
}

/// On stages of 40 to 100 GB, fronts of weighted three-size instances have about 20 to 40 states; this one gives near 100.
const FRONT_CAPACITY_GB: u64 = 180;
/// Repeats of a row end after it.
const ROW_MS_MAX: f64 = 3_000.0;

const COURSES: [Course; 3] = [
    Course {
        what: "continuous, equal weights",
        kind: Kind::Paper,
        capacity_gb: 70,
        model: Model::Continuous,
        solve: continuous::most,
        most: usize::MAX,
        has_front: false,
        goals: &[(100_000, 50.0), (1_000_000, 1_000.0)],
    },
    Course {
        what: "continuous, weights",
        kind: Kind::Weighted,
        capacity_gb: FRONT_CAPACITY_GB,
        model: Model::Continuous,
        solve: continuous::heaviest,
        most: usize::MAX,
        has_front: true,
        goals: &[(100_000, 1_000.0)],
    },
    Course {
        what: "integral, approximated",
        kind: Kind::Weighted,
        capacity_gb: 70,
        model: Model::Integral,
        solve: integral::approximate,
        // Refilling is quadratic.
        most: 10_000,
        has_front: false,
        goals: &[],
    },
];

pub(super) fn run(paper: &Paper, args: &Args) -> Outcome<Vec<Times>> {
    paper.line("time of the algorithm alone, growth per job from a tenth of the jobs");
    paper.line(&format!(
        "{:<26} {:>9} {:>7} {:>10}  {:<19} {:>6}",
        "WHAT", "JOBS", "REPEATS", "MEDIAN ms", "LEAST–GREATEST", "GROWTH"
    ));
    let mut rows: Vec<Times> = Vec::new();
    for course in &COURSES {
        let mut before = None;
        for jobs in args.counts(course.most) {
            paper.begin(format!("{}, {jobs} jobs", course.what));
            let row = course.measure(args, jobs, before)?;
            paper.line(&line(&row));
            before = Some(row.median_ms);
            rows.push(row);
        }
    }
    Ok(rows)
}

impl Course {
    fn measure(&self, args: &Args, jobs: usize, before: Option<f64>) -> Outcome<Times> {
        let instance = instance(self.kind, jobs, self.capacity_gb, 0)?;
        let (mut each, mut weight) = (Vec::new(), 0);
        while each.len() < args.repeats(jobs) as usize && each.iter().sum::<f64>() < ROW_MS_MAX {
            let start = Instant::now();
            let solution = (self.solve)(&instance);
            each.push(millis(start));
            let solution = solution.map_err(Failure::internal)?;
            holds(&instance, self.model, &solution)?;
            weight = solution.weight;
        }
        let (front, plain_weight) = match self.has_front && jobs <= 100_000 {
            true => {
                let (front, weight) = front::mean(&instance);
                (Some(front), weight)
            }
            false => (None, weight),
        };
        if plain_weight != weight {
            return Err(Failure::internal(format!(
                "{}: two optima differ",
                self.what
            )));
        }
        let repeats = each.len();
        let spread = Spread::of(each);
        let median_ms = spread.percentile(50);
        let goal = self.goals.iter().find(|goal| goal.0 == jobs);
        Ok(Times {
            what: self.what,
            jobs,
            repeats,
            median_ms,
            least_ms: spread.least(),
            greatest_ms: spread.greatest(),
            growth: before.map(|before| median_ms / before / 10.0),
            goal_ms: goal.map(|goal| Goal::of(goal.1, median_ms)),
            front,
        })
    }
}

fn line(row: &Times) -> String {
    let spread = format!("{:.3}–{:.3}", row.least_ms, row.greatest_ms);
    let growth = row
        .growth
        .map_or("-".to_owned(), |growth| format!("{growth:.2}x"));
    let front = row
        .front
        .map_or_else(String::new, |front| format!("  front {front:.0}"));
    format!(
        "{:<26} {:>9} {:>7} {:>10.3}  {spread:<19} {growth:>6}{front}{}",
        row.what,
        row.jobs,
        row.repeats,
        row.median_ms,
        words(row.goal_ms, "ms"),
    )
}
