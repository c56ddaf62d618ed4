//! One connection: its prepared statements, and what the server said beside its answers.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::poll_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Row, Statement};

use super::statements::positional;
use super::tls::Tls;

/// A value for a parameter.
pub(super) type Param<'a> = &'a (dyn ToSql + Sync);
/// Parameters by name.
pub(super) type Named<'a> = &'a [(&'static str, Param<'a>)];

#[derive(Clone)]
struct Prepared {
    statement: Statement,
    names: Arc<[&'static str]>,
}

/// An open connection.
pub(super) struct Session {
    client: Client,
    prepared: Mutex<HashMap<&'static str, Prepared>>,
    is_doubtful: Arc<AtomicBool>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// What the server says when it stops waiting for a synchronous standby: the commit is durable
/// here and perhaps nowhere else (`SyncRepWaitForLSN`, src/backend/replication/syncrep.c).
const SYNC_WAIT_CUT: &str = "canceling";

impl Session {
    /// Connects to the one host of `config`.
    pub(super) async fn open(config: &Config, tls: &Tls) -> Result<Self, tokio_postgres::Error> {
        let is_doubtful = Arc::new(AtomicBool::new(false));
        let doubt = Arc::clone(&is_doubtful);
        let client = match tls {
            Tls::Plain => {
                let (client, connection) = config.connect(NoTls).await?;
                tokio::spawn(listen(connection, doubt));
                client
            }
            Tls::Verified(tls) => {
                let (client, connection) = config.connect(tls.clone()).await?;
                tokio::spawn(listen(connection, doubt));
                client
            }
        };
        Ok(Self {
            client,
            prepared: Mutex::default(),
            is_doubtful,
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Whether the server warned that a commit may not be on a standby.
    pub(super) fn is_doubtful(&self) -> bool {
        self.is_doubtful.load(Ordering::SeqCst)
    }

    /// Runs statements without parameters.
    pub(super) async fn simple(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute(sql).await
    }

    async fn prepared(&self, sql: &'static str) -> Result<Prepared, tokio_postgres::Error> {
        let known = |key| {
            let prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
            prepared.get(key).cloned()
        };
        if let Some(prepared) = known(sql) {
            return Ok(prepared);
        }
        let (text, names) = positional(sql);
        let prepared = Prepared {
            statement: self.client.prepare(&text).await?,
            names: names.into(),
        };
        let mut kept = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(sql, prepared.clone());
        Ok(prepared)
    }

    pub(super) async fn query(
        &self,
        sql: &'static str,
        named: Named<'_>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let prepared = self.prepared(sql).await?;
        let params = ordered(&prepared.names, named);
        self.client.query(&prepared.statement, &params).await
    }

    pub(super) async fn execute(
        &self,
        sql: &'static str,
        named: Named<'_>,
    ) -> Result<u64, tokio_postgres::Error> {
        let prepared = self.prepared(sql).await?;
        let params = ordered(&prepared.names, named);
        self.client.execute(&prepared.statement, &params).await
    }
}

/// Drives a connection to its end, and notes what the server says beside its answers.
async fn listen<S, T>(mut connection: Connection<S, T>, doubt: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) if notice.message().contains(SYNC_WAIT_CUT) => {
                doubt.store(true, Ordering::SeqCst);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, "a database connection ended");
                return;
            }
        }
    }
}

/// Values in the order in which a statement takes them. A name that is missing is left out, which
/// the driver refuses by count.
fn ordered<'a>(names: &[&'static str], named: Named<'a>) -> Vec<Param<'a>> {
    let value = |name: &&str| named.iter().find(|(known, _)| known == name);
    names
        .iter()
        .filter_map(value)
        .map(|(_, value)| *value)
        .collect()
}
