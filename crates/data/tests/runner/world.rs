//! Stores, objects and providers for tests.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use mutual_data::store::Options;
use mutual_data::transfer::{
    Authorise, BoxStream, Dial, FetchOptions, KeepRequest, KeepTerms, Server,
};
use mutual_data::tree::{PackOptions, Root, pack};
use mutual_data::{BlockStore, Cid, DataKey};
use mutual_model::identity::{NodeId, NodeKey};
use mutual_model::time::UnixMillis;

pub(crate) const MEBIBYTE: usize = 1024 * 1024;

/// A peer with a store of its own.
pub(crate) struct Peer {
    pub(crate) store: BlockStore,
    pub(crate) key: Arc<NodeKey>,
    scratch: tempfile::TempDir,
}

impl Peer {
    pub(crate) fn new(seed: u8) -> Self {
        Self::with_quota(seed, 1 << 32)
    }

    pub(crate) fn with_quota(seed: u8, quota_bytes: u64) -> Self {
        Self::in_dir(seed, tempfile::tempdir().unwrap(), quota_bytes)
    }

    pub(crate) fn in_dir(seed: u8, scratch: tempfile::TempDir, quota_bytes: u64) -> Self {
        let options = Options {
            quota_bytes,
            durable: false,
        };
        Self {
            store: BlockStore::open(scratch.path().join("store"), options).unwrap(),
            key: Arc::new(NodeKey::from_seed(&[seed; 32])),
            scratch,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Packs `bytes` of noise as one file and pins it.
    pub(crate) fn publish(&self, bytes: usize) -> (Root, DataKey) {
        let file = self.path("file");
        std::fs::write(&file, noise(bytes)).unwrap();
        let key = DataKey::generate().unwrap();
        let batch = self.store.batch();
        let packed = pack(&batch, &key, &PackOptions::private("lab"), &file).unwrap();
        batch.commit(&packed.root.cid, "test", None).unwrap();
        (packed.root, key)
    }

    pub(crate) fn server(&self) -> Server {
        Server::new(self.store.clone(), Arc::clone(&self.key), Arc::new(Members))
    }

    /// A provider that serves this peer's store to node 1.
    pub(crate) fn provider(&self) -> Arc<Local> {
        Arc::new(Local::new(self.server()))
    }
}

pub(crate) fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new()
        .update(b"noise")
        .finalize_xof()
        .fill(&mut noise);
    noise
}

pub(crate) fn options() -> FetchOptions {
    FetchOptions {
        stall: Duration::from_millis(500),
        lonely: Duration::from_millis(50),
        ..FetchOptions::new("test")
    }
}

/// Members of `lab` may read; `lab` objects of at most 100 MiB are held for an hour.
pub(crate) struct Members;

impl Authorise for Members {
    fn may_read(&self, _: &NodeId, _: &Cid, namespace: Option<&str>) -> Result<(), String> {
        match namespace {
            None | Some("lab") => Ok(()),
            Some(other) => Err(format!("you are no member of {other}")),
        }
    }

    fn may_keep(&self, _: &NodeId, request: &KeepRequest) -> Result<KeepTerms, String> {
        if request.bytes > 100 << 20 {
            return Err("more than 100 MiB".into());
        }
        Ok(KeepTerms {
            until: UnixMillis(u64::MAX / 2),
        })
    }
}

/// What a provider does to its streams.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    None,
    /// The first streams end after this many bytes.
    CutAfter {
        bytes: usize,
        streams: usize,
    },
    /// One byte after this many is flipped.
    CorruptAfter(usize),
    /// Nothing more comes after this many.
    StallAfter(usize),
    /// Cannot be reached.
    Refuse,
    /// Pauses this long before each 64 KiB.
    Slow(Duration),
}

/// A provider in this process, over an in-memory stream.
pub(crate) struct Local {
    server: Server,
    fault: Fault,
    pub(crate) opened: AtomicUsize,
}

impl Local {
    pub(crate) fn new(server: Server) -> Self {
        Self {
            server,
            fault: Fault::None,
            opened: AtomicUsize::new(0),
        }
    }

    pub(crate) fn faulty(server: Server, fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            fault,
            ..Self::new(server)
        })
    }
}

#[async_trait::async_trait]
impl Dial for Local {
    fn name(&self) -> String {
        format!("{:?}", self.fault)
    }

    async fn open(&self) -> io::Result<BoxStream> {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let fault = match self.fault {
            Fault::Refuse => return Err(io::ErrorKind::ConnectionRefused.into()),
            Fault::CutAfter { streams, .. } if number >= streams => Fault::None,
            other => other,
        };
        let (near, middle) = tokio::io::duplex(64 * 1024);
        let (relay, far) = tokio::io::duplex(64 * 1024);
        let server = self.server.clone();
        let client = NodeKey::from_seed(&[1; 32]).id();
        tokio::spawn(async move { server.serve(client, far).await });
        tokio::spawn(pass(relay, middle, fault));
        Ok(Box::pin(near))
    }
}

/// Passes bytes between server and client, spoiling those that go to the client.
async fn pass(server: tokio::io::DuplexStream, client: tokio::io::DuplexStream, fault: Fault) {
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let down = spoil(&mut from_server, &mut to_client, fault);
    let up = async { tokio::io::copy(&mut from_client, &mut to_server).await };
    tokio::pin!(down);
    tokio::select! {
        _ = &mut down => {}
        // The server has ended or the client asks no more: what is on its way down still arrives.
        _ = up => {
            let _ = to_server.shutdown().await;
            let _ = down.await;
        }
    }
}

async fn spoil(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    fault: Fault,
) -> io::Result<()> {
    let mut passed = 0;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        match fault {
            Fault::CutAfter { bytes, .. } if passed > bytes => return Ok(()),
            Fault::StallAfter(bytes) if passed > bytes => std::future::pending().await,
            Fault::CorruptAfter(bytes) if (passed..passed + read).contains(&bytes) => {
                buffer[bytes - passed] ^= 1;
            }
            // may sleep: a slow peer is what this fault plays.
            Fault::Slow(pause) => tokio::time::sleep(pause).await,
            _ => {}
        }
        to.write_all(&buffer[..read]).await?;
        passed += read;
    }
}
