//! The experiment's table.

use comfy_table::Cell;

use super::Report;
use super::run::ALGORITHMS;
use crate::output::{table, table_text};

pub(super) fn text(report: &Report) -> String {
    let mut headings = vec!["STAGE GB"];
    headings.extend(ALGORITHMS);
    headings.extend(["PROVED", "SLOWEST"]);
    let mut served = table(&headings);
    let mut over = table(&headings[..=ALGORITHMS.len()]);
    for row in &report.rows {
        let stage = Cell::new(format!("{:.1}", row.capacity_gb));
        let mut cells = vec![stage.clone()];
        let mut gains = vec![stage];
        for reached in &row.reached {
            let (mean, half) = (reached.mean_percent, reached.confidence_percent);
            cells.push(Cell::new(format!("{mean:.1} ±{half:.1}")));
            let (mean, half) = (
                reached.over_backward_edd_percent,
                reached.over_backward_edd_confidence,
            );
            gains.push(Cell::new(format!("{mean:+.1} ±{half:.1}")));
        }
        cells.push(Cell::new(format!("{} of {}", row.proved, report.seeds)));
        cells.push(Cell::new(format!("{:.0} ms", row.search_ms_max)));
        served.add_row(cells);
        over.add_row(gains);
    }
    let what = match report.weights {
        true => "weight",
        false => "requests",
    };
    format!(
        "{what} served, % of {} requests at {} times the link, mean of {} seeds ± 95 % confidence; integral model but for the last\n\n{}\n\n\
         more than backward EDD on the same instances, %\n\n{}",
        report.requests,
        report.load,
        report.seeds,
        table_text(&served),
        table_text(&over)
    )
}
