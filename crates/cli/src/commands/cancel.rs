//! `mutual cancel JOB…`.

use mutual_node::model::ids::JobId;
use serde_json::json;

use crate::args::Session;
use crate::client::Client;
use crate::document::JobDocument;
use crate::failure::Outcome;
use crate::output::state_text;

/// End jobs; those that are over are left as they are
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The jobs
    #[arg(required = true)]
    jobs: Vec<JobId>,
    /// Why, for whoever looks at the job later
    #[arg(long, default_value = "")]
    reason: String,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let client = Client::open(session)?;
    let mut cancelled = Vec::new();
    for job in args.jobs {
        let view = client
            .cancel(job, &args.reason)
            .await
            .map_err(|failure| failure.about(job))?;
        session
            .output
            .say(format!("{job}  {}", state_text(view.state)));
        cancelled.push(JobDocument::from(&view));
    }
    session.output.document(&json!({ "jobs": cancelled }));
    Ok(())
}
