//! Unpacked images: each once, under a key that names its content, shared by all tasks and written to by none.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use mutual_data::address::Cid;
use mutual_data::image::{Image, ImageError, UnpackOptions};
use mutual_data::store::BlockStore;
use mutual_data::tree;
use oci_spec::image::ImageConfiguration;

use super::spec::{Rootfs, RunSpec};

const ROOT: &str = "root";
const CONFIG: &str = "config.json";
/// Names that begin so are unfinished or on their way out.
const DRAFT: &str = ".draft-";

/// A directory of unpacked images.
#[derive(Debug)]
pub struct Images {
    dir: PathBuf,
    /// Whom the files are given to, so that tasks of a root agent can read them all.
    owner: Option<u32>,
    /// The places that some [`ImageRoot`] stands for: they are not swept.
    used: Mutex<BTreeMap<PathBuf, Weak<()>>>,
}

/// An image ready to be a task's root. It stays on the disk for as long as this lives.
#[derive(Clone, Debug)]
pub struct ImageRoot {
    /// The unpacked root.
    pub dir: PathBuf,
    config: ImageConfiguration,
    _used: Arc<()>,
}

/// Why an image cannot be a task's root.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The image itself is wrong, or this machine could not unpack it.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Its configuration cannot be read.
    #[error("the image's configuration cannot be read: {0}")]
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

impl RootError {
    /// Whether this machine's disk is to blame and not the image, so that another may do better.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Image(error) => error.is_local(),
            Self::Config(_) => false,
            Self::Io { .. } => true,
        }
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> RootError + '_ {
    move |source| RootError::Io {
        path: path.display().to_string(),
        source,
    }
}

impl Images {
    /// Opens the directory; what an earlier incarnation left unfinished goes.
    pub(super) fn open(dir: PathBuf, owner: Option<u32>) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        let images = Self {
            dir,
            owner,
            used: Mutex::default(),
        };
        for place in images.places().filter(|place| is_draft(place)) {
            let _ = tree::remove(&place);
        }
        Ok(images)
    }

    /// The root that was unpacked under `key` before, if it is still there.
    ///
    /// # Errors
    /// [`RootError::Config`].
    pub fn known(&self, key: &str) -> Result<Option<ImageRoot>, RootError> {
        let place = self.place(key);
        let Some(used) = self.take_up(&place) else {
            return Ok(None);
        };
        Ok(Some(ImageRoot {
            dir: place.join(ROOT),
            config: ImageConfiguration::from_file(place.join(CONFIG))?,
            _used: used,
        }))
    }

    /// The root of the image whose DAG is `root` in `store`, unpacked now or before under `key`. Blocks the thread while
    /// it does.
    ///
    /// # Errors
    /// [`RootError`]; nothing half-unpacked is left under the key.
    pub fn of_store(
        &self,
        store: &BlockStore,
        root: &Cid,
        key: &str,
    ) -> Result<ImageRoot, RootError> {
        self.root(key, || Image::from_store(store, root))
    }

    /// The root of the image layout in `layout`, unpacked now or before under `key`.
    ///
    /// # Errors
    /// As [`Images::of_store`].
    pub fn of_layout(&self, layout: &Path, key: &str) -> Result<ImageRoot, RootError> {
        self.root(key, || Image::from_layout(layout))
    }

    /// Removes images that no task has used for longer than `age`.
    pub fn sweep(&self, age: Duration) {
        let used = self.locked();
        let in_use = |place: &PathBuf| used.get(place).is_some_and(|uses| uses.strong_count() > 0);
        let old = |place: &PathBuf| {
            let changed = fs::metadata(place).and_then(|data| data.modified());
            changed.is_ok_and(|at| at.elapsed().is_ok_and(|elapsed| elapsed > age))
        };
        let places = self.places().filter(|place| !in_use(place) && old(place));
        // Out of sight under the lock, so that nobody takes one up; gone without it, since that takes long.
        let leaving: Vec<_> = places.filter_map(|place| self.set_aside(&place)).collect();
        drop(used);
        for place in leaving {
            let _ = tree::remove(&place);
        }
    }

    fn set_aside(&self, place: &Path) -> Option<PathBuf> {
        let name = place.file_name()?.to_str()?;
        let aside = self.dir.join(format!("{DRAFT}{name}"));
        fs::rename(place, &aside).ok().map(|()| aside)
    }

    fn places(&self) -> impl Iterator<Item = PathBuf> + use<> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path())
    }

    /// Keys are foreign text of any length; a hash is a safe name.
    fn place(&self, key: &str) -> PathBuf {
        self.dir.join(&blake3::hash(key.as_bytes()).to_hex()[..32])
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, Weak<()>>> {
        // What a panicking thread left is still a map of uses.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks a place as used from now on, if it is there.
    fn take_up(&self, place: &Path) -> Option<Arc<()>> {
        let mut used = self.locked();
        used.retain(|_, uses| uses.strong_count() > 0);
        // Its time is that of its last use.
        let touched = fs::File::open(place).and_then(|dir| dir.set_modified(SystemTime::now()));
        touched.ok()?;
        let uses = used.get(place).and_then(Weak::upgrade).unwrap_or_default();
        used.insert(place.to_owned(), Arc::downgrade(&uses));
        Some(uses)
    }

    fn root<'a>(
        &self,
        key: &str,
        open: impl FnOnce() -> Result<Image<'a>, ImageError>,
    ) -> Result<ImageRoot, RootError> {
        if let Some(root) = self.known(key)? {
            return Ok(root);
        }
        let place = self.place(key);
        self.unpack(&open()?, &place)?;
        let gone = || at(&place)(io::ErrorKind::NotFound.into());
        self.known(key)?.ok_or_else(gone)
    }

    /// Unpacks beside the place and moves there when all is well.
    fn unpack(&self, image: &Image<'_>, place: &Path) -> Result<(), RootError> {
        let draft = tempfile::Builder::new()
            .prefix(DRAFT)
            .tempdir_in(&self.dir)
            .map_err(at(&self.dir))?;
        let root = draft.path().join(ROOT);
        let unpacked = image.unpack_rootfs(None, &root, UnpackOptions::default())?;
        if let Some(owner) = self.owner {
            super::give(&root, owner).map_err(at(&root))?;
        }
        let config = draft.path().join(CONFIG);
        fs::write(&config, &unpacked.config).map_err(at(&config))?;
        // Read once before it counts: a bad one is the image's fault, now and for every later task.
        ImageConfiguration::from_file(&config)?;
        match fs::rename(draft.path(), place) {
            // Somebody else unpacked the same meanwhile.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            moved => moved.map_err(at(place)),
        }
    }
}

fn is_draft(place: &Path) -> bool {
    let name = place.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(DRAFT))
}

impl ImageRoot {
    /// Makes a run use this image: its root, its variables where the run has none, its working directory, and its
    /// entry point before the command, or its own command if the run names none.
    pub fn apply(&self, spec: &mut RunSpec) {
        spec.rootfs = Rootfs::Image {
            dir: self.dir.clone(),
        };
        let Some(config) = self.config.config() else {
            return;
        };
        for variable in config.env().iter().flatten() {
            if let Some((name, value)) = variable.split_once('=')
                && !name.is_empty()
            {
                let value = || value.to_owned();
                spec.env.entry(name.to_owned()).or_insert_with(value);
            }
        }
        if spec.argv.is_empty() {
            spec.argv = config.cmd().clone().unwrap_or_default();
        }
        let entrypoint = config.entrypoint().iter().flatten().cloned();
        spec.argv.splice(..0, entrypoint);
        let workdir = config.working_dir().as_ref().map(PathBuf::from);
        let workdir = workdir.filter(|dir| dir.is_absolute() && dir != Path::new("/"));
        if spec.workdir.is_none() {
            spec.workdir = workdir;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::Class;
    use super::*;

    fn image_root(config: &str) -> ImageRoot {
        ImageRoot {
            dir: "/image".into(),
            config: ImageConfiguration::from_reader(config.as_bytes()).unwrap(),
            _used: Arc::default(),
        }
    }

    fn applied(root: &ImageRoot, argv: &[&str]) -> RunSpec {
        let argv = argv.iter().map(ToString::to_string).collect();
        let mut spec = RunSpec::new("job", Class::Container, argv, "/task".into());
        spec.env.insert("SET".into(), "by the task".into());
        root.apply(&mut spec);
        spec
    }

    #[test]
    fn an_image_says_how_to_run_where_the_task_does_not() {
        let root = image_root(
            r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
                "config":{"Env":["A=1","=x","B","SET=image"],"WorkingDir":"/srv","Entrypoint":["/run"],"Cmd":["x"]}}"#,
        );
        let spec = applied(&root, &["a"]);
        assert_eq!(spec.argv, ["/run", "a"]);
        assert_eq!(spec.workdir, Some("/srv".into()));
        let env = [("A", "1"), ("SET", "by the task")];
        assert_eq!(spec.env, env.map(|(k, v)| (k.into(), v.into())).into());
        assert_eq!(applied(&root, &[]).argv, ["/run", "x"]);
        let plain = image_root(
            r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{"WorkingDir":"up"}}"#,
        );
        let spec = applied(&plain, &["a"]);
        assert_eq!((spec.argv, spec.workdir), (vec!["a".to_owned()], None));
    }

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".draft-left")).unwrap();
        let images = Images::open(dir.path().to_owned(), None).unwrap();
        assert_eq!(images.places().count(), 0, "an unfinished one is left");
        let place = images.place("key");
        fs::create_dir(&place).unwrap();
        let config =
            r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        fs::write(place.join(CONFIG), config).unwrap();
        let root = images.known("key").unwrap().unwrap();
        images.sweep(Duration::ZERO);
        assert!(place.exists(), "an image in use was swept");
        drop(root);
        images.sweep(Duration::from_secs(3600));
        assert!(place.exists(), "an image used just now was swept");
        images.sweep(Duration::ZERO);
        assert!(!place.exists());
        assert!(images.known("key").unwrap().is_none());
    }
}
