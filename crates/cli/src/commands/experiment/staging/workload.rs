//! Requests by chance, or with sizes and times from files the user names.

use std::ops::RangeInclusive;

use mutual_stage::{Instance, Reservation};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::Args;
use super::column::column;
use crate::commands::stage::poisson;
use crate::failure::{Failure, Outcome};

/// Megabytes: the link brings one in a millisecond.
const MB_PER_GB: f64 = 1_000.0;
const BYTES_PER_MB: f64 = 1e6;
const PAPER_SIZES_MB: [u64; 3] = [3_000, 10_000, 30_000];
const PAPER_CAPACITIES_GB: [f64; 7] = [40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0];
const WEIGHT_MAX: u64 = 100;
/// A size of nothing is no image, and one of a thousand petabytes a slip of the pen.
const BYTES: RangeInclusive<f64> = 1.0..=1e18;
/// Seconds of thirty thousand years.
const SECONDS: RangeInclusive<f64> = 0.0..=1e12;

/// What instances are drawn from.
#[derive(Debug)]
pub(super) struct Workload {
    sizes_mb: Vec<u64>,
    /// Seconds, ascending.
    times: Option<Vec<f64>>,
    requests: usize,
    load: f64,
    has_weights: bool,
}

impl Workload {
    pub(super) fn new(args: &Args) -> Outcome<Self> {
        let sizes_mb = match &args.sizes {
            Some(named) => column(named, BYTES)?.into_iter().map(megabytes).collect(),
            None => PAPER_SIZES_MB.to_vec(),
        };
        let times = args.times.as_deref().map(|named| column(named, SECONDS));
        let times = times.transpose()?;
        let times = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times
        });
        let requests = args.requests as usize;
        if let Some(count) = times
            .as_ref()
            .map(Vec::len)
            .filter(|count| *count <= requests)
        {
            let text = format!("--times: {count} values are not enough for {requests} requests");
            return Err(Failure::user(text).hint("ask for fewer with --requests"));
        }
        Ok(Self {
            sizes_mb,
            times,
            requests,
            load: args.load,
            has_weights: args.weights,
        })
    }

    fn mean_mb(&self) -> f64 {
        self.sizes_mb.iter().sum::<u64>() as f64 / self.sizes_mb.len().max(1) as f64
    }

    /// What was asked for, else the paper's, in as many mean images as there.
    pub(super) fn capacities_gb(&self, given: &[f64]) -> Outcome<Vec<f64>> {
        if let Some(wrong) = given.iter().find(|gb| !(**gb >= 0.001 && **gb <= 1e9)) {
            return Err(Failure::user(format!(
                "--capacities {wrong}: from 0.001 to 10^9 GB"
            )));
        }
        if !given.is_empty() {
            return Ok(given.to_vec());
        }
        let paper = PAPER_SIZES_MB.iter().sum::<u64>() as f64 / PAPER_SIZES_MB.len() as f64;
        Ok(PAPER_CAPACITIES_GB
            .map(|gb| gb * self.mean_mb() / paper)
            .to_vec())
    }

    /// The instance of a seed; the same requests for every capacity.
    pub(super) fn instance(&self, seed: u64, capacity_gb: f64) -> Outcome<Instance> {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        let mean_gap = self.mean_mb() / self.load;
        let dues = match &self.times {
            None => poisson(&mut chance, self.requests, mean_gap),
            Some(times) => self.replayed(&mut chance, times, mean_gap),
        };
        let reservations = dues.into_iter().map(|due| {
            let size = self.sizes_mb[chance.random_range(0..self.sizes_mb.len())];
            let weight = match self.has_weights {
                true => chance.random_range(1..=WEIGHT_MAX),
                false => 1,
            };
            Reservation::new(size, due, weight)
        });
        let capacity = (capacity_gb * MB_PER_GB).round() as u64;
        Instance::new(capacity, reservations.collect()).map_err(Failure::user)
    }

    /// A run of requests from a random one on, in a time that gives the load.
    fn replayed(&self, chance: &mut ChaCha8Rng, times: &[f64], mean_gap: f64) -> Vec<u64> {
        let first = chance.random_range(0..times.len() - self.requests);
        let run = &times[first..=first + self.requests];
        let span = (run[self.requests] - run[0]).max(f64::MIN_POSITIVE);
        let scale = mean_gap * self.requests as f64 / span;
        run[1..]
            .iter()
            .map(|time| ((time - run[0]) * scale) as u64)
            .collect()
    }
}

fn megabytes(bytes: f64) -> u64 {
    ((bytes / BYTES_PER_MB).round() as u64).max(1)
}
