//! All algorithms on all seeds, on as many cores as there are.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use indicatif::ProgressBar;
use mutual_stage::integral::{self, Half};
use mutual_stage::{Instance, Model, Schedule, Solution, baseline, continuous, solve, validate};
use statrs::distribution::{ContinuousCDF as _, StudentsT};

use super::workload::Workload;
use super::{Args, Mean, Reached, Row};
use crate::failure::{Failure, Outcome};

/// In the order of the table's rows. The last two are bounds: what no schedule can exceed, by the search and in the continuous model.
pub(super) const ALGORITHMS: [&str; 10] = [
    "blind EDD",
    "backward EDD",
    "forward EDD",
    "2-approx.",
    "forest",
    "refilled",
    "beam",
    "best found",
    "integral bound",
    "continuous",
];
pub(super) const BLIND: usize = 0;
pub(super) const BACKWARD: usize = 1;
pub(super) const FOREST: usize = 4;
pub(super) const BEST: usize = 7;

const BEAM_WIDTH: NonZeroUsize = NonZeroUsize::new(200).expect("200 is not 0");

/// The upper end of a two-sided 95 % confidence interval.
const QUANTILE: f64 = 0.975;

/// What one instance gave.
#[derive(Debug, Clone)]
struct Outcomes {
    percent: [f64; ALGORITHMS.len()],
    is_proved: bool,
    search_ms: f64,
}

pub(super) fn row(
    args: &Args,
    workload: &Workload,
    capacity_gb: f64,
    busy: &ProgressBar,
) -> Outcome<Row> {
    let next = AtomicU32::new(0);
    let results = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(args.seeds as usize) {
            scope.spawn(|| {
                while let Some(seed) = take(&next, args.seeds) {
                    let outcome = workload
                        .instance(u64::from(seed), capacity_gb)
                        .and_then(|instance| all(args, &instance));
                    if let Ok(mut results) = results.lock() {
                        results.push((seed, outcome));
                        let done = results.len();
                        busy.set_message(format!(
                            "stage of {capacity_gb:.1} GB: {done} of {} instances",
                            args.seeds
                        ));
                    }
                }
            });
        }
    });
    let mut results = results.into_inner().map_err(Failure::internal)?;
    results.sort_by_key(|(seed, _)| *seed);
    let outcomes: Outcome<Vec<_>> = results.into_iter().map(|(_, outcome)| outcome).collect();
    Ok(summary(capacity_gb, &outcomes?))
}

fn take(next: &AtomicU32, seeds: u32) -> Option<u32> {
    let seed = next.fetch_add(1, Ordering::Relaxed);
    (seed < seeds).then_some(seed)
}

fn all(args: &Args, instance: &Instance) -> Outcome<Outcomes> {
    let start = Instant::now();
    let end = start + args.budget;
    let best = solve(instance, Model::Integral, &mut || Instant::now() >= end);
    let search_ms = start.elapsed().as_secs_f64() * 1e3;
    let relaxed = continuous::heaviest(instance).map_err(Failure::internal)?;
    validate(instance, Model::Continuous, &relaxed.schedule).map_err(Failure::internal)?;
    let mut weights = Vec::with_capacity(ALGORITHMS.len());
    for schedule in schedules(args, instance, &best)? {
        validate(instance, Model::Integral, &schedule).map_err(Failure::internal)?;
        weights.push(schedule.weight(instance));
    }
    weights.extend([best.bound, relaxed.weight]);
    let total: u128 = instance
        .reservations()
        .iter()
        .map(|one| u128::from(one.weight))
        .sum();
    Ok(Outcomes {
        percent: std::array::from_fn(|place| 100.0 * weights[place] as f64 / total.max(1) as f64),
        is_proved: best.is_proved_best(),
        search_ms,
    })
}

/// Of everything but the bounds.
fn schedules(args: &Args, instance: &Instance, best: &Solution) -> Outcome<[Schedule; BEST + 1]> {
    let model = Model::Integral;
    let wrong = Failure::internal;
    Ok([
        baseline::blind_edd(instance, model).map_err(wrong)?,
        baseline::backward_edd(instance, model).map_err(wrong)?,
        baseline::forward_edd(instance, model).map_err(wrong)?,
        paper(args, instance)?,
        integral::half(instance, Half::Forest)
            .map_err(wrong)?
            .schedule,
        integral::approximate(instance).map_err(wrong)?.schedule,
        integral::beam(instance, BEAM_WIDTH)
            .map_err(wrong)?
            .schedule,
        best.schedule.clone(),
    ])
}

/// The paper's algorithm for equal weights, or for any.
fn paper(args: &Args, instance: &Instance) -> Outcome<Schedule> {
    let half = match args.weights {
        true => Half::FromRight,
        false => Half::FromLeft,
    };
    let solution = integral::half(instance, half).map_err(Failure::internal)?;
    Ok(solution.schedule)
}

fn summary(capacity_gb: f64, outcomes: &[Outcomes]) -> Row {
    let reached = ALGORITHMS.iter().enumerate().map(|(place, algorithm)| {
        let over = |one: &Outcomes| {
            let backward = one.percent[BACKWARD].max(f64::MIN_POSITIVE);
            100.0 * (one.percent[place] / backward - 1.0)
        };
        Reached {
            algorithm,
            percent: mean(outcomes.iter().map(|one| one.percent[place])),
            over_backward_edd_percent: mean(outcomes.iter().map(over)),
        }
    });
    let proved = outcomes.iter().filter(|one| one.is_proved);
    let count = proved.clone().count();
    Row {
        capacity_gb,
        reached: reached.collect(),
        optimum_percent: (count > 0).then(|| mean(proved.map(|one| one.percent[BEST]))),
        proved: count,
        search_ms_max: outcomes.iter().map(|one| one.search_ms).fold(0.0, f64::max),
    }
}

/// With half the width of its 95 % confidence interval by Student's t, which a single value does not have.
fn mean(values: impl Iterator<Item = f64>) -> Mean {
    let values: Vec<_> = values.collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let confidence = StudentsT::new(0.0, 1.0, count - 1.0)
        .ok()
        .map(|student| student.inverse_cdf(QUANTILE) * (squares / (count - 1.0) / count).sqrt());
    Mean { mean, confidence }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_is_students() {
        let three = mean([1.0, 2.0, 3.0].into_iter());
        assert!((three.mean - 2.0).abs() < 1e-9);
        // Tables give 4.303 for two degrees of freedom.
        assert!((three.confidence.unwrap() - 4.3027 / 3f64.sqrt()).abs() < 1e-4);
        let one = mean(std::iter::once(5.0));
        assert_eq!((one.mean, one.confidence), (5.0, None));
    }
}
