//! `/mutual/blocks/1`: blocks between peers, over any byte stream.
//!
//! # Who does what
//! A *provider* has blocks and serves them (`serve`); a *fetcher* wants the DAG below a root and asks many providers
//! at once ([`fetch`]); a *holder* is asked to keep a DAG, pulls it over the same stream, and answers with a storage
//! receipt ([`keep`] asks, `serve` answers). How streams come to be is not our business: a provider is anything that
//! [opens one](Dial), over QUIC, TCP or in memory, and whoever opens it has authenticated the peer.
//!
//! # The stream
//! Frames of `length (u32, big-endian) ‖ kind (u8) ‖ body`, at most [`FRAME_BYTES_MAX`](frame::FRAME_BYTES_MAX).
//! Kind 0 is a [`Message`](frame::Message) in DAG-CBOR, kind 1 a block's bytes. One stream serves one root:
//!
//! ```text
//! fetcher → provider   open {root}
//! provider → fetcher   opened | refused
//! fetcher → provider   want {cids} …       (a window of requests, more as blocks arrive)
//! provider → fetcher   block | missing …   (one for each wanted, in the order they were wanted)
//!
//! asker → holder       keep {root, bytes, …}
//! holder → asker       keeping | refused
//! holder → asker       want …              (roles as above, reversed)
//! holder → asker       kept {receipt} | refused
//!
//! asker → holder       retain {series, roots}
//! holder → asker       retained | refused
//! ```
//!
//! # Series
//! Objects may be kept in a *series*, of which later ones replace earlier ones: checkpoints of a job. Its name is a
//! secret that its makers share; whoever knows it may have the holder let go of all but some of them.
//!
//! # What is checked
//! The provider serves only blocks reachable from the root it allowed. The fetcher hashes every block before it is
//! stored or passed on, and drops a provider that sends anything else, stalls, or breaks the protocol; what it owed is
//! asked elsewhere. What is stored already is not asked for, so a cut transfer goes on where it stopped.
//!
//! # Lanes
//! An authenticated peer may be given a *lane* for one DAG: a stream that is neither encrypted nor authenticated itself
//! and so costs little, opened with a ticket that came over a stream that is both. Only what is ciphertext anyway, or
//! public, is served on one ([`Server::allow_lane`]).
//!
//! # Bounds
//! At most 16 blocks are on their way at a time, over all providers, whatever the object's size; a provider prepares at
//! most four blocks ahead for each stream.

use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::address::Cid;

pub mod frame;

mod fetch;
mod keep;
mod plan;
mod scope;
mod serve;
mod session;

pub use fetch::{Fetch, FetchOptions, Fetched, Progress, ProviderState, ProviderStatus, fetch};
pub use frame::Series;
pub use keep::{KeepRequest, keep, retain};
pub use serve::{Authorise, KeepTerms, Server};

/// The protocol's name, for whoever negotiates streams.
pub const PROTOCOL: &str = "/mutual/blocks/1";

/// A byte stream to one authenticated peer.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A stream whose type does not matter.
pub type BoxStream = Pin<Box<dyn Stream>>;

/// Something that opens streams to one peer.
#[async_trait::async_trait]
pub trait Dial: Send + Sync {
    /// What to call the peer in progress reports and errors.
    fn name(&self) -> String;

    /// Opens a stream of [`PROTOCOL`]. Dropping the future gives up the attempt.
    async fn open(&self) -> io::Result<BoxStream>;

    /// Opens a stream for much of one DAG: by a faster way than [`Dial::open`], if there is one.
    async fn open_wide(&self, root: &Cid) -> io::Result<BoxStream> {
        let _ = root;
        self.open().await
    }
}

/// Why a transfer with one peer, or a whole fetch, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The connection failed or was closed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The peer sent something the protocol does not allow.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    /// The peer said no.
    #[error("the peer refused: {0}")]
    Refused(String),
    /// The peer sent bytes that are not the block asked for, or a node its parent does not describe.
    #[error("the peer sent a bad block: {0}")]
    BadBlock(String),
    /// Nothing came for too long.
    #[error("nothing came within {0:?}")]
    Stalled(std::time::Duration),
    /// No provider is left that has what is missing.
    #[error("{missing} blocks are missing and no provider has them: {providers}")]
    NoProvider {
        /// Blocks still wanted.
        missing: usize,
        /// What became of each provider.
        providers: String,
    },
    /// The object is larger than the caller allows.
    #[error("the object has {bytes} bytes, at most {max} are accepted")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The object belongs to another namespace than was said.
    #[error("the object belongs to namespace {found:?}, not to {expected:?}")]
    Namespace {
        /// What was said.
        expected: Option<String>,
        /// What the manifest says.
        found: Option<String>,
    },
    /// The local store refused: full, or the disk failed.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The receipt is not one for this object by this peer.
    #[error("the peer's storage receipt is not valid: {0}")]
    Receipt(String),
}

impl TransferError {
    /// Whether another machine, or a later try, may do better: not if the object itself is bad.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::TooLarge { .. } | Self::Namespace { .. })
    }
}

/// Runs what touches the disk where it does not block the others.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)
}
