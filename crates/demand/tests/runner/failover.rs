//! A client with several addresses, some of which go away or lead elsewhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use mutual_demand::http::{HttpStore, HttpStoreConfig};
use mutual_demand::memory::MemoryStore;
use mutual_demand::*;
use mutual_model::identity::NodeKey;
use mutual_model::ids::{Incarnation, Nonce};
use mutual_model::job::{IsolationClass, TaskSpec};
use mutual_model::resources::Resources;
use mutual_model::time::UnixMillis;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::http::serve;
use super::support::Deaf;

/// A worker of namespace `lab` with every right.
pub(crate) fn worker() -> Principal {
    let key = NodeKey::from_seed(&[1; 32]);
    Principal {
        subject: "worker".into(),
        node: Some(key.id()),
        sealing: key.sealing_public(),
        namespaces: vec!["lab".parse().unwrap()],
        rights: vec![Right::Read, Right::Submit, Right::Work, Right::Operate],
    }
}

pub(crate) fn memory(seed: u64) -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(StoreConfig::default(), seed).unwrap())
}

pub(crate) fn submission(key: &str) -> Submission {
    let need = Resources {
        cpu_millis: 1_000,
        memory_bytes: 64 << 20,
        ..Resources::ZERO
    };
    Submission {
        namespace: "lab".parse().unwrap(),
        client_key: key.parse().unwrap(),
        spec: TaskSpec {
            result_copies: 0,
            ..TaskSpec::new(vec!["true".into()], need)
        },
        result_key: None,
        input: None,
    }
}

pub(crate) fn claim_request() -> ClaimRequest {
    ClaimRequest {
        incarnation: Incarnation::new(UnixMillis(1), [1; 10]),
        nonce: Nonce([1; 16]),
        scope: ClaimScope::Any,
        offer: Offer {
            free: Resources {
                cpu_millis: 8_000,
                memory_bytes: 1 << 40,
                ..Resources::ZERO
            },
            slots: 8,
            classes: IsolationClass::ALL.to_vec(),
            labels: std::collections::BTreeMap::new(),
        },
        agent_url: "http://192.0.2.1:7000".into(),
    }
}

/// A way to a server that can be shut, connections and all.
struct Door {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Door {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                open.spawn(async move {
                    let mut server = TcpStream::connect(server).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Self { address, serving }
    }

    async fn shut(self) {
        self.serving.abort();
        let _ = self.serving.await;
    }

    fn base(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn client(bases: &[String]) -> HttpStore {
    let header = HeaderValue::from_str(&serde_json::to_string(&worker()).unwrap()).unwrap();
    HttpStore::new(bases, Arc::new(header), HttpStoreConfig::default()).unwrap()
}

#[tokio::test]
async fn another_server_of_the_same_store_takes_over() {
    let (who, store) = (worker(), memory(1));
    let (one, two) = (serve(store.clone()).await, serve(store.clone()).await);
    let (one, two) = (Door::to(one).await, Door::to(two).await);
    let client = client(&[one.base(), two.base()]);
    let first = client.submit(&who, vec![submission("a")]).await.unwrap();
    one.shut().await;
    let again = client.submit(&who, vec![submission("a")]).await.unwrap();
    assert_eq!((again[0].job, again[0].repeated), (first[0].job, true));
    client.submit(&who, vec![submission("b")]).await.unwrap();
    let jobs = store.jobs(&who, &JobFilter::default()).await.unwrap().jobs;
    assert_eq!(jobs.len(), 2);
    two.shut().await;
    let refused = client.submit(&who, vec![submission("c")]).await;
    assert!(
        refused.as_ref().is_err_and(StoreError::is_retryable),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_server_of_another_store_is_never_used() {
    let (who, right, wrong) = (worker(), memory(1), memory(2));
    let one = Door::to(serve(right.clone()).await).await;
    let other = Door::to(serve(wrong.clone()).await).await;
    let client = client(&[one.base(), other.base()]);
    let first = client.submit(&who, vec![submission("a")]).await.unwrap();
    one.shut().await;
    for refused in [
        client.submit(&who, vec![submission("b")]).await.err(),
        client.job(&who, first[0].job).await.err(),
        client.info().await.err(),
    ] {
        let refused = refused.expect("the other server serves another store");
        assert!(refused.is_retryable(), "{refused:?}");
        let said = refused.to_string();
        let names_it = said.contains(&other.base()) && said.contains("another demand store");
        let last_tried_the_dead = said.contains("onnection refused");
        assert!(names_it || last_tried_the_dead, "{said}");
    }
    let (wrong_id, right_id) = (
        wrong.info().await.unwrap().store,
        right.info().await.unwrap().store,
    );
    assert_ne!(wrong_id, right_id);
    let stored = wrong.jobs(&who, &JobFilter::default()).await.unwrap().jobs;
    assert!(stored.is_empty(), "nothing was written there");
}

/// A client of a memory store whose answer to the next change is replaced by `says`.
async fn deaf(says: StoreError) -> (HttpStore, Arc<AtomicBool>) {
    let is_lost = Arc::new(AtomicBool::new(false));
    let store = Deaf {
        says,
        ..Deaf::new(memory(1), is_lost.clone())
    };
    let address = serve(Arc::new(store)).await;
    (client(&[format!("http://{address}")]), is_lost)
}

#[tokio::test]
async fn a_release_is_repeated_until_it_is_answered() {
    let who = worker();
    for says in [
        StoreError::Unknown("cut off".into()),
        StoreError::Unavailable("away".into()),
        StoreError::Overloaded { retry_after_ms: 1 },
    ] {
        let (client, is_lost) = deaf(says).await;
        client.submit(&who, vec![submission("a")]).await.unwrap();
        let claimed = client.try_claim(&who, claim_request()).await.unwrap();
        is_lost.store(true, Ordering::SeqCst);
        let claim = claimed.grants[0].claim;
        let reason = "too warm here".to_owned();
        let released = client.release(&who, ReleaseRequest { claim, reason });
        assert_eq!(released.await, Ok(()));
        assert!(!is_lost.load(Ordering::SeqCst), "the first answer was lost");
    }
}

#[tokio::test]
async fn what_a_repeat_could_double_is_repeated_only_if_nothing_was_changed() {
    let who = worker();
    let (client, is_lost) = deaf(StoreError::Unknown("cut off".into())).await;
    is_lost.store(true, Ordering::SeqCst);
    let renewal = RenewRequest {
        incarnation: claim_request().incarnation,
        held: Vec::new(),
        complete: true,
    };
    let outcome = client.renew(&who, renewal.clone()).await;
    assert!(
        matches!(outcome, Err(StoreError::Unknown(_))),
        "{outcome:?}"
    );
    let (client, is_lost) = deaf(StoreError::Overloaded { retry_after_ms: 1 }).await;
    is_lost.store(true, Ordering::SeqCst);
    assert!(client.renew(&who, renewal).await.is_ok());
}

#[tokio::test]
async fn tries_end_within_their_bound() {
    let header = HeaderValue::from_static("nobody");
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let config = HttpStoreConfig {
        tries: 1_000,
        patience: Duration::from_millis(300),
        ..HttpStoreConfig::default()
    };
    let client = HttpStore::new(&[base], Arc::new(header), config).unwrap();
    let began = Instant::now();
    let outcome = client.info().await;
    assert!(
        matches!(outcome, Err(StoreError::Unavailable(_))),
        "{outcome:?}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}
