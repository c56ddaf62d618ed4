//! `mutual get JOB`: the result, by its content address, from any peer that has it.

use std::path::PathBuf;

use mutual_node::model::ids::JobId;
use serde_json::json;

use crate::args::Session;
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::output::size;

/// Download a job's result: fetched by CID from any peer, verified, decrypted
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The job
    job: JobId,
    /// Where the files go; made if missing, else it must be empty
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let is_filled =
        std::fs::read_dir(&args.output).is_ok_and(|mut entries| entries.next().is_some());
    if is_filled {
        return Err(
            Failure::user(format!("{} is not empty", args.output.display()))
                .hint("name a new or empty directory with --output"),
        );
    }
    let client = Client::open(session)?;
    let fetched = client.download(args.job, &args.output).await?;
    session.output.answer(
        &json!({
            "job": args.job, "cid": fetched.root, "files": fetched.files, "bytes": fetched.bytes,
            "peers": fetched.peers, "dir": args.output,
        }),
        || {
            format!(
                "{} file(s), {} in {}  (from {})",
                fetched.files,
                size(fetched.bytes),
                args.output.display(),
                fetched.peers.join(", ")
            )
        },
    );
    Ok(())
}
