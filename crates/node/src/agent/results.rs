//! What an attempt leaves: output, log and the finish that tells of them.

use std::time::{Duration, Instant};

use mutual_data::tree::{self, PackOptions};
use mutual_demand::{
    Artifact, Disposition, FinishReply, FinishRequest, Manifest, Metrics, Outcome, ResultView,
    StoreResult,
};
use mutual_model::agent::Event;
use mutual_model::identity::SealingPublic;
use mutual_model::job::Failure;
use mutual_model::time::millis;

use super::attempt::Attempt;
use super::deliver::deliver;
use super::logs::LogWriter;
use super::objects::Replica;
use super::outbox::Entry;
use super::seal::{self, Packed, Packing, RESULT_KEY, SealedError};
use crate::runtime::{Layout, Usage};

/// How long a peer is sought to hold a log; a result counts without it.
const LOG_COPY_WITHIN: Duration = Duration::from_secs(5);

impl Attempt {
    /// Stores output and log, records the finish and brings it to the store.
    pub(super) async fn conclude(
        self,
        failure: Option<Failure>,
        (prepared_in, usage): (Duration, Usage),
        log: LogWriter,
    ) {
        let begun = Instant::now();
        let (output, failure) = match failure {
            None => match self.pack_output().await {
                Ok(packed) => (Some(packed), None),
                Err(error) => (None, Some(not_stored(&error.to_string()))),
            },
            failure => {
                self.clear_output().await;
                (None, failure)
            }
        };
        let log = self.pack_log(log, failure.as_ref()).await;
        let (stored, log) = tokio::join!(self.store_output(output), self.store_log(log));
        let (output, artifacts, failure) = match (stored, failure) {
            (Ok(Some((manifest, artifacts))), None) => (Some(manifest), artifacts, None),
            (Ok(_), failure) => (None, Vec::new(), failure),
            (Err(reason), _) => (None, Vec::new(), Some(not_stored(&reason))),
        };
        let result = ResultView {
            output,
            artifacts,
            log,
            metrics: metrics(prepared_in, &usage),
        };
        self.shop.metrics.concluded(begun.elapsed());
        self.finish(failure, result).await;
    }

    /// Nobody wants what a failed attempt has written, and a full disk must still take its log.
    async fn clear_output(&self) {
        let layout = Layout::of(self.dir());
        let clear = move || {
            for dir in [layout.output(), layout.tmp()] {
                let _ = tree::remove(&dir);
            }
        };
        let _ = tokio::task::spawn_blocking(clear).await;
    }

    async fn pack_output(&self) -> Result<Packed, SealedError> {
        let blocks = self.shop.objects.blocks().clone();
        let dir = Layout::of(self.dir()).output();
        let globs = self.grant.spec.outputs.clone();
        let options = PackOptions::private(self.grant.namespace.as_str());
        let (owner, until) = (format!("result:{}", self.key.job), self.keep_until());
        seal::blocking(move || {
            let packing = Packing {
                dir: &dir,
                options,
                key: seal::fresh_key()?,
                globs: &globs,
                left_out: None,
                owner,
                until,
            };
            seal::pack(&blocks, packing)
        })
        .await
    }

    /// Ends the log and packs it; without one the result still counts.
    async fn pack_log(&self, mut log: LogWriter, failure: Option<&Failure>) -> Option<Packed> {
        match failure {
            None => log.end("succeeded"),
            Some(failure) => log.end(&failure.to_string()),
        }
        let dir = log.dir().to_owned();
        drop(log);
        let blocks = self.shop.objects.blocks().clone();
        let options = PackOptions::private(self.grant.namespace.as_str());
        let (owner, until) = (format!("log:{}", self.key.job), self.keep_until());
        let packed = seal::blocking(move || {
            let packing = Packing {
                dir: &dir,
                options,
                key: seal::fresh_key()?,
                globs: &[],
                left_out: None,
                owner,
                until,
            };
            seal::pack(&blocks, packing)
        });
        let packed = packed.await;
        packed
            .inspect_err(|error| tracing::warn!(job = %self.key.job, %error, "log not stored"))
            .ok()
    }

    async fn store_output(
        &self,
        packed: Option<Packed>,
    ) -> Result<Option<(Manifest, Vec<Artifact>)>, String> {
        let Some(packed) = packed else {
            return Ok(None);
        };
        let copies = self.grant.spec.result_copies;
        let within = self.shop.policy.replicate_within;
        let replicas = self.replicate(&packed, copies, within).await;
        if replicas.len() < copies as usize {
            return Err(format!(
                "{copies} other peers should hold a copy and do not"
            ));
        }
        let manifest = self.manifest(&packed, &self.grant.result_key, RESULT_KEY, replicas);
        let manifest = manifest.map_err(|error| error.to_string())?;
        Ok(Some((manifest, packed.artifacts)))
    }

    async fn store_log(&self, packed: Option<Packed>) -> Option<Manifest> {
        let packed = packed?;
        let copies = self.grant.spec.result_copies.min(1);
        let replicas = self.replicate(&packed, copies, LOG_COPY_WITHIN).await;
        let manifest = self.manifest(&packed, &self.grant.result_key, RESULT_KEY, replicas);
        manifest.ok()
    }

    async fn replicate(&self, packed: &Packed, copies: u32, within: Duration) -> Vec<Replica> {
        if copies == 0 {
            return Vec::new();
        }
        let request = seal::keep_request(packed, &self.grant.namespace, self.shop.policy.keep);
        let namespace = &self.grant.namespace;
        let objects = &self.shop.objects;
        let replicas = objects.replicate(&request, namespace, copies, &[]);
        let found = tokio::time::timeout(within, replicas).await;
        found.unwrap_or_default()
    }

    pub(super) fn manifest(
        &self,
        packed: &Packed,
        reader: &SealingPublic,
        purpose: &str,
        replicas: Vec<Replica>,
    ) -> Result<Manifest, SealedError> {
        let own = self.shop.objects.addresses();
        seal::manifest(packed, reader, purpose, own, replicas)
    }

    async fn finish(&self, failure: Option<Failure>, result: ResultView) {
        let outcome = match failure {
            None => Outcome::Success,
            Some(failure) => Outcome::Failure(failure),
        };
        let finish = FinishRequest {
            claim: self.grant.claim,
            outcome,
            result,
        };
        let entry = Entry {
            store: self.key.store.clone(),
            finish,
        };
        self.record(&entry).await;
        let key = self.key.clone();
        self.tell(Event::Recorded { key }).await;
        let answer = deliver(self.shop.outbox.clone(), self.link.clone(), entry.clone()).await;
        self.after_answer(&entry, &answer);
        self.shop.metrics.outbox(self.shop.outbox.len());
        let key = self.key.clone();
        self.tell(Event::Concluded { key }).await;
    }

    /// Makes the finish durable. With a full disk it is delivered all the same: then it survives
    /// everything but this process.
    async fn record(&self, entry: &Entry) {
        let (outbox, kept) = (self.shop.outbox.clone(), entry.clone());
        let put = tokio::task::spawn_blocking(move || outbox.put(&kept)).await;
        if let Ok(Err(error)) = put {
            tracing::error!(job = %self.key.job, %error, "finish is not in the outbox");
        }
        self.shop.metrics.outbox(self.shop.outbox.len());
    }

    fn after_answer(&self, entry: &Entry, answer: &StoreResult<FinishReply>) {
        let job = self.key.job;
        match answer {
            Ok(reply) => {
                if reply.disposition == Disposition::Ended {
                    self.forget_checkpoints();
                    self.mirror(reply.state, entry.finish.result.output.as_ref());
                }
                self.shop.metrics.ended(reply.state.name());
                tracing::info!(%job, state = %reply.state, "finished");
            }
            Err(error) => {
                self.shop.metrics.ended("refused");
                tracing::warn!(%job, %error, "finish refused");
            }
        }
    }
}

fn not_stored(reason: &str) -> Failure {
    Failure::ResultNotStored {
        reason: reason.to_owned(),
    }
}

fn metrics(prepared_in: Duration, usage: &Usage) -> Metrics {
    Metrics {
        cpu_avg: usage.cpu_avg,
        mem_peak_bytes: usage.mem_peak_bytes,
        io_read_bytes: usage.read_bytes,
        io_write_bytes: usage.write_bytes,
        preparing_ms: millis(prepared_in),
        running_ms: millis(usage.ran),
    }
}
