//! `mutual get JOB`: the result, by its content address, from any peer that has it.

use std::path::PathBuf;

use mutual_node::model::ids::JobId;
use serde_json::json;

use crate::args::Session;
use crate::client::{Client, check_target};
use crate::failure::Outcome;
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
    check_target(&args.output)?;
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
