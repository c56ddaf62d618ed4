//! The few connections that read beside the writer.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::open;
use crate::{StoreError, StoreResult};

/// Connections; reads are short, so more would only wait for the processor.
const READERS: usize = 4;

#[derive(Debug)]
pub(super) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    free: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn open(path: &Path) -> StoreResult<Self> {
        let idle = (0..READERS)
            .map(|_| open::reading(path))
            .collect::<StoreResult<Vec<_>>>()?;
        Ok(Self {
            idle: Arc::new(Mutex::new(idle)),
            free: Arc::new(Semaphore::new(READERS)),
        })
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Connection) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        let closed = |_| StoreError::Unavailable("the store is closed".into());
        let permit = Arc::clone(&self.free)
            .acquire_owned()
            .await
            .map_err(closed)?;
        let idle = Arc::clone(&self.idle);
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let lent = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(connection) = lent else {
                return Err(StoreError::Internal("a reader was lost".into()));
            };
            let outcome = look(&connection);
            idle.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
            outcome
        });
        task.await
            .unwrap_or_else(|error| Err(StoreError::Internal(format!("a reader failed: {error}"))))
    }
}
