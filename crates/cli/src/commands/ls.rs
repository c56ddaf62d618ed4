//! `mutual ls`: jobs, newest first.

use std::time::Duration;

use comfy_table::Cell;
use mutual_node::auth::unix_now;
use mutual_node::demand::{JobFilter, JobPage, JobView};
use mutual_node::model::ids::{JobId, Namespace};
use mutual_node::model::job::JobState;
use serde_json::json;

use crate::args::Session;
use crate::client::Client;
use crate::document::{JobDocument, short, title};
use crate::failure::Outcome;
use crate::output::{length, state_cell, table, table_text};

/// List jobs, newest first
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only jobs in this state; repeatable
    #[arg(long = "state", value_name = "STATE")]
    states: Vec<JobState>,
    /// Only jobs whose name starts with this
    #[arg(long, value_name = "PREFIX")]
    name: Option<String>,
    /// Only jobs of this namespace [default: all that your token names]
    #[arg(long, value_name = "NAME")]
    namespace: Option<Namespace>,
    /// Only jobs older than this one: the next page
    #[arg(long, value_name = "JOB")]
    before: Option<JobId>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let client = Client::open(session)?;
    let filter = JobFilter {
        namespace: args.namespace,
        states: args.states,
        name_prefix: args.name,
        holder: None,
        before: args.before,
        limit: args.limit,
    };
    let page = client.jobs(&filter).await?;
    let jobs: Vec<_> = page.jobs.iter().map(JobDocument::from).collect();
    session.output.answer(
        &json!({ "jobs": jobs, "next": page.next, "possibly_old": page.possibly_old }),
        || page_text(&page),
    );
    Ok(())
}

fn page_text(page: &JobPage) -> String {
    if page.jobs.is_empty() {
        return "no jobs".to_owned();
    }
    let mut table = table(&["JOB", "NAME", "STATE", "AGENT", "TRIES", "AGE", "RAN"]);
    for job in &page.jobs {
        table.add_row(row(job));
    }
    let mut text = table_text(&table);
    if let Some(next) = page.next {
        text.push_str(&format!("\nmore: mutual ls --before {next}"));
    }
    if page.possibly_old {
        text.push_str("\nfrom a replica: possibly out of date");
    }
    text
}

fn row(job: &JobView) -> Vec<Cell> {
    let agent = job
        .attempts
        .last()
        .map(|attempt| short(&attempt.holder.agent));
    let ran = job.result.as_ref().map(|result| result.metrics.running_ms);
    vec![
        Cell::new(job.id),
        Cell::new(title(job)),
        state_cell(job.state),
        Cell::new(agent.unwrap_or_else(|| "-".into())),
        Cell::new(job.attempts.len()),
        Cell::new(length(unix_now().since(job.created_at))),
        Cell::new(ran.map_or("-".into(), |millis| length(Duration::from_millis(millis)))),
    ]
}
