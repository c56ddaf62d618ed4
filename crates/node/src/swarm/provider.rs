//! Streams of the block protocol: opening them to peers, and serving those that peers open.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};
use mutual_data::BlockStore;
use mutual_data::transfer::{BoxStream, Dial, PROTOCOL, Server, frame};
use mutual_model::identity::NodeKey;
use tokio::sync::Semaphore;
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

use super::gate::{Gatekeeper, Guest};
use super::{Inner, SwarmError, address, hello};

/// Streams served at a time; more wait. Each costs at most four blocks of memory.
const STREAMS_MAX: usize = 32;

/// A peer to fetch from or to keep at.
pub(super) struct Provider {
    inner: Arc<Inner>,
    peer: PeerId,
    addresses: Vec<Multiaddr>,
}

impl Provider {
    pub(super) fn new(inner: Arc<Inner>, peer: PeerId, addresses: Vec<Multiaddr>) -> Self {
        Self {
            inner,
            peer,
            addresses,
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
}

/// Serves every stream that peers open, until the swarm ends.
pub(super) fn serve_all(
    mut control: libp2p_stream::Control,
    store: BlockStore,
    key: Arc<NodeKey>,
    gate: Arc<dyn Gatekeeper>,
) -> Result<(), SwarmError> {
    let incoming = control.accept(StreamProtocol::new(PROTOCOL));
    let mut incoming = incoming.map_err(|e| SwarmError::Transport(e.to_string()))?;
    let places = Arc::new(Semaphore::new(STREAMS_MAX));
    tokio::spawn(async move {
        while let Some((peer, stream)) = incoming.next().await {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let serving = serve(
                peer,
                stream,
                store.clone(),
                Arc::clone(&key),
                Arc::clone(&gate),
            );
            tokio::spawn(async move {
                serving.await;
                drop(place);
            });
        }
    });
    Ok(())
}

async fn serve(
    peer: PeerId,
    stream: Stream,
    store: BlockStore,
    key: Arc<NodeKey>,
    gate: Arc<dyn Gatekeeper>,
) {
    let mut stream = stream.compat();
    let Some(public) = address::public_key(&peer) else {
        return;
    };
    let admitted = match hello::read(&mut stream, &public).await {
        Ok(certificate) => gate.admit(&certificate).map(|()| certificate),
        Err(error) => Err(error.to_string()),
    };
    let certificate = match admitted {
        Ok(certificate) => certificate,
        Err(reason) => {
            tracing::debug!(%peer, reason, "a stream was refused");
            let _ = frame::write_message(&mut stream, frame::Message::Refused { reason }).await;
            return;
        }
    };
    let server = Server::new(store, key, Arc::new(Guest { certificate, gate }));
    if let Err(error) = server.serve(public.node_id(), stream).await {
        tracing::debug!(%peer, %error, "a stream ended early");
    }
}
