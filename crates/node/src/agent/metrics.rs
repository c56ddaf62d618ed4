//! What an agent counts (DESIGN §12).

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::liveness::GuardianMetrics;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: String,
}

/// The agent's counters. Clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    claims_won: Counter,
    claims_lost: Counter,
    renewals: Counter,
    renewals_failed: Counter,
    cut_offs: Counter,
    offers: Family<Kind, Counter>,
    ended: Family<Kind, Counter>,
    checkpoints: Counter,
    held: Gauge,
    outbox: Gauge,
    mismatches: Counter,
    guardians: GuardianMetrics,
    preparing: Histogram,
    running: Histogram,
    concluding: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 22));
        let mut metrics = Self {
            registry: Arc::default(),
            claims_won: Counter::default(),
            claims_lost: Counter::default(),
            renewals: Counter::default(),
            renewals_failed: Counter::default(),
            cut_offs: Counter::default(),
            offers: Family::default(),
            ended: Family::default(),
            checkpoints: Counter::default(),
            held: Gauge::default(),
            outbox: Gauge::default(),
            mismatches: Counter::default(),
            guardians: GuardianMetrics::default(),
            preparing: seconds(),
            running: seconds(),
            concluding: seconds(),
        };
        let mut registry = Registry::with_prefix("mutual_agent");
        metrics.register(&mut registry);
        metrics.registry = Arc::new(registry);
        metrics
    }
}

impl Metrics {
    fn register(&self, to: &mut Registry) {
        to.register("claims_won", "Jobs claimed", self.claims_won.clone());
        let lost = "Jobs asked for by name and not granted";
        to.register("claims_lost", lost, self.claims_lost.clone());
        to.register("renewals", "Renewals answered", self.renewals.clone());
        let failed = "Renewals that brought no answer of use";
        to.register("renewals_failed", failed, self.renewals_failed.clone());
        let cut = "Runs paused because their store did not answer in time";
        to.register("pauses", cut, self.cut_offs.clone());
        to.register("offers", "Direct offers by answer", self.offers.clone());
        to.register("attempts", "Attempts by how they ended", self.ended.clone());
        to.register("checkpoints", "Checkpoints saved", self.checkpoints.clone());
        to.register("held_jobs", "Claims held now", self.held.clone());
        let waiting = "Finishes that wait for their store";
        to.register("outbox_entries", waiting, self.outbox.clone());
        let mismatches = "Renewals that found the store holding claims unknown to this agent";
        to.register("state_mismatches", mismatches, self.mismatches.clone());
        self.guardians.register(to);
        let timings = [
            ("preparing", "Fetching image and input", &self.preparing),
            ("running", "Running, pauses not counted", &self.running),
            ("concluding", "Storing output and log", &self.concluding),
        ];
        for (name, help, histogram) in timings {
            to.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
    }

    pub(super) fn guardians(&self) -> GuardianMetrics {
        self.guardians.clone()
    }

    pub(super) fn claims(&self, won: usize, asked: usize) {
        self.claims_won.inc_by(won as u64);
        self.claims_lost.inc_by(asked.saturating_sub(won) as u64);
    }

    pub(super) fn renewal(&self, answered: bool) {
        match answered {
            true => self.renewals.inc(),
            false => self.renewals_failed.inc(),
        };
    }

    pub(super) fn paused(&self) {
        self.cut_offs.inc();
    }

    pub(super) fn offer(&self, accepted: bool) {
        let kind = if accepted { "accepted" } else { "declined" };
        self.offers.get_or_create(&Kind { kind: kind.into() }).inc();
    }

    pub(super) fn ended(&self, kind: &str) {
        let kind = kind.to_owned();
        self.ended.get_or_create(&Kind { kind }).inc();
    }

    pub(super) fn checkpoint(&self) {
        self.checkpoints.inc();
    }

    pub(super) fn holds(&self, held: usize) {
        self.held.set(i64::try_from(held).unwrap_or(i64::MAX));
    }

    pub(super) fn mismatched(&self, times: u64) {
        self.mismatches.inc_by(times - self.mismatches.get());
    }

    pub(super) fn outbox(&self, entries: usize) {
        self.outbox.set(i64::try_from(entries).unwrap_or(i64::MAX));
    }

    pub(super) fn prepared(&self, took: Duration) {
        self.preparing.observe(took.as_secs_f64());
    }

    pub(super) fn ran(&self, took: Duration) {
        self.running.observe(took.as_secs_f64());
    }

    pub(super) fn concluded(&self, took: Duration) {
        self.concluding.observe(took.as_secs_f64());
    }

    /// All of them in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing into a string does not fail");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_counted() {
        let metrics = Metrics::default();
        metrics.claims(2, 3);
        metrics.ended("succeeded");
        metrics.prepared(Duration::from_millis(3));
        let text = metrics.text();
        for line in [
            "mutual_agent_claims_won_total 2",
            "mutual_agent_claims_lost_total 1",
            "mutual_agent_attempts_total{kind=\"succeeded\"} 1",
            "mutual_agent_preparing_seconds_count 1",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }
}
