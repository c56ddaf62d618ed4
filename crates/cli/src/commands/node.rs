//! `mutual node --config FILE`: one process of a cloud, in the roles its file names.

use std::path::PathBuf;
use std::time::Duration;

use mutual_node::Node;
use mutual_node::config::NodeConfig;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Session;
use crate::failure::{Failure, Outcome};

/// How long a node that is told to end may take.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// Run a node in the roles its file names, until SIGINT or SIGTERM
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The node file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Read and check the file, start nothing
    #[arg(long)]
    check: bool,
    /// End when standard input closes
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let config = NodeConfig::load(&args.config)?;
    if args.check {
        session
            .output
            .answer(&config, || format!("{}: in order", args.config.display()));
        return Ok(());
    }
    let name = config.name.clone();
    let node = start(config).await?;
    session
        .output
        .answer(node.ready(), || format!("{name} is ready"));
    ended_or_stdin(args.until_stdin_closes).await?;
    session.output.note("stopping");
    node.shutdown(GRACE).await;
    Ok(())
}

/// Starts a node; what hinders it is a matter of its configuration.
pub(crate) async fn start(config: NodeConfig) -> Outcome<Node> {
    let name = config.name.clone();
    Node::start(config)
        .await
        .map_err(|error| Failure::configuration(format!("{name} cannot start: {error}")))
}

/// Waits for SIGINT or SIGTERM.
pub(crate) async fn ended() -> Outcome {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::internal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::internal)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// The same; with `watch_stdin` also until whoever started this process is gone.
pub(crate) async fn ended_or_stdin(watch_stdin: bool) -> Outcome {
    let closed = async {
        match watch_stdin {
            true => drop(tokio::task::spawn_blocking(drain_stdin).await),
            false => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = ended() => ended,
        () = closed => Ok(()),
    }
}

/// Reads standard input to its end.
fn drain_stdin() {
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}
