//! Root file systems of tasks: the machine's own, or unpacked images, each unpacked once.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use mutual_data::image::{Image as Layers, UnpackOptions};
use mutual_data::transfer::FetchOptions;
use mutual_data::{BlockStore, address};
use mutual_model::ids::{JobId, Namespace};
use mutual_model::job::{Failure, Image};
use serde::Deserialize;

use super::objects::Objects;
use crate::runtime::Rootfs;

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

/// A root file system and what the image says of how to run in it.
#[derive(Debug, Clone)]
pub(super) struct Root {
    pub(super) rootfs: Rootfs,
    pub(super) settings: Settings,
}

/// The part of an image's configuration that a run heeds
/// (<https://github.com/opencontainers/image-spec/blob/v1.1.0/config.md>).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Settings {
    #[serde(rename = "Env")]
    env: Vec<String>,
    #[serde(rename = "WorkingDir")]
    working_dir: String,
    #[serde(rename = "Entrypoint")]
    entrypoint: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    config: Settings,
}

impl Settings {
    fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        // An object it must be: a structure is read from a list too.
        let parsed = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(bytes);
        let parsed =
            parsed.and_then(|object| serde_json::from_value::<Configuration>(object.into()));
        let parsed = parsed.map_err(|error| not_started(format!("image: {error}"), false))?;
        Ok(parsed.config)
    }

    pub(super) fn env(&self) -> BTreeMap<String, String> {
        let pairs = self.env.iter().filter_map(|pair| pair.split_once('='));
        let pairs = pairs.filter(|(name, _)| !name.is_empty());
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    pub(super) fn working_dir(&self) -> Option<PathBuf> {
        let dir = PathBuf::from(&self.working_dir);
        (dir.is_absolute() && dir != Path::new("/")).then_some(dir)
    }

    /// The command with the image's entry point in front.
    pub(super) fn command(&self, command: &[String]) -> Vec<String> {
        let entrypoint = self.entrypoint.iter().flatten();
        entrypoint.chain(command).cloned().collect()
    }
}

/// Unpacked images on this machine.
#[derive(Debug, Clone)]
pub(super) struct Images {
    dir: PathBuf,
    puller: Option<Arc<dyn Puller>>,
    /// One lock per image, so that it is unpacked once however many tasks want it.
    busy: Arc<Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

impl Images {
    pub(super) fn open(dir: PathBuf, puller: Option<Arc<dyn Puller>>) -> std::io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self {
            dir,
            puller,
            busy: Arc::default(),
        })
    }

    pub(super) async fn root(
        &self,
        image: &Image,
        job: JobId,
        namespace: &Namespace,
        objects: &Objects,
    ) -> Result<Root, Failure> {
        let name = match image {
            Image::Host => {
                return Ok(Root {
                    rootfs: Rootfs::Host,
                    settings: Settings::default(),
                });
            }
            Image::Registry(text) | Image::Content(text) => text,
        };
        let lock = self.lock(name);
        let _held = lock.lock().await;
        let place = self.dir.join(&blake3::hash(name.as_bytes()).to_hex()[..32]);
        if !place.join("config.json").exists() {
            self.bring(image, job, namespace, objects, &place).await?;
        }
        let config = fs::read(place.join("config.json"));
        let config = config.map_err(|error| not_started(format!("image: {error}"), true))?;
        Ok(Root {
            rootfs: Rootfs::Image {
                dir: place.join("rootfs"),
            },
            settings: Settings::parse(&config)?,
        })
    }

    fn lock(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        // What a panicking thread left is still a map of locks.
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|_, lock| Arc::strong_count(lock) > 1);
        busy.entry(name.to_owned()).or_default().clone()
    }

    async fn bring(
        &self,
        image: &Image,
        job: JobId,
        namespace: &Namespace,
        objects: &Objects,
        place: &Path,
    ) -> Result<(), Failure> {
        match image {
            Image::Host => Ok(()),
            Image::Content(cid) => {
                let root = address::parse(cid)
                    .map_err(|error| not_started(format!("image: {error}"), false))?;
                let mut options = FetchOptions::new("images");
                options.namespace = Some(namespace.as_str().to_owned());
                let fetched = objects.fetch(job, root, &[], options).await;
                fetched.map_err(|error| not_started(format!("image: {error}"), true))?;
                let blocks = objects.blocks().clone();
                unpack(place, move |target| from_blocks(&blocks, &root, target)).await
            }
            Image::Registry(reference) => {
                let Some(puller) = &self.puller else {
                    let reason = "image: this agent does not pull from registries";
                    return Err(not_started(reason.to_owned(), true));
                };
                let layout = tempfile::tempdir_in(&self.dir)
                    .map_err(|error| not_started(format!("image: {error}"), true))?;
                let pulled = puller.pull(reference, layout.path()).await;
                pulled.map_err(|e| not_started(format!("image: {e}"), e.retryable))?;
                unpack(place, move |target| from_layout(layout.path(), target)).await
            }
        }
    }
}

type Config = Result<Vec<u8>, mutual_data::image::ImageError>;

fn from_blocks(blocks: &BlockStore, root: &mutual_data::Cid, target: &Path) -> Config {
    let image = Layers::from_store(blocks, root)?;
    let made = image.unpack_rootfs(None, target, UnpackOptions::default())?;
    Ok(made.config)
}

fn from_layout(layout: &Path, target: &Path) -> Config {
    let image = Layers::from_layout(layout)?;
    let made = image.unpack_rootfs(None, target, UnpackOptions::default())?;
    Ok(made.config)
}

/// Makes `place` with `rootfs/` and, last, `config.json`: with that it is complete.
async fn unpack(
    place: &Path,
    unpack: impl FnOnce(&Path) -> Config + Send + 'static,
) -> Result<(), Failure> {
    let place = place.to_owned();
    let work = move || -> Result<(), Failure> {
        let wrong = |error: std::io::Error| not_started(format!("image: {error}"), true);
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).map_err(wrong)?;
        let config = unpack(&place.join("rootfs"))
            .map_err(|error| not_started(format!("image: {error}"), false))?;
        fs::write(place.join("config.aside"), config).map_err(wrong)?;
        fs::rename(place.join("config.aside"), place.join("config.json")).map_err(wrong)
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(not_started(format!("image: {error}"), true)))
}

/// A task that could not be started, with the reason in clear text.
pub(super) fn not_started(reason: String, retryable: bool) -> Failure {
    Failure::NotStarted { reason, retryable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_images_settings_are_read_and_bounded_to_what_makes_sense() {
        let text = br#"{"architecture":"amd64","config":{"Env":["A=1","=x","B"],
            "WorkingDir":"/srv","Entrypoint":["/run"],"Cmd":["x"]}}"#;
        let settings = Settings::parse(text).unwrap();
        assert_eq!(settings.env(), BTreeMap::from([("A".into(), "1".into())]));
        assert_eq!(settings.working_dir(), Some("/srv".into()));
        assert_eq!(settings.command(&["a".into()]), ["/run", "a"]);
        let plain = Settings::parse(b"{}").unwrap();
        assert_eq!(plain.working_dir(), None);
        assert_eq!(plain.command(&["a".into()]), ["a"]);
        assert!(Settings::parse(b"[]").is_err());
    }
}
