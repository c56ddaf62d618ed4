//! A demand server with a store in memory, controls in front of it, and a user.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mutual_demand::http::{HttpStore, HttpStoreConfig, StoreKey};
use mutual_demand::memory::MemoryStore;
use mutual_demand::{DemandStore, JobView, Right, StoreConfig};
use mutual_model::identity::{NodeKey, Role};
use mutual_model::ids::JobId;
use mutual_model::job::JobState;
use mutual_model::lease::LeaseTerms;
use mutual_node::auth::{NodeSigner, UserToken, unix_now};
use mutual_node::control::offer::{Alone, Neighbours};
use mutual_node::control::{Control, ControlDeps, Seeding};
use mutual_node::demand_service::{DemandServer, DemandServerConfig, DemandServerDeps, StoreKind};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::auth::fixture::Organisation;

/// Longest wait for anything in these tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const ANY: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

pub(crate) struct Cloud {
    pub(crate) organisation: Organisation,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) demand: DemandServer,
    pub(crate) neighbours: Arc<dyn Neighbours>,
    http: reqwest::Client,
}

/// A control that is served until this is dropped.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Cloud {
    pub(crate) async fn new() -> Self {
        Self::among(Arc::new(Alone)).await
    }

    pub(crate) async fn among(neighbours: Arc<dyn Neighbours>) -> Self {
        Self::with_terms(neighbours, LeaseTerms::default()).await
    }

    pub(crate) async fn with_terms(neighbours: Arc<dyn Neighbours>, terms: LeaseTerms) -> Self {
        let organisation = Organisation::at(1, unix_now());
        let settings = StoreConfig {
            terms,
            ..StoreConfig::default()
        };
        let store = Arc::new(MemoryStore::new(settings, 1).unwrap());
        let config = DemandServerConfig {
            kind: StoreKind::Sqlite("not used".into()),
            listen: ANY.into(),
            liveness: ANY.into(),
            url: None,
            reach: [127, 0, 0, 1].into(),
            quorum: 1,
            terms,
            accept_data_loss: false,
            offers: true,
        };
        let deps = DemandServerDeps {
            gate: organisation.gate(),
            signer: organisation.node(2, &["lab", "other"], &[Role::Demand]),
            key: StoreKey::new(NodeKey::from_seed(&[3; 32])),
            neighbours: neighbours.clone(),
        };
        let demand = DemandServer::serve(store.clone(), config, deps);
        Self {
            demand: demand.await.unwrap(),
            organisation,
            store,
            neighbours,
            http: reqwest::Client::new(),
        }
    }

    pub(crate) fn store_as(&self, signer: &NodeSigner) -> HttpStore {
        let bases = [self.demand.url().to_owned()];
        HttpStore::new(&bases, Arc::new(signer.clone()), HttpStoreConfig::default()).unwrap()
    }

    /// Starts a control in front of the demand server.
    pub(crate) async fn control(&self, seed: u8) -> Served {
        let signer = self
            .organisation
            .node(seed, &["lab", "other"], &[Role::Control]);
        let store = self.store_as(&signer);
        let control = Control::start(ControlDeps {
            gate: self.organisation.gate(),
            signer,
            stores: vec![store],
            neighbours: self.neighbours.clone(),
            seeding: Seeding::default(),
            bootstrap: vec!["127.0.0.1:7000".into()],
            patience: mutual_node::control::PATIENCE_DEFAULT,
        });
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(ANY))
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            axum::serve(listener, control.router()).await.unwrap();
        });
        Served { address, serving }
    }

    pub(crate) fn user(&self) -> UserToken {
        self.organisation
            .user(&["lab"], &[Right::Read, Right::Submit])
    }

    pub(crate) fn request(&self, control: &Served, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("http://{}{path}", control.address))
    }

    /// Asks as the user and reads the answer.
    pub(crate) async fn ask(
        &self,
        control: &Served,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> (StatusCode, Value) {
        let mut request = self
            .request(control, method, path)
            .bearer_auth(self.user().as_str());
        if let Some(body) = body {
            request = request.json(body);
        }
        read(request.send().await.unwrap()).await
    }

    /// Submits a task named `name` as the user.
    pub(crate) async fn submit(&self, control: &Served, name: &str) -> JobId {
        let (status, answer) = self
            .ask(control, Method::POST, "/api/tasks", Some(&task(name)))
            .await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        serde_json::from_value(answer["tasks"][0]["job_id"].clone()).unwrap()
    }

    /// Submits a task named `name` to the demand server itself.
    pub(crate) async fn submit_to(&self, store: &HttpStore, name: &str) -> JobId {
        let submission = serde_json::from_value(task(name)).unwrap();
        let who = self.organisation.principal();
        store.submit(&who, vec![submission]).await.unwrap()[0].job
    }

    /// Waits until the store shows a job as `wanted` would have it.
    pub(crate) async fn wait_for(&self, job: JobId, wanted: impl Fn(&JobView) -> bool) -> JobView {
        let who = self.organisation.principal();
        let mut changes = self.store.changes().unwrap();
        let reached = async {
            loop {
                changes.mark_unchanged();
                let view = self.store.job(&who, job).await.unwrap();
                if wanted(&view) {
                    return view;
                }
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, reached)
            .await
            .expect("the job gets there")
    }

    pub(crate) async fn wait_for_state(&self, job: JobId, state: JobState) -> JobView {
        self.wait_for(job, |view| view.state == state).await
    }
}

pub(crate) async fn read(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (status, value)
}

/// A small task of namespace `lab`.
pub(crate) fn task(name: &str) -> Value {
    json!({
        "namespace": "lab",
        "client_key": name,
        "spec": {
            "name": name,
            "command": ["true"],
            "resources": {"cpu_millis": 500, "memory_bytes": 64 << 20},
            "timeout_ms": 60_000,
            "expires_ms": 600_000,
            "retries": 3,
        },
    })
}
