//! Streams of the block protocol: opening them to peers, and serving those that peers open.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};
use mutual_data::transfer::{BoxStream, Dial, PROTOCOL, Server, frame};
use mutual_data::{BlockStore, Cid};
use mutual_model::identity::{NodeId, NodeKey};
use tokio::sync::Semaphore;
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

use super::gate::{Gatekeeper, Guest};
use super::{Inner, SwarmError, address, hello, lane};

/// Streams served at a time; more wait. Each costs at most four blocks of memory.
const STREAMS_MAX: usize = 32;

/// Room for what is served at once, over all kinds of streams.
pub(super) type Places = Arc<Semaphore>;

/// A peer to fetch from or to keep at.
pub(super) struct Provider {
    inner: Arc<Inner>,
    peer: PeerId,
    addresses: Vec<Multiaddr>,
    /// A lane was tried: if it broke, or there is none, another would too.
    lane_tried: AtomicBool,
}

impl Provider {
    pub(super) fn new(inner: Arc<Inner>, peer: PeerId, addresses: Vec<Multiaddr>) -> Self {
        Self {
            inner,
            peer,
            addresses,
            lane_tried: AtomicBool::new(false),
        }
    }
}

impl Provider {
    /// Makes sure that there is a connection, or that there is none to be had for now.
    pub(super) async fn reach(&self, limit: Duration) -> io::Result<()> {
        let connecting = self.inner.connect(self.peer, self.addresses.clone());
        match tokio::time::timeout(limit, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

#[async_trait::async_trait]
impl Dial for Provider {
    fn name(&self) -> String {
        self.peer.to_string()
    }

    async fn open(&self) -> io::Result<BoxStream> {
        self.inner
            .connect(self.peer, self.addresses.clone())
            .await?;
        let mut streams = self.inner.streams.clone();
        let opened = streams
            .open_stream(self.peer, StreamProtocol::new(PROTOCOL))
            .await;
        let mut stream = opened.map_err(io::Error::other)?.compat();
        hello::write(&mut stream, &self.inner.hello).await?;
        Ok(Box::pin(stream))
    }

    async fn open_wide(&self, root: &Cid) -> io::Result<BoxStream> {
        let lanes = self.inner.lanes.as_ref();
        let lanes = lanes.filter(|avoided| !avoided.has(&self.peer));
        let Some(avoided) = lanes.filter(|_| !self.lane_tried.swap(true, Ordering::Relaxed)) else {
            return self.open().await;
        };
        let (peer, addresses) = (self.peer, &self.addresses);
        self.inner.connect(peer, addresses.clone()).await?;
        let mut streams = self.inner.streams.clone();
        match lane::dial(&mut streams, peer, addresses, &self.inner.hello, root).await {
            Ok(lane) => Ok(lane),
            Err(error) => {
                tracing::debug!(%peer, %error, "no lane");
                avoided.add(peer);
                self.open().await
            }
        }
    }
}

/// What is served, in whose name, and who is let in.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) store: BlockStore,
    pub(super) key: Arc<NodeKey>,
    pub(super) gate: Arc<dyn Gatekeeper>,
}

impl Host {
    /// Reads the certificate that opens a stream of `peer` and judges it; what serves its bearer.
    ///
    /// # Errors
    /// The reason, for the peer's eyes.
    pub(super) async fn admit(
        &self,
        peer: PeerId,
        stream: &mut (impl mutual_data::transfer::Stream + Sized),
    ) -> Result<(NodeId, Server), String> {
        let public = address::public_key(&peer).ok_or("your key is not an Ed25519 key")?;
        let certificate = hello::read(stream, &public).await;
        let certificate = certificate.map_err(|error| error.to_string())?;
        self.gate.admit(&certificate)?;
        let guest = Guest {
            certificate,
            gate: Arc::clone(&self.gate),
        };
        let server = Server::new(self.store.clone(), Arc::clone(&self.key), Arc::new(guest));
        Ok((public.node_id(), server))
    }
}

/// Room for [`STREAMS_MAX`] streams.
pub(super) fn places() -> Places {
    Arc::new(Semaphore::new(STREAMS_MAX))
}

/// Serves every stream that peers open, until the swarm ends.
pub(super) fn serve_all(
    mut control: libp2p_stream::Control,
    host: Host,
    places: Places,
) -> Result<(), SwarmError> {
    let incoming = control.accept(StreamProtocol::new(PROTOCOL));
    let mut incoming = incoming.map_err(|e| SwarmError::Transport(e.to_string()))?;
    tokio::spawn(async move {
        while let Some((peer, stream)) = incoming.next().await {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let host = host.clone();
            tokio::spawn(async move {
                serve(peer, stream, &host).await;
                drop(place);
            });
        }
    });
    Ok(())
}

async fn serve(peer: PeerId, stream: Stream, host: &Host) {
    let mut stream = stream.compat();
    let (node, server) = match host.admit(peer, &mut stream).await {
        Ok(admitted) => admitted,
        Err(reason) => {
            tracing::debug!(%peer, reason, "a stream was refused");
            let _ = frame::write_message(&mut stream, frame::Message::Refused { reason }).await;
            return;
        }
    };
    if let Err(error) = server.serve(node, stream).await {
        tracing::debug!(%peer, %error, "a stream ended early");
    }
}
