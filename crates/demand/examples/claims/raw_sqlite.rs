//! The same commits as plain statements on one SQLite connection, as fast as a program without rules can make them.
//!
//! SQLite lets one connection write at a time, so several agents take turns with it; with a connection each they would
//! only wait for one another in a worse way.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, params};

use crate::Failure;
use crate::figures::Lane;
use crate::people::{self, AGENT_URL, NAMESPACE, Worker};

const SUBMIT: &str = "INSERT INTO jobs (id, namespace, client_key, digest, subject, sealing, name,
    spec, retries, expires_ms, exclusive, result_copies, cpu_millis, memory_bytes, gpus,
    scratch_bytes, classes, priority, state, created_at, changed_at, queued_at, rank, waits_until)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, '', ?7, 3, 604800000, 0, 1, 1000, 67108864, 0, 0, 15, 0,
    'queued', ?8, ?8, ?8, ?8, ?8 + 604800000)";
const BEST: &str =
    "SELECT id FROM jobs WHERE namespace = ?1 AND state = 'queued' ORDER BY rank, id LIMIT 1";
const CLAIM: &str = "UPDATE jobs SET state = 'assigned', fence_epoch = 1,
    fence_sequence = fence_sequence + 1, nonce = ?2, agent = ?3, incarnation = ?4, changed_at = ?5
    WHERE id = ?1 AND state = 'queued'";
const BEGIN_ATTEMPT: &str = "INSERT INTO attempts (job, fence_sequence, fence_epoch, nonce, agent,
    incarnation, agent_url, claimed_at) VALUES (?1, 1, 1, ?2, ?3, ?4, ?5, ?6)";
const LEASE: &str = "INSERT INTO leases (agent, incarnation, expires_at, heard_at)
    VALUES (?1, ?2, ?3, ?3) ON CONFLICT (agent, incarnation) DO UPDATE
    SET expires_at = excluded.expires_at, heard_at = excluded.heard_at";
const FINISH: &str = "UPDATE jobs SET state = 'succeeded', result = ?2, finished_at = ?3,
    changed_at = ?3 WHERE id = ?1 AND state IN ('assigned', 'preparing', 'running')
    AND fence_epoch = 1 AND fence_sequence = 1 AND nonce = ?4 AND agent = ?5";
const END_ATTEMPT: &str = "UPDATE attempts SET ended_at = ?2, ending = 'succeeded', digest = ?3,
    disposition = 'ended', reply_state = 'succeeded' WHERE job = ?1 AND fence_sequence = 1";

/// A connection with the store's own settings, on the layout that the store made.
pub(crate) fn open(path: &Path) -> Result<Arc<Mutex<Connection>>, Failure> {
    let connection = Connection::open(path)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", "on")?;
    connection.pragma_update(None, "cache_size", -(32 << 10))?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "wal_autocheckpoint", 4_096)?;
    Ok(Arc::new(Mutex::new(connection)))
}

pub(crate) fn lane(connection: Arc<Mutex<Connection>>, worker: &Worker) -> Result<Lane, Failure> {
    let job = Arc::new(Job::new(worker)?);
    Ok(Box::new(move || {
        let (connection, job) = (Arc::clone(&connection), Arc::clone(&job));
        let commits = move || {
            job.commit(&connection, |db| job.submit(db))?;
            let id = job.commit(&connection, |db| job.claim(db))?;
            job.commit(&connection, |db| job.finish(db, &id))?;
            Ok(1)
        };
        Box::pin(async { tokio::task::spawn_blocking(commits).await? })
    }))
}

/// What is written of every task.
struct Job {
    agent: [u8; 32],
    incarnation: [u8; 16],
    sealing: [u8; 32],
    subject: String,
    spec: String,
    result: String,
}

type Id = [u8; 16];

impl Job {
    fn new(worker: &Worker) -> Result<Self, Failure> {
        Ok(Self {
            agent: worker.key.id().0,
            incarnation: *worker.incarnation.0.as_bytes(),
            sealing: worker.who.sealing.0,
            subject: worker.who.subject.clone(),
            spec: serde_json::to_string(&people::task())?,
            result: serde_json::to_string(&people::result()?)?,
        })
    }

    fn commit<T>(
        &self,
        connection: &Mutex<Connection>,
        write: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Failure> {
        let db = connection.lock().unwrap_or_else(PoisonError::into_inner);
        db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let done = write(&db)?;
        db.prepare_cached("COMMIT")?.execute([])?;
        Ok(done)
    }

    fn submit(&self, db: &Connection) -> rusqlite::Result<()> {
        let id = uuid::Uuid::from_u128(rand::random()).into_bytes();
        let digest = [7u8; 32];
        db.prepare_cached(SUBMIT)?.execute(params![
            id,
            NAMESPACE,
            hex::encode(id),
            digest,
            self.subject,
            self.sealing,
            self.spec,
            now()
        ])?;
        Ok(())
    }

    fn claim(&self, db: &Connection) -> rusqlite::Result<Id> {
        let id: Id = db
            .prepare_cached(BEST)?
            .query_row([NAMESPACE], |row| row.get(0))?;
        let (nonce, at) = ([3u8; 16], now());
        db.prepare_cached(CLAIM)?
            .execute(params![id, nonce, self.agent, self.incarnation, at])?;
        db.prepare_cached(BEGIN_ATTEMPT)?.execute(params![
            id,
            nonce,
            self.agent,
            self.incarnation,
            AGENT_URL,
            at
        ])?;
        db.prepare_cached(LEASE)?
            .execute(params![self.agent, self.incarnation, at])?;
        Ok(id)
    }

    fn finish(&self, db: &Connection, id: &Id) -> rusqlite::Result<()> {
        let (nonce, at) = ([3u8; 16], now());
        db.prepare_cached(FINISH)?
            .execute(params![id, self.result, at, nonce, self.agent])?;
        db.prepare_cached(END_ATTEMPT)?
            .execute(params![id, at, [9u8; 32]])?;
        Ok(())
    }
}

pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}
