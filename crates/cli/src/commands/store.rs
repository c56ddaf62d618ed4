//! `mutual store`: the operator's hand on a demand store.

use clap::Subcommand;
use serde_json::json;

use crate::args::Session;
use crate::client::Client;
use crate::failure::Outcome;

/// Operate a demand store
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Begin a new epoch: needed after a backup was restored, so that no old fence counts
    NewEpoch,
    /// Show what the store says of itself
    Info,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let client = Client::open(session)?;
    match args.command {
        Command::NewEpoch => {
            let epoch = client.new_epoch().await?;
            session
                .output
                .answer(&json!({ "epoch": epoch }), || format!("epoch {epoch}"));
        }
        Command::Info => {
            let info = client.store_info().await?;
            session.output.answer(&info, || {
                format!(
                    "store {} ({})\n  epoch {}\n  lease {} ms, renewed every {} ms",
                    info.store, info.backend, info.epoch, info.terms.lease_ms, info.terms.renew_ms
                )
            });
        }
    }
    Ok(())
}
