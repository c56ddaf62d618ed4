//! `mutual experiment staging`: the experiment of INFOCOM 2010 with every baseline and algorithm.
//!
//! 369 requests, images of 3, 10 or 30 GB with equal chance, a link of 1 GB/s, integral model, a stage of 40 to 100 GB. The paper gives neither the
//! rate of requests nor its exact EDD: here the link is asked for 1.47 times what it can bring, and three EDD rules are shown. With files
//! the user names, sizes are drawn from real images and due dates from real requests, their times scaled to the same load.

mod chart;
mod column;
mod run;
mod table;
mod workload;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::args::Session;
use crate::failure::{Failure, Naming as _, Outcome};
use workload::Workload;

/// Stage images ahead of due dates, by every algorithm, on stages of several sizes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many instances
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    seeds: u32,
    /// Requests of an instance
    #[arg(long, value_name = "N", default_value_t = 369, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    requests: u32,
    /// Work asked for over work that the link does
    #[arg(long, value_name = "RHO", default_value_t = 1.47)]
    load: f64,
    /// Sizes of the stage, GB [default: 40 to 100 in steps of 10; with --sizes, as many mean images]
    #[arg(long, value_name = "GB,...", value_delimiter = ',')]
    capacities: Vec<f64>,
    /// Weights from 1 to 100 by chance instead of 1 each
    #[arg(long)]
    weights: bool,
    /// Draw sizes in bytes from a column of a CSV file, which may be gzipped
    #[arg(long, value_name = "FILE:COLUMN")]
    sizes: Option<String>,
    /// Draw due dates in seconds from a column of a CSV file, a run of requests from a random one on
    #[arg(long, value_name = "FILE:COLUMN")]
    times: Option<String>,
    /// When each exact search stops
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = humantime::parse_duration)]
    budget: Duration,
    /// Draw the results: staging.svg and staging.png in this directory
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
}

/// Over seeds.
#[derive(Debug, Clone, Copy, Serialize)]
struct Mean {
    mean: f64,
    /// Half the width of the 95 % confidence interval; one instance has none.
    confidence: Option<f64>,
}

/// What an algorithm reached on stages of one size.
#[derive(Debug, Serialize)]
struct Reached {
    algorithm: &'static str,
    /// Of the total weight.
    percent: Mean,
    /// The difference to backward EDD on the same instances, in percent of that.
    over_backward_edd_percent: Mean,
}

/// All algorithms on stages of one size.
#[derive(Debug, Serialize)]
struct Row {
    capacity_gb: f64,
    reached: Vec<Reached>,
    /// Of those instances whose integral optimum is proved.
    optimum_percent: Option<Mean>,
    proved: usize,
    /// Greatest time of a search.
    search_ms_max: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    seeds: u32,
    requests: u32,
    load: f64,
    weights: bool,
    sizes: Option<String>,
    times: Option<String>,
    rows: Vec<Row>,
}

pub(crate) fn run(session: &Session, args: &Args) -> Outcome {
    if !(args.load > 0.0 && args.load <= 1e6) {
        return Err(Failure::user(format!(
            "--load {}: it must be above 0",
            args.load
        )));
    }
    let workload = Workload::new(args)?;
    let mut rows = Vec::new();
    let busy = session.output.spinner("measuring");
    for capacity_gb in workload.capacities_gb(&args.capacities)? {
        let row = run::row(args, &workload, capacity_gb, &busy)?;
        let done = format!(
            "stage of {capacity_gb:.1} GB: {} of {} proved",
            row.proved, args.seeds
        );
        busy.suspend(|| session.output.note(done));
        rows.push(row);
    }
    busy.finish_and_clear();
    let report = Report {
        seeds: args.seeds,
        requests: args.requests,
        load: args.load,
        weights: args.weights,
        sizes: args.sizes.clone(),
        times: args.times.clone(),
        rows,
    };
    if let Some(dir) = &args.plot {
        std::fs::create_dir_all(dir).naming(dir.display())?;
        let picture = chart::draw(&report);
        picture.save(&dir.join("staging.svg"))?;
        picture.save(&dir.join("staging.png"))?;
    }
    session.output.answer(&report, || table::text(&report));
    Ok(())
}
