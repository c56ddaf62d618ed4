//! The PostgreSQL store on a real server that the test starts, through a proxy that can lose the
//! answer to a commit.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mutual_demand::conformance::{self, Harness, Stand};
use mutual_demand::postgres::PostgresStore;
use mutual_demand::{DemandStore, StoreConfig, StoreError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::runner::failover::{submission, worker};
use crate::runner::postgres_server::{PostgresServer, free_port, programs_for_tests};
use crate::runner::support::pass;

/// A server of this test alone, and how many databases it has.
struct Server {
    postgres: PostgresServer,
    databases: AtomicU32,
}

impl Server {
    /// Starts a server; `None` if the tests are to do without.
    fn start(settings: &[&str]) -> Option<Self> {
        let bin = programs_for_tests()?;
        Some(Self {
            postgres: PostgresServer::start(&bin, settings).unwrap(),
            databases: AtomicU32::new(0),
        })
    }

    /// The name of a new, empty database.
    fn database(&self) -> String {
        let name = format!("store_{}", self.databases.fetch_add(1, Ordering::SeqCst));
        self.postgres.database(&name).unwrap();
        name
    }
}

struct Postgres(Arc<Server>);

struct PostgresStand {
    server: Arc<Server>,
    database: String,
    proxy: SocketAddr,
    origin: Instant,
    store: Mutex<Arc<PostgresStore>>,
    is_cut: Arc<AtomicBool>,
}

#[async_trait]
impl Harness for Postgres {
    async fn fresh(&self) -> Arc<dyn Stand> {
        let database = self.0.database();
        let is_cut = Arc::new(AtomicBool::new(false));
        let proxy = forward(self.0.postgres.port(), is_cut.clone()).await;
        let url = self.0.postgres.url_through(proxy.port(), &database);
        let store = PostgresStore::connect(&url, conformance::config())
            .await
            .unwrap();
        Arc::new(PostgresStand {
            server: self.0.clone(),
            database,
            proxy,
            origin: Instant::now(),
            store: Mutex::new(Arc::new(store)),
            is_cut,
        })
    }
}

/// Forwards connections; when told to cut, drops one whose commit the server has answered.
async fn forward(port: u16, is_cut: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let is_cut = is_cut.clone();
            tokio::spawn(async move {
                let server = TcpStream::connect(("127.0.0.1", port)).await?;
                pump(client, server, &is_cut).await
            });
        }
    });
    address
}

async fn pump(client: TcpStream, server: TcpStream, is_cut: &AtomicBool) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let is_committing = AtomicBool::new(false);
    let asked = async {
        let mut is_within = false;
        let mut bytes = vec![0; 64 << 10];
        loop {
            let count = from_client.read(&mut bytes).await?;
            if count == 0 {
                return to_server.shutdown().await;
            }
            let commits = commits(&bytes[..count], &mut is_within);
            if commits && is_cut.swap(false, Ordering::SeqCst) {
                is_committing.store(true, Ordering::SeqCst);
            }
            to_server.write_all(&bytes[..count]).await?;
        }
    };
    let answered = async {
        let mut bytes = vec![0; 64 << 10];
        loop {
            let count = from_server.read(&mut bytes).await?;
            if count == 0 || is_committing.load(Ordering::SeqCst) {
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

/// Whether the server commits something at these messages: it is told to, or a statement is executed outside a transaction.
fn commits(messages: &[u8], is_within: &mut bool) -> bool {
    let has = |what: &[u8]| messages.windows(what.len()).any(|part| part == what);
    *is_within |= has(b"BEGIN\0");
    let is_end = has(b"COMMIT\0");
    // Execute the unnamed portal without a limit of rows.
    let commits = is_end || (!*is_within && has(b"E\0\0\0\x09\0\0\0\0\0"));
    *is_within &= !is_end && !has(b"ROLLBACK\0");
    commits
}

#[async_trait]
impl Stand for PostgresStand {
    fn store(&self) -> Arc<dyn DemandStore> {
        self.store.lock().unwrap().clone()
    }
    fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }
    async fn pass(&self, time: Duration) {
        // The database's clock is real: only waiting lets its time pass.
        // may sleep: only waiting lets the database's clock go on
        tokio::time::sleep(time).await;
    }
    async fn set_clock_forward(&self, by: Duration) {
        let set = format!(
            "CREATE OR REPLACE FUNCTION store_now() RETURNS bigint LANGUAGE sql VOLATILE AS
             $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint + {} $$",
            by.as_millis()
        );
        self.server.postgres.sql(&self.database, &set).unwrap();
    }
    async fn restart(&self) {
        let postgres = &self.server.postgres;
        let url = postgres.url_through(self.proxy.port(), &self.database);
        let store = PostgresStore::connect(&url, conformance::config())
            .await
            .unwrap();
        *self.store.lock().unwrap() = Arc::new(store);
    }
    async fn lose_next_reply(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_conforms() {
    let Some(server) = Server::start(&["autovacuum=off"]) else {
        return;
    };
    pass(&Postgres(Arc::new(server))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_lose_data_is_refused() {
    let Some(server) = Server::start(&["fsync=off"]) else {
        return;
    };
    let url = server.postgres.url(&server.database());
    let refused = PostgresStore::connect(&url, StoreConfig::default()).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    let told = StoreConfig {
        accept_data_loss: true,
        ..StoreConfig::default()
    };
    PostgresStore::connect(&url, told.clone()).await.unwrap();
    epoch_follows_the_timeline(&server, &url, told).await;
}

async fn epoch_follows_the_timeline(server: &Server, url: &str, config: StoreConfig) {
    let epoch = async || {
        let store = PostgresStore::connect(url, config.clone()).await.unwrap();
        store.info().await.unwrap().epoch
    };
    let first = epoch().await;
    assert_eq!(
        epoch().await,
        first,
        "another server of the same store goes on"
    );
    let moved = "UPDATE store SET timeline = '00000000'";
    server.postgres.sql("store_0", moved).unwrap();
    assert!(
        epoch().await > first,
        "after a promotion a new epoch begins"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_only_reads_is_left_until_it_writes_again() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let (who, url) = (worker(), server.postgres.url(&server.database()));
    let store = PostgresStore::connect(&url, StoreConfig::default())
        .await
        .unwrap();
    store.submit(&who, vec![submission("a")]).await.unwrap();
    let set = async |value: &str| {
        let order = format!("ALTER SYSTEM SET default_transaction_read_only = {value}");
        let statements = [
            "SET default_transaction_read_only = off",
            order.as_str(),
            "SELECT pg_reload_conf()",
        ];
        server.postgres.sql_each("postgres", &statements).unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        let shown = || {
            server
                .postgres
                .sql("postgres", "SHOW default_transaction_read_only")
        };
        while shown().unwrap().trim() != value {
            assert!(Instant::now() < until, "the setting takes effect");
            // may sleep: polls for the event, with a bound
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    set("on").await;
    let refused = store.submit(&who, vec![submission("b")]).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    set("off").await;
    let stored = store.submit(&who, vec![submission("b")]).await.unwrap();
    assert!(!stored[0].repeated, "the refused one left nothing behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_used_when_asked_for_and_always_checked() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let postgres = &server.postgres;
    let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let url = postgres.url(&server.database());
    let connect = async |url: String| PostgresStore::connect(&url, StoreConfig::default()).await;
    let own = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(own.path(), signed.cert.pem()).unwrap();
    let trusting = format!("{url}?sslmode=require&sslrootcert={}", own.path().display());
    let unavailable = |outcome: Result<PostgresStore, StoreError>| {
        assert!(
            matches!(outcome, Err(StoreError::Unavailable(_))),
            "{outcome:?}"
        );
    };
    unavailable(connect(trusting.clone()).await);
    postgres.put_file("server.crt", &signed.cert.pem()).unwrap();
    let key = signed.key_pair.serialize_pem();
    postgres.put_file("server.key", &key).unwrap();
    let orders = ["ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"];
    postgres.sql_each("postgres", &orders).unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while postgres.sql("postgres", "SHOW ssl").unwrap().trim() != "on" {
        assert!(Instant::now() < until, "the setting takes effect");
        // may sleep: polls for the event, with a bound
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let store = connect(trusting).await.unwrap();
    store
        .submit(&worker(), vec![submission("a")])
        .await
        .unwrap();
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE application_name = 'mutual' AND ssl";
    assert_ne!(postgres.sql("postgres", encrypted).unwrap().trim(), "0");
    // Another authority, or none that knows the server: no connection, rather than an unchecked one.
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(own.path(), other.cert.pem()).unwrap();
    let doubting = format!("{url}?sslmode=require&sslrootcert={}", own.path().display());
    unavailable(connect(doubting).await);
    connect(url).await.unwrap();
}

#[tokio::test]
async fn nobody_at_home_is_unavailable() {
    let url = format!("postgres://mutual@127.0.0.1:{}/store", free_port());
    let refused = PostgresStore::connect(&url, StoreConfig::default()).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    let refused = PostgresStore::connect("mysql://x", StoreConfig::default()).await;
    assert!(
        matches!(refused, Err(StoreError::Invalid(_))),
        "{refused:?}"
    );
}
