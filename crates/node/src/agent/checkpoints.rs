//! Checkpoints: what a running task has so far, saved where its machine's death does not reach it.
//!
//! # The protocol between agent and task
//! Whatever stands in `$MUTUAL_CHECKPOINT_DIR` is saved, on the task's interval and when a user asks.
//! * A file is *written beside and renamed*: names that end in `.partial` are left out, so
//!   `state.partial` becomes `state` by one `mv` when it is whole. What must agree stands in one
//!   file, or in one directory that is renamed as a whole.
//! * A file that is written to while it is read is noticed; such a save is tried again, then given up.
//! * The next attempt finds there what the last acknowledged save held. A task that finds nothing
//!   begins from the start.
//!
//! # What makes a save count
//! Chunks are cut by content and sealed under the job's own secret, so that equal ones are stored and
//! sent once. Another peer signs that it holds all of them; only then is the store told, and only what
//! the store has acknowledged is ever resumed from. A save torn by a kill was never told of.
//!
//! # What is let go
//! The store knows the last two. When it has acknowledged one more, this machine and the peers that
//! keep them let go of older ones. Peers know a job's checkpoints as a [`Series`] whose name follows
//! from the job's secret, so that its next holder can have its predecessors' replaced, and others cannot.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mutual_data::transfer::Series;
use mutual_data::tree::{Limits, PackOptions, TreeError};
use mutual_data::{Cid, DataKey};
use mutual_demand::{CheckpointReport, ClaimGrant, Manifest, StoreError};
use mutual_model::agent::{Event, RunKey};
use mutual_model::identity::NodeKey;

use super::attempt::Attempt;
use super::objects::Replica;
use super::seal::{self, CHECKPOINT_KEY, Packed, Packing, SealedError};
use super::stores::in_time;
use crate::runtime::Layout;
use crate::swarm::PeerAddr;

/// Checkpoints of a job that are kept, as many as the store knows (DESIGN §3.11).
const KEPT: usize = 2;
/// How often files that do not hold still are read before a save is given up, and the pause between.
const READS_MAX: u32 = 4;
const READ_PAUSE: Duration = Duration::from_millis(100);
/// Pause before a report is repeated that the store did not answer; doubles.
const REPORT_PAUSE: Duration = Duration::from_millis(200);
/// Names that end so are not saved: the task is still writing there.
pub(super) const UNFINISHED: &str = ".partial";

/// What an attempt knows of its job's checkpoints.
#[derive(Debug)]
pub(super) struct Saves {
    /// The job's secret: that of its last checkpoint, so that equal chunks stay equal from attempt
    /// to attempt, or one made for this attempt.
    secret: DataKey,
    series: Series,
    acknowledged: Mutex<Vec<Held>>,
}

/// A checkpoint that the store has acknowledged.
#[derive(Debug)]
struct Held {
    root: Cid,
    /// Peers that may keep it.
    keepers: Vec<PeerAddr>,
}

impl Held {
    fn of(manifest: &Manifest) -> Option<Self> {
        let keepers = manifest.seeders.iter();
        Some(Self {
            root: seal::root_of(manifest).ok()?,
            keepers: keepers.filter_map(|text| text.parse().ok()).collect(),
        })
    }
}

impl Saves {
    /// What the grant tells.
    pub(super) fn of(node: &NodeKey, run: &RunKey, grant: &ClaimGrant) -> Self {
        let earlier = grant.checkpoints.iter().map(|saved| &saved.manifest);
        let known = earlier
            .clone()
            .find_map(|manifest| seal::open_key(node, CHECKPOINT_KEY, manifest).ok());
        let secret = known.unwrap_or_else(|| own_secret(node, run, grant));
        Self {
            series: series_of(&secret),
            secret,
            acknowledged: Mutex::new(earlier.filter_map(Held::of).take(KEPT).collect()),
        }
    }

    fn acknowledged(&self) -> MutexGuard<'_, Vec<Held>> {
        // What a panicking thread left is still a list.
        self.acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn roots(&self) -> Vec<Cid> {
        self.acknowledged().iter().map(|held| held.root).collect()
    }

    /// Everyone who may keep one of them, whoever keeps the last first: there only new chunks travel.
    fn keepers(&self) -> Vec<PeerAddr> {
        let held = self.acknowledged();
        held.iter().flat_map(|held| held.keepers.clone()).collect()
    }

    /// Takes in one more; everyone who keeps it or one before.
    fn acknowledge(&self, held: Held) -> Vec<PeerAddr> {
        let mut all = self.acknowledged();
        all.insert(0, held);
        let keepers = all.iter().flat_map(|held| held.keepers.clone());
        let keepers: BTreeSet<PeerAddr> = keepers.collect();
        all.truncate(KEPT);
        keepers.into_iter().collect()
    }
}

/// Derived from this node's key and the claim, so that every checkpoint of an attempt has it.
fn own_secret(node: &NodeKey, run: &RunKey, grant: &ClaimGrant) -> DataKey {
    let seed = node.seed();
    let mut hasher = blake3::Hasher::new_keyed(&seed);
    hasher.update(b"mutual checkpoint secret v1");
    hasher.update(run.job.0.as_bytes());
    hasher.update(grant.claim.nonce.as_bytes());
    hasher.update(&run.fence.epoch.to_be_bytes());
    hasher.update(&run.fence.sequence.to_be_bytes());
    DataKey::from_bytes(*hasher.finalize().as_bytes())
}

fn series_of(secret: &DataKey) -> Series {
    let context = "mutual-cloud 2026 checkpoint series v1";
    Series::new(blake3::derive_key(context, secret.expose()))
}

/// Why a checkpoint was not saved, in words for the task's log.
#[derive(Debug, thiserror::Error)]
enum SaveError {
    #[error("$MUTUAL_CHECKPOINT_DIR is empty")]
    Nothing,
    #[error(
        "$MUTUAL_CHECKPOINT_DIR holds more than {0} bytes, the most this machine's owner allows \
         (agent.checkpoint_max)"
    )]
    TooLarge(u64),
    #[error("{held} of {wanted} other peers hold a copy, after {within:?}")]
    NotKept {
        held: usize,
        wanted: u32,
        within: Duration,
    },
    #[error(transparent)]
    Sealed(SealedError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<SealedError> for SaveError {
    fn from(error: SealedError) -> Self {
        match error {
            SealedError::Tree(TreeError::TooLarge { what: "bytes", max }) => Self::TooLarge(max),
            other => Self::Sealed(other),
        }
    }
}

impl Attempt {
    /// Saves what the task left in its checkpoint directory so far, and tells the core. What went
    /// wrong is for the task's log.
    pub(super) fn checkpoint(
        &self,
        sequence: u64,
    ) -> impl Future<Output = Option<String>> + Send + use<> {
        let attempt = self.share();
        async move {
            let job = attempt.key.job;
            let saved = attempt.save_checkpoint(sequence).await;
            let key = attempt.key.clone();
            if let Err(SaveError::Store(StoreError::Fenced { .. })) = saved {
                attempt.tell(Event::Fenced { key: key.clone() }).await;
            }
            let words = match &saved {
                Ok(()) => {
                    attempt.shop.metrics.checkpoint();
                    None
                }
                // A task that has nothing to save yet is in order.
                Err(SaveError::Nothing) => None,
                Err(error) => {
                    tracing::warn!(%job, sequence, %error, "checkpoint not saved");
                    Some(format!("checkpoint {sequence} not saved: {error}"))
                }
            };
            let saved = saved.is_ok();
            attempt.tell(Event::Checkpointed { key, saved }).await;
            words
        }
    }

    async fn save_checkpoint(&self, sequence: u64) -> Result<(), SaveError> {
        let dir = Layout::of(self.dir()).checkpoint();
        if is_empty(&dir) {
            return Err(SaveError::Nothing);
        }
        let packed = self.pack_checkpoint(&dir).await?;
        let kept = self.keep_and_report(sequence, &packed).await;
        let root = packed.root.cid;
        match kept {
            Ok(keepers) => self.let_go_of_older(Held { root, keepers }).await,
            Err(error) => {
                self.keep_here(self.saves.roots()).await;
                Err(error)
            }
        }
    }

    async fn pack_checkpoint(&self, dir: &Path) -> Result<Packed, SaveError> {
        for _ in 1..READS_MAX {
            match self.read_checkpoint(dir).await {
                Err(SealedError::Tree(error)) if error.is_unsteady() => {
                    tokio::time::sleep(READ_PAUSE).await;
                }
                read => return Ok(read?),
            }
        }
        Ok(self.read_checkpoint(dir).await?)
    }

    async fn read_checkpoint(&self, dir: &Path) -> Result<Packed, SealedError> {
        let (blocks, dir) = (self.shop.objects.blocks().clone(), dir.to_owned());
        let mut options = PackOptions::checkpoint(self.grant.namespace.as_str());
        options.limits = Limits {
            bytes: self.shop.policy.checkpoint_bytes_max,
            ..Limits::default()
        };
        let key = self.saves.secret.clone();
        let (owner, until) = (self.checkpoint_owner(), self.keep_until());
        seal::blocking(move || {
            let packing = Packing {
                dir: &dir,
                options,
                key,
                globs: &[],
                left_out: Some(UNFINISHED),
                owner,
                until,
            };
            seal::pack(&blocks, packing)
        })
        .await
    }

    /// Has others keep it and the store acknowledge it; who keeps it.
    async fn keep_and_report(
        &self,
        sequence: u64,
        packed: &Packed,
    ) -> Result<Vec<PeerAddr>, SaveError> {
        let replicas = self.replicate_checkpoint(packed).await?;
        let keepers = replicas.iter().flat_map(|replica| &replica.addresses);
        let keepers = keepers.filter_map(|text| text.parse().ok()).collect();
        let reader = self.link.sealing().await?;
        // A store without a server in between hands keys on as they are: seal to this node.
        let reader = reader.unwrap_or_else(|| self.shop.key.sealing_public());
        let report = CheckpointReport {
            claim: self.grant.claim,
            sequence,
            manifest: self.manifest(packed, &reader, CHECKPOINT_KEY, replicas)?,
        };
        self.report_checkpoint(report).await?;
        Ok(keepers)
    }

    async fn replicate_checkpoint(&self, packed: &Packed) -> Result<Vec<Replica>, SaveError> {
        let wanted = self.grant.spec.result_copies;
        if wanted == 0 {
            return Ok(Vec::new());
        }
        let policy = &self.shop.policy;
        let mut request = seal::keep_request(packed, &self.grant.namespace, policy.keep);
        request.series = Some(self.saves.series);
        let (objects, preferred) = (&self.shop.objects, self.saves.keepers());
        let replicas = objects.replicate(&request, &self.grant.namespace, wanted, &preferred);
        let within = policy.replicate_within;
        let found = tokio::time::timeout(within, replicas).await;
        found.map_err(|_| SaveError::NotKept {
            held: 0,
            wanted,
            within,
        })
    }

    /// Repeats it while nobody answers: the same claim and sequence are taken once.
    async fn report_checkpoint(&self, report: CheckpointReport) -> Result<(), StoreError> {
        let (store, who) = (self.link.store(), self.link.principal());
        let repeating = async {
            let mut pause = REPORT_PAUSE;
            loop {
                match in_time(store.checkpoint(who, report.clone())).await {
                    Err(error) if error.is_retryable() => {
                        tracing::debug!(job = %self.key.job, %error, "checkpoint not answered");
                    }
                    answer => return answer,
                }
                tokio::time::sleep(pause.mul_f64(rand::random_range(0.75..1.25))).await;
                pause *= 2;
            }
        };
        let within = self.shop.policy.replicate_within;
        let given_up = |_| Err(StoreError::Unavailable("no answer".to_owned()));
        tokio::time::timeout(within, repeating)
            .await
            .unwrap_or_else(given_up)
    }

    async fn let_go_of_older(&self, held: Held) -> Result<(), SaveError> {
        let keepers = self.saves.acknowledge(held);
        let roots = self.saves.roots();
        let objects = &self.shop.objects;
        objects.retain(keepers, self.saves.series, roots.clone());
        self.keep_here(roots).await;
        Ok(())
    }

    /// The job is over: nobody resumes it.
    pub(super) fn forget_checkpoints(&self) {
        let keepers = self.saves.keepers();
        if keepers.is_empty() && self.saves.roots().is_empty() {
            return;
        }
        let attempt = self.share();
        let objects = &self.shop.objects;
        objects.retain(keepers, self.saves.series, Vec::new());
        tokio::spawn(async move { attempt.keep_here(Vec::new()).await });
    }

    /// Lets go of the job's checkpoints on this machine but `roots`.
    async fn keep_here(&self, roots: Vec<Cid>) {
        let (blocks, owner) = (self.shop.objects.blocks().clone(), self.checkpoint_owner());
        let retained = seal::blocking(move || Ok(blocks.retain(&owner, &roots)?)).await;
        if let Err(error) = retained {
            tracing::warn!(job = %self.key.job, %error, "old checkpoints stay here for a while");
        }
    }

    /// Who pins the job's checkpoints on this machine, made or fetched.
    pub(super) fn checkpoint_owner(&self) -> String {
        format!("checkpoint:{}", self.key.job)
    }
}

fn is_empty(dir: &Path) -> bool {
    let finished = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| {
            !entry
                .file_name()
                .as_encoded_bytes()
                .ends_with(UNFINISHED.as_bytes())
        })
    };
    // A directory that cannot be read is not empty: packing it says what is wrong.
    std::fs::read_dir(dir).is_ok_and(|mut entries| !entries.any(finished))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_unfinished_files_holds_nothing_to_save() {
        let dir = tempfile::tempdir().unwrap();
        assert!(is_empty(dir.path()));
        std::fs::write(dir.path().join("state.partial"), "half").unwrap();
        assert!(is_empty(dir.path()));
        std::fs::write(dir.path().join("state"), "whole").unwrap();
        assert!(!is_empty(dir.path()));
        assert!(!is_empty(&dir.path().join("absent")));
    }

    #[test]
    fn the_series_follows_from_the_secret_and_does_not_tell_it() {
        let secret = DataKey::from_bytes([7; 32]);
        let series = series_of(&secret);
        assert_eq!(series, series_of(&DataKey::from_bytes([7; 32])));
        assert_ne!(series, series_of(&DataKey::from_bytes([8; 32])));
        assert_ne!(series.as_ref(), secret.expose());
    }
}
