//! The integral staging problem by the planner's own search and as a mixed-integer program through HiGHS, on the same instances.
//!
//! ```sh
//! cargo run --release --manifest-path bench/Cargo.toml -- [SECONDS FOR EACH MILP]
//! ```
//!
//! Needs CMake and a C++ compiler. The program has a binary for each request, its start, the order of each pair, and whether one image is
//! still there when the load of another starts; it is exact, but its relaxation is weak. That is how the problem looks to a general solver,
//! and why the product has a solver of its own.

use std::time::Instant;

use highs::{HighsModelStatus, RowProblem, Sense};
use mutual_stage::{Instance, Model, Reservation, continuous, solve, validate};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const OFFERED_LOAD: f64 = 1.47;
const SIZES: [u64; 3] = [3, 10, 30];
const CAPACITY: u64 = 40;
const SECONDS: f64 = 60.0;
const SEEDS: u64 = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given = std::env::args().nth(1).map(|text| text.parse());
    let seconds = given.transpose()?.unwrap_or(SECONDS);
    println!("three sizes, stage of {CAPACITY}, integral model; MILP stopped after {seconds} s");
    println!(
        "   n  seed  continuous | search  bound  proved      ms |   MILP  bound  proved      ms"
    );
    for count in [60, 120] {
        for seed in 0..SEEDS {
            row(count, seed, seconds)?;
        }
    }
    Ok(())
}

fn row(count: usize, seed: u64, seconds: f64) -> Result<(), Box<dyn std::error::Error>> {
    let instance = instance(count, seed)?;
    let relaxed = continuous::heaviest(&instance)?.weight;
    let start = Instant::now();
    let own = solve(&instance, Model::Integral, &mut || {
        start.elapsed().as_secs_f64() > seconds
    });
    let own_ms = start.elapsed().as_secs_f64() * 1e3;
    validate(&instance, Model::Integral, &own.schedule)?;
    let start = Instant::now();
    let (weight, is_proved) = milp(&instance, seconds)?;
    let milp_ms = start.elapsed().as_secs_f64() * 1e3;
    println!(
        "{count:>4}  {seed:>4}  {relaxed:>10} | {:>6} {:>6}  {:>6} {own_ms:>7.1} | {weight:>6} {:>6}  {is_proved:>6} {milp_ms:>7.0}",
        own.weight,
        own.bound,
        own.is_proved_best(),
        if is_proved {
            weight.to_string()
        } else {
            "-".to_owned()
        },
    );
    if is_proved && own.is_proved_best() && u128::from(weight) != own.weight {
        return Err("two proofs disagree".into());
    }
    Ok(())
}

fn instance(count: usize, seed: u64) -> Result<Instance, Box<dyn std::error::Error>> {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let mean = SIZES.iter().sum::<u64>() as f64 / SIZES.len() as f64;
    let mut due = 0.0;
    let reservations = (0..count).map(|_| {
        due -= mean / OFFERED_LOAD * (1.0 - chance.random::<f64>()).ln();
        Reservation::new(SIZES[chance.random_range(0..SIZES.len())], due as u64, 1)
    });
    Ok(Instance::new(CAPACITY, reservations.collect())?)
}

/// The greatest weight that HiGHS finds, and whether it proves it.
fn milp(instance: &Instance, seconds: f64) -> Result<(u64, bool), Box<dyn std::error::Error>> {
    let (problem, weights) = program(instance);
    let mut model = problem.optimise(Sense::Maximise);
    model.set_option("time_limit", seconds);
    model.set_option("output_flag", false);
    model.set_option("threads", 1);
    model.set_option("mip_rel_gap", 0.0);
    let solved = model.solve();
    let is_proved = solved.status() == HighsModelStatus::Optimal;
    let columns = solved.get_solution();
    let weight = weights.iter().zip(columns.columns());
    let weight: f64 = weight.map(|(weight, value)| weight * value).sum();
    Ok((weight.round().max(0.0) as u64, is_proved))
}

/// The program, with the weights of its first columns: whether each request is served.
fn program(instance: &Instance) -> (RowProblem, Vec<f64>) {
    let rows: Vec<_> = instance
        .reservations()
        .iter()
        .enumerate()
        .filter(|(index, _)| instance.exclusion(*index).is_none())
        .map(|(_, row)| (row.size as f64, row.due as f64, row.weight as f64))
        .collect();
    let horizon = rows.iter().map(|row| row.1).fold(0.0, f64::max);
    let capacity = instance.capacity() as f64;
    let mut problem = RowProblem::default();
    let served: Vec<_> = rows
        .iter()
        .map(|row| problem.add_integer_column(row.2, 0..=1))
        .collect();
    let starts: Vec<_> = rows
        .iter()
        .map(|row| problem.add_column(0.0, 0.0..=row.1 - row.0))
        .collect();
    let mut there: Vec<Vec<_>> = vec![Vec::new(); rows.len()];
    for first in 0..rows.len() {
        for second in first + 1..rows.len() {
            // If both are served, one of them goes first: 1 if it is the first one.
            let order = problem.add_integer_column(0.0, 0..=1);
            let both = [(served[first], -horizon), (served[second], -horizon)];
            let [one, other] = [(starts[first], 1.0), (starts[second], 1.0)];
            let less = |(column, _): (_, f64)| (column, -1.0);
            problem.add_row(
                rows[first].0 - 3.0 * horizon..,
                [other, less(one), (order, -horizon), both[0], both[1]],
            );
            problem.add_row(
                rows[second].0 - 2.0 * horizon..,
                [one, less(other), (order, horizon), both[0], both[1]],
            );
            for (before, after, sign, least) in
                [(first, second, -1.0, -1.0), (second, first, 1.0, 0.0)]
            {
                let waits = problem.add_integer_column(0.0, 0..=1);
                let gone = problem.add_integer_column(0.0, 0..=1);
                // Gone only if the other starts at its due date or later.
                problem.add_row(0.0.., [(starts[after], 1.0), (gone, -rows[before].1)]);
                // It is there if it is served, goes first and is not gone.
                problem.add_row(
                    least..,
                    [
                        (waits, 1.0),
                        (served[before], -1.0),
                        (order, sign),
                        (gone, 1.0),
                    ],
                );
                there[after].push((waits, rows[before].0));
            }
        }
    }
    for (place, row) in rows.iter().enumerate() {
        let total: f64 = rows.iter().map(|row| row.0).sum();
        let mut terms = there[place].clone();
        terms.push((served[place], total));
        problem.add_row(..=capacity - row.0 + total, terms);
    }
    (problem, rows.iter().map(|row| row.2).collect())
}
