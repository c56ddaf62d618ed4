//! What a server counts, for Prometheus. Names carry units (DESIGN §12).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mutual_demand::{JobEvent, Reason};
use mutual_model::ids::JobId;
use mutual_model::job::JobState;
use mutual_model::time::UnixMillis;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Jobs whose last change is remembered, to measure how long states last.
const JOBS_MAX: usize = 50_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: StateLabel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct StateLabel(JobState);

impl EncodeLabelValue for StateLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.name().encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRoute {
    method: String,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByAnswer {
    answer: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPhase {
    phase: &'static str,
}

/// How a sweep or a verdict changed jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Queued again because a lease expired.
    LeaseExpired,
    /// Queued again because the holder was declared dead.
    Revoked,
    /// Ended because its retries were used up.
    Buried,
    /// Ended because it waited too long.
    WaitedTooLong,
}

impl Recovery {
    const fn name(self) -> &'static str {
        match self {
            Self::LeaseExpired => "lease_expired",
            Self::Revoked => "revoked",
            Self::Buried => "buried",
            Self::WaitedTooLong => "waited_too_long",
        }
    }
}

/// Where a job was last seen, to measure what follows.
#[derive(Debug, Clone, Copy)]
struct Seen {
    state: JobState,
    at: UnixMillis,
    is_recovered: bool,
}

/// Counters and histograms of one process. Clones count together.
#[derive(Debug, Clone)]
pub struct Counts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    transitions: Family<ByState, Counter>,
    requests: Family<ByRoute, Counter>,
    request_time: Histogram,
    offers: Family<ByAnswer, Counter>,
    recoveries: Family<ByPhase, Counter>,
    phases: Family<ByPhase, Histogram, fn() -> Histogram>,
    detection: Histogram,
    seen: Mutex<BTreeMap<JobId, Seen>>,
}

fn times() -> Histogram {
    // 1 ms to about 9 hours in steps of two.
    Histogram::new(exponential_buckets(0.001, 2.0, 26))
}

fn short_times() -> Histogram {
    // 100 µs to 13 s in steps of two.
    Histogram::new(exponential_buckets(0.000_1, 2.0, 18))
}

impl Default for Counts {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("mutual");
        let inner = Inner {
            transitions: Family::default(),
            requests: Family::default(),
            request_time: short_times(),
            offers: Family::default(),
            recoveries: Family::default(),
            phases: Family::new_with_constructor(times),
            detection: short_times(),
            seen: Mutex::default(),
            registry: Registry::default(),
        };
        inner.register(&mut registry);
        Self(Arc::new(Inner { registry, ..inner }))
    }
}

impl Inner {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "job_transitions",
            "Jobs that entered a state",
            self.transitions.clone(),
        );
        registry.register(
            "http_requests",
            "HTTP requests answered",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "http_request",
            "Time to answer an HTTP request",
            Unit::Seconds,
            self.request_time.clone(),
        );
        registry.register(
            "offers",
            "Jobs offered to agents, by answer",
            self.offers.clone(),
        );
        registry.register(
            "recoveries",
            "Jobs taken from lost holders or given up, by reason",
            self.recoveries.clone(),
        );
        registry.register_with_unit(
            "job_phase",
            "Time a job spent waiting in the queue, assigned, preparing, running, or recovering",
            Unit::Seconds,
            self.phases.clone(),
        );
        registry.register_with_unit(
            "death_detection",
            "Time from the end of an agent's session to its verdict",
            Unit::Seconds,
            self.detection.clone(),
        );
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl Counts {
    /// Everything, in the OpenMetrics text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.0.registry) {
            tracing::error!(%error, "cannot encode metrics");
        }
        text
    }

    /// Jobs were offered.
    pub fn offers_sent(&self, jobs: usize) {
        self.offers("sent", jobs);
    }

    /// Agents said that they go to claim jobs.
    pub fn offers_accepted(&self, jobs: usize) {
        self.offers("accepted", jobs);
    }

    /// Agents left jobs, or did not answer.
    pub fn offers_declined(&self, jobs: usize) {
        self.offers("declined", jobs);
    }

    fn offers(&self, answer: &'static str, jobs: usize) {
        let counter = self.0.offers.get_or_create(&ByAnswer { answer });
        counter.inc_by(count(jobs));
    }

    /// Jobs were recovered or given up.
    pub fn recovered(&self, how: Recovery, jobs: usize) {
        let phase = how.name();
        let counter = self.0.recoveries.get_or_create(&ByPhase { phase });
        counter.inc_by(count(jobs));
    }

    /// An agent's death was established.
    pub fn death_detected(&self, after: Duration) {
        self.0.detection.observe(after.as_secs_f64());
    }

    /// A request was answered.
    pub fn answered(&self, method: &str, route: &str, status: u16, took: Duration) {
        let labels = ByRoute {
            method: method.to_owned(),
            route: route.to_owned(),
            status,
        };
        self.0.requests.get_or_create(&labels).inc();
        self.0.request_time.observe(took.as_secs_f64());
    }

    /// A job changed its state.
    pub fn saw(&self, event: &JobEvent) {
        let state = StateLabel(event.state);
        self.0.transitions.get_or_create(&ByState { state }).inc();
        let mut seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.remove(&event.job);
        if let Some(before) = before {
            self.observe(before, event);
        }
        if event.state.is_terminal() {
            return;
        }
        let is_recovered = event.reason == Some(Reason::HolderLost)
            || before.is_some_and(|before| before.is_recovered && before.state == JobState::Queued);
        let now = Seen {
            state: event.state,
            at: event.at,
            is_recovered,
        };
        seen.insert(event.job, now);
        if seen.len() > JOBS_MAX {
            seen.pop_first();
        }
    }

    fn observe(&self, before: Seen, event: &JobEvent) {
        let lasted = event.at.since(before.at).as_secs_f64();
        let observe = |phase| {
            let histogram = self.0.phases.get_or_create(&ByPhase { phase });
            histogram.observe(lasted);
        };
        match before.state {
            JobState::AwaitingInput => observe("awaiting_input"),
            JobState::Queued => observe("queued"),
            JobState::Assigned => observe("assigned"),
            JobState::Preparing => observe("preparing"),
            JobState::Running => observe("running"),
            _ => {}
        }
        let is_claim = before.state == JobState::Queued && event.state == JobState::Assigned;
        if is_claim && before.is_recovered {
            observe("recovering");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: u64, state: JobState, reason: Option<Reason>) -> JobEvent {
        JobEvent {
            sequence: at,
            at: UnixMillis(at),
            job: JobId::new(UnixMillis(1), [0; 10]),
            namespace: "lab".parse().unwrap(),
            state,
            claim: None,
            agent: None,
            reason,
        }
    }

    #[test]
    fn states_and_their_lengths_are_counted_with_units() {
        let counts = Counts::default();
        counts.saw(&event(1_000, JobState::Queued, None));
        counts.saw(&event(1_500, JobState::Assigned, None));
        counts.saw(&event(1_600, JobState::Queued, Some(Reason::HolderLost)));
        counts.saw(&event(1_700, JobState::Assigned, None));
        counts.recovered(Recovery::Revoked, 1);
        let text = counts.render();
        for line in [
            "mutual_job_transitions_total{state=\"queued\"} 2",
            "mutual_job_phase_seconds_sum{phase=\"queued\"} 0.6",
            "mutual_job_phase_seconds_count{phase=\"recovering\"} 1",
            "mutual_recoveries_total{phase=\"revoked\"} 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
