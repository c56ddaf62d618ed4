//! The integral model as a mixed-integer program, indexed by time.
//!
//! Sizes and due dates are whole numbers, so some best schedule starts every load at a whole moment (its right-tight form does). For each
//! request j that alone can be served and each moment t at which its load may start, 0 to d − s, a binary y says that the load has
//! started by then; it never falls with t, and the last one, at d − s, says that the request is served. For each moment t:
//!
//! - link: loads that have started by t and not by t − s are under way; at most one is;
//! - stage: images that have started by t and are not due by t lie there whole; together at most the capacity.
//!
//! No order of loads is assumed. The relaxation of this form is the strongest that is usual for one machine; it has a column
//! for each request and moment, which is what a general solver pays.

use std::time::Instant;

use anyhow::{Result, anyhow};
use highs::{Col, HighsModelStatus, HighsStatus, RowProblem, Sense, SolvedModel};
use mutual_stage::{Instance, Load, Model, Schedule, validate};

use crate::{Reached, millis};

/// HiGHS takes a value this near to a whole number for one.
const WHOLE_WITHIN: f64 = 1e-6;

/// A request that alone can be served.
struct Request {
    index: usize,
    size: usize,
    due: usize,
    /// Whether its load has started by 0, 1, …, due − size.
    started: Vec<Col>,
}

impl Request {
    /// Whether it has started by a moment before its due date.
    fn started_by(&self, moment: usize) -> Col {
        self.started[moment.min(self.started.len() - 1)]
    }
}

/// What HiGHS finds in a time, and what it proves.
pub(crate) fn solve(instance: &Instance, seconds: f64) -> Result<Reached> {
    let start = Instant::now();
    let mut problem = RowProblem::default();
    let requests = requests(&mut problem, instance)?;
    let horizon = requests.iter().map(|one| one.due).max().unwrap_or(0);
    for moment in 0..horizon {
        link(&mut problem, &requests, moment);
        stage(&mut problem, &requests, moment, instance.capacity());
    }
    let mut model = problem.try_optimise(Sense::Maximise).map_err(failed)?;
    model.make_quiet();
    model.set_option("time_limit", seconds);
    model.set_option("threads", 1);
    model.set_option("mip_rel_gap", 0.0);
    model.set_option("mip_abs_gap", 0.5);
    let solved = model.try_solve().map_err(failed)?;
    let ms = millis(start);
    let schedule = schedule(&requests, &solved);
    validate(instance, Model::Integral, &schedule)?;
    let weight = schedule.weight(instance);
    let bound = bound(instance, &solved, weight)?;
    Ok(Reached { weight, bound, ms })
}

fn requests(problem: &mut RowProblem, instance: &Instance) -> Result<Vec<Request>> {
    let mut requests = Vec::new();
    for (index, one) in instance.reservations().iter().enumerate() {
        if instance.exclusion(index).is_some() {
            continue;
        }
        let (size, due) = (usize::try_from(one.size)?, usize::try_from(one.due)?);
        let weight = one.weight as f64;
        let column = |moment| match moment == due - size {
            true => problem.add_integer_column(weight, 0..=1),
            false => problem.add_integer_column(0.0, 0..=1),
        };
        let started: Vec<_> = (0..=due - size).map(column).collect();
        for pair in started.windows(2) {
            problem.add_row(..=0.0, [(pair[0], 1.0), (pair[1], -1.0)]);
        }
        requests.push(Request {
            index,
            size,
            due,
            started,
        });
    }
    Ok(requests)
}

fn link(problem: &mut RowProblem, requests: &[Request], moment: usize) {
    let mut under_way = Vec::new();
    for one in requests.iter().filter(|one| moment < one.due) {
        under_way.push((one.started_by(moment), 1.0));
        if let Some(before) = moment.checked_sub(one.size) {
            under_way.push((one.started_by(before), -1.0));
        }
    }
    problem.add_row(..=1.0, under_way);
}

fn stage(problem: &mut RowProblem, requests: &[Request], moment: usize, capacity: u64) {
    let there = requests.iter().filter(|one| moment < one.due);
    let there = there.map(|one| (one.started_by(moment), one.size as f64));
    problem.add_row(..=capacity as f64, there.collect::<Vec<_>>());
}

fn schedule(requests: &[Request], solved: &SolvedModel) -> Schedule {
    let solution = solved.get_solution();
    let values = solution.columns();
    let load = |one: &Request| {
        let start = one
            .started
            .iter()
            .position(|column| values[column.index()] > 0.5);
        start.map(|start| Load {
            reservation: one.index,
            start: start as u64,
        })
    };
    requests.iter().filter_map(load).collect()
}

/// The greatest weight that HiGHS has not excluded; weights are whole numbers. It may be stopped before it has bounded anything.
fn bound(instance: &Instance, solved: &SolvedModel, weight: u128) -> Result<u128> {
    if solved.status() == HighsModelStatus::Optimal {
        return Ok(weight);
    }
    let all = instance
        .reservations()
        .iter()
        .map(|one| u128::from(one.weight));
    let bound = solved
        .double_info_value(c"mip_dual_bound")
        .map_err(failed)?;
    // A float beyond the range becomes its end.
    Ok(all
        .sum::<u128>()
        .min((bound + WHOLE_WITHIN).floor() as u128))
}

fn failed(status: HighsStatus) -> anyhow::Error {
    anyhow!("HiGHS failed: {status:?}")
}
