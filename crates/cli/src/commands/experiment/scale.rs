//! `mutual experiment scale`: one agent in ten is killed while all work, on 50 to 500 agents.
//!
//! Two settings: *saturated*, where no agent has a slot to spare, so that a lost task is held by
//! another agent at once and runs when a slot comes free; and with *headroom*, where half of all
//! slots are free, so that it runs at once. Beside the times stands what the kernel itself needs to
//! close the sockets of as many idle processes of the same size.

use std::path::PathBuf;
use std::time::Duration;

use super::chaos::load::Options;
use super::chaos::recovery::How;
use super::chaos::report::Report;
use super::chaos::run::Strike;
use super::chaos::series::Series;
use crate::args::Session;
use crate::failure::Outcome;

/// Agents killed, of a hundred.
const PERCENT: usize = 10;
/// What p95 shall not exceed, in seconds.
const BAR_S: f64 = 0.034;

/// Kill one agent in ten at work, on clouds of several sizes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Sizes of the cloud; beyond 200, agents share processes
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [50, 100, 200, 500], value_parser = clap::value_parser!(u32).range(3..=2_000))]
    agents: Vec<u32>,
    #[command(flatten)]
    options: Options,
    /// Draw the results: scale.svg and scale.png in this directory
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Outcome<u8> {
    let mut rows = Vec::new();
    for agents in &args.agents {
        let agents = *agents as usize;
        for load in args.options.loads() {
            let series = Series {
                agents,
                tasks: agents * args.options.tasks as usize,
                load,
                strike: Strike {
                    how: How::Killed,
                    agents: (agents * PERCENT).div_ceil(100),
                    back_after: Duration::ZERO,
                    link: None,
                },
                bar_s: Some(BAR_S),
            };
            rows.push(series.run(session, &args.options).await?);
        }
    }
    let report = Report { rows };
    if let Some(dir) = &args.plot {
        report.plot(dir, "scale", "agents", |row| row.agents as f64)?;
    }
    session.output.answer(&report, || report.text());
    Ok(report.exit_code())
}
