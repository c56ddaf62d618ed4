//! `mutual run -- COMMAND`: submit, follow, fetch, and end as the task ended.

use std::path::PathBuf;

use mutual_node::demand::{JobView, Reason};
use mutual_node::model::ids::JobId;
use mutual_node::model::job::{Failure as TaskFailure, JobState};
use serde_json::json;

use crate::args::Session;
use crate::client::follow::{Follower, Line};
use crate::client::{Client, check_target};
use crate::document::{JobDocument, reason_text, title};
use crate::failure::{Failure, Outcome};
use crate::job_draft::JobDraft;
use crate::output::Output;

/// Exit code for a task past its time limit, as `timeout(1)` has it.
const TIMED_OUT: u8 = 124;
/// Exit code for a cancelled task, as a shell reports SIGINT.
const INTERRUPTED: u8 = 130;
/// Exit code for a task that found no machine in time: BSD's `EX_TEMPFAIL`.
const NOT_RUN: u8 = 75;

/// Run a task: submit it, show its output, end with its exit code
///
/// Example: mutual run --input data --output results -- /bin/sh -c 'wc -l $MUTUAL_INPUT/* > $MUTUAL_OUTPUT/lines'
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Begin with this job file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Download the result into this directory; an array's members into numbered ones below
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Print the job's id and go
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    flags: JobDraft,
    /// Program and arguments
    #[arg(last = true, value_name = "COMMAND", required_unless_present = "file")]
    command: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome<u8> {
    let mut flags = args.flags;
    flags.command = args.command;
    let draft = match &args.file {
        Some(file) => flags.or(JobDraft::load(file)?),
        None => flags,
    };
    draft.spec()?;
    args.output.as_deref().map_or(Ok(()), check_target)?;
    let client = Client::open(session)?;
    let jobs = client.submit(&draft).await?;
    if args.detach {
        let ids: Vec<_> = jobs.iter().map(ToString::to_string).collect();
        session
            .output
            .answer(&json!({ "jobs": ids }), || ids.join("\n"));
        return Ok(0);
    }
    let views = tokio::select! {
        views = follow_all(session.output, &client, &jobs) => views?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.map_err(Failure::internal)?;
            session.output.note(detached(&jobs));
            return Ok(INTERRUPTED);
        }
    };
    if let Some(dir) = &args.output {
        client.download_results(&views, dir).await?;
    }
    finish(session.output, &views);
    Ok(views
        .iter()
        .map(exit_code)
        .find(|code| *code != 0)
        .unwrap_or(0))
}

fn detached(jobs: &[JobId]) -> String {
    match jobs {
        [job] => format!("\nstill running: mutual logs -f {job}, or mutual cancel {job}"),
        _ => format!("\nstill running: {} jobs; see mutual ls", jobs.len()),
    }
}

async fn follow_all(output: Output, client: &Client, jobs: &[JobId]) -> Outcome<Vec<JobView>> {
    let is_array = jobs.len() > 1;
    let following = jobs.iter().enumerate().map(|(number, job)| async move {
        let mut follower = Follower::new(client, *job);
        follower
            .run(&mut |line| show_line(output, is_array.then_some(number + 1), line))
            .await
    });
    futures::future::try_join_all(following).await
}

/// A line of a task: as it is for one task, with its number for an array.
pub(crate) fn show_line(output: Output, number: Option<usize>, line: &Line) {
    if output.is_json() {
        output.document(line);
        return;
    }
    match (line, number) {
        (
            Line::Output {
                is_stderr, bytes, ..
            },
            None,
        ) => output.raw(*is_stderr, bytes),
        (
            Line::Output {
                is_stderr, bytes, ..
            },
            Some(number),
        ) => {
            let text = String::from_utf8_lossy(bytes);
            let prefixed: String = text
                .lines()
                .map(|line| format!("{} {line}\n", console::style(format!("[{number}]")).dim()))
                .collect();
            output.raw(*is_stderr, prefixed.as_bytes());
        }
        (Line::State { job, text }, _) => {
            tracing::info!(%job, state = %text, "job changed state");
        }
    }
}

fn finish(output: Output, views: &[JobView]) {
    let documents: Vec<_> = views.iter().map(JobDocument::from).collect();
    output.document(&json!({ "jobs": documents }));
    for job in views.iter().filter(|job| job.state != JobState::Succeeded) {
        let why = job.reason.as_ref().map(reason_text).unwrap_or_default();
        output.note(format!("{} {}: {} {why}", job.id, title(job), job.state));
    }
}

/// The process's exit code for a task that is over.
fn exit_code(job: &JobView) -> u8 {
    match (job.state, &job.reason) {
        (JobState::Succeeded, _) => 0,
        (JobState::TimedOut, _) => TIMED_OUT,
        (JobState::Cancelled, _) => INTERRUPTED,
        (JobState::Expired | JobState::Dead, _) => NOT_RUN,
        (_, Some(Reason::Failure(failure))) => failure_code(failure),
        _ => 1,
    }
}

fn failure_code(failure: &TaskFailure) -> u8 {
    match failure {
        TaskFailure::ExitCode { code } => u8::try_from(*code)
            .ok()
            .filter(|code| *code != 0)
            .unwrap_or(1),
        TaskFailure::Signal { signal } => u8::try_from(128 + signal).unwrap_or(1),
        TaskFailure::TimeLimit => TIMED_OUT,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_end_as_the_task_did() {
        for (failure, code) in [
            (TaskFailure::ExitCode { code: 7 }, 7),
            (TaskFailure::ExitCode { code: 4_711 }, 1),
            (TaskFailure::Signal { signal: 9 }, 137),
            (TaskFailure::TimeLimit, 124),
            (TaskFailure::OutOfMemory, 1),
        ] {
            assert_eq!(failure_code(&failure), code);
        }
    }
}
