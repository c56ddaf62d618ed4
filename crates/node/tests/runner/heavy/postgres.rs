//! Two demand servers over one PostgreSQL: one of them dies, then the database does, and nothing that was acknowledged
//! is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use mutual_demand::http::{Credentials, HttpStore, HttpStoreConfig, StoreKey};
use mutual_demand::{
    ClaimRequest, ClaimScope, DemandStore, FinishReply, FinishRequest, Metrics, Offer, Outcome,
    Principal, ResultView, Right, StoreError, StoreResult, Submission,
};
use mutual_model::identity::{NodeKey, Role};
use mutual_model::ids::{Incarnation, JobId, Nonce};
use mutual_model::job::{IsolationClass, JobState, TaskSpec};
use mutual_model::lease::{Claim, LeaseTerms};
use mutual_model::resources::Resources;
use mutual_node::auth::{NodeSigner, unix_now};
use mutual_node::control::offer::Alone;
use mutual_node::demand_service::{DemandServer, DemandServerConfig, DemandServerDeps, StoreKind};

use super::postgres_server::{PostgresServer, programs_for_tests};
use crate::auth::fixture::Organisation;

/// Longest wait for anything here; a database that crashed replays its log first.
const PATIENCE: Duration = Duration::from_secs(60);
const ANY: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

/// A demand server in threads of its own, so that it can be taken away with all its connections.
struct Server {
    runtime: Option<tokio::runtime::Runtime>,
    url: String,
    _demand: DemandServer,
}

impl Drop for Server {
    /// Takes it away at once, as a kill would.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Server {
    /// Starts the demand role as a node runs it, over the database at `database`.
    async fn start(organisation: &Organisation, seed: u8, database: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let config = DemandServerConfig {
            kind: StoreKind::Postgres(database.to_owned()),
            listen: ANY.into(),
            liveness: ANY.into(),
            url: None,
            reach: [127, 0, 0, 1].into(),
            quorum: 1,
            terms: LeaseTerms::default(),
            accept_data_loss: false,
            offers: true,
        };
        let deps = DemandServerDeps {
            gate: organisation.gate(),
            signer: organisation.node(seed, &["lab"], &[Role::Demand]),
            key: StoreKey::new(NodeKey::from_seed(&[3; 32])),
            neighbours: Arc::new(Alone),
        };
        let starting = runtime.spawn(DemandServer::start(config, deps));
        let demand = starting.await.unwrap().unwrap();
        Self {
            url: demand.url().to_owned(),
            _demand: demand,
            runtime: Some(runtime),
        }
    }
}

/// A user and an agent that reach the store through several servers.
struct People {
    user: HttpStore,
    agent: HttpStore,
    signer: NodeSigner,
    /// Ignored by clients; the servers believe only the credentials.
    anyone: Principal,
}

impl People {
    fn new(organisation: &Organisation, servers: &[&Server]) -> Self {
        let bases: Vec<String> = servers.iter().map(|server| server.url.clone()).collect();
        let token = organisation.user(&["lab"], &[Right::Read, Right::Submit]);
        let bearer = HeaderValue::from_str(&format!("Bearer {}", token.as_str())).unwrap();
        let signer = organisation.node(20, &["lab"], &[Role::Agent]);
        let through = |credentials: Arc<dyn Credentials>, bases: &[String]| {
            HttpStore::new(bases, credentials, HttpStoreConfig::default()).unwrap()
        };
        let backwards: Vec<String> = bases.iter().rev().cloned().collect();
        Self {
            user: through(Arc::new(bearer), &bases),
            agent: through(Arc::new(signer.clone()), &backwards),
            signer,
            anyone: organisation.principal(),
        }
    }

    async fn submit(&self, key: &str) -> StoreResult<JobId> {
        let stored = self.user.submit(&self.anyone, vec![submission(key)]).await;
        stored.map(|stored| stored[0].job)
    }

    async fn claim(&self, jobs: &[JobId]) -> Vec<Claim> {
        let request = ClaimRequest {
            incarnation: Incarnation::new(unix_now(), [1; 10]),
            nonce: Nonce(rand::random()),
            scope: ClaimScope::Jobs(jobs.to_vec()),
            offer: Offer {
                free: Resources {
                    cpu_millis: 100_000,
                    memory_bytes: 1 << 40,
                    ..Resources::ZERO
                },
                slots: 64,
                classes: IsolationClass::ALL.to_vec(),
                labels: BTreeMap::new(),
            },
            agent_url: "http://192.0.2.1:7000".into(),
        };
        let reply = self.agent.try_claim(&self.anyone, request).await.unwrap();
        reply.grants.iter().map(|grant| grant.claim).collect()
    }

    async fn finish(&self, claim: Claim) -> StoreResult<FinishReply> {
        self.agent.finish(&self.anyone, success(claim)).await
    }

    async fn check_succeeded(&self, claims: &[Claim]) {
        for claim in claims {
            let view = self.user.job(&self.anyone, claim.job).await.unwrap();
            assert_eq!(view.state, JobState::Succeeded, "{}", claim.job);
            assert_eq!(view.result, Some(success(*claim).result));
            let holder = view.attempts[0].holder.agent;
            assert_eq!((view.attempts.len(), holder), (1, self.signer.key().id()));
        }
    }
}

fn submission(key: &str) -> Submission {
    let need = Resources {
        cpu_millis: 100,
        memory_bytes: 16 << 20,
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

fn success(claim: Claim) -> FinishRequest {
    FinishRequest {
        claim,
        outcome: Outcome::Success,
        result: ResultView {
            output: None,
            artifacts: Vec::new(),
            log: None,
            metrics: Metrics {
                running_ms: claim.fence.sequence,
                ..Metrics::default()
            },
        },
    }
}

/// Repeats a call until its outcome is known, as every client of a store does.
async fn settled<T, F>(mut call: impl FnMut() -> F) -> T
where
    F: Future<Output = StoreResult<T>>,
{
    let began = Instant::now();
    loop {
        match call().await {
            Ok(value) => return value,
            Err(error) if error.is_retryable() && began.elapsed() < PATIENCE => {
                // may sleep: polls for the event, with a bound
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => panic!("not settled: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_work_survives_a_server_and_the_database() {
    let Some(bin) = programs_for_tests() else {
        return;
    };
    let mut postgres = PostgresServer::start(&bin, &[]).unwrap();
    let database = postgres.database("store").unwrap();
    let organisation = Organisation::at(1, unix_now());
    let first = Server::start(&organisation, 2, &database).await;
    let second = Server::start(&organisation, 4, &database).await;
    let people = People::new(&organisation, &[&first, &second]);
    let jobs = [
        people.submit("a").await.unwrap(),
        people.submit("b").await.unwrap(),
        people.submit("c").await.unwrap(),
    ];
    // Submitted through the first server, claimed through the second, finished through the survivor.
    let claims = people.claim(&jobs).await;
    assert_eq!(claims.len(), 3);
    drop(second);
    let reply = people.finish(claims[0]).await.unwrap();
    let (acknowledged, open) = crash_while_submitting(&people, &mut postgres).await;
    // The claims of before the crash still stand, under the same fences.
    let held = settled(|| people.finish(claims[1])).await;
    assert_eq!(held.state, JobState::Succeeded);
    assert_eq!(settled(|| people.finish(claims[0])).await, reply);
    settled(|| people.finish(claims[2])).await;
    people.check_succeeded(&claims).await;
    for (key, job) in &acknowledged {
        assert_eq!(
            people.submit(key).await.unwrap(),
            *job,
            "{key} is still there"
        );
    }
    // Whatever became of the unanswered ones, a repeat settles it, and for good.
    for key in open {
        let job = settled(|| people.submit(&key)).await;
        assert_eq!(people.submit(&key).await.unwrap(), job, "{key} is one job");
    }
}

/// Kills the database in the middle of a stream of submissions and starts it again. Returns what was acknowledged and
/// what was not.
async fn crash_while_submitting(
    people: &People,
    postgres: &mut PostgresServer,
) -> (BTreeMap<String, JobId>, Vec<String>) {
    const BEFORE: usize = 20;
    let (mut acknowledged, mut open) = (BTreeMap::new(), Vec::new());
    let batch = |from: usize| {
        let keys = (from..from + 8).map(|number| format!("stream-{number}"));
        futures::future::join_all(keys.map(async |key| {
            let outcome = people.submit(&key).await;
            (key, outcome)
        }))
    };
    let mut note = |outcomes: Vec<(String, StoreResult<JobId>)>| {
        for (key, outcome) in outcomes {
            match outcome {
                Ok(job) => drop(acknowledged.insert(key, job)),
                Err(error) => {
                    assert!(error.is_retryable(), "{key}: {error}");
                    open.push(key);
                }
            }
        }
    };
    for from in (0..BEFORE).step_by(8) {
        note(batch(from).await);
    }
    // These are under way when the database dies.
    let (outcomes, killed) = tokio::join!(batch(100), async {
        tokio::task::block_in_place(|| postgres.kill())
    });
    killed.unwrap();
    note(outcomes);
    note(batch(200).await);
    tokio::task::block_in_place(|| postgres.start_again()).unwrap();
    assert!(acknowledged.len() >= BEFORE, "{acknowledged:?}");
    assert!(
        open.len() >= 8,
        "nothing is acknowledged without a database"
    );
    (acknowledged, open)
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_different_databases_are_told_apart() {
    let Some(bin) = programs_for_tests() else {
        return;
    };
    let postgres = PostgresServer::start(&bin, &[]).unwrap();
    let organisation = Organisation::at(1, unix_now());
    let ours = Server::start(&organisation, 2, &postgres.database("ours").unwrap()).await;
    let theirs = Server::start(&organisation, 4, &postgres.database("theirs").unwrap()).await;
    let people = People::new(&organisation, &[&ours, &theirs]);
    people.submit("a").await.unwrap();
    drop(ours);
    let refused = people.submit("b").await;
    let is_honest = matches!(
        refused,
        Err(StoreError::Unavailable(_) | StoreError::Unknown(_))
    );
    assert!(is_honest, "{refused:?}");
    let stored = postgres.sql("theirs", "SELECT count(*) FROM jobs").unwrap();
    assert_eq!(stored.trim(), "0");
}
