//! What the terminal shows: text for people, or one JSON document per answer for programs.
//!
//! Colours and progress bars appear only on a terminal. A reader that goes away (`mutual ls | head`)
//! ends the output, not the program.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table};
use console::Style;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use mutual_node::model::job::JobState;
use mutual_node::model::time::UnixMillis;
use serde::Serialize;

use crate::failure::Failure;

/// How this run of the program speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether programs read along.
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// A line for people on standard output; nothing in JSON mode.
    pub(crate) fn say(self, line: impl std::fmt::Display) {
        if !self.json {
            write_line(&mut io::stdout(), line);
        }
    }

    /// A line for people on standard error, so that standard output holds only the answer.
    pub(crate) fn note(self, line: impl std::fmt::Display) {
        if !self.json {
            write_line(&mut io::stderr(), line);
        }
    }

    /// One JSON document on a line of its own; nothing in text mode.
    pub(crate) fn document(self, value: &impl Serialize) {
        if self.json {
            match serde_json::to_string(value) {
                Ok(line) => write_line(&mut io::stdout(), line),
                Err(error) => write_line(&mut io::stderr(), error),
            }
        }
    }

    /// The document in JSON mode, the text otherwise.
    pub(crate) fn answer(self, value: &impl Serialize, text: impl FnOnce() -> String) {
        if self.json {
            self.document(value);
        } else {
            self.say(text());
        }
    }

    /// Bytes of a task, as they are.
    pub(crate) fn raw(self, is_stderr: bool, bytes: &[u8]) {
        let written = if is_stderr {
            io::stderr().write_all(bytes)
        } else {
            io::stdout()
                .write_all(bytes)
                .and_then(|()| io::stdout().flush())
        };
        end_if_closed(&written);
    }

    pub(crate) fn failure(self, failure: &Failure) {
        if self.json {
            write_line(&mut io::stderr(), failure.json());
        } else {
            write_line(&mut io::stderr(), failure.text());
        }
    }

    /// A bar that counts bytes; hidden unless people watch on a terminal.
    pub(crate) fn bytes_bar(self, what: &'static str, total: u64) -> ProgressBar {
        let template =
            "{prefix:>9} {bar:24.cyan/dim} {bytes:>10} / {total_bytes} {bytes_per_sec:.dim}";
        self.bar(ProgressBar::new(total), template, what)
    }

    /// A spinner with a message; hidden unless people watch on a terminal.
    pub(crate) fn spinner(self, what: &'static str) -> ProgressBar {
        let bar = self.bar(
            ProgressBar::no_length(),
            "{prefix:>9} {spinner:.cyan} {wide_msg}",
            what,
        );
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }

    fn bar(self, bar: ProgressBar, template: &str, what: &'static str) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(look) = ProgressStyle::with_template(template) {
            bar.set_style(look.progress_chars("━╸─"));
        }
        bar.set_prefix(what);
        bar
    }
}

fn write_line(to: &mut impl io::Write, line: impl std::fmt::Display) {
    end_if_closed(&writeln!(to, "{line}"));
}

/// A closed pipe means that the reader has seen enough.
fn end_if_closed(written: &io::Result<()>) {
    if written
        .as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    {
        std::process::exit(0);
    }
}

/// A table without lines, headings dim on a terminal.
pub(crate) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(
            headings
                .iter()
                .map(|text| Cell::new(text).add_attribute(Attribute::Dim)),
        );
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// The table's text without trailing blanks.
pub(crate) fn table_text(table: &Table) -> String {
    let lines: Vec<_> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// A state's name in its colour.
pub(crate) fn state_text(state: JobState) -> String {
    let look = match state {
        JobState::Succeeded => Style::new().green(),
        JobState::Running | JobState::Preparing | JobState::Assigned => Style::new().cyan(),
        JobState::AwaitingInput | JobState::Queued => Style::new().yellow(),
        _ => Style::new().red(),
    };
    look.apply_to(state.name()).to_string()
}

/// The same for a table, which must know a text's width.
pub(crate) fn state_cell(state: JobState) -> Cell {
    Cell::new(state.name()).fg(match state {
        JobState::Succeeded => Color::Green,
        JobState::Running | JobState::Preparing | JobState::Assigned => Color::Cyan,
        JobState::AwaitingInput | JobState::Queued => Color::Yellow,
        _ => Color::Red,
    })
}

/// A wall-clock reading in the reader's time zone.
pub(crate) fn local_time(at: UnixMillis) -> String {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    match Timestamp::from_millisecond(millis) {
        Ok(at) => at
            .to_zoned(jiff::tz::TimeZone::system())
            .strftime("%Y-%m-%d %H:%M:%S")
            .to_string(),
        Err(_) => "-".to_owned(),
    }
}

/// A wall-clock reading for programs, RFC 3339 in UTC with milliseconds.
pub(crate) fn utc_time(at: UnixMillis) -> String {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    match Timestamp::from_millisecond(millis) {
        Ok(at) => format!("{at:.3}"),
        Err(_) => String::new(),
    }
}

/// A length of time in two units at most: `850 ms`, `4.2 s`, `3m 20s`, `2h 5m`.
pub(crate) fn length(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        1..60 => format!("{:.1} s", span.as_secs_f64()),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// An amount of bytes in binary units.
pub(crate) fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_two_units_at_most() {
        for (millis, text) in [
            (850, "850 ms"),
            (4_240, "4.2 s"),
            (200_000, "3m 20s"),
            (7_500_000, "2h 5m"),
            (180_000_000, "2d 2h"),
        ] {
            assert_eq!(length(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn times_for_programs_are_utc() {
        assert_eq!(
            utc_time(UnixMillis(1_700_000_000_123)),
            "2023-11-14T22:13:20.123Z"
        );
    }
}
