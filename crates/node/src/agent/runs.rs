//! The agent's runs of itself: which incarnation each store knows it by.

use crate::auth::unix_now;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mutual_model::agent::StoreUrl;
use mutual_model::ids::Incarnation;
use mutual_model::job::IsolationClass;
use tokio::sync::watch;
use uuid::Uuid;

/// Hands out incarnations, each later than all before, across restarts and clocks set back.
#[derive(Debug, Clone)]
pub(super) struct Incarnations {
    run: Incarnation,
    inner: Arc<Mutex<Inner>>,
    classes: Arc<[IsolationClass]>,
}

#[derive(Debug)]
struct Inner {
    file: PathBuf,
    last: Incarnation,
    current: BTreeMap<StoreUrl, watch::Sender<Incarnation>>,
    all: watch::Sender<BTreeMap<StoreUrl, Incarnation>>,
}

impl Incarnations {
    /// Reads the last incarnation from `file` and goes on after it.
    ///
    /// # Errors
    /// Whatever reading or writing the file reports; a damaged one is an error too, since a run
    /// that seems earlier than its predecessors would never be heard.
    pub(super) fn open(file: PathBuf, classes: Vec<IsolationClass>) -> io::Result<Self> {
        let last = match fs::read_to_string(&file) {
            Ok(text) => text.trim().parse().map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Incarnation(Uuid::nil()),
            Err(error) => return Err(error),
        };
        let mut inner = Inner {
            file,
            last,
            current: BTreeMap::new(),
            all: watch::Sender::default(),
        };
        Ok(Self {
            run: inner.next()?,
            inner: Arc::new(Mutex::new(inner)),
            classes: classes.into(),
        })
    }

    /// The first incarnation of this run of the process, which stays its name.
    pub(super) const fn run(&self) -> Incarnation {
        self.run
    }

    /// Follows the incarnations at all stores.
    pub(super) fn all(&self) -> watch::Receiver<BTreeMap<StoreUrl, Incarnation>> {
        self.locked().all.subscribe()
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        // What a panicking thread left still only grows.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The classes that the machine offers at all.
    pub(super) fn classes(&self) -> Vec<IsolationClass> {
        self.classes.to_vec()
    }

    /// The incarnation that a store shall know, and how to follow its changes.
    pub(super) fn at(&self, store: &StoreUrl) -> watch::Receiver<Incarnation> {
        let mut inner = self.locked();
        let last = inner.last;
        let current = inner.current.entry(store.clone());
        let current = current
            .or_insert_with(|| watch::channel(last).0)
            .subscribe();
        inner.publish();
        current
    }

    /// The stores that know the agent by `incarnation`.
    pub(super) fn known_as(&self, incarnation: Incarnation) -> Vec<StoreUrl> {
        let inner = self.locked();
        let current = inner.current.iter();
        let same = current.filter(|(_, current)| *current.borrow() == incarnation);
        same.map(|(store, _)| store.clone()).collect()
    }

    /// A later incarnation for a store that declared `refused` dead. Several requests may be refused
    /// under one incarnation; all of them are given the same later one, which the session has too.
    pub(super) fn renew(&self, store: &StoreUrl, refused: Incarnation) -> Incarnation {
        let mut inner = self.locked();
        let current = inner.current.get(store).map(|current| *current.borrow());
        if let Some(current) = current.filter(|current| *current > refused) {
            return current;
        }
        let fresh = match inner.next() {
            Ok(fresh) => fresh,
            Err(error) => {
                // It still is later than all before in this run.
                tracing::error!(%error, "the new incarnation cannot be kept");
                inner.last
            }
        };
        if let Some(current) = inner.current.get(store) {
            current.send_replace(fresh);
        }
        inner.publish();
        fresh
    }
}

impl Inner {
    fn publish(&self) {
        let current = self.current.iter();
        let all = current.map(|(store, current)| (store.clone(), *current.borrow()));
        let all: BTreeMap<_, _> = all.collect();
        self.all.send_if_modified(|told| {
            let changed = *told != all;
            *told = all;
            changed
        });
    }

    fn next(&mut self) -> io::Result<Incarnation> {
        let by_clock = Incarnation::new(unix_now(), rand::random());
        let after_last = Incarnation(Uuid::from_u128(self.last.0.as_u128().saturating_add(1)));
        self.last = by_clock.max(after_last);
        write_whole(&self.file, self.last.to_string().as_bytes())?;
        Ok(self.last)
    }
}

fn write_whole(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = file.with_extension("tmp");
    fs::write(&aside, bytes)?;
    fs::File::open(&aside)?.sync_data()?;
    fs::rename(aside, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutual_model::time::UnixMillis;

    #[test]
    fn incarnations_grow_across_restarts_even_if_the_clock_is_set_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("incarnation");
        let store = StoreUrl::from("http://store");
        let first = Incarnations::open(file.clone(), vec![]).unwrap();
        let mut seen = first.at(&store);
        let before = *seen.borrow_and_update();
        let fresh = first.renew(&store, before);
        assert!(fresh > before);
        assert_eq!(*seen.borrow_and_update(), fresh);
        assert_eq!(first.renew(&store, before), fresh, "refused twice");
        assert!(first.renew(&store, fresh) > fresh);
        let future = Incarnation::new(UnixMillis(u64::MAX >> 20), [0; 10]);
        fs::write(&file, future.to_string()).unwrap();
        let second = Incarnations::open(file.clone(), vec![]).unwrap();
        assert!(*second.at(&store).borrow() > future);
        fs::write(&file, "?").unwrap();
        assert!(Incarnations::open(file, vec![]).is_err());
    }
}
