//! Agents without containers: they answer offers, claim, and keep liveness sessions.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use mutual_demand::http::HttpStore;
use mutual_demand::{ClaimReply, ClaimRequest, ClaimScope, DemandStore};
use mutual_model::identity::PublicKey;
use mutual_model::ids::{Incarnation, JobId, Namespace, Nonce};
use mutual_model::job::IsolationClass;
use mutual_model::matching::{Need, Offer};
use mutual_model::resources::Resources;
use mutual_node::auth::{JobOffer, JobOfferReply, NodeSigner, principal_of, unix_now};
use mutual_node::control::offer::{JobNotice, Neighbour, Neighbours};
use std::sync::Mutex;
use tokio::sync::watch;

const SIZE: Resources = Resources {
    cpu_millis: 4_000,
    memory_bytes: 4 << 30,
    gpus: 0,
    scratch_bytes: 0,
};

pub(crate) fn capacity(slots: u32) -> Offer {
    Offer {
        free: SIZE,
        slots,
        classes: vec![IsolationClass::Container],
        labels: BTreeMap::new(),
    }
}

pub(crate) fn incarnation() -> Incarnation {
    Incarnation::new(unix_now(), rand::random())
}

pub(crate) async fn claim(
    store: &HttpStore,
    signer: &NodeSigner,
    incarnation: Incarnation,
    scope: ClaimScope,
    agent_url: &str,
) -> ClaimReply {
    let request = ClaimRequest {
        incarnation,
        nonce: Nonce(rand::random()),
        scope,
        offer: capacity(4),
        agent_url: agent_url.to_owned(),
    };
    let who = principal_of(signer.certificate());
    store.try_claim(&who, request).await.unwrap()
}

/// Nodes that are simply known, and everything published through them.
#[derive(Debug)]
pub(crate) struct Listed {
    nodes: Mutex<Vec<Neighbour>>,
    pub(crate) published: watch::Sender<Vec<JobNotice>>,
}

impl Default for Listed {
    fn default() -> Self {
        Self {
            nodes: Mutex::default(),
            published: watch::Sender::new(Vec::new()),
        }
    }
}

impl Listed {
    pub(crate) fn add(&self, neighbour: Neighbour) {
        self.nodes.lock().unwrap().push(neighbour);
    }

    pub(crate) fn forget_all(&self) {
        self.nodes.lock().unwrap().clear();
    }
}

#[async_trait::async_trait]
impl Neighbours for Listed {
    async fn idle(&self, _: &Namespace, _: &Need, _: usize) -> Vec<Neighbour> {
        self.nodes.lock().unwrap().clone()
    }

    async fn all(&self, _: &Namespace) -> Vec<Neighbour> {
        self.nodes.lock().unwrap().clone()
    }

    async fn ask(&self, _: &Neighbour, _: Vec<u8>) -> Option<Vec<u8>> {
        None
    }

    async fn publish(&self, _: &Namespace, notice: JobNotice) {
        self.published.send_modify(|notices| notices.push(notice));
    }
}

/// What an agent does with offers.
#[derive(Debug, Clone)]
pub(crate) struct Taker {
    pub(crate) signer: NodeSigner,
    pub(crate) trusted: [PublicKey; 1],
    pub(crate) store: HttpStore,
    /// Why it declines everything, if it does.
    pub(crate) declines: Option<String>,
}

impl Taker {
    /// Serves offers over HTTP; returns the agent as others hear of it.
    pub(crate) async fn serve(self, slots: u32) -> Neighbour {
        let node = self.signer.key().public();
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = tokio::net::TcpListener::bind(local).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/v1/offer", post(answer))
            .with_state(Arc::new(self));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Neighbour {
            node,
            udp: vec![],
            http: vec![url],
            total: SIZE,
            offer: capacity(slots),
        }
    }

    fn reply(&self, offer: &JobOffer) -> JobOfferReply {
        let accepts = self.declines.is_none();
        let accepted: Vec<JobId> = if accepts { offer.jobs.clone() } else { vec![] };
        JobOfferReply {
            nonce: offer.nonce,
            accepted,
            declined: self.declines.clone(),
        }
    }
}

async fn answer(State(taker): State<Arc<Taker>>, body: Bytes) -> Result<Vec<u8>, StatusCode> {
    let here = taker.signer.key().id();
    let offer = JobOffer::verify(&body, &here, &taker.trusted, unix_now());
    let (offer, _) = offer.map_err(|_| StatusCode::FORBIDDEN)?;
    let reply = taker.reply(&offer);
    if !reply.accepted.is_empty() {
        let scope = ClaimScope::Jobs(reply.accepted.clone());
        let url = "http://127.0.0.1:9";
        claim(&taker.store, &taker.signer, incarnation(), scope, url).await;
    }
    Ok(reply.sign(&taker.signer))
}
