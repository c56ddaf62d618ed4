//! The PostgreSQL store on a real server that the test starts, through a proxy that can lose the
//! answer to a commit.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mutual_demand::conformance::{self, Harness, Stand};
use mutual_demand::postgres::PostgresStore;
use mutual_demand::{DemandStore, StoreConfig, StoreError};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::support::pass;

/// A database server of this test alone.
pub(crate) struct Server {
    _home: TempDir,
    process: Child,
    port: u16,
    databases: AtomicU32,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where Debian puts the newest server's programs.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<PathBuf> = versions
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop()
}

fn is_root() -> bool {
    let said = Command::new("id").arg("-u").output().unwrap();
    said.stdout == b"0\n"
}

/// A command as a user that the server accepts: it refuses to run as root.
fn as_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=postgres",
        "--regid=postgres",
        "--clear-groups",
        "--",
    ]);
    command.arg(program);
    command
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Server {
    /// Starts a server; `None` if the tests are to do without.
    async fn start(settings: &[&str]) -> Option<Self> {
        if std::env::var("MUTUAL_SKIP_POSTGRES").is_ok_and(|value| value == "1") {
            eprintln!("SKIPPED: MUTUAL_SKIP_POSTGRES=1, so PostgreSQL is not tested");
            return None;
        }
        let bin = programs().expect(
            "no PostgreSQL below /usr/lib/postgresql: run `apt-get install postgresql`, or set \
             MUTUAL_SKIP_POSTGRES=1 to do without",
        );
        let home = tempfile::tempdir().unwrap();
        if is_root() {
            let owned = Command::new("chown")
                .arg("postgres")
                .arg(home.path())
                .status()
                .unwrap();
            assert!(owned.success(), "the user postgres gets the directory");
        }
        let data = home.path().join("data");
        let made = as_user(&bin.join("initdb"))
            .arg("--pgdata")
            .arg(&data)
            .args([
                "--username=mutual",
                "--auth=trust",
                "--no-sync",
                "--no-instructions",
            ])
            .stdout(Stdio::null())
            .current_dir(home.path())
            .status()
            .unwrap();
        assert!(made.success(), "initdb");
        let port = free_port();
        let mut server = as_user(&bin.join("postgres"));
        server
            .arg("-D")
            .arg(&data)
            .arg("-p")
            .arg(port.to_string())
            .current_dir(home.path());
        for setting in [
            "unix_socket_directories=",
            "autovacuum=off",
            "log_min_messages=fatal",
        ] {
            server.arg("-c").arg(setting);
        }
        for setting in settings {
            server.arg("-c").arg(setting);
        }
        let process = server
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self {
            _home: home,
            process,
            port,
            databases: AtomicU32::new(0),
        };
        server.wait().await;
        Some(server)
    }

    async fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.client("postgres").await.is_none() {
            assert!(Instant::now() < until, "the server answers within a minute");
            // may sleep: polls for the event, with a bound
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn client(&self, database: &str) -> Option<tokio_postgres::Client> {
        let url = self.url(self.port, database);
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
            .await
            .ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    fn url(&self, port: u16, database: &str) -> String {
        format!("postgres://mutual@127.0.0.1:{port}/{database}")
    }

    /// A new, empty database.
    async fn database(&self) -> String {
        let name = format!("store_{}", self.databases.fetch_add(1, Ordering::SeqCst));
        let client = self.client("postgres").await.unwrap();
        client
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .await
            .unwrap();
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
        let database = self.0.database().await;
        let is_cut = Arc::new(AtomicBool::new(false));
        let proxy = forward(self.0.port, is_cut.clone()).await;
        let url = self.0.url(proxy.port(), &database);
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
        let mut bytes = vec![0; 64 << 10];
        loop {
            let count = from_client.read(&mut bytes).await?;
            if count == 0 {
                return to_server.shutdown().await;
            }
            let commits = bytes[..count].windows(7).any(|part| part == b"COMMIT\0");
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
        let client = self.server.client(&self.database).await.unwrap();
        let set = format!(
            "CREATE OR REPLACE FUNCTION store_now() RETURNS bigint LANGUAGE sql VOLATILE AS
             $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint + {} $$",
            by.as_millis()
        );
        client.batch_execute(&set).await.unwrap();
    }
    async fn restart(&self) {
        let url = self.server.url(self.proxy.port(), &self.database);
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
    let Some(server) = Server::start(&[]).await else {
        return;
    };
    pass(&Postgres(Arc::new(server))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_lose_data_is_refused() {
    let Some(server) = Server::start(&["fsync=off"]).await else {
        return;
    };
    let url = server.url(server.port, &server.database().await);
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
    let client = server.client("store_0").await.unwrap();
    client
        .batch_execute("UPDATE store SET timeline = '00000000'")
        .await
        .unwrap();
    assert!(
        epoch().await > first,
        "after a promotion a new epoch begins"
    );
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
