//! The SQLite store, on a real file and a clock that moves when told.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use mutual_demand::conformance::{self, Harness, Stand};
use mutual_demand::sqlite::SqliteStore;
use mutual_demand::{Clock as _, DemandStore, ManualClock, StoreConfig, StoreError};
use mutual_model::time::UnixMillis;
use tempfile::TempDir;

use super::support::{Deaf, pass};

pub(crate) struct Sqlite;

struct SqliteStand {
    _home: TempDir,
    path: PathBuf,
    clock: Arc<ManualClock>,
    store: Mutex<Option<Arc<SqliteStore>>>,
    is_lost: Arc<AtomicBool>,
}

impl SqliteStand {
    fn open(&self) -> Arc<SqliteStore> {
        let config = StoreConfig {
            clock: self.clock.clone(),
            ..conformance::config()
        };
        Arc::new(SqliteStore::open(&self.path, config).unwrap())
    }
}

#[async_trait]
impl Harness for Sqlite {
    async fn fresh(&self) -> Arc<dyn Stand> {
        let home = tempfile::tempdir().unwrap();
        let stand = SqliteStand {
            path: home.path().join("demand.sqlite"),
            _home: home,
            clock: Arc::new(ManualClock::new(UnixMillis(1_800_000_000_000))),
            store: Mutex::new(None),
            is_lost: Arc::new(AtomicBool::new(false)),
        };
        *stand.store.lock().unwrap() = Some(stand.open());
        Arc::new(stand)
    }
}

#[async_trait]
impl Stand for SqliteStand {
    fn store(&self) -> Arc<dyn DemandStore> {
        let inner = self.store.lock().unwrap().clone().unwrap();
        Arc::new(Deaf::new(inner, self.is_lost.clone()))
    }
    fn elapsed(&self) -> Duration {
        self.clock.read().monotonic
    }
    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }
    async fn set_clock_forward(&self, by: Duration) {
        self.clock.step_to(self.clock.read().wall.after(by));
    }
    async fn restart(&self) {
        let old = self.store.lock().unwrap().take();
        drop(old);
        let new = self.open();
        *self.store.lock().unwrap() = Some(new);
    }
    async fn lose_next_reply(&self) {
        self.is_lost.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_conforms() {
    pass(&Sqlite).await;
}

#[test]
fn a_store_is_open_once() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("demand.sqlite");
    let first = SqliteStore::open(&path, StoreConfig::default()).unwrap();
    let second = SqliteStore::open(&path, StoreConfig::default());
    assert!(
        matches!(second, Err(StoreError::Unavailable(_))),
        "{second:?}"
    );
    drop(first);
}

#[test]
fn what_is_no_store_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("demand.sqlite");
    std::fs::write(
        &path,
        "a shopping list, much longer than a page of a database".repeat(200),
    )
    .unwrap();
    let opened = SqliteStore::open(&path, StoreConfig::default());
    assert!(opened.is_err(), "{opened:?}");
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(
        kept.starts_with("a shopping list"),
        "the file was left alone"
    );
}

#[test]
fn a_newer_layout_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("demand.sqlite");
    drop(SqliteStore::open(&path, StoreConfig::default()).unwrap());
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let opened = SqliteStore::open(&path, StoreConfig::default());
    assert!(
        matches!(
            opened,
            Err(StoreError::Internal(_) | StoreError::Unavailable(_))
        ),
        "{opened:?}"
    );
}

#[tokio::test]
async fn every_opening_begins_an_epoch() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("demand.sqlite");
    let mut last = 0;
    for _ in 0..3 {
        let store = SqliteStore::open(&path, StoreConfig::default()).unwrap();
        let epoch = store.info().await.unwrap().epoch;
        assert!(epoch > last);
        last = epoch;
    }
}
