//! What an attempt finds when it begins: its input, and the last checkpoint of its predecessors.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mutual_data::transfer::{FetchOptions, TransferError};
use mutual_data::tree::{self, Limits, TreeError};
use mutual_data::{Cid, DataKey};
use mutual_demand::Manifest;
use mutual_model::job::{Failure, IsolationClass};
use tokio::task::JoinError;

use super::attempt::Attempt;
use super::images::not_started;
use super::seal::{self, CHECKPOINT_KEY, INPUT_KEY, SealedError};
use super::shelf::{Address, Unpacked};

/// How long a peer that is said to have a checkpoint may be silent: the machine that saved it is often the one that
/// died, and another checkpoint waits behind this one.
const CHECKPOINT_STALL: Duration = Duration::from_secs(5);

/// Why an object did not get here.
#[derive(Debug, thiserror::Error)]
enum ArrivalError {
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error(transparent)]
    Sealed(#[from] SealedError),
}

impl ArrivalError {
    /// Whether another machine, or a later try, may do better: not if the object itself is bad.
    fn is_retryable(&self) -> bool {
        match self {
            Self::Transfer(error) => error.is_retryable(),
            Self::Sealed(SealedError::Tree(error)) => {
                error.is_full() || matches!(error, TreeError::Io { .. })
            }
            Self::Sealed(SealedError::Blocks(_) | SealedError::System(_)) => true,
            Self::Sealed(_) => false,
        }
    }
}

impl Attempt {
    /// Fetches and unpacks the input; the task then finds it at `$MUTUAL_INPUT`. A container is given a tree that
    /// tasks share, any other class a copy of its own in `target`.
    pub(super) async fn fetch_input(
        &self,
        target: PathBuf,
    ) -> Result<Option<Arc<Unpacked>>, Failure> {
        let Some(input) = &self.grant.input else {
            return Ok(None);
        };
        let arrived = match self.class {
            IsolationClass::Container => self.bring_shared(input).await.map(Some),
            _ => self
                .bring(input, INPUT_KEY, self.input_owner(), target)
                .await
                .map(|()| None),
        };
        let arrived = arrived
            .map_err(|error| not_started(format!("input: {error}"), error.is_retryable()))?;
        self.announce_input(input);
        Ok(arrived)
    }

    async fn bring_shared(&self, input: &Manifest) -> Result<Arc<Unpacked>, ArrivalError> {
        let root = seal::root_of(input)?;
        let key = seal::open_key(&self.shop.key, INPUT_KEY, input)?;
        let address = Address::of(&root, &key);
        self.fetch(&root, input, self.input_owner(), None).await?;
        let (blocks, limits) = (self.shop.objects.blocks().clone(), self.limits());
        let runtime = self.shop.runtime.clone();
        let unpack = move |target: &Path| {
            seal::unpack(&blocks, &root, &key, target, limits)?;
            let given = runtime.give(target);
            given.map_err(|error| SealedError::System(error.to_string()))
        };
        let lost = |error: JoinError| SealedError::System(error.to_string());
        let shelf = &self.shop.shelf;
        Ok(shelf.tree(address, input.bytes, unpack, lost).await?)
    }

    fn announce_input(&self, input: &Manifest) {
        let presence = self.shop.presence.clone();
        let (namespace, job) = (self.grant.namespace.clone(), self.key.job);
        let root = input.root.clone();
        tokio::spawn(async move { presence.provides(namespace, job, root).await });
    }

    /// Brings back the best checkpoint that can be had, else the one before, else none
    /// (DESIGN §3.11).
    pub(super) async fn restore_checkpoint(&self, target: PathBuf) -> Result<(), Failure> {
        for checkpoint in &self.grant.checkpoints {
            let (manifest, place) = (&checkpoint.manifest, target.clone());
            let owner = self.checkpoint_owner();
            match self.bring(manifest, CHECKPOINT_KEY, owner, place).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(job = %self.key.job, %error, "checkpoint cannot be restored");
                    // What was unpacked of it must not mix with the next one.
                    let _ = tree::remove(&target);
                    let made = std::fs::create_dir_all(&target);
                    made.map_err(|error| not_started(format!("checkpoint: {error}"), true))?;
                }
            }
        }
        Ok(())
    }

    async fn bring(
        &self,
        manifest: &Manifest,
        purpose: &str,
        owner: String,
        target: PathBuf,
    ) -> Result<(), ArrivalError> {
        let root = seal::root_of(manifest)?;
        let key = seal::open_key(&self.shop.key, purpose, manifest)?;
        let stall = (purpose == CHECKPOINT_KEY).then_some(CHECKPOINT_STALL);
        self.fetch(&root, manifest, owner, stall).await?;
        Ok(self.unpack(root, key, target).await?)
    }

    fn input_owner(&self) -> String {
        format!("job:{}", self.key.job)
    }

    async fn fetch(
        &self,
        root: &Cid,
        manifest: &Manifest,
        owner: String,
        stall: Option<Duration>,
    ) -> Result<(), TransferError> {
        let mut options = FetchOptions::new(owner);
        options.stall = stall.unwrap_or(options.stall);
        options.namespace = Some(self.grant.namespace.as_str().to_owned());
        options.bytes_expected = manifest.bytes;
        options.bytes_max = self.shop.policy.input_bytes_max;
        options.until = Some(self.keep_until());
        let objects = &self.shop.objects;
        let (job, seeders) = (self.key.job, &manifest.seeders);
        objects.fetch(job, *root, seeders, options).await
    }

    async fn unpack(&self, root: Cid, key: DataKey, target: PathBuf) -> Result<(), SealedError> {
        let blocks = self.shop.objects.blocks().clone();
        let limits = self.limits();
        seal::blocking(move || seal::unpack(&blocks, &root, &key, &target, limits)).await
    }

    fn limits(&self) -> Limits {
        Limits {
            bytes: self.shop.policy.input_bytes_max,
            ..Limits::default()
        }
    }

    /// Until when what this attempt brings and makes stays on this machine: unix milliseconds.
    pub(super) fn keep_until(&self) -> u64 {
        crate::auth::unix_now().after(self.shop.policy.keep).0
    }
}
