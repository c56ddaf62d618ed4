//! What a guardian and its wards count (DESIGN §12).

use mutual_model::guardian::{Cause, Health};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// Counters of guarding and being guarded. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct GuardianMetrics {
    guardians: Gauge,
    wards: Family<Kind, Gauge>,
    beats_sent: Counter,
    beats_heard: Counter,
    verdicts: Family<Kind, Counter>,
}

impl GuardianMetrics {
    /// Adds them to a registry.
    pub fn register(&self, to: &mut Registry) {
        let guardians = "Guardians that watch this agent";
        to.register("guardians", guardians, self.guardians.clone());
        let wards = "Agents watched here, by what is made of them";
        to.register("wards", wards, self.wards.clone());
        let sent = "Heartbeats sent";
        to.register("heartbeats_sent", sent, self.beats_sent.clone());
        let heard = "Genuine heartbeats heard";
        to.register("heartbeats_heard", heard, self.beats_heard.clone());
        let verdicts = "Verdicts passed on wards, by cause";
        to.register("verdicts", verdicts, self.verdicts.clone());
    }

    pub(super) fn guardians(&self, watching: usize) {
        self.guardians
            .set(i64::try_from(watching).unwrap_or(i64::MAX));
    }

    pub(super) fn sent(&self) {
        self.beats_sent.inc();
    }

    pub(super) fn heard(&self) {
        self.beats_heard.inc();
    }

    pub(super) fn wards(&self, health: impl Iterator<Item = Health>) {
        let counts = super::guard::counted(health);
        for (kind, count) in ["alive", "suspect", "dead"].into_iter().zip(counts) {
            self.wards.get_or_create(&Kind { kind }).set(count);
        }
    }

    pub(super) fn verdict(&self, cause: Cause) {
        let kind = match cause {
            Cause::Closed => "closed",
            Cause::Silent => "silent",
        };
        self.verdicts.get_or_create(&Kind { kind }).inc();
    }
}
