//! A set of times in the figures that are reported.

use serde::Serialize;

use crate::commands::spread::Spread;

/// Seconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Times {
    pub(crate) count: usize,
    pub(crate) mean_s: f64,
    pub(crate) p50_s: f64,
    pub(crate) p95_s: f64,
    pub(crate) max_s: f64,
}

impl Times {
    /// None of nothing.
    pub(crate) fn of(seconds: Vec<f64>) -> Option<Self> {
        let count = seconds.len();
        let spread = Spread::of(seconds);
        (count > 0).then(|| Self {
            count,
            mean_s: spread.mean(),
            p50_s: spread.percentile(50),
            p95_s: spread.percentile(95),
            max_s: spread.greatest(),
        })
    }
}

/// The p95 of each repeat that has one.
pub(crate) fn p95s<'a>(times: impl Iterator<Item = Option<&'a Times>>) -> Option<Spread> {
    let found: Vec<_> = times.flatten().map(|times| times.p95_s).collect();
    (!found.is_empty()).then(|| Spread::of(found))
}
