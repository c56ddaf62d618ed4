//! How long a single task waits on an idle cloud: until an agent holds it, and until its program
//! tells the time.
//!
//! Both count from when the demand store took the submission in, by the store's own clock, before
//! its commit: so they include the commit. The assignment is the store's own time, too. The task is
//! `date`, which reads the same machine's clock once it is loaded, so its figure is an upper bound
//! on the first instruction; what loading `date` takes without any cloud stands beside it, measured
//! in turn. The store counts whole milliseconds and cuts, which adds up to one more.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mutual_node::demand::JobView;
use mutual_node::model::ids::JobId;
use mutual_node::model::job::JobState;
use serde_json::json;

use crate::args::Session;
use crate::client::Client;
use crate::client::follow::{Follower, Line};
use crate::cloud::Cloud;
use crate::commands::demo::NEED;
use crate::commands::spread::Spread;
use crate::failure::{Failure, Outcome};
use crate::job_draft::JobDraft;
use crate::output::{table, table_text};

/// How often a task is looked at: rarely enough to leave the machine to it.
const LOOK: Duration = Duration::from_millis(50);
/// A task that prints the time takes no longer than this, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);
/// Tasks before the first one that counts: connections, caches and the runtime are warm then.
const WARM_UP: u32 = 10;
const NANOS_PER_MS: f64 = 1e6;
/// Prints nanoseconds since 1970.
const COMMAND: [&str; 2] = ["/bin/date", "+%s%N"];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Tasks that count, one after the other
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    tasks: u32,
}

/// Milliseconds.
struct Waits {
    assigned: f64,
    first_instruction: f64,
    /// What the program takes to tell the time when it is simply started.
    alone: f64,
}

pub(super) async fn run(session: &Session, cloud: &Cloud, args: &Args) -> Outcome {
    let session = Session {
        context: Some(cloud.context_path()),
        ..session.clone()
    };
    let client = Client::open(&session)?;
    for _ in 0..WARM_UP {
        one_task(&client).await?;
    }
    let mut waits = Vec::new();
    for _ in 0..args.tasks {
        waits.push(one_task(&client).await?);
    }
    let spread = |of: fn(&Waits) -> f64| Spread::of(waits.iter().map(of).collect());
    let rows = [
        ("assigned", spread(|waits| waits.assigned)),
        ("first instruction", spread(|waits| waits.first_instruction)),
        (
            "the same program, only started",
            spread(|waits| waits.alone),
        ),
    ];
    report(&session, args.tasks, &rows);
    Ok(())
}

async fn one_task(client: &Client) -> Outcome<Waits> {
    let draft = JobDraft {
        name: Some("latency".to_owned()),
        command: COMMAND.map(str::to_owned).to_vec(),
        cpus: Some(f64::from(NEED.cpu_millis) / 1_000.0),
        ..JobDraft::default()
    };
    let jobs = client.submit(&draft).await?;
    let job = *jobs
        .first()
        .ok_or_else(|| Failure::internal("a submission without a job"))?;
    let view = ended(client, job).await?;
    let attempt = view.attempts.first();
    let claimed = attempt.map(|attempt| attempt.claimed_at);
    let claimed =
        claimed.ok_or_else(|| Failure::internal("a job that ended without an attempt"))?;
    let accepted = view.created_at.0 as f64;
    Ok(Waits {
        assigned: claimed.0 as f64 - accepted,
        first_instruction: printed_ms(client, job).await? - accepted,
        alone: tokio::task::block_in_place(started_alone)?,
    })
}

async fn ended(client: &Client, job: JobId) -> Outcome<JobView> {
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        tokio::time::sleep(LOOK).await;
        let view = client.job(job).await?;
        if view.state == JobState::Succeeded {
            return Ok(view);
        }
        if view.state.is_terminal() {
            let (state, why) = (view.state, view.reason);
            return Err(Failure::internal(format!("{job} ended {state}: {why:?}")));
        }
    }
    let text = format!("{job} did not end within {PATIENCE:?}");
    Err(Failure::internal(text))
}

/// What the task read from the clock.
async fn printed_ms(client: &Client, job: JobId) -> Outcome<f64> {
    let mut printed = Vec::new();
    let mut keep = |line: &Line| {
        if let Line::Output { bytes, .. } = line {
            printed.extend_from_slice(bytes);
        }
    };
    Follower::new(client, job).print_once(&mut keep).await?;
    parsed_ms(&printed)
}

fn parsed_ms(printed: &[u8]) -> Outcome<f64> {
    let text = String::from_utf8_lossy(printed);
    let nanos = text.trim().parse::<f64>();
    let nanos =
        nanos.map_err(|_| Failure::internal(format!("date printed {text:?}, which is no time")))?;
    Ok(nanos / NANOS_PER_MS)
}

fn started_alone() -> Outcome<f64> {
    let begun = SystemTime::now().duration_since(UNIX_EPOCH);
    let begun = begun.map_err(Failure::internal)?.as_secs_f64() * 1e3;
    let mut command = std::process::Command::new(COMMAND[0]);
    let output = command
        .arg(COMMAND[1])
        .output()
        .map_err(Failure::internal)?;
    Ok(parsed_ms(&output.stdout)? - begun)
}

fn report(session: &Session, tasks: u32, rows: &[(&str, Spread)]) {
    let mut shown = table(&["ACCEPTED TO", "P50 MS", "P99 MS", "MIN–MAX MS"]);
    for (what, spread) in rows {
        shown.add_row([
            (*what).to_owned(),
            format!("{:.1}", spread.percentile(50)),
            format!("{:.1}", spread.percentile(99)),
            format!("{:.1}–{:.1}", spread.least(), spread.greatest()),
        ]);
    }
    let document = |(what, spread): &(&str, Spread)| {
        json!({
            "what": what, "p50_ms": spread.percentile(50), "p99_ms": spread.percentile(99),
            "min_ms": spread.least(), "max_ms": spread.greatest(),
        })
    };
    let documents: Vec<_> = rows.iter().map(document).collect();
    session
        .output
        .answer(&json!({ "tasks": tasks, "latency": documents }), || {
            format!(
                "{tasks} single tasks, one after the other, on an idle cloud of three agents\n{}",
                table_text(&shown)
            )
        });
}
