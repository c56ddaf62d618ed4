//! All algorithms on all seeds, on as many cores as there are.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use mutual_stage::integral::{self, Half};
use mutual_stage::{Instance, Model, Schedule, baseline, continuous, solve, validate};

use super::workload::Workload;
use super::{Args, Reached, Row};
use crate::failure::{Failure, Outcome};

/// In the order of the table's columns.
pub(super) const ALGORITHMS: [&str; 8] = [
    "blind EDD",
    "backward EDD",
    "forward EDD",
    "2-approx.",
    "forest",
    "refilled",
    "best found",
    "continuous",
];
const BACKWARD: usize = 1;

/// Normal quantile of a 95 % confidence interval; Student's for few seeds, by degrees of freedom.
const NORMAL: f64 = 1.96;
const STUDENT: [f64; 30] = [
    12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13,
    2.12, 2.11, 2.10, 2.09, 2.09, 2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05, 2.04,
];

/// What one instance gave.
#[derive(Debug, Clone)]
struct Outcomes {
    percent: [f64; ALGORITHMS.len()],
    is_proved: bool,
    search_ms: f64,
}

pub(super) fn row(args: &Args, workload: &Workload, capacity_gb: f64) -> Outcome<Row> {
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
    let model = Model::Integral;
    let start = Instant::now();
    let end = start + args.budget;
    let best = solve(instance, model, &mut || Instant::now() >= end);
    let search_ms = start.elapsed().as_secs_f64() * 1e3;
    let relaxed = continuous::heaviest(instance).map_err(Failure::internal)?;
    let wrong = Failure::internal;
    let schedules = [
        baseline::blind_edd(instance, model).map_err(wrong)?,
        baseline::backward_edd(instance, model).map_err(wrong)?,
        baseline::forward_edd(instance, model).map_err(wrong)?,
        paper(args, instance)?,
        integral::half(instance, Half::Forest)
            .map_err(wrong)?
            .schedule,
        integral::approximate(instance).map_err(wrong)?.schedule,
        best.schedule.clone(),
    ];
    let total: u64 = instance.reservations().iter().map(|one| one.weight).sum();
    let percent = |weight: u128| 100.0 * weight as f64 / total.max(1) as f64;
    let mut outcomes = Outcomes {
        percent: [0.0; ALGORITHMS.len()],
        is_proved: best.is_proved_best(),
        search_ms,
    };
    for (place, schedule) in schedules.iter().enumerate() {
        validate(instance, model, schedule).map_err(Failure::internal)?;
        outcomes.percent[place] = percent(schedule.weight(instance));
    }
    validate(instance, Model::Continuous, &relaxed.schedule).map_err(Failure::internal)?;
    outcomes.percent[ALGORITHMS.len() - 1] = percent(relaxed.weight);
    Ok(outcomes)
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
        let values = outcomes.iter().map(|one| one.percent[place]);
        let over = outcomes.iter().map(|one| {
            let backward = one.percent[BACKWARD].max(f64::MIN_POSITIVE);
            100.0 * (one.percent[place] / backward - 1.0)
        });
        let (mean_percent, confidence_percent) = mean(&values.collect::<Vec<_>>());
        let (over_mean, over_confidence) = mean(&over.collect::<Vec<_>>());
        Reached {
            algorithm,
            mean_percent,
            confidence_percent,
            over_backward_edd_percent: over_mean,
            over_backward_edd_confidence: over_confidence,
        }
    });
    Row {
        capacity_gb,
        reached: reached.collect(),
        proved: outcomes.iter().filter(|one| one.is_proved).count(),
        search_ms_max: outcomes.iter().map(|one| one.search_ms).fold(0.0, f64::max),
    }
}

/// The mean, and half the width of its 95 % confidence interval; 0 for a single value.
fn mean(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    if values.len() < 2 {
        return (mean, 0.0);
    }
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let quantile = STUDENT.get(values.len() - 2).copied().unwrap_or(NORMAL);
    (mean, quantile * (squares / (count - 1.0) / count).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_is_students() {
        let (mean, half) = mean(&[1.0, 2.0, 3.0]);
        assert!((mean - 2.0).abs() < 1e-9);
        assert!((half - 4.30 / 3f64.sqrt()).abs() < 1e-9);
        assert_eq!(super::mean(&[5.0]), (5.0, 0.0));
    }
}
