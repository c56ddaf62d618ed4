//! `mutual demo`: a small cloud of its own, real work on it, and machines killed under the work.
//!
//! Five processes of this same program in a scratch directory: a demand store, a control server
//! and three agents. An array of tasks reads an encrypted copy of a directory; while it runs, the
//! control server and one agent that holds work and a finished result are killed with SIGKILL. The
//! exit code is 0 only if every result, fetched by its content address, equals what this process
//! computed itself.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use mutual_node::model::resources::Resources;
use serde_json::json;

use crate::args::Session;
use crate::cloud::{Cloud, Plan};
use crate::failure::{Failure, Outcome};
use crate::scratch::Scratch;

mod input;
mod play;
mod story;
mod watch;
mod work;

use input::Input;
use play::Play;
use story::Story;

/// The whole demo ends within this, or fails.
const LONGEST: Duration = Duration::from_secs(170);
const AGENTS: usize = 3;
const NAME: &str = "demo";
/// What each task needs.
pub(crate) const NEED: Resources = Resources {
    cpu_millis: 250,
    memory_bytes: 128 << 20,
    gpus: 0,
    scratch_bytes: 0,
};

/// Show a cloud of five processes at work, and machines dying without a task dying
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The directory whose files the tasks read; .gitignore is respected [default: this source tree]
    #[arg(long, value_name = "DIR")]
    input: Option<PathBuf>,
    /// Tasks in the array
    #[arg(long, value_name = "N", default_value_t = 14, value_parser = clap::value_parser!(u32).range(6..=64))]
    tasks: u32,
    /// Keep the scratch directory
    #[arg(long)]
    keep: bool,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome<u8> {
    let mut story = Story::new(session.output);
    let input = Input::collect(args.input.as_deref())?;
    story.title(&input);
    let scratch = Scratch::new("mutual-demo-")?;
    let mut cloud = cloud(&scratch, slots(args.tasks))?;
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(LONGEST, perform(session, &mut story, &mut cloud, &input, args.tasks)) => {
            outcome.unwrap_or_else(|_| Err(Failure::internal("the demo did not end in time")))
        }
        () = interrupted() => Err(Failure::interrupted("interrupted; everything is cleaned up")),
    };
    let outcome = outcome.map_err(|failure| cloud.explain(failure));
    cloud.stop().await;
    clean_up(
        session,
        scratch,
        args.keep || (outcome.is_err() && session.verbose > 0),
    );
    conclude(session, story, outcome)
}

/// The demo's cloud, not started, for agents that take so many tasks at once.
pub(crate) fn cloud(scratch: &Scratch, slots: u32) -> Outcome<Cloud> {
    Cloud::new(scratch.path(), Plan::new(NAME, AGENTS, slots, NEED))
}

/// Tasks at once on each agent. The first wave leaves more tasks than one agent can hold, so that
/// two agents have both finished and running ones; where the number allows, it leaves less than
/// would fill the others when one dies, so that they can take over at once.
fn slots(tasks: u32) -> u32 {
    let agents = AGENTS as u32;
    let at_once = tasks.div_ceil(2 * agents - 1);
    at_once.min((tasks - 1) / (agents + 1)).max(1)
}

/// Ctrl-C, or being told to end.
async fn interrupted() {
    let _ = crate::commands::node::ended().await;
}

async fn perform(
    session: &Session,
    story: &mut Story,
    cloud: &mut Cloud,
    input: &Input,
    tasks: u32,
) -> Outcome {
    let since = Instant::now();
    cloud.start().await?;
    story.isolation(cloud)?;
    story.event(format!(
        "demand, control and {AGENTS} agents are ready: five processes, {} ms",
        since.elapsed().as_millis()
    ));
    let context = cloud.context_path();
    let session = Session {
        context: Some(context),
        ..session.clone()
    };
    let mut play = Play::begin(&session, story, cloud, input, tasks).await?;
    play.wait_for_the_moment().await?;
    play.kill_control().await?;
    play.kill_agent().await?;
    play.watch_to_the_end().await?;
    play.check_stream().await?;
    play.fetch_and_compare().await
}

/// Removes the scratch directory, or says where it is kept.
pub(crate) fn clean_up(session: &Session, scratch: Scratch, keep: bool) {
    if keep {
        let path = scratch.keep();
        session.output.note(format!("kept {}", path.display()));
    } else if let Err(error) = scratch.close() {
        session
            .output
            .note(format!("the scratch directory is not gone: {error}"));
    }
}

fn conclude(session: &Session, story: Story, outcome: Outcome) -> Outcome<u8> {
    match outcome {
        Ok(()) => {
            story.table();
            session.output.document(&json!({ "verified": true }));
            Ok(0)
        }
        Err(failure) => {
            session.output.document(&json!({ "verified": false }));
            Err(failure)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wave_leaves_more_than_one_agent_can_hold() {
        for tasks in 6..=64 {
            let slots = slots(tasks);
            let left = tasks - AGENTS as u32 * slots;
            assert!(left > slots, "{tasks}");
        }
        assert_eq!((slots(6), slots(14), slots(64)), (1, 3, 13));
    }
}
