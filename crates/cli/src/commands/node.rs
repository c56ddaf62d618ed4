//! `mutual node --config FILE`: one process of a cloud, in the roles its file names. With several
//! files it is several nodes, each with its own key, directory and ports.

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
    /// The node file; given several times, the process is all of these nodes
    #[arg(long, value_name = "FILE", required = true)]
    config: Vec<PathBuf>,
    /// Read and check the files, start nothing
    #[arg(long)]
    check: bool,
    /// End when standard input closes
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let load = |path: &PathBuf| Ok(NodeConfig::load(path)?);
    let configs = args.config.iter().map(load).collect::<Outcome<Vec<_>>>()?;
    check_apart(&configs)?;
    if args.check {
        for (path, config) in args.config.iter().zip(&configs) {
            let text = || format!("{}: in order", path.display());
            session.output.answer(config, text);
        }
        return Ok(());
    }
    let mut nodes = Vec::new();
    for config in configs {
        let name = config.name.clone();
        let node = start(config).await?;
        let text = || format!("{name} is ready");
        session.output.answer(node.ready(), text);
        nodes.push(node);
    }
    ended_or_stdin(args.until_stdin_closes).await?;
    session.output.note("stopping");
    futures::future::join_all(nodes.into_iter().map(|node| node.shutdown(GRACE))).await;
    Ok(())
}

/// Nodes with one directory between them would overwrite each other's keys and state.
fn check_apart(configs: &[NodeConfig]) -> Outcome {
    for (at, config) in configs.iter().enumerate() {
        let same = |other: &&NodeConfig| other.data_dir == config.data_dir;
        if let Some(other) = configs.iter().take(at).find(same) {
            return Err(Failure::configuration(format!(
                "data_dir: {} and {} both keep their state in {}",
                other.name,
                config.name,
                config.data_dir.display()
            ))
            .hint("give each node a directory of its own"));
        }
    }
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
