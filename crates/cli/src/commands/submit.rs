//! `mutual submit FILE`: a job file to the store, and no waiting.

use std::path::PathBuf;

use serde_json::json;

use crate::args::Session;
use crate::client::Client;
use crate::failure::Outcome;
use crate::job_draft::JobDraft;

/// Submit a job file; flags overrule what it says
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The job file, TOML
    file: PathBuf,
    /// Read and check the file, submit nothing
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    flags: JobDraft,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let draft = args.flags.or(JobDraft::load(&args.file)?);
    let members = draft.members()?;
    if args.check {
        let document = json!({ "tasks": members });
        session.output.answer(&document, || {
            format!(
                "{}: in order, {} task(s)",
                args.file.display(),
                members.len()
            )
        });
        return Ok(());
    }
    let client = Client::open(session)?;
    let jobs = client.submit(&draft).await?;
    let lines: Vec<_> = jobs.iter().map(ToString::to_string).collect();
    session
        .output
        .answer(&json!({ "jobs": lines }), || lines.join("\n"));
    Ok(())
}
