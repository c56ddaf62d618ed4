//! The memory store, on a clock that moves when told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mutual_demand::conformance::{self, Harness, Stand};
use mutual_demand::memory::MemoryStore;
use mutual_demand::{Clock as _, DemandStore, ManualClock, StoreConfig};
use mutual_model::time::UnixMillis;

use super::support::{Deaf, pass};

pub(crate) struct Memory;

struct MemoryStand {
    clock: Arc<ManualClock>,
    store: Arc<MemoryStore>,
    heard: Arc<Deaf>,
}

#[async_trait]
impl Harness for Memory {
    async fn fresh(&self) -> Arc<dyn Stand> {
        let clock = Arc::new(ManualClock::new(UnixMillis(1_800_000_000_000)));
        let config = StoreConfig {
            clock: clock.clone(),
            ..conformance::config()
        };
        let store = Arc::new(MemoryStore::new(config, 7).unwrap());
        let heard = Arc::new(Deaf::new(store.clone(), Arc::new(AtomicBool::new(false))));
        Arc::new(MemoryStand {
            clock,
            store,
            heard,
        })
    }
}

#[async_trait]
impl Stand for MemoryStand {
    fn store(&self) -> Arc<dyn DemandStore> {
        self.heard.clone()
    }
    fn elapsed(&self) -> Duration {
        self.clock.read().monotonic
    }
    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }
    async fn set_clock_forward(&self, by: Duration) {
        let wall = self.clock.read().wall;
        self.clock.step_to(wall.after(by));
    }
    async fn restart(&self) {
        self.store.restart();
    }
    async fn lose_next_reply(&self) {
        self.heard.is_lost.store(true, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_conforms() {
    pass(&Memory).await;
}
