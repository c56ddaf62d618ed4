//! Root file systems of tasks: the machine's own, or images fetched from peers or pulled from a registry.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fs, io};

use async_trait::async_trait;
use mutual_data::dag::Node;
use mutual_data::image::ImageError;
use mutual_data::{BlockStore, Cid, address, tree};
use mutual_model::ids::{JobId, Namespace};
use mutual_model::job::{Failure, Image};

use super::objects::Objects;
use crate::runtime::{self, ImageRoot, RootError, Runtime};

/// Fetches an image from a registry.
#[async_trait]
pub trait Puller: Send + Sync + Debug {
    /// Brings `reference` into the empty directory `layout` as an OCI image layout.
    ///
    /// # Errors
    /// What went wrong, for the user, and whether another machine may do better.
    async fn pull(&self, reference: &str, layout: &Path) -> Result<(), PullError>;
}

/// Why an image could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct PullError {
    /// For the user.
    pub reason: String,
    /// Whether another machine, or a later try, may do better.
    pub retryable: bool,
}

/// The images that tasks on this machine run in, each brought and unpacked once.
#[derive(Debug, Clone)]
pub(super) struct Images {
    /// Layouts on their way from registries.
    dir: PathBuf,
    runtime: Runtime,
    puller: Option<Arc<dyn Puller>>,
    /// One lock per image, so that it is brought once however many tasks want it.
    busy: Arc<Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

/// Who wants an image, and until when it is kept for further tasks, in unix milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) job: JobId,
    pub(super) namespace: &'a Namespace,
    pub(super) keep_until: u64,
}

impl Images {
    pub(super) fn open(
        dir: PathBuf,
        runtime: Runtime,
        puller: Option<Arc<dyn Puller>>,
    ) -> io::Result<Self> {
        tree::remove(&dir)?;
        fs::create_dir_all(&dir)?;
        Ok(Self {
            dir,
            runtime,
            puller,
            busy: Arc::default(),
        })
    }

    /// The root that `image` stands for; none is the machine's own.
    pub(super) async fn root(
        &self,
        image: &Image,
        wish: Wish<'_>,
        objects: &Objects,
    ) -> Result<Option<ImageRoot>, Failure> {
        let root = match image {
            Image::Host => return Ok(None),
            Image::Content(cid) => self.stored(cid, wish, objects).await,
            Image::Registry(reference) => self.pulled(reference).await,
        };
        root.map(Some)
    }

    /// Removes unpacked images that were not used for longer than `age`.
    pub(super) fn sweep(&self, age: Duration) {
        self.runtime.images().sweep(age);
    }

    fn lock(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        // What a panicking thread left is still a map of locks.
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|_, lock| Arc::strong_count(lock) > 1);
        busy.entry(name.to_owned()).or_default().clone()
    }

    async fn stored(
        &self,
        cid: &str,
        wish: Wish<'_>,
        objects: &Objects,
    ) -> Result<ImageRoot, Failure> {
        let root = address::parse(cid).map_err(|error| refused(&error))?;
        let lock = self.lock(cid);
        let _held = lock.lock().await;
        // A private image that is here already is still only for those of its namespace.
        for namespace in [None, Some(wish.namespace.as_str())] {
            let known = self.runtime.images().known(&stored_key(cid, namespace));
            if let Some(root) = known.map_err(|error| not_unpacked(&error))? {
                return Ok(root);
            }
        }
        let fetched = objects.fetch_image(root, wish).await;
        fetched.map_err(|error| not_started(format!("image: {error}"), error.is_retryable()))?;
        let blocks = objects.blocks().clone();
        self.unpack(move |images| {
            let namespace = namespace_of(&blocks, &root)?;
            let key = stored_key(&root.to_string(), namespace.as_deref());
            images.of_store(&blocks, &root, &key)
        })
        .await
    }

    async fn pulled(&self, reference: &str) -> Result<ImageRoot, Failure> {
        let lock = self.lock(reference);
        let _held = lock.lock().await;
        let key = format!("pulled {reference}");
        let known = self.runtime.images().known(&key);
        if let Some(root) = known.map_err(|error| not_unpacked(&error))? {
            return Ok(root);
        }
        let Some(puller) = &self.puller else {
            let reason = "image: this agent does not pull from registries";
            return Err(not_started(reason.to_owned(), true));
        };
        let layout = tempfile::tempdir_in(&self.dir)
            .map_err(|error| not_started(format!("image: {error}"), true))?;
        let pulled = puller.pull(reference, layout.path()).await;
        pulled.map_err(|e| not_started(format!("image: {e}"), e.retryable))?;
        self.unpack(move |images| images.of_layout(layout.path(), &key))
            .await
    }

    async fn unpack(
        &self,
        unpack: impl FnOnce(&runtime::Images) -> Result<ImageRoot, RootError> + Send + 'static,
    ) -> Result<ImageRoot, Failure> {
        let runtime = self.runtime.clone();
        let unpacked = tokio::task::spawn_blocking(move || unpack(runtime.images())).await;
        let unpacked = unpacked.map_err(|error| not_started(format!("image: {error}"), true))?;
        unpacked.map_err(|error| not_unpacked(&error))
    }
}

/// What an unpacked image is kept under: a private one apart from a public one.
fn stored_key(cid: &str, namespace: Option<&str>) -> String {
    match namespace {
        None => format!("public {cid}"),
        Some(namespace) => format!("{namespace} {cid}"),
    }
}

fn namespace_of(blocks: &BlockStore, root: &Cid) -> Result<Option<String>, ImageError> {
    let manifest = Node::decode(&blocks.get(root)?)?;
    Ok(manifest.namespace().map(str::to_owned))
}

fn not_unpacked(error: &RootError) -> Failure {
    not_started(format!("image: {error}"), error.is_local())
}

fn refused(error: &dyn std::fmt::Display) -> Failure {
    not_started(format!("image: {error}"), false)
}

/// A task that could not be started, with the reason in clear text.
pub(super) fn not_started(reason: String, retryable: bool) -> Failure {
    Failure::NotStarted { reason, retryable }
}
