//! Finding the primary, and making sure that it is the store it was.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mutual_model::ids::StoreId;
use mutual_model::job::FieldError;
use mutual_model::time::UnixMillis;
use tokio_postgres::Config;

use super::pool::Moment;
use super::rows;
use super::session::Session;
use super::statements::{self as sql, MIGRATIONS};
use super::tls::{self, Tls};
use super::work::{Done, Fault, Work};
use crate::config::StoreConfig;
use crate::{StoreError, StoreResult};

/// Longest time to reach one host and make sure of it.
const HOST_PATIENCE: Duration = Duration::from_secs(5);
/// Longest time to reach a standby: somebody waits who only wants to look.
const STANDBY_PATIENCE: Duration = Duration::from_secs(1);
/// Settings of a connection for looking.
const LOOKING: &str = "SET default_transaction_read_only = on;
    SET plan_cache_mode = force_generic_plan; SET jit = off";
/// Keys the advisory lock that lets one server at a time change the layout: "mutual".
const LAYOUT_LOCK: i64 = 0x6d75_7475_616c;

/// The hosts of one store; each is tried alone, under its own time limit.
#[derive(Debug)]
pub(super) struct Hosts {
    each: Vec<Config>,
    tls: Tls,
    preferred: AtomicUsize,
}

impl Hosts {
    pub(super) fn parse(url: &str) -> Result<Self, FieldError> {
        let refused = |problem: String| {
            FieldError::new(
                "postgres",
                problem,
                "write postgres://USER:PASSWORD@HOST[,HOST]/DATABASE[?sslmode=require]",
            )
        };
        let (url, root) = tls::parted(url);
        let whole: Config = url
            .parse()
            .map_err(|error: tokio_postgres::Error| refused(error.to_string()))?;
        let hosts = whole.get_hosts();
        if hosts.is_empty() {
            return Err(refused("no host".into()));
        }
        let each = (0..hosts.len())
            .map(|number| one_host(&whole, number))
            .collect();
        Ok(Self {
            each,
            tls: Tls::new(&whole, root.as_deref())?,
            preferred: AtomicUsize::new(0),
        })
    }

    /// A connection to the first host in turn that is a primary and keeps what it acknowledges.
    pub(super) async fn connect(&self, config: &StoreConfig) -> StoreResult<Session> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut problems = Vec::new();
        for step in 0..self.each.len() {
            let number = (first + step) % self.each.len();
            let reached = tokio::time::timeout(HOST_PATIENCE, self.reach(number, config));
            match reached.await {
                Ok(Ok(session)) => {
                    self.preferred.store(number, Ordering::Relaxed);
                    return Ok(session);
                }
                Ok(Err(error)) => problems.push(error.to_string()),
                Err(_) => {
                    problems.push(format!("host {number} did not answer in {HOST_PATIENCE:?}"))
                }
            }
        }
        Err(StoreError::Unavailable(problems.join("; ")))
    }

    /// A connection to any host that answers, most likely a standby: for looking only.
    pub(super) async fn connect_standby(&self) -> StoreResult<Session> {
        let mut problem = "no host".to_owned();
        for host in &self.each {
            let opening = async {
                let session = Session::open(host, &self.tls).await?;
                session.simple(LOOKING).await?;
                Ok::<_, tokio_postgres::Error>(session)
            };
            match tokio::time::timeout(STANDBY_PATIENCE, opening).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(error)) => problem = unreachable(error).to_string(),
                Err(_) => problem = format!("no answer in {STANDBY_PATIENCE:?}"),
            }
        }
        Err(StoreError::Unavailable(problem))
    }

    async fn reach(&self, number: usize, config: &StoreConfig) -> StoreResult<Session> {
        let session = Session::open(&self.each[number], &self.tls)
            .await
            .map_err(unreachable)?;
        check_durable(&session, config).await?;
        session.simple(SETTINGS).await.map_err(unreachable)?;
        make_sure(&session, config).await?;
        Ok(session)
    }
}

fn one_host(whole: &Config, number: usize) -> Config {
    let mut config = Config::new();
    match &whole.get_hosts()[number] {
        tokio_postgres::config::Host::Tcp(name) => config.host(name),
        #[cfg(unix)]
        tokio_postgres::config::Host::Unix(path) => config.host_path(path),
    };
    let ports = whole.get_ports();
    if let Some(port) = ports.get(number).or(ports.first()) {
        config.port(*port);
    }
    if let Some(user) = whole.get_user() {
        config.user(user);
    }
    if let Some(password) = whole.get_password() {
        config.password(password);
    }
    if let Some(database) = whole.get_dbname() {
        config.dbname(database);
    }
    config.ssl_mode(whole.get_ssl_mode());
    config.application_name("mutual");
    config.connect_timeout(HOST_PATIENCE);
    config.keepalives_idle(HOST_PATIENCE);
    config.tcp_user_timeout(HOST_PATIENCE * 2);
    config
}

/// Settings of every connection. `synchronous_commit` is never weaker than the primary's own disk
/// and the standbys that it names. Every statement finds its rows by an index, whatever the planner
/// believes of a table that has just been filled, so each is planned once and as a look-up.
const SETTINGS: &str = "SET synchronous_commit = on; SET lock_timeout = '5s';
    SET idle_in_transaction_session_timeout = '30s';
    SET default_transaction_isolation = 'read committed';
    SET plan_cache_mode = force_generic_plan; SET jit = off;
    SET enable_seqscan = off; SET enable_bitmapscan = off;
    SET enable_hashjoin = off; SET enable_mergejoin = off";

fn unreachable(error: tokio_postgres::Error) -> StoreError {
    let said = error.as_db_error().map(|said| said.message().to_owned());
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    StoreError::Unavailable(said.or(cause).unwrap_or_else(|| error.to_string()))
}

const DURABILITY: &str = "SELECT pg_is_in_recovery(), current_setting('fsync') = 'on',
    current_setting('synchronous_standby_names') <> '',
    (SELECT count(*) FROM pg_stat_replication)";

/// Refuses standbys, and primaries that may lose what they acknowledged.
async fn check_durable(session: &Session, config: &StoreConfig) -> StoreResult<()> {
    let rows = session.query(DURABILITY, &[]).await.map_err(unreachable)?;
    let row = rows
        .first()
        .ok_or_else(|| StoreError::Unavailable("no answer".into()))?;
    let refuse = |problem: &str| Err(StoreError::Unavailable(problem.into()));
    if row.get(0) {
        return refuse("the host is a standby");
    }
    if config.accept_data_loss {
        return Ok(());
    }
    if !row.get::<_, bool>(1) {
        return refuse("fsync is off: turn it on, or accept the loss of data");
    }
    let (is_synchronous, replicas): (bool, i64) = (row.get(2), row.get(3));
    if replicas > 0 && !is_synchronous {
        return refuse(
            "its standbys are asynchronous, so a failover would lose acknowledged results: \
             set synchronous_standby_names, or accept the loss of data",
        );
    }
    Ok(())
}

/// Begins a new epoch if this is another system or timeline than the store was last seen on, and
/// a grace if the server started since.
async fn make_sure(session: &Session, config: &StoreConfig) -> StoreResult<()> {
    session.simple("BEGIN").await.map_err(unreachable)?;
    let outcome = match migrate(session).await {
        Ok(()) => renew_if_moved(session, config).await,
        refused => refused,
    };
    let end = if outcome.is_ok() {
        "COMMIT"
    } else {
        "ROLLBACK"
    };
    session.simple(end).await.map_err(unreachable)?;
    outcome
}

async fn migrate(session: &Session) -> StoreResult<()> {
    let lock = format!(
        "SELECT pg_advisory_xact_lock({LAYOUT_LOCK});
         CREATE TABLE IF NOT EXISTS layout (version bigint PRIMARY KEY)"
    );
    session
        .simple("SET LOCAL client_min_messages = warning")
        .await
        .map_err(unreachable)?;
    session.simple(&lock).await.map_err(unreachable)?;
    let rows = session
        .query("SELECT coalesce(max(version), 0) FROM layout", &[])
        .await;
    let done: i64 = rows
        .map_err(unreachable)?
        .first()
        .map_or(0, |row| row.get(0));
    let done = usize::try_from(done).unwrap_or(usize::MAX);
    let Some(missing) = MIGRATIONS.get(done..) else {
        return Err(StoreError::Internal(format!(
            "the store has layout {done}, this program knows {}: use a newer program",
            MIGRATIONS.len()
        )));
    };
    for (migration, version) in missing.iter().zip(done + 1..) {
        let script = format!("{migration}; INSERT INTO layout VALUES ({version})");
        session.simple(&script).await.map_err(unreachable)?;
    }
    Ok(())
}

async fn renew_if_moved(session: &Session, config: &StoreConfig) -> StoreResult<()> {
    let identity = session
        .query(sql::IDENTITY, &[])
        .await
        .map_err(unreachable)?;
    let Some(identity) = identity.first() else {
        return Err(StoreError::Unavailable("the server has no identity".into()));
    };
    let (system_id, timeline): (String, String) = (identity.get(0), identity.get(1));
    let known = session
        .query(sql::STORE_ROW, &[])
        .await
        .map_err(unreachable)?;
    let is_same = known.first().is_some_and(|row| {
        row.get::<_, String>(2) == system_id && row.get::<_, String>(3) == timeline
    });
    let lease_ms = rows::number(config.terms.lease_ms);
    if is_same {
        let params: super::session::Named<'_> = &[("lease_ms", &lease_ms)];
        session
            .execute(sql::GRACE_OF_START, params)
            .await
            .map_err(unreachable)?;
        return Ok(());
    }
    let (id, token): ([u8; 16], [u8; 16]) = (rand::random(), rand::random());
    let params: super::session::Named<'_> = &[
        ("id", &id.as_slice()),
        ("token", &token.as_slice()),
        ("system_id", &system_id),
        ("timeline", &timeline),
        ("lease_ms", &lease_ms),
    ];
    session
        .query(sql::EPOCH_RENEW, params)
        .await
        .map_err(unreachable)?;
    Ok(())
}

/// The store's id, for as long as the program runs.
pub(super) async fn store_id(session: &Session) -> StoreResult<StoreId> {
    let rows = session
        .query("SELECT id FROM store WHERE singleton = 1", &[])
        .await;
    let rows = rows.map_err(unreachable)?;
    let row = rows
        .first()
        .ok_or_else(|| StoreError::Internal("the store has no row".into()))?;
    Ok(StoreId(rows::bytes(row, 0).map_err(Fault::refusal)?))
}

/// What the database's clock says.
pub(super) async fn moment(session: &Session) -> StoreResult<Moment> {
    let asked = Instant::now();
    let rows = session.query("SELECT store_now()", &[]).await;
    let rows = rows.map_err(unreachable)?;
    let row = rows
        .first()
        .ok_or_else(|| StoreError::Unavailable("the server has no clock".into()))?;
    let now = rows::unsigned(row, 0).map_err(Fault::refusal)?;
    Ok(Moment::answered(asked, UnixMillis(now)))
}

/// Gives every lease there is one more lease of grace.
pub(super) async fn begin_grace(session: &Session, config: &StoreConfig) -> StoreResult<()> {
    let lease_ms = rows::number(config.terms.lease_ms);
    session
        .query(sql::GRACE_OF_OPENING, &[("lease_ms", &lease_ms)])
        .await
        .map_err(unreachable)?;
    Ok(())
}

/// Begins a new epoch by order.
pub(super) async fn new_epoch(work: &Work) -> Done<u64> {
    let identity = work.one(sql::IDENTITY, &[]).await?;
    let (system_id, timeline): (String, String) = (identity.try_get(0)?, identity.try_get(1)?);
    let (id, token): ([u8; 16], [u8; 16]) = (rand::random(), rand::random());
    let row = work
        .one(
            sql::EPOCH_RENEW,
            &[
                ("id", &id.as_slice()),
                ("token", &token.as_slice()),
                ("system_id", &system_id),
                ("timeline", &timeline),
                ("lease_ms", &rows::number(work.lease_ms())),
            ],
        )
        .await?;
    rows::unsigned(&row, 1)
}
