//! What the experiments with lost agents report: a row for each size, kind of loss and setting.

use std::path::Path;

use serde::Serialize;

use super::chart::{Chart, Series};
use super::load::Load;
use super::recovery::How;
use super::run::Run;
use super::times::{Times, p95s};
use crate::commands::spread::Spread;
use crate::failure::Outcome;
use crate::output::{table, table_text};

/// A process's sockets may be closed later than asked for; then this much of that is allowed.
const OVER_BASELINE: f64 = 1.3;

/// All repeats of one size, kind of loss and setting.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) agents: usize,
    pub(crate) how: How,
    /// Agents lost at once.
    pub(crate) lost_agents: usize,
    pub(crate) setting: Load,
    /// What p95 shall not exceed, where there is a goal: until the task is held by another agent
    /// when saturated, until it runs again with headroom.
    pub(crate) bar_s: Option<f64>,
    pub(crate) runs: Vec<Run>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
}

impl Row {
    /// Agents lost, of a hundred.
    pub(crate) fn percent(&self) -> f64 {
        100.0 * self.lost_agents as f64 / self.agents as f64
    }

    fn sum(&self, of: impl Fn(&Run) -> usize) -> usize {
        self.runs.iter().map(of).sum()
    }

    fn mean(&self, of: impl Fn(&Run) -> f64) -> f64 {
        self.runs.iter().map(of).sum::<f64>() / self.runs.len().max(1) as f64
    }

    fn p95(&self, of: impl Fn(&Run) -> Option<&Times>) -> Option<Spread> {
        p95s(self.runs.iter().map(of))
    }

    fn cells(&self) -> Vec<String> {
        let tasks = self.sum(|run| run.verdict.tasks).max(1);
        let succeeded = self.sum(|run| run.verdict.succeeded);
        let duplicates = (
            self.sum(|run| run.verdict.accepted_duplicates),
            self.sum(|run| run.verdict.attempted_duplicates),
        );
        vec![
            self.agents.to_string(),
            format!("{} {}", self.lost_agents, self.how.name()),
            self.setting.name().to_owned(),
            format!("{:.1} %", 100.0 * succeeded as f64 / tasks as f64),
            format!("{}, {}", duplicates.0, duplicates.1),
            self.sum(|run| run.verdict.overlaps).to_string(),
            format!("{:.1}", self.mean(|run| run.recovery.lost as f64)),
            format!("{:.1}", self.mean(|run| run.free_slots as f64)),
            ms(self.p95(|run| run.recovery.held.as_ref())),
            ms(self.p95(|run| run.recovery.runs.as_ref())),
            ms(self.p95(|run| run.recovery.eof.as_ref())),
            ms(self.p95(|run| run.baseline.as_ref())),
            self.bar(),
            format!("{:.0}", self.mean(|run| run.quiet.packets_per_node_s)),
            format!("{:.0}", self.mean(|run| run.at_work.packets_per_node_s)),
        ]
    }

    /// The goal, and in how many repeats it was reached.
    fn bar(&self) -> String {
        let Some(bar_s) = self.bar_s else {
            return "-".to_owned();
        };
        let met = self.runs.iter().filter(|run| self.is_met(bar_s, run));
        let (met, all) = (met.count(), self.runs.len());
        format!("{:.0}: {met} of {all}", bar_s * 1e3)
    }

    fn is_met(&self, bar_s: f64, run: &Run) -> bool {
        let times = match self.setting {
            Load::Saturated => &run.recovery.held,
            Load::Headroom => &run.recovery.runs,
        };
        let kernel = run.baseline.as_ref().map_or(0.0, |times| times.p95_s);
        let bar_s = match kernel > bar_s {
            true => OVER_BASELINE * kernel,
            false => bar_s,
        };
        times.as_ref().is_none_or(|times| times.p95_s <= bar_s)
    }
}

const HEADINGS: [&str; 15] = [
    "AGENTS",
    "AGENTS LOST",
    "SETTING",
    "SUCCESS",
    "DUPL.",
    "OVERLAPS",
    "TASKS LOST",
    "FREE",
    "HELD",
    "RUNS",
    "KERNEL",
    "BASELINE",
    "BAR",
    "QUIET",
    "AT WORK",
];

const LEGEND: &str = "\
Times are p95 in ms since the loss, the median of the repeats (and their range): until a task is HELD by another agent,
until it RUNS there; until the KERNEL has closed the agents' sockets, and, as BASELINE, those of as many idle processes of
their size. The BAR is for what runs again with headroom, for what is held when saturated; where the baseline is later
than that, 1.3 times the baseline counts. DUPL.: results accepted twice, executions that came to their end twice. FREE slots
elsewhere. QUIET, AT WORK: packets that a node sends in a second.";

impl Report {
    pub(crate) fn text(&self) -> String {
        let mut shown = table(&HEADINGS);
        for row in &self.rows {
            shown.add_row(row.cells());
        }
        format!("{}\n\n{LEGEND}", table_text(&shown))
    }

    /// 1 if a promise was broken in some run.
    pub(crate) fn exit_code(&self) -> u8 {
        let runs = self.rows.iter().flat_map(|row| &row.runs);
        let mut verdicts = runs.map(|run| &run.verdict);
        u8::from(verdicts.any(|verdict| !verdict.violations.is_empty()))
    }

    /// One picture for each kind of loss: times over what `place` says of a row.
    pub(crate) fn plot(
        &self,
        dir: &Path,
        name: &str,
        axis: &str,
        place: fn(&Row) -> f64,
    ) -> Outcome {
        for how in [How::Killed, How::Silenced, How::Cut] {
            let chart = self.chart(how, axis, place);
            if !chart.series.is_empty() {
                let name = match how {
                    How::Killed => name.to_owned(),
                    How::Silenced | How::Cut => format!("{name}-{}", how.name()),
                };
                chart.save(dir, &name)?;
            }
        }
        Ok(())
    }

    fn chart(&self, how: How, axis: &str, place: fn(&Row) -> f64) -> Chart {
        let rows = || self.rows.iter().filter(|row| row.how == how);
        let series = SERIES.iter().map(|(name, setting, measured)| {
            let rows = rows().filter(|row| row.setting == *setting);
            let point = |row: &Row| Some((place(row), row.p95(measured)?));
            Series {
                name: (*name).to_owned(),
                points: rows.filter_map(point).collect(),
            }
        });
        let mut bars: Vec<_> = rows()
            .filter_map(|row| Some((place(row), row.bar_s?)))
            .collect();
        bars.sort_by(|one, other| one.0.total_cmp(&other.0));
        bars.dedup();
        Chart {
            title: format!(
                "agents {}: p95 until their tasks are held by others, and run there",
                how.name()
            ),
            axis: axis.to_owned(),
            series: series.filter(|series| !series.points.is_empty()).collect(),
            bars,
        }
    }
}

type Measured = fn(&Run) -> Option<&Times>;

const SERIES: [(&str, Load, Measured); 5] = [
    ("held, saturated", Load::Saturated, |run| {
        run.recovery.held.as_ref()
    }),
    ("runs, saturated", Load::Saturated, |run| {
        run.recovery.runs.as_ref()
    }),
    ("held, headroom", Load::Headroom, |run| {
        run.recovery.held.as_ref()
    }),
    ("runs, headroom", Load::Headroom, |run| {
        run.recovery.runs.as_ref()
    }),
    ("idle processes", Load::Headroom, |run| {
        run.baseline.as_ref()
    }),
];

fn ms(spread: Option<Spread>) -> String {
    let Some(spread) = spread else {
        return "-".to_owned();
    };
    let ms = |seconds: f64| format!("{:.0}", seconds * 1e3);
    let (least, greatest) = (ms(spread.least()), ms(spread.greatest()));
    match least == greatest {
        true => least,
        false => format!("{} ({least}–{greatest})", ms(spread.percentile(50))),
    }
}
