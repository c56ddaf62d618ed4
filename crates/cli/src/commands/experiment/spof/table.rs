//! The experiment's tables: each run in a line, and the states over time of the first of each kind.

use mutual_node::model::job::JobState::{Assigned, Preparing, Queued, Running, Succeeded};

use super::play::{Run, Sample};
use super::{Report, Row};
use crate::output::{table, table_text};

/// Lines of a table of states.
const LINES: usize = 24;

pub(super) fn text(report: &Report) -> String {
    let times = report.rows.iter().filter_map(|row| {
        let first = row.runs.first()?;
        Some(format!(
            "\n\n{} killed, the first run:\n{}",
            row.what.name(),
            states(first)
        ))
    });
    format!("{}{}", summary(report), times.collect::<String>())
}

fn summary(report: &Report) -> String {
    let mut shown = table(&[
        "KILLED",
        "RUN",
        "SUCCESS",
        "DUPLICATES",
        "OVERLAPS",
        "AT KILL",
        "AT RETURN",
        "NEXT AFTER",
        "ALL AFTER",
    ]);
    for row in &report.rows {
        for (number, run) in row.runs.iter().enumerate() {
            shown.add_row(cells(row, number + 1, run));
        }
    }
    table_text(&shown)
}

fn cells(row: &Row, number: usize, run: &Run) -> Vec<String> {
    let verdict = &run.verdict;
    let share = 100.0 * verdict.succeeded as f64 / verdict.tasks.max(1) as f64;
    vec![
        row.what.name().to_owned(),
        number.to_string(),
        format!("{share:.1} %"),
        format!(
            "{}, {}",
            verdict.accepted_duplicates, verdict.attempted_duplicates
        ),
        verdict.overlaps.to_string(),
        run.succeeded.0.to_string(),
        run.succeeded.1.to_string(),
        run.resumed_after_s
            .map_or("-".to_owned(), |after| format!("{after:.1} s")),
        format!("{:.1} s", run.over_s),
    ]
}

fn states(run: &Run) -> String {
    let mut shown = table(&["AT", "QUEUED", "HELD", "RUNNING", "SUCCEEDED", ""]);
    let step = run.samples.len().div_ceil(LINES).max(1);
    let last = run.samples.len().saturating_sub(1);
    let shows = |at: usize| at.is_multiple_of(step) || at == last;
    for (at, sample) in run.samples.iter().enumerate().filter(|(at, _)| shows(*at)) {
        let before = at.checked_sub(step).and_then(|at| run.samples.get(at));
        shown.add_row(vec![
            format!("{:.1} s", sample.at_s),
            sample.count(&[Queued]).to_string(),
            sample.count(&[Assigned, Preparing]).to_string(),
            sample.count(&[Running]).to_string(),
            sample.count(&[Succeeded]).to_string(),
            event(run, before, sample),
        ]);
    }
    table_text(&shown)
}

/// What happened since the line before.
fn event(run: &Run, before: Option<&Sample>, sample: &Sample) -> String {
    let from = before.map_or(0.0, |before| before.at_s);
    let is_new = |at_s: f64| from < at_s && at_s <= sample.at_s;
    let words = [
        (is_new(run.killed_s), "killed"),
        (is_new(run.back_s), "back"),
        (!sample.answered, "the store does not answer"),
    ];
    let words = words
        .into_iter()
        .filter(|(holds, _)| *holds)
        .map(|(_, words)| words);
    words.collect::<Vec<_>>().join("; ")
}
