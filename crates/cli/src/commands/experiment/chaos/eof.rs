//! When the kernel closes the sockets of a process that was killed: the earliest that anyone
//! elsewhere can know of its death.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::unix_us;
use crate::failure::{Failure, Naming as _, Outcome};

/// A killed process's sockets are closed within this, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connections to processes that are going to be killed.
#[derive(Debug, Default)]
pub(crate) struct Eofs {
    ends: JoinSet<(usize, u64)>,
}

impl Eofs {
    /// Dials a process that listens; `number` is its name from here on.
    pub(crate) async fn dial(&mut self, number: usize, address: SocketAddr) -> Outcome {
        let stream = TcpStream::connect(address).await.naming(address)?;
        self.hold(number, stream);
        Ok(())
    }

    /// Waits at a connection for its end, whatever comes before.
    pub(crate) fn hold(&mut self, number: usize, mut stream: TcpStream) {
        self.ends.spawn(async move {
            let mut some = [0; 64];
            while matches!(stream.read(&mut some).await, Ok(1..)) {}
            (number, unix_us())
        });
    }

    /// When each connection ended.
    pub(crate) async fn all(mut self) -> Outcome<BTreeMap<usize, u64>> {
        let mut ends = BTreeMap::new();
        let gather = async {
            while let Some(end) = self.ends.join_next().await {
                ends.extend(end);
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, gather).await;
        in_time.map_err(|_| Failure::internal("a killed process keeps its sockets open"))?;
        Ok(ends)
    }
}
