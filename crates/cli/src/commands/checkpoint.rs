//! `mutual checkpoint JOB`: have a running job saved now, and wait until that counts.

use std::time::Duration;

use mutual_node::demand::{Checkpoint, JobView};
use mutual_node::model::ids::JobId;
use tokio::time::Instant;

use crate::args::Session;
use crate::client::Client;
use crate::document::CheckpointDocument;
use crate::failure::{Failure, Outcome};
use crate::output::{length, size, state_text};
use mutual_node::config::Period;

/// How often the job is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Save a running job now; it counts once another machine holds the checkpoint
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The job
    job: JobId,
    /// Longest wait for it, such as 10m
    #[arg(long, value_name = "TIME", default_value = "2m")]
    timeout: Period,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let client = Client::open(session)?;
    let before = last(&client.job(args.job).await?);
    client.request_checkpoint(args.job).await?;
    let since = Instant::now();
    let patience = Duration::from_millis(args.timeout.millis());
    loop {
        let job = client.job(args.job).await?;
        if let Some(saved) = job.checkpoints.first().filter(|_| last(&job) != before) {
            show(session, &job, saved);
            return Ok(());
        }
        if job.state.is_terminal() {
            let state = state_text(job.state);
            return Err(Failure::user(format!(
                "the job is {state}: nothing is saved any more"
            )));
        }
        if since.elapsed() >= patience {
            return Err(not_saved(&job, patience));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn last(job: &JobView) -> Option<(mutual_node::model::lease::Fence, u64)> {
    let saved = job.checkpoints.first();
    saved.map(|saved| (saved.fence, saved.sequence))
}

fn show(session: &Session, job: &JobView, saved: &Checkpoint) {
    let words = || {
        format!(
            "{}  checkpoint {} of attempt {}, {}, {} other peers hold it",
            job.id,
            saved.sequence,
            saved.fence.sequence,
            size(saved.manifest.bytes),
            saved.manifest.receipts.len()
        )
    };
    session
        .output
        .answer(&CheckpointDocument::from(saved), words);
}

fn not_saved(job: &JobView, patience: Duration) -> Failure {
    let failure = Failure::unavailable(format!(
        "no checkpoint was acknowledged within {}; the job is {}",
        length(patience),
        state_text(job.state)
    ));
    failure.hint(
        "`mutual logs JOB` says why one was not saved; is anything in $MUTUAL_CHECKPOINT_DIR?",
    )
}
