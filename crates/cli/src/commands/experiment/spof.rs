//! `mutual experiment spof`: is there a single point of failure? Each server dies in the middle of
//! the work and comes back later.
//!
//! Ten agents, fifty tasks of 30 s, a separate seeder. At 75 s something is killed, at 105 s it is
//! started again (a dead PostgreSQL primary is not: its standby is promoted then). What the demand
//! store says of the tasks is sampled all the time. While only control is dead, tasks must go on
//! succeeding; whatever is dead, every task must succeed in the end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mutual_node::config::LivenessProfile;
use serde::Serialize;

use super::chaos::field::{self, Setting};
use crate::args::Session;
use crate::cloud::postgres::{self, Pair};
use crate::commands::node::ended;
use crate::failure::{Failure, Outcome};

mod chart;
mod play;
mod table;

use play::{Play, Run};

const AGENTS: usize = 10;
const TASKS: usize = 50;
const TASK: Duration = Duration::from_secs(30);
/// How much longer the longest task runs: some end in every second of the outage.
const SPREAD: f64 = 0.5;
/// What `--fast` divides all times by.
const FAST: u32 = 10;

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
enum What {
    /// The control server
    #[serde(rename = "control")]
    Control,
    /// The demand server, whose store is SQLite
    #[serde(rename = "demand")]
    Demand,
    /// PostgreSQL's primary; its synchronous standby is promoted
    #[serde(rename = "postgres")]
    Postgres,
    /// The control server and three agents at once
    #[value(name = "control+agents")]
    #[serde(rename = "control+agents")]
    ControlAndAgents,
}

impl What {
    const ALL: [Self; 4] = [
        Self::Control,
        Self::Demand,
        Self::Postgres,
        Self::ControlAndAgents,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Demand => "demand",
            Self::Postgres => "postgres",
            Self::ControlAndAgents => "control+agents",
        }
    }
}

/// Kill each server in the middle of the work and start it again
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What is killed [default: each in turn]
    #[arg(long, value_name = "WHAT,...", value_delimiter = ',')]
    what: Vec<What>,
    /// A tenth of all times
    #[arg(long)]
    fast: bool,
    /// Repeats of each
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// The directory of PostgreSQL's server programs [default: Debian's, or in the PATH]
    #[arg(long, value_name = "DIR")]
    postgres: Option<PathBuf>,
    /// Draw the states over time: spof-WHAT.svg and spof-WHAT.png in this directory
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
}

/// All repeats with one thing killed.
#[derive(Debug, Serialize)]
struct Row {
    what: What,
    runs: Vec<Run>,
}

#[derive(Debug, Serialize)]
struct Report {
    rows: Vec<Row>,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Outcome<u8> {
    let all = match args.what.is_empty() {
        true => What::ALL.to_vec(),
        false => args.what.clone(),
    };
    // Said before an hour of other runs.
    let programs = match all.contains(&What::Postgres) {
        true => Some(postgres::programs(args.postgres.as_deref())?),
        false => None,
    };
    let mut rows = Vec::new();
    for what in all {
        let mut runs = Vec::new();
        for repeat in 1..=args.repeat {
            let pair = match (what, &programs) {
                (What::Postgres, Some(programs)) => Some(start(programs).await?),
                _ => None,
            };
            let run = once(session, args, what, pair).await?;
            let words = format!(
                "{}, {repeat} of {}: {}",
                what.name(),
                args.repeat,
                run.line()
            );
            session.output.note(words);
            runs.push(run);
        }
        rows.push(Row { what, runs });
    }
    let report = Report { rows };
    if let Some(dir) = &args.plot {
        for row in &report.rows {
            chart::save(row, dir)?;
        }
    }
    session.output.answer(&report, || table::text(&report));
    let runs = report.rows.iter().flat_map(|row| &row.runs);
    let mut verdicts = runs.map(|run| &run.verdict);
    Ok(u8::from(
        verdicts.any(|verdict| !verdict.violations.is_empty()),
    ))
}

async fn start(programs: &Path) -> Outcome<Pair> {
    tokio::select! {
        pair = Pair::start(programs) => pair,
        _ = ended() => Err(Failure::interrupted("interrupted; everything is cleaned up")),
    }
}

async fn once(session: &Session, args: &Args, what: What, mut pair: Option<Pair>) -> Outcome<Run> {
    let scale = if args.fast { FAST } else { 1 };
    let setting = Setting {
        agents: AGENTS,
        slots: 1,
        tasks: TASKS,
        in_flight: TASKS,
        duration: TASK / scale,
        spread: SPREAD,
        seeder: true,
        postgres: pair.as_ref().map(Pair::url),
        profile: LivenessProfile::Wide,
        link: None,
    };
    let outcome = field::on(session, &setting, async |field| {
        Play::new(what, scale, pair.as_mut()).perform(field).await
    })
    .await;
    let closed = pair.map_or(Ok(()), Pair::close);
    let run = outcome?;
    closed?;
    Ok(run)
}
