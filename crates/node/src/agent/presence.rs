//! What an agent tells the DHT. All of it is a hint: nothing waits for it, nothing depends on it.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use mutual_model::ids::{ContentId, JobId, Namespace};
use mutual_model::matching::Offer;
use mutual_model::record::StatusMirror;

/// How long news that may be followed by other news waits: what a short task passes through is
/// told once, and not while the machine starts it.
pub(super) const HINT_PAUSE: Duration = Duration::from_millis(100);

/// A job's state as its holder knows it, for whoever asks while control and store are down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The job's namespace.
    pub namespace: Namespace,
    /// What is said of it. The holder is whoever publishes it.
    pub status: StatusMirror,
}

/// The way to the DHT. Implemented over discovery, and in tests by a list.
#[async_trait]
pub trait Presence: Send + Sync + Debug {
    /// Says what is free from now on; no slots means busy.
    async fn capacity(&self, free: Offer);

    /// Says that this machine serves a job's input from now on.
    async fn provides(&self, namespace: Namespace, job: JobId, root: ContentId);

    /// Says where a job stands.
    async fn mirror(&self, mirror: Mirror);
}
