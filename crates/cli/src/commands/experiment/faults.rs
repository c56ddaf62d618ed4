//! `mutual experiment faults`: from one agent in ten to six in ten lost at once: killed, silenced,
//! or cut off.
//!
//! Those that are not dead come back later, and whatever they still do in the name of their old
//! claims must be refused.

use std::path::PathBuf;
use std::time::Duration;

use super::chaos::link::{self, Link};
use super::chaos::load::{Load, Options, Profile};
use super::chaos::recovery::How;
use super::chaos::report::{Report, Row};
use super::chaos::run::Strike;
use super::chaos::series::Series;
use crate::args::Session;
use crate::failure::{Failure, Outcome};

/// What p95 shall not exceed after kills: percent of the agents, and seconds.
const BARS: [(u32, f64); 5] = [(10, 0.028), (20, 0.042), (40, 0.060), (50, 0.1), (60, 1.0)];
/// The same for silence, with the fast profile, however many.
const SILENCE_BAR_S: f64 = 0.1;
/// For so many agents.
const BARS_FOR: usize = 100;

/// Lose one agent in ten to six in ten at once: killed, silenced or cut off
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Size of the cloud
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(3..=2_000))]
    agents: u32,
    /// Agents lost at once, of a hundred
    #[arg(long, value_name = "PERCENT,...", value_delimiter = ',', default_values_t = [10, 20, 40, 50, 60], value_parser = clap::value_parser!(u32).range(1..=99))]
    percent: Vec<u32>,
    /// How they are lost
    #[arg(long, value_name = "HOW,...", value_delimiter = ',', default_values = ["killed", "silenced", "cut"])]
    how: Vec<How>,
    /// When those that are not dead come back
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    back_after: Duration,
    #[command(flatten)]
    options: Options,
    /// Draw the results in this directory: faults.svg and faults.png, and the same for other losses
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Outcome<u8> {
    let link = link_for(session, args)?;
    let mut rows = Vec::new();
    for how in &args.how {
        if *how == How::Cut && link.is_none() {
            continue;
        }
        for percent in &args.percent {
            for load in args.options.loads() {
                let series = args.series(*how, *percent, load, link.as_ref());
                rows.push(series.run(session, &args.options).await?);
            }
        }
    }
    let report = Report { rows };
    if let Some(dir) = &args.plot {
        report.plot(dir, "faults", "percent of the agents", Row::percent)?;
    }
    session.output.answer(&report, || report.text());
    Ok(report.exit_code())
}

/// The link that is cut, if one is to be and can be: where it cannot, that is left out, and said.
fn link_for(session: &Session, args: &Args) -> Outcome<Option<Link>> {
    if !args.how.contains(&How::Cut) {
        return Ok(None);
    }
    match link::missing() {
        None => Link::new().map(Some),
        Some(why) if args.how.len() > 1 => {
            session.output.note(format!("left out: {why}"));
            Ok(None)
        }
        Some(why) => Err(Failure::configuration(why)),
    }
}

impl Args {
    fn series<'a>(&self, how: How, percent: u32, load: Load, link: Option<&'a Link>) -> Series<'a> {
        let agents = self.agents as usize;
        Series {
            agents,
            tasks: agents * self.options.tasks as usize,
            load,
            strike: Strike {
                how,
                agents: (agents * percent as usize).div_ceil(100),
                back_after: self.back_after,
                link: link.filter(|_| how == How::Cut),
            },
            bar_s: self.bar_s(how, percent),
        }
    }

    fn bar_s(&self, how: How, percent: u32) -> Option<f64> {
        let is_fast = self.options.profile == Profile::Fast;
        match how {
            How::Killed => BARS.iter().find(|bar| bar.0 == percent).map(|bar| bar.1),
            How::Silenced | How::Cut => is_fast.then_some(SILENCE_BAR_S),
        }
        .filter(|_| self.agents as usize == BARS_FOR)
    }
}
