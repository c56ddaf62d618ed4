//! The experiment's tables: a row for each algorithm, a column for each size of the stage.

use super::run::{ALGORITHMS, BACKWARD};
use super::{Mean, Reached, Report, Row};
use crate::output::{table, table_text};

pub(super) fn text(report: &Report) -> String {
    let what = match report.weights {
        true => "weight",
        false => "requests",
    };
    format!(
        "{what} served, % of {} requests at {} times the link, mean of {} seeds ± 95 % confidence\n\n{}\n\n\
         more than backward EDD on the same instances, %\n\n{}",
        report.requests,
        report.load,
        report.seeds,
        served(report),
        over(report)
    )
}

fn served(report: &Report) -> String {
    let mut rows: Vec<_> = each(report, |reached| plain(reached.percent));
    let of = |row: &Row, text: String| match row.proved == report.seeds as usize {
        true => text,
        false => format!("{text} of {}", row.proved),
    };
    let optimum = |row: &Row| {
        row.optimum_percent
            .map_or("-".to_owned(), |mean| of(row, plain(mean)))
    };
    rows.push(line("optimum where proved", report, optimum));
    rows.push(line("proved", report, |row| {
        format!("{} of {}", row.proved, report.seeds)
    }));
    rows.push(line("slowest search, ms", report, |row| {
        format!("{:.0}", row.search_ms_max)
    }));
    with_stages(report, rows)
}

fn over(report: &Report) -> String {
    let mut rows = each(report, |reached| {
        let Mean { mean, confidence } = reached.over_backward_edd_percent;
        format!("{mean:+.1}{}", around(confidence))
    });
    rows.remove(BACKWARD);
    with_stages(report, rows)
}

fn with_stages(report: &Report, rows: Vec<Vec<String>>) -> String {
    let stages = report
        .rows
        .iter()
        .map(|row| format!("{:.1} GB", row.capacity_gb));
    let headings: Vec<_> = std::iter::once("STAGE OF".to_owned())
        .chain(stages)
        .collect();
    let headings: Vec<_> = headings.iter().map(String::as_str).collect();
    let mut shown = table(&headings);
    shown.add_rows(rows);
    table_text(&shown)
}

/// A row for each algorithm.
fn each(report: &Report, cell: impl Fn(&Reached) -> String) -> Vec<Vec<String>> {
    let of = |(place, name): (usize, &&str)| line(name, report, |row| cell(&row.reached[place]));
    ALGORITHMS.iter().enumerate().map(of).collect()
}

fn line(name: &str, report: &Report, cell: impl Fn(&Row) -> String) -> Vec<String> {
    std::iter::once(name.to_owned())
        .chain(report.rows.iter().map(cell))
        .collect()
}

fn plain(mean: Mean) -> String {
    format!("{:.1}{}", mean.mean, around(mean.confidence))
}

fn around(confidence: Option<f64>) -> String {
    confidence.map_or_else(String::new, |half| format!(" ±{half:.1}"))
}
