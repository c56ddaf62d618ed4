//! `mutual explain JOB`: why a job waits, in the agents' own words.

use std::time::Duration;

use mutual_node::demand::JobView;
use mutual_node::model::ids::JobId;
use mutual_node::model::job::JobState;
use serde_json::json;

use crate::args::Session;
use crate::client::{Client, Explanation};
use crate::document::{reason_text, short};
use crate::failure::Outcome;
use crate::output::{length, state_text};

/// Say why a job waits, machine by machine
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The job
    job: JobId,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let client = Client::open(session)?;
    let explanation = client.explain(args.job).await?;
    let words = words(&explanation);
    let document = json!({
        "job": explanation.task.id, "state": explanation.task.state, "explanation": words,
        "waiting_ms": explanation.waiting_ms, "machines": explanation.nodes,
        "declined": explanation.declined,
    });
    session
        .output
        .answer(&document, || text(&explanation, &words));
    Ok(())
}

fn text(explanation: &Explanation, words: &str) -> String {
    let mut lines = vec![format!("{}: {words}", state_text(explanation.task.state))];
    lines.extend(explanation.nodes.iter().map(|node| match &node.unfit {
        Some(why) => format!("  {}  cannot take it: {why}", short(&node.node)),
        None => format!("  {}  could take it", short(&node.node)),
    }));
    lines.extend(explanation.declined.iter().map(|declined| {
        format!(
            "  {}  declined: {}",
            short(&declined.agent),
            declined.reason
        )
    }));
    lines.join("\n")
}

fn words(explanation: &Explanation) -> String {
    let job: &JobView = &explanation.task;
    let why = job.reason.as_ref().map(reason_text);
    match (job.state, why) {
        (JobState::AwaitingInput, _) => "its input has not been seeded yet".to_owned(),
        (JobState::Queued, _) if explanation.nodes.is_empty() => {
            "no agent of its namespace is known; is one running?".to_owned()
        }
        (JobState::Queued, why) => {
            let waiting = Duration::from_millis(explanation.waiting_ms.unwrap_or_default());
            let last = why.map_or(String::new(), |why| format!("; the last attempt: {why}"));
            format!("has waited {} for a machine{last}", length(waiting))
        }
        (_, Some(why)) => why,
        (state, None) if state.is_held() => "a machine works on it".to_owned(),
        _ => "it is over".to_owned(),
    }
}
