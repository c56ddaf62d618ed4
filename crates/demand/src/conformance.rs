//! The one suite that every demand store passes: DESIGN §3 as programs.
//!
//! A backend implements [`Harness`] and [`Stand`] — an empty store, its clock, a restart, a lost
//! reply — and calls [`run`]. Each case drives the store through its trait only. Everything it
//! does is recorded, and the recording must satisfy [`mutual_model::history`], which knows nothing
//! of the cases.
//!
//! # Adding a case
//! Write an `async fn` that takes a [`World`] in one of the files of `cases`, and
//! name it in that file's list. It must hold for every store, so it may not count on more than
//! DESIGN promises: an operation whose reply was lost may have been done or not.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use mutual_model::history;
use mutual_model::lease::LeaseTerms;

use crate::DemandStore;
use crate::config::StoreConfig;

mod cases;
mod recorder;
pub mod world;

use world::World;

/// Makes stores to be tried.
#[async_trait]
pub trait Harness: Send + Sync {
    /// An empty store, configured as [`config`] says.
    async fn fresh(&self) -> Arc<dyn Stand>;
}

/// A store on trial and the world around it.
#[async_trait]
pub trait Stand: Send + Sync {
    /// The store, as a caller has it now.
    fn store(&self) -> Arc<dyn DemandStore>;

    /// Time in which leases are measured, since some origin.
    fn elapsed(&self) -> Duration;

    /// Lets so much of the store's time pass.
    async fn pass(&self, time: Duration);

    /// Sets the store's wall clock forward without time passing.
    async fn set_clock_forward(&self, by: Duration);

    /// Stops the store as a crash would, and starts it again.
    async fn restart(&self);

    /// Loses the answer to the next call that changes something. It may be carried out or not.
    async fn lose_next_reply(&self);
}

/// The configuration that the cases count on: leases of 2 s, two votes against an agent.
pub fn config() -> StoreConfig {
    StoreConfig {
        terms: LeaseTerms {
            lease_ms: 2_000,
            renew_ms: 500,
        },
        quorum: 2,
        ..StoreConfig::default()
    }
}

/// One case.
type Case = (&'static str, fn(Arc<World>) -> BoxFuture<'static, ()>);

/// What a suite did.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Cases that held.
    pub passed: Vec<&'static str>,
    /// Cases that did not, with what they said.
    pub failed: Vec<(&'static str, String)>,
    /// Calls recorded and judged in all.
    pub observations: usize,
}

/// Runs every case whose name contains `filter` on a store of its own.
pub async fn run(harness: &dyn Harness, filter: &str) -> Report {
    let mut report = Report::default();
    for (name, case) in cases::all().filter(|(name, _)| name.contains(filter)) {
        let world = Arc::new(World::new(harness.fresh().await).await);
        let outcome = AssertUnwindSafe(case(Arc::clone(&world)))
            .catch_unwind()
            .await;
        let judged = history::check(&world.history());
        match (outcome, judged) {
            (Ok(()), Ok(summary)) => {
                report.observations += summary.observations;
                report.passed.push(name);
            }
            (Err(panic), _) => report.failed.push((name, said(panic.as_ref()))),
            (_, Err(violations)) => {
                let said: Vec<_> = violations.iter().map(ToString::to_string).collect();
                report.failed.push((name, said.join("; ")));
            }
        }
    }
    report
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
        .unwrap_or_else(|| "panicked".to_owned())
}
