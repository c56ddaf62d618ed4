//! What the demo tells: lines with times while it happens, a table in the end.

use std::time::{Duration, Instant};

use console::style;
use serde_json::json;

use super::input::Input;
use crate::cloud::{Cloud, Process};
use crate::failure::Outcome;
use crate::output::{Output, size, table, table_text};

/// The teller.
#[derive(Debug)]
pub(super) struct Story {
    output: Output,
    since: Instant,
    rows: Vec<(Duration, String)>,
}

impl Story {
    pub(super) fn new(output: Output) -> Self {
        Self {
            output,
            since: Instant::now(),
            rows: Vec::new(),
        }
    }

    pub(super) fn title(&self, input: &Input) {
        self.output
            .say(style("Mutual Cloud: a task in, its result out, and nobody in charge").bold());
        self.fact(
            "input",
            &format!(
                "{} files, {}, below {} (.gitignore respected)",
                input.files.len(),
                size(input.bytes),
                input.root.display()
            ),
        );
    }

    /// A line of the head.
    fn fact(&self, label: &str, text: &str) {
        self.output
            .say(format!("  {:<10} {text}", style(label).dim()));
        self.output
            .document(&json!({ "fact": label, "text": text }));
    }

    /// Which isolation class the tasks get, and why no stronger one.
    pub(super) fn isolation(&self, cloud: &Cloud) -> Outcome {
        let strongest = cloud.strongest()?;
        self.fact(
            "isolation",
            &format!("{} (the strongest that works here)", strongest.name()),
        );
        let ready = cloud.agents().first().and_then(Process::ready);
        let missing = ready
            .map(|ready| ready.missing_classes.as_slice())
            .unwrap_or_default();
        for missing in missing.iter().filter(|missing| missing.class > strongest) {
            self.fact("", &format!("no {}: {}", missing.class.name(), missing.why));
        }
        Ok(())
    }

    /// Something that happened; it goes into the table too.
    pub(super) fn event(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.line(&style("●").cyan().to_string(), &text);
        self.rows.push((self.since.elapsed(), text));
    }

    /// A death.
    pub(super) fn death(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.line(
            &style("✖").red().bold().to_string(),
            &style(&text).red().to_string(),
        );
        self.rows.push((self.since.elapsed(), text));
    }

    /// Something saved.
    pub(super) fn rescue(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.line(&style("↻").yellow().bold().to_string(), &text);
        self.rows.push((self.since.elapsed(), text));
    }

    /// A step that the table leaves out.
    pub(super) fn step(&self, text: &str) {
        self.line(
            &style("·").dim().to_string(),
            &style(text).dim().to_string(),
        );
    }

    /// A line of the log that is followed.
    pub(super) fn log(&self, who: &str, text: &str) {
        self.line(
            &style("│").dim().to_string(),
            &format!("{} {text}", style(who).dim()),
        );
    }

    fn line(&self, mark: &str, text: &str) {
        let at = self.since.elapsed();
        self.output
            .say(format!("{:>7.2} s {mark} {text}", at.as_secs_f64()));
        self.output.document(&json!({
            "at_ms": u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            "text": console::strip_ansi_codes(text),
        }));
    }

    /// What happened and when.
    pub(super) fn table(&self) {
        let mut table = table(&["  AT", "WHAT HAPPENED"]);
        for (at, text) in &self.rows {
            table.add_row(vec![format!("  {:.2} s", at.as_secs_f64()), text.clone()]);
        }
        self.output.say(format!("\n{}\n", table_text(&table)));
        self.output.say(format!(
            "{} Everything was verified, in {:.1} s.",
            style("✔").green().bold(),
            self.rows.last().map_or(0.0, |(at, _)| at.as_secs_f64())
        ));
    }
}
