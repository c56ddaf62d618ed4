//! The HTTP client and service over a memory store, through a proxy that can lose replies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{HeaderValue, header};
use mutual_demand::conformance::{self, Harness, Stand};
use mutual_demand::http::{
    Authenticate, Credentials, HttpStore, HttpStoreConfig, Limits, Refusal, RequestHead, Service,
    StoreKey,
};
use mutual_demand::memory::MemoryStore;
use mutual_demand::*;
use mutual_model::identity::NodeKey;
use mutual_model::ids::JobId;
use mutual_model::time::UnixMillis;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::support::pass;

struct Http;

struct HttpStand {
    clock: Arc<ManualClock>,
    store: Arc<MemoryStore>,
    client: Arc<Sender>,
    is_cut: Arc<AtomicBool>,
}

/// Believes whoever the header says is asking; real credentials are another crate's.
#[derive(Debug)]
struct Trusting;

impl Authenticate for Trusting {
    fn authenticate(&self, head: &RequestHead<'_>) -> Result<Principal, Refusal> {
        let refused = |message: String| Refusal {
            code: "unknown".into(),
            message,
        };
        let header = head.headers.get(header::AUTHORIZATION);
        let header = header.ok_or_else(|| refused("no header".into()))?;
        serde_json::from_slice(header.as_bytes()).map_err(|error| refused(error.to_string()))
    }
}

/// A client that names another principal with each call.
#[derive(Debug)]
struct Sender(HttpStore);

impl Sender {
    fn by(&self, who: &Principal) -> HttpStore {
        let header = HeaderValue::from_str(&serde_json::to_string(who).unwrap()).unwrap();
        self.0
            .with_credentials(Arc::new(header) as Arc<dyn Credentials>)
    }
}

#[async_trait]
impl Harness for Http {
    async fn fresh(&self) -> Arc<dyn Stand> {
        let clock = Arc::new(ManualClock::new(UnixMillis(1_800_000_000_000)));
        let config = StoreConfig {
            clock: clock.clone(),
            ..conformance::config()
        };
        let store = Arc::new(MemoryStore::new(config, 7).unwrap());
        let is_cut = Arc::new(AtomicBool::new(false));
        let served = serve(store.clone()).await;
        let proxy = forward(served, is_cut.clone()).await;
        let nobody = serde_json::json!({
            "subject": "nobody", "node": null, "sealing": "00".repeat(32),
            "namespaces": [], "rights": [],
        });
        let nobody = HeaderValue::from_str(&nobody.to_string()).unwrap();
        let bases = [format!("http://{proxy}")];
        let client = HttpStore::new(&bases, Arc::new(nobody), HttpStoreConfig::default()).unwrap();
        Arc::new(HttpStand {
            clock,
            store,
            client: Arc::new(Sender(client)),
            is_cut,
        })
    }
}

pub(crate) async fn serve(store: Arc<dyn DemandStore>) -> SocketAddr {
    let key = NodeKey::from_seed(&[9; 32]);
    let changes = store.changes();
    let service = Service::new(
        store,
        Arc::new(Trusting),
        Arc::new(StoreKey::new(key.clone())),
        key.public(),
        changes,
        Limits::default(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, service.router()).await });
    address
}

/// Forwards connections; when told to cut, drops one where the server has begun to answer.
async fn forward(to: SocketAddr, is_cut: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let is_cut = is_cut.clone();
            tokio::spawn(async move {
                let server = TcpStream::connect(to).await?;
                pump(client, server, &is_cut).await
            });
        }
    });
    address
}

async fn pump(client: TcpStream, server: TcpStream, is_cut: &AtomicBool) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asked = async {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    let answered = async {
        let mut bytes = vec![0; 64 << 10];
        loop {
            let count = from_server.read(&mut bytes).await?;
            if count == 0 || is_cut.swap(false, Ordering::SeqCst) {
                return Ok(());
            }
            to_client.write_all(&bytes[..count]).await?;
        }
    };
    tokio::select! {
        done = asked => done,
        done = answered => done,
    }
}

#[async_trait]
impl Stand for HttpStand {
    fn store(&self) -> Arc<dyn DemandStore> {
        self.client.clone()
    }
    fn elapsed(&self) -> Duration {
        self.clock.read().monotonic
    }
    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }
    async fn set_clock_forward(&self, by: Duration) {
        self.clock.step_to(self.clock.read().wall.after(by));
    }
    async fn restart(&self) {
        self.store.restart();
    }
    async fn lose_next_reply(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn http_conforms() {
    pass(&Http).await;
}

#[async_trait]
impl DemandStore for Sender {
    async fn info(&self) -> StoreResult<StoreInfo> {
        self.0.info().await
    }
    async fn submit(&self, who: &Principal, tasks: Vec<Submission>) -> StoreResult<Vec<Submitted>> {
        self.by(who).submit(who, tasks).await
    }
    async fn attach_manifest(
        &self,
        who: &Principal,
        job: JobId,
        input: Manifest,
    ) -> StoreResult<JobView> {
        self.by(who).attach_manifest(who, job, input).await
    }
    async fn job(&self, who: &Principal, job: JobId) -> StoreResult<JobView> {
        self.by(who).job(who, job).await
    }
    async fn jobs(&self, who: &Principal, filter: &JobFilter) -> StoreResult<JobPage> {
        self.by(who).jobs(who, filter).await
    }
    async fn cancel(&self, who: &Principal, job: JobId, reason: &str) -> StoreResult<JobView> {
        self.by(who).cancel(who, job, reason).await
    }
    async fn try_claim(&self, who: &Principal, request: ClaimRequest) -> StoreResult<ClaimReply> {
        self.by(who).try_claim(who, request).await
    }
    async fn renew(&self, who: &Principal, request: RenewRequest) -> StoreResult<RenewReply> {
        self.by(who).renew(who, request).await
    }
    async fn checkpoint(&self, who: &Principal, report: CheckpointReport) -> StoreResult<()> {
        self.by(who).checkpoint(who, report).await
    }
    async fn release(&self, who: &Principal, request: ReleaseRequest) -> StoreResult<()> {
        self.by(who).release(who, request).await
    }
    async fn finish(&self, who: &Principal, request: FinishRequest) -> StoreResult<FinishReply> {
        self.by(who).finish(who, request).await
    }
    async fn finish_many(
        &self,
        who: &Principal,
        requests: Vec<FinishRequest>,
    ) -> Vec<StoreResult<FinishReply>> {
        self.by(who).finish_many(who, requests).await
    }
    async fn revoke(
        &self,
        who: &Principal,
        revocation: Revocation,
    ) -> StoreResult<RevocationReply> {
        self.by(who).revoke(who, revocation).await
    }
    async fn requeue(&self, who: &Principal, limit: u32) -> StoreResult<RequeueReport> {
        self.by(who).requeue(who, limit).await
    }
    async fn events(&self, who: &Principal, after: u64, limit: u32) -> StoreResult<EventPage> {
        self.by(who).events(who, after, limit).await
    }
    async fn request_checkpoint(&self, who: &Principal, job: JobId) -> StoreResult<()> {
        self.by(who).request_checkpoint(who, job).await
    }
    async fn new_epoch(&self, who: &Principal) -> StoreResult<u64> {
        self.by(who).new_epoch(who).await
    }
}
