//! REST for people and programs, and what any server does for the jobs it knows of: offering them
//! to idle agents, announcing them, and queueing again what expired.
//!
//! A control keeps nothing. Every request goes on to a demand store under the caller's own token,
//! so a control has no rights that its callers lack, and it can be killed, started or run three
//! times over at any moment. Its own certificate serves for three things only: to follow the
//! stores' events, to sweep up what expired, and to sign offers and log tokens.
//!
//! **Absent on purpose:** payload. Inputs, results and logs travel between peers; this interface
//! says where they are.

mod answers;
mod api;
mod body;
pub mod counts;
pub mod feed;
pub mod offer;
mod problem;
mod stores;
mod stream;
pub mod sweep;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use mutual_demand::http::HttpStore;
use mutual_model::ids::Namespace;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use utoipa::ToSchema;

use crate::auth::{Gate, NodeSigner, principal_of};
use counts::Counts;
use feed::{Feed, Follow, Source};
use offer::{Neighbours, Offerer, Voucher};

pub(crate) use answers::{explanation, known_nodes, log_access, rendered};
pub(crate) use api::TaskId;
pub use api::openapi;
pub use body::{LogAccess, LogStream};
pub(crate) use problem::Problem;

/// What a client needs to know to seed its input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Seeding {
    /// Peers that must vouch for holding an input before the job is queued.
    pub receipts: u32,
    /// Addresses of peers that keep and serve inputs, as multiaddresses.
    pub seeders: Vec<String>,
}

impl Default for Seeding {
    fn default() -> Self {
        Self {
            receipts: 1,
            seeders: Vec::new(),
        }
    }
}

/// What a control is made of.
#[derive(Debug, Clone)]
pub struct ControlDeps {
    /// Checks callers.
    pub gate: Gate,
    /// This node.
    pub signer: NodeSigner,
    /// The demand stores it fronts, the default one first, spoken to as this node.
    pub stores: Vec<HttpStore>,
    /// The way to agents and to the DHT.
    pub neighbours: Arc<dyn Neighbours>,
    /// What submitters are told about seeding.
    pub seeding: Seeding,
    /// Peers through which a client joins the DHT.
    pub bootstrap: Vec<String>,
    /// How long a queued job is left to the demand server's own offers before control offers it.
    pub patience: Duration,
}

/// How long a job may stay queued before control steps in: a demand server that is alive has
/// offered it long before.
pub const PATIENCE_DEFAULT: Duration = Duration::from_millis(250);

/// A running control: its routes, and background tasks that end when it is dropped.
#[derive(Debug)]
pub struct Control {
    router: Router,
    tasks: JoinSet<()>,
}

impl Control {
    /// Starts following the stores and prepares the routes.
    pub fn start(deps: ControlDeps) -> Self {
        let counts = Counts::default();
        let voucher = Voucher::Node(deps.signer.clone());
        let trusted = deps.gate.trusted().to_vec();
        let offerer = Offerer::new(
            voucher,
            trusted,
            Arc::clone(&deps.neighbours),
            counts.clone(),
        );
        let offerer = Arc::new(offerer);
        let mut tasks = JoinSet::new();
        for store in &deps.stores {
            follow(&mut tasks, &deps, store, &offerer, &counts);
        }
        tasks.spawn(Arc::clone(&offerer).keep_roster(namespaces(&deps.signer)));
        let router = api::router(api::Shared::new(deps, offerer, counts));
        Self { router, tasks }
    }

    /// The routes, to be served on any listener.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// How many background tasks are running.
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }
}

fn namespaces(signer: &NodeSigner) -> Vec<Namespace> {
    signer.certificate().membership().namespaces.clone()
}

/// Follows one store: counts what happens, offers what nobody took, sweeps what expired.
fn follow(
    tasks: &mut JoinSet<()>,
    deps: &ControlDeps,
    store: &HttpStore,
    offerer: &Arc<Offerer>,
    counts: &Counts,
) {
    let who = principal_of(deps.signer.certificate());
    let demand_url = store.bases().first().cloned().unwrap_or_default();
    let feed = Feed::new(Source::Remote(store.clone()), who.clone());
    let follow = Follow {
        offerer: Arc::clone(offerer),
        counts: counts.clone(),
        demand_url,
        patience: Some(deps.patience),
    };
    tasks.spawn(feed.clone().run(follow.clone()));
    tasks.spawn(feed.announce(follow));
    tasks.spawn(sweep::run(
        Arc::new(store.clone()),
        who,
        counts.clone(),
        None,
    ));
}
