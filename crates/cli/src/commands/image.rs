//! `mutual image`: images of one's own, for tasks that name them by content address.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use crate::args::Session;
use crate::client::Client;
use crate::failure::Outcome;
use crate::output::size;

/// Bring OCI images to the cloud
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take in an OCI image layout, or an archive of one (also of `docker save`), and have peers keep it
    Add {
        /// The layout's directory, or the archive
        path: PathBuf,
        /// Let members of every namespace use it, not only those of yours
        #[arg(long)]
        public: bool,
    },
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let Command::Add { path, public } = args.command;
    let added = Client::open(session)?.add_image(&path, public).await?;
    let image = format!("cid:{}", added.root);
    session.output.answer(
        &json!({ "image": image, "bytes": added.bytes, "copies": added.copies }),
        || {
            let (bytes, copies) = (size(added.bytes), added.copies);
            format!("{image}\n  {bytes}, kept by {copies} peer(s); run in it with --image {image}")
        },
    );
    Ok(())
}
