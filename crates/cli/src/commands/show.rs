//! `mutual show JOB`: everything about one job.

use std::time::Duration;

use mutual_node::demand::{Attempt, Checkpoint, JobView, ResultView};
use mutual_node::model::ids::JobId;
use mutual_node::model::record::StatusMirror;
use serde_json::json;

use crate::args::Session;
use crate::client::Client;
use crate::document::{JobDocument, reason_text, short, title};
use crate::failure::{Kind, Outcome};
use crate::output::{length, local_time, size, state_text, table, table_text};

/// Show everything about one job
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The job
    job: JobId,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let client = Client::open(session)?;
    match client.job(args.job).await {
        Ok(job) => session
            .output
            .answer(&JobDocument::from(&job), || job_text(&job)),
        Err(failure) if failure.kind == Kind::Unavailable => {
            let remembered = client.mirror(args.job).await.ok().flatten();
            let mirror = remembered.ok_or(failure)?;
            session
                .output
                .answer(&mirror_document(&mirror), || mirror_text(&mirror));
        }
        Err(failure) => return Err(failure),
    }
    Ok(())
}

/// With control and store down, the DHT still says where a job stood and where its result is.
fn mirror_document(mirror: &StatusMirror) -> serde_json::Value {
    json!({
        "job": mirror.job, "state": mirror.state, "holder": mirror.holder,
        "result": { "cid": mirror.result }, "providers": mirror.providers, "possibly_old": true,
    })
}

fn mirror_text(mirror: &StatusMirror) -> String {
    let mut lines = vec![
        format!(
            "{}  (no control and no demand store answers: what the DHT remembers)",
            mirror.job
        ),
        line("state", &state_text(mirror.state)),
    ];
    let holder = mirror
        .holder
        .map(|holder| line("agent", &holder.to_string()));
    let result = mirror.result.as_ref();
    lines.extend(holder);
    lines.extend(result.map(|root| line("result", root.as_str())));
    lines.extend(
        mirror
            .providers
            .iter()
            .map(|provider| line("held by", provider)),
    );
    lines.join("\n")
}

fn job_text(job: &JobView) -> String {
    let mut lines = vec![
        format!("{}  {}", job.id, title(job)),
        line("state", &state_line(job)),
        line(
            "namespace",
            &format!("{} (by {})", job.namespace, job.submitter.subject),
        ),
        line("command", &job.spec.command.join(" ")),
        line("needs", &needs(job)),
        line("submitted", &local_time(job.created_at)),
    ];
    if job.possibly_old {
        lines.push(line("", "from a replica: possibly out of date"));
    }
    if let Some(at) = job.finished_at {
        lines.push(line("finished", &local_time(at)));
    }
    if let Some(input) = &job.input {
        lines.push(line(
            "input",
            &format!("{} ({})", input.root, size(input.bytes)),
        ));
    }
    if !job.attempts.is_empty() {
        lines.push(attempts(&job.attempts));
    }
    lines.extend(job.checkpoints.iter().map(checkpoint_line));
    if let Some(result) = &job.result {
        lines.extend(result_lines(result));
    }
    lines.join("\n")
}

fn line(label: &str, text: &str) -> String {
    format!("  {label:<10} {text}")
}

fn state_line(job: &JobView) -> String {
    let state = state_text(job.state);
    match &job.reason {
        Some(reason) => format!("{state}: {}", reason_text(reason)),
        None => state,
    }
}

fn needs(job: &JobView) -> String {
    let need = &job.spec.resources;
    let mut text = format!(
        "{} cpus, {}",
        f64::from(need.cpu_millis) / 1000.0,
        size(need.memory_bytes)
    );
    if need.gpus > 0 {
        text.push_str(&format!(", {} GPUs", need.gpus));
    }
    if need.scratch_bytes > 0 {
        text.push_str(&format!(", {} scratch", size(need.scratch_bytes)));
    }
    text
}

fn attempts(attempts: &[Attempt]) -> String {
    let mut table = table(&["  ATTEMPT", "AGENT", "CLAIMED", "END", "LASTED"]);
    for (number, attempt) in attempts.iter().enumerate() {
        let lasted = attempt
            .ended_at
            .map(|end| length(end.since(attempt.claimed_at)));
        table.add_row(vec![
            format!("  {}", number + 1),
            short(&attempt.holder.agent),
            local_time(attempt.claimed_at),
            attempt
                .end
                .map_or("-".into(), |end| format!("{end:?}").to_lowercase()),
            lasted.unwrap_or_else(|| "-".into()),
        ]);
    }
    table_text(&table)
}

fn checkpoint_line(saved: &Checkpoint) -> String {
    let manifest = &saved.manifest;
    let words = format!(
        "{} of attempt {}, {} ({} copies vouched)",
        saved.sequence,
        saved.fence.sequence,
        size(manifest.bytes),
        manifest.receipts.len()
    );
    line("checkpoint", &words)
}

fn result_lines(result: &ResultView) -> Vec<String> {
    let metrics = &result.metrics;
    let mut lines = vec![line(
        "used",
        &format!(
            "{} running, {} preparing, {:.2} cores, {} peak memory",
            length(Duration::from_millis(metrics.running_ms)),
            length(Duration::from_millis(metrics.preparing_ms)),
            metrics.cpu_avg,
            size(metrics.mem_peak_bytes)
        ),
    )];
    if let Some(output) = &result.output {
        let copies = output.receipts.len();
        lines.push(line(
            "result",
            &format!("{} ({} copies vouched)", output.root, copies),
        ));
    }
    for artifact in &result.artifacts {
        lines.push(line(
            "",
            &format!("{}  {}", artifact.path, size(artifact.bytes)),
        ));
    }
    if let Some(log) = &result.log {
        lines.push(line("log", log.root.as_str()));
    }
    lines
}
