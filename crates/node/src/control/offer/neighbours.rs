//! The way to agents and to the DHT, as offering and announcing see it.

use std::fmt::Debug;
use std::net::SocketAddr;

use async_trait::async_trait;
use mutual_model::identity::{NodeId, PublicKey};
use mutual_model::ids::{ContentId, JobId, Namespace};
use mutual_model::matching::{Need, Offer};
use mutual_model::record::StatusMirror;
use mutual_model::resources::{ResourceClass, Resources};

/// A node as last heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Its key.
    pub node: PublicKey,
    /// Discovery addresses.
    pub udp: Vec<SocketAddr>,
    /// Base URLs of its HTTP interface.
    pub http: Vec<String>,
    /// All that its owner offers.
    pub total: Resources,
    /// What it has to give now; no slots means busy.
    pub offer: Offer,
}

impl Neighbour {
    /// Its id.
    pub fn id(&self) -> NodeId {
        self.node.node_id()
    }
}

/// Something about jobs that others should hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobNotice {
    /// Open jobs of one topic.
    Open {
        /// Class of what they need.
        class: ResourceClass,
        /// How many there are in all.
        open: u32,
        /// Some of them, at most 16.
        jobs: Vec<JobId>,
        /// Where to claim them.
        demand_url: String,
    },
    /// Who serves a job's input.
    Input {
        /// The job.
        job: JobId,
        /// The input's root.
        root: ContentId,
        /// Addresses of peers that serve it.
        seeders: Vec<String>,
    },
    /// Where a job stands, for when every server is down.
    Mirror(StatusMirror),
}

/// What discovery does for servers. Everything is a hint and may fail silently.
#[async_trait]
pub trait Neighbours: Send + Sync + Debug {
    /// Idle agents that may fit, at most `max`.
    async fn idle(&self, namespace: &Namespace, need: &Need, max: usize) -> Vec<Neighbour>;

    /// The nodes of a namespace; of a large cloud only a sample.
    async fn all(&self, namespace: &Namespace) -> Vec<Neighbour>;

    /// Sends an encoded offer over a sealed datagram and waits for the answer; `None` if it does
    /// not fit or nobody answers.
    async fn ask(&self, to: &Neighbour, offer: Vec<u8>) -> Option<Vec<u8>>;

    /// Publishes a notice for a short time.
    async fn publish(&self, namespace: &Namespace, notice: JobNotice);
}

/// No discovery: agents find jobs by asking the demand stores they know.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

#[async_trait]
impl Neighbours for Alone {
    async fn idle(&self, _: &Namespace, _: &Need, _: usize) -> Vec<Neighbour> {
        Vec::new()
    }

    async fn all(&self, _: &Namespace) -> Vec<Neighbour> {
        Vec::new()
    }

    async fn ask(&self, _: &Neighbour, _: Vec<u8>) -> Option<Vec<u8>> {
        None
    }

    async fn publish(&self, _: &Namespace, _: JobNotice) {}
}
