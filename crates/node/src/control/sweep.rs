//! Queueing again what expired: the sweeper's core, driven by this process's clock.

use std::sync::Arc;
use std::time::Duration;

use mutual_demand::{DemandStore, Principal, RequeueReport};
use mutual_model::requeue::{Action, Event, Pace, Sweeper};
use mutual_model::time::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::counts::{Counts, Recovery};

/// Sweeps `store` for ever, when the store says something may expire, and at once on `alarm`.
/// Any number may run at once: a sweep only does what is due by the store's clock.
pub async fn run(
    store: Arc<dyn DemandStore>,
    who: Principal,
    counts: Counts,
    alarm: Option<Arc<Notify>>,
) {
    let origin = Instant::now();
    let now = || Timestamp::ZERO.after(origin.elapsed());
    let mut sweeper = Sweeper::new(Pace::default(), rand::random());
    let mut event = Event::Tick;
    loop {
        let actions = sweeper.handle(now(), event);
        event = match actions.first() {
            Some(Action::Sweep { limit }) => sweep(&*store, &who, *limit, &counts).await,
            None => wait(&sweeper, now(), alarm.as_deref()).await,
        };
    }
}

async fn sweep(store: &dyn DemandStore, who: &Principal, limit: u32, counts: &Counts) -> Event {
    match store.requeue(who, limit).await {
        Ok(report) => {
            note(&report, counts);
            let changed = report.requeued.len() + report.buried.len() + report.expired.len();
            Event::Swept {
                changed: u32::try_from(changed).unwrap_or(u32::MAX),
                next: Duration::from_millis(report.next_ms),
            }
        }
        Err(error) => {
            tracing::debug!(%error, "a sweep failed");
            Event::Failed
        }
    }
}

fn note(report: &RequeueReport, counts: &Counts) {
    counts.recovered(Recovery::LeaseExpired, report.requeued.len());
    counts.recovered(Recovery::Buried, report.buried.len());
    counts.recovered(Recovery::WaitedTooLong, report.expired.len());
}

/// Longest nap, should the core have nothing to wake for.
const NAP_MAX: Duration = Duration::from_secs(5);

async fn wait(sweeper: &Sweeper, now: Timestamp, alarm: Option<&Notify>) -> Event {
    let nap = sweeper.next_wake().map_or(NAP_MAX, |wake| wake.since(now));
    let sleep = tokio::time::sleep(nap);
    match alarm {
        Some(alarm) => tokio::select! {
            () = alarm.notified() => Event::Alarm,
            () = sleep => Event::Tick,
        },
        None => {
            sleep.await;
            Event::Tick
        }
    }
}
