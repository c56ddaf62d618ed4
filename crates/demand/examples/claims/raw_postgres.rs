//! The same commits as plain statements on PostgreSQL, one connection for each agent.

use std::sync::Arc;

use tokio_postgres::{Client, NoTls, Statement};

use crate::Failure;
use crate::figures::Lane;
use crate::people::{self, AGENT_URL, NAMESPACE, Worker};
use crate::raw_sqlite::now;

const SUBMIT: &str = "INSERT INTO jobs (id, namespace, client_key, digest, subject, sealing, name,
    spec, retries, expires_ms, exclusive, result_copies, cpu_millis, memory_bytes, gpus,
    scratch_bytes, classes, priority, state, created_at, changed_at, queued_at, rank, waits_until)
    VALUES ($1, $2, $3, $4, $5, $6, '', $7, 3, 604800000, false, 1, 1000, 67108864, 0, 0, 15, 0,
    'queued', $8::bigint, $8, $8, $8, $8 + 604800000)";
const BEST: &str = "SELECT id FROM jobs WHERE namespace = $1 AND state = 'queued'
    ORDER BY rank, id LIMIT 1 FOR UPDATE SKIP LOCKED";
const CLAIM: &str = "UPDATE jobs SET state = 'assigned', fence_epoch = 1,
    fence_sequence = fence_sequence + 1, nonce = $2, agent = $3, incarnation = $4, changed_at = $5
    WHERE id = $1 AND state = 'queued'";
const BEGIN_ATTEMPT: &str = "INSERT INTO attempts (job, fence_sequence, fence_epoch, nonce, agent,
    incarnation, agent_url, claimed_at) VALUES ($1, 1, 1, $2, $3, $4, $5, $6)";
const LEASE: &str = "INSERT INTO leases (agent, incarnation, expires_at, heard_at)
    VALUES ($1, $2, $3, $3) ON CONFLICT (agent, incarnation) DO UPDATE
    SET expires_at = excluded.expires_at, heard_at = excluded.heard_at";
const FINISH: &str = "UPDATE jobs SET state = 'succeeded', result = $2, finished_at = $3,
    changed_at = $3 WHERE id = $1 AND state IN ('assigned', 'preparing', 'running')
    AND fence_epoch = 1 AND fence_sequence = 1 AND nonce = $4 AND agent = $5";
const END_ATTEMPT: &str = "UPDATE attempts SET ended_at = $2, ending = 'succeeded', digest = $3,
    disposition = 'ended', reply_state = 'succeeded' WHERE job = $1 AND fence_sequence = 1";

pub(crate) async fn lane(url: &str, worker: &Worker) -> Result<Lane, Failure> {
    let plain = Arc::new(Plain::connect(url, worker).await?);
    Ok(Box::new(move || {
        let plain = Arc::clone(&plain);
        Box::pin(async move {
            plain.submit().await?;
            // Another agent may hold the only task there is for a moment.
            let Some(id) = plain.claim().await? else {
                return Ok(0);
            };
            plain.finish(&id).await?;
            Ok(1)
        })
    }))
}

/// A connection, its statements, and what is written of every task.
struct Plain {
    client: Client,
    submit: Statement,
    best: Statement,
    claim: Statement,
    begin_attempt: Statement,
    lease: Statement,
    finish: Statement,
    end_attempt: Statement,
    agent: Vec<u8>,
    incarnation: Vec<u8>,
    sealing: Vec<u8>,
    subject: String,
    spec: String,
    result: String,
}

impl Plain {
    async fn connect(url: &str, worker: &Worker) -> Result<Self, Failure> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        Ok(Self {
            submit: client.prepare(SUBMIT).await?,
            best: client.prepare(BEST).await?,
            claim: client.prepare(CLAIM).await?,
            begin_attempt: client.prepare(BEGIN_ATTEMPT).await?,
            lease: client.prepare(LEASE).await?,
            finish: client.prepare(FINISH).await?,
            end_attempt: client.prepare(END_ATTEMPT).await?,
            client,
            agent: worker.key.id().0.to_vec(),
            incarnation: worker.incarnation.0.as_bytes().to_vec(),
            sealing: worker.who.sealing.0.to_vec(),
            subject: worker.who.subject.clone(),
            spec: serde_json::to_string(&people::task())?,
            result: serde_json::to_string(&people::result()?)?,
        })
    }

    async fn submit(&self) -> Result<(), Failure> {
        let id = rand::random::<[u8; 16]>().to_vec();
        let (key, digest) = (hex::encode(&id), [7u8; 32].to_vec());
        self.client.batch_execute("BEGIN").await?;
        self.client
            .execute(
                &self.submit,
                &[
                    &id,
                    &NAMESPACE,
                    &key,
                    &digest,
                    &self.subject,
                    &self.sealing,
                    &self.spec,
                    &now(),
                ],
            )
            .await?;
        Ok(self.client.batch_execute("COMMIT").await?)
    }

    async fn claim(&self) -> Result<Option<Vec<u8>>, Failure> {
        let client = &self.client;
        client.batch_execute("BEGIN").await?;
        let best = client.query_opt(&self.best, &[&NAMESPACE]).await?;
        let Some(row) = best else {
            client.batch_execute("ROLLBACK").await?;
            return Ok(None);
        };
        let (id, nonce, at): (Vec<u8>, _, _) = (row.get(0), [3u8; 16].to_vec(), now());
        client
            .execute(
                &self.claim,
                &[&id, &nonce, &self.agent, &self.incarnation, &at],
            )
            .await?;
        client
            .execute(
                &self.begin_attempt,
                &[&id, &nonce, &self.agent, &self.incarnation, &AGENT_URL, &at],
            )
            .await?;
        client
            .execute(&self.lease, &[&self.agent, &self.incarnation, &at])
            .await?;
        client.batch_execute("COMMIT").await?;
        Ok(Some(id))
    }

    async fn finish(&self, id: &Vec<u8>) -> Result<(), Failure> {
        let (nonce, at) = ([3u8; 16].to_vec(), now());
        self.client.batch_execute("BEGIN").await?;
        self.client
            .execute(&self.finish, &[id, &self.result, &at, &nonce, &self.agent])
            .await?;
        let digest = [9u8; 32].to_vec();
        self.client
            .execute(&self.end_attempt, &[id, &at, &digest])
            .await?;
        Ok(self.client.batch_execute("COMMIT").await?)
    }
}
