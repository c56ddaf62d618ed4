//! The same commits through a demand store, straight or over HTTP.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, Method, header};
use mutual_demand::http::{
    Authenticate, Credentials, HttpStore, HttpStoreConfig, Limits, Refusal, RequestHead, Service,
    StoreKey,
};
use mutual_demand::{DemandStore, Principal, StoreError};
use mutual_model::identity::{NodeId, NodeKey, PublicKey, Signature};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::Failure;
use crate::figures::Lane;
use crate::people::Worker;

const CONTEXT: &str = "bench request";

/// Tasks in batches of this size, or one by one, through a store.
pub(crate) fn lane(store: Arc<dyn DemandStore>, worker: Worker, batch: u32) -> Lane {
    let worker = Arc::new(Mutex::new(worker));
    Box::new(move || {
        let (store, worker) = (Arc::clone(&store), Arc::clone(&worker));
        Box::pin(async move {
            let mut worker = worker.lock().await;
            let tasks = (0..batch).map(|_| worker.submission());
            let tasks = tasks.collect::<Result<Vec<_>, _>>()?;
            store.submit(&worker.who, tasks).await?;
            let request = worker.request(batch);
            let grants = store.try_claim(&worker.who, request).await?.grants;
            finish(&*store, &worker, grants.iter().map(|grant| grant.claim)).await
        })
    })
}

async fn finish(
    store: &dyn DemandStore,
    worker: &Worker,
    claims: impl Iterator<Item = mutual_model::lease::Claim>,
) -> Result<u64, Failure> {
    let mut finishes: Vec<_> = claims.map(|claim| worker.success(claim)).collect();
    let mut done = 0;
    if finishes.len() == 1 {
        let only = finishes.remove(0);
        store.finish(&worker.who, only).await?;
        return Ok(1);
    }
    for reply in store.finish_many(&worker.who, finishes).await {
        reply?;
        done += 1;
    }
    Ok(done)
}

/// Serves a store on this machine to these workers; each gets a client of its own.
pub(crate) async fn serve(
    store: Arc<dyn DemandStore>,
    workers: &[Worker],
) -> Result<Vec<Arc<dyn DemandStore>>, Failure> {
    let key = NodeKey::from_seed(&[251; 32]);
    let changes = store.changes();
    let service = Service::new(
        store,
        Arc::new(Gate::new(workers)),
        Arc::new(StoreKey::new(key.clone())),
        key.public(),
        changes,
        Limits::default(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}", listener.local_addr()?);
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        let _ = stream.set_nodelay(true);
    });
    tokio::spawn(async move { axum::serve(listener, service.router()).await });
    let client = |worker: &Worker| -> Result<Arc<dyn DemandStore>, Failure> {
        let credentials = Arc::new(Signer(worker.key.clone()));
        let bases = std::slice::from_ref(&base);
        let client = HttpStore::new(bases, credentials, HttpStoreConfig::default())?;
        Ok(Arc::new(client))
    };
    workers.iter().map(client).collect()
}

/// Signs each request as nodes do: Ed25519 over what is asked.
#[derive(Debug)]
struct Signer(NodeKey);

fn signed_bytes(method: &Method, path: &str, body: &[u8]) -> Vec<u8> {
    let mut message = blake3::hash(body).as_bytes().to_vec();
    message.extend_from_slice(method.as_str().as_bytes());
    message.extend_from_slice(path.as_bytes());
    message
}

impl Credentials for Signer {
    fn authorize(&self, method: &Method, path_and_query: &str, body: &[u8]) -> HeaderValue {
        let message = signed_bytes(method, path_and_query, body);
        let signature = self.0.sign(CONTEXT, &message);
        let text = format!(
            "{} {}",
            hex::encode(self.0.id().0),
            hex::encode(signature.0)
        );
        HeaderValue::from_str(&text).expect("hexadecimal is a valid header value")
    }
}

/// Checks those signatures.
#[derive(Debug)]
struct Gate(HashMap<NodeId, (PublicKey, Principal)>);

impl Gate {
    fn new(workers: &[Worker]) -> Self {
        let known = workers
            .iter()
            .map(|worker| (worker.key.id(), (worker.key.public(), worker.who.clone())));
        Self(known.collect())
    }

    fn sender(&self, headers: &HeaderMap) -> Option<(&(PublicKey, Principal), Signature)> {
        let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (node, signature) = text.split_once(' ')?;
        let (mut id, mut bytes) = ([0; 32], [0; 64]);
        hex::decode_to_slice(node, &mut id).ok()?;
        hex::decode_to_slice(signature, &mut bytes).ok()?;
        Some((self.0.get(&NodeId(id))?, Signature(bytes)))
    }
}

impl Authenticate for Gate {
    fn authenticate(&self, head: &RequestHead<'_>) -> Result<Principal, Refusal> {
        let refused = || Refusal {
            code: "unknown".into(),
            message: StoreError::Forbidden("no worker of this bench".into()).to_string(),
        };
        let ((key, who), signature) = self.sender(head.headers).ok_or_else(refused)?;
        let message = signed_bytes(head.method, head.path_and_query, head.body);
        key.verify(CONTEXT, &message, &signature)
            .map_err(|_| refused())?;
        Ok(who.clone())
    }
}
