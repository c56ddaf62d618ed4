//! Unpacked images: each once, under its digest, shared by all tasks and written to by none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use mutual_data::address::Cid;
use mutual_data::image::{Image, ImageError, UnpackOptions};
use mutual_data::store::BlockStore;
use oci_spec::image::ImageConfiguration;

use super::spec::{Rootfs, RunSpec};

const ROOT: &str = "root";
const CONFIG: &str = "config.json";

/// A directory of unpacked images.
#[derive(Debug)]
pub struct Images {
    dir: PathBuf,
    /// Whom the files are given to, so that tasks of a root agent can read them all.
    owner: Option<u32>,
    /// One image is unpacked at a time; a second task that needs it waits instead of unpacking it again.
    unpacking: Mutex<()>,
}

/// An image ready to be a task's root.
#[derive(Clone, Debug)]
pub struct ImageRoot {
    /// The unpacked root.
    pub dir: PathBuf,
    config: ImageConfiguration,
}

/// Why an image cannot be a task's root.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The image itself is wrong.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Its configuration cannot be read.
    #[error("the image's configuration: {0}")]
    Config(#[from] oci_spec::OciSpecError),
    /// A file could not be written.
    #[error("{path}: {source}")]
    Io {
        /// The path.
        path: String,
        /// The kernel's word.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl Fn(io::Error) -> RootError + '_ {
    move |source| RootError::Io {
        path: path.display().to_string(),
        source,
    }
}

impl Images {
    pub(super) fn open(dir: PathBuf, owner: Option<u32>) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self {
            dir,
            owner,
            unpacking: Mutex::new(()),
        })
    }

    /// The root of the image whose DAG is `root` in `store`, unpacked now or before. Blocks the thread while it does.
    ///
    /// # Errors
    /// [`RootError`]; nothing half-unpacked is left under the image's name.
    pub fn of_store(&self, store: &BlockStore, root: &Cid) -> Result<ImageRoot, RootError> {
        self.root(&root.to_string(), || Image::from_store(store, root))
    }

    /// The root of the image layout in `layout`, unpacked under `key`, which must name its content.
    ///
    /// # Errors
    /// As [`Images::of_store`].
    pub fn of_layout(&self, layout: &Path, key: &str) -> Result<ImageRoot, RootError> {
        self.root(key, || Image::from_layout(layout))
    }

    fn root<'a>(
        &self,
        key: &str,
        open: impl FnOnce() -> Result<Image<'a>, ImageError>,
    ) -> Result<ImageRoot, RootError> {
        let _one = self
            .unpacking
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let key: String = key.chars().map(super::spec::name_char).collect();
        let place = self.dir.join(&key);
        if !place.exists() {
            self.unpack(&open()?, &place)?;
        }
        let config = place.join(CONFIG);
        let config = ImageConfiguration::from_file(config)?;
        let dir = place.join(ROOT);
        Ok(ImageRoot { dir, config })
    }

    /// Unpacks beside the place and moves there when all is well.
    fn unpack(&self, image: &Image<'_>, place: &Path) -> Result<(), RootError> {
        let draft = tempfile::Builder::new()
            .prefix(".draft-")
            .tempdir_in(&self.dir)
            .map_err(at(&self.dir))?;
        let root = draft.path().join(ROOT);
        let unpacked = image.unpack_rootfs(None, &root, UnpackOptions::default())?;
        if let Some(owner) = self.owner {
            super::give(&root, owner).map_err(at(&root))?;
        }
        let config = draft.path().join(CONFIG);
        fs::write(&config, &unpacked.config).map_err(at(&config))?;
        fs::rename(draft.path(), place).map_err(at(place))
    }
}

impl ImageRoot {
    /// Makes a run use this image: its root, its variables where the run has none, its working directory and, if the
    /// run names no command, its own.
    pub fn apply(&self, spec: &mut RunSpec) {
        spec.rootfs = Rootfs::Image {
            dir: self.dir.clone(),
        };
        let Some(config) = self.config.config() else {
            return;
        };
        for variable in config.env().iter().flatten() {
            if let Some((name, value)) = variable.split_once('=') {
                spec.env
                    .entry(name.to_owned())
                    .or_insert_with(|| value.to_owned());
            }
        }
        if spec.argv.is_empty() {
            let parts = [config.entrypoint(), config.cmd()];
            spec.argv = parts.into_iter().flatten().flatten().cloned().collect();
        }
        let workdir = config
            .working_dir()
            .as_ref()
            .filter(|dir| !dir.is_empty() && *dir != "/");
        if spec.workdir.is_none() {
            spec.workdir = workdir.map(PathBuf::from);
        }
    }
}
