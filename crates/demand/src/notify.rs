//! Tells those who wait for changes that there are some.

use tokio::sync::watch;

/// Counts committed batches of changes; readers wait for the count to move, then ask for events.
#[derive(Debug)]
pub(crate) struct Changes {
    count: watch::Sender<u64>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            count: watch::Sender::new(0),
        }
    }
}

impl Changes {
    pub(crate) fn announce(&self) {
        self.count.send_modify(|count| *count += 1);
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }
}
