//! Heartbeats over UDP: sealed between the two nodes' keys, never answered.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mutual_model::guardian::{BEAT_BYTES, Beat};
use mutual_model::identity::{NodeId, NodeKey, PublicKey};
use tokio::net::UdpSocket;

use crate::discovery::seal::{Opened, Sealer};

/// Keeps heartbeats and discovery's datagrams apart: neither opens as the other.
const PURPOSE: &[u8] = b"mutual heartbeat v1";
/// Longer than any sealed heartbeat, so that a longer datagram is not taken for one.
const DATAGRAM_MAX: usize = BEAT_BYTES + 128;
/// Datagrams read at a time, so that a flood of them does not keep the guardian from judging.
const BATCH_MAX: usize = 256;

/// One socket for the beats that are sent and those that are heard.
#[derive(Debug)]
pub(super) struct Pulse {
    socket: UdpSocket,
    // Never held while anything waits.
    sealer: Mutex<Sealer>,
    /// How late beats went out lately, in microseconds.
    late_us: AtomicU64,
}

impl Pulse {
    /// Opens the UDP port with the number of the agent's TCP liveness port, if it is free; only the
    /// TCP port is told beforehand.
    pub(super) async fn open(door: SocketAddr, key: NodeKey) -> io::Result<Self> {
        let socket = match UdpSocket::bind(door).await {
            Ok(socket) => socket,
            Err(_) => UdpSocket::bind(SocketAddr::new(door.ip(), 0)).await?,
        };
        Ok(Self {
            socket,
            sealer: Mutex::new(Sealer::new(key, PURPOSE)),
            late_us: AtomicU64::new(0),
        })
    }

    /// Where beats are heard.
    pub(super) fn port(&self) -> io::Result<u16> {
        Ok(self.socket.local_addr()?.port())
    }

    fn sealer(&self) -> std::sync::MutexGuard<'_, Sealer> {
        // What a panicking thread left are keys like any others.
        self.sealer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how late a beat goes out. Worse delays are forgotten little by little.
    pub(super) fn is_late(&self, by: Duration) {
        let by = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        // One writer: nothing is lost between reading and writing.
        let before = self.late_us.load(Ordering::Relaxed);
        self.late_us
            .store(by.max(before - before / 16), Ordering::Relaxed);
    }

    /// How late beats go out lately.
    pub(super) fn lateness(&self) -> Duration {
        Duration::from_micros(self.late_us.load(Ordering::Relaxed))
    }

    /// Sends one beat. What the network does not take is lost, as any datagram may be.
    pub(super) fn send(&self, to: &PublicKey, address: SocketAddr, beat: &Beat) {
        let sealed = self.sealer().seal(to, beat.to_bytes().to_vec());
        if let Some(datagram) = sealed {
            let _ = self.socket.try_send_to(&datagram, address);
        }
    }

    /// Waits until something can be read. Cancel-safe.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// The genuine beats that have arrived; the rest is dropped without a word.
    pub(super) fn heard(&self) -> Vec<(NodeId, Beat)> {
        let mut heard = Vec::new();
        let mut buffer = [0; DATAGRAM_MAX];
        for _ in 0..BATCH_MAX {
            match self.socket.try_recv_from(&mut buffer) {
                Ok((length, _)) => heard.extend(self.opened(&buffer[..length])),
                // A port that was unreachable for an earlier beat shows here, too.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(_) => break,
            }
        }
        heard
    }

    fn opened(&self, datagram: &[u8]) -> Option<(NodeId, Beat)> {
        match self.sealer().open(datagram)? {
            Opened::Message { from, message } => {
                Some((from.node_id(), Beat::from_bytes(&message).ok()?))
            }
            Opened::Who { .. } | Opened::IAm { .. } => None,
        }
    }
}
