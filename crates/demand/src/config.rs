//! How a store is set up.

use std::sync::Arc;

use mutual_model::job::FieldError;
use mutual_model::lease::LeaseTerms;

use crate::clock::{Clock, SystemClock};

/// What an owner decides about a store.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Length of leases and how often they are renewed.
    pub terms: LeaseTerms,
    /// How many different guardians must agree before an incarnation is declared dead by votes.
    pub quorum: u32,
    /// PostgreSQL only: go on with a set of servers that may lose acknowledged commits.
    pub accept_data_loss: bool,
    /// SQLite only: where time comes from. PostgreSQL has its own clock.
    pub clock: Arc<dyn Clock>,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            terms: LeaseTerms::default(),
            quorum: 1,
            accept_data_loss: false,
            clock: Arc::new(SystemClock::default()),
        }
    }
}

impl StoreConfig {
    /// Checks that renewals fit into a lease and that someone may vote.
    ///
    /// # Errors
    /// [`FieldError`] names the first field that is out of bounds.
    pub fn check(&self) -> Result<(), FieldError> {
        let LeaseTerms { lease_ms, renew_ms } = self.terms;
        if lease_ms == 0 || lease_ms > LEASE_MS_MAX {
            return Err(FieldError::new(
                "lease_ms",
                format!("{lease_ms} ms is out of range"),
                format!("give 1 to {LEASE_MS_MAX} ms"),
            ));
        }
        if renew_ms == 0 || renew_ms > lease_ms / 2 {
            return Err(FieldError::new(
                "renew_ms",
                format!("{renew_ms} ms does not fit twice into a lease of {lease_ms} ms"),
                "renew at least twice in a lease",
            ));
        }
        if self.quorum == 0 {
            return Err(FieldError::new("quorum", "0", "give at least 1"));
        }
        Ok(())
    }
}

/// One day; a longer lease would keep a dead machine's tasks for longer than people wait.
const LEASE_MS_MAX: u64 = 24 * 3_600_000;
