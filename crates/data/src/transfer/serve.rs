//! The other side: serving blocks, and holding DAGs for others.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mutual_model::identity::{NodeId, NodeKey};
use mutual_model::ids::ContentId;
use mutual_model::receipt::StorageReceipt;
use mutual_model::time::UnixMillis;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::fetch::{FetchOptions, Shared, lock};
use super::frame::{self, Frame, Message, Series};
use super::scope::Scope;
use super::{KeepRequest, Stream, TransferError, blocking, session};
use crate::address::Cid;
use crate::dag::Node;
use crate::store::{BlockStore, StoreError};

/// Blocks read ahead of what the peer has taken, for one stream.
const AHEAD: usize = 2;

/// How long a peer may be silent between requests, or take nothing. A holder that makes a large object durable is
/// silent for a while.
pub(super) const IDLE: Duration = Duration::from_secs(120);

/// How long the last words on a stream may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// On what terms a DAG is held for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepTerms {
    /// Until when, by this machine's clock.
    pub until: UnixMillis,
}

/// Who may read and who may store. Called for every stream; must not block.
pub trait Authorise: Send + Sync {
    /// Whether `peer` may read the DAG below `root`, which belongs to `namespace` (none = public to all members).
    ///
    /// # Errors
    /// The reason, for the peer's eyes.
    fn may_read(&self, peer: &NodeId, root: &Cid, namespace: Option<&str>) -> Result<(), String>;

    /// Whether and on what terms a DAG is held for `peer`.
    ///
    /// # Errors
    /// The reason, for the peer's eyes.
    fn may_keep(&self, peer: &NodeId, request: &KeepRequest) -> Result<KeepTerms, String>;
}

/// Serves a store to peers.
#[derive(Clone)]
pub struct Server {
    store: BlockStore,
    key: Arc<NodeKey>,
    authorise: Arc<dyn Authorise>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Serves `store`, signs receipts with `key`, and asks `authorise` about every stream.
    pub fn new(store: BlockStore, key: Arc<NodeKey>, authorise: Arc<dyn Authorise>) -> Self {
        Self {
            store,
            key,
            authorise,
        }
    }

    /// Serves one stream of an authenticated peer until it ends.
    ///
    /// # Errors
    /// [`TransferError::Io`], [`TransferError::Protocol`], [`TransferError::Stalled`]; a refusal was sent first where
    /// that was possible. When holding: whatever pulling the DAG can fail with.
    pub async fn serve(&self, peer: NodeId, stream: impl Stream) -> Result<(), TransferError> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let result = match frame::read(&mut reader, IDLE).await? {
            None => return Ok(()),
            Some(Frame::Message(Message::Open { root })) => {
                self.provide(&peer, root, &mut reader, &mut writer).await
            }
            Some(Frame::Message(Message::Keep {
                root,
                namespace,
                bytes,
                seconds,
                series,
            })) => {
                let request = KeepRequest {
                    root,
                    namespace,
                    bytes,
                    duration: Duration::from_secs(seconds),
                    series,
                };
                self.hold(&peer, request, &mut reader, &mut writer).await
            }
            Some(Frame::Message(Message::Retain { series, roots })) => {
                self.retain(&series, roots, &mut writer).await
            }
            Some(_) => Err(TransferError::Protocol(
                "a stream begins with open, keep or retain".into(),
            )),
        };
        let farewell = async {
            if let Err(error) = &result {
                let refusal = frame::refusal(reason(error));
                frame::write_message(&mut writer, refusal).await?;
            }
            Ok::<_, TransferError>(writer.shutdown().await?)
        };
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
        result
    }

    /// Whether `peer` may read the DAG below `root` where others can listen: it may read it at all, and what is not
    /// public is ciphertext.
    ///
    /// # Errors
    /// [`TransferError::Refused`] with the reason, [`TransferError::Store`].
    pub async fn allow_lane(&self, peer: &NodeId, root: Cid) -> Result<(), TransferError> {
        let manifest = self.manifest(root).await?;
        let namespace = manifest.namespace();
        self.authorise
            .may_read(peer, &root, namespace)
            .map_err(TransferError::Refused)?;
        match (&manifest, namespace) {
            (Node::Image(_), Some(_)) => Err(TransferError::Refused(
                "a private image is not encrypted and travels on no lane".into(),
            )),
            _ => Ok(()),
        }
    }

    /// Serves one lane until it ends: to whom that is, and that `root` may be read there, was settled before.
    ///
    /// # Errors
    /// [`TransferError::Io`], [`TransferError::Protocol`], [`TransferError::Stalled`].
    pub async fn serve_lane(&self, root: Cid, stream: impl Stream) -> Result<(), TransferError> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        match frame::read(&mut reader, IDLE).await? {
            Some(Frame::Message(Message::Open { root: asked })) if asked == root => {}
            _ => return Err(TransferError::Protocol("a lane is for one object".into())),
        }
        self.answer(root, &mut reader, &mut writer).await
    }

    async fn provide(
        &self,
        peer: &NodeId,
        root: Cid,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), TransferError> {
        let manifest = self.manifest(root).await?;
        self.authorise
            .may_read(peer, &root, manifest.namespace())
            .map_err(TransferError::Refused)?;
        self.answer(root, reader, writer).await
    }

    async fn answer(
        &self,
        root: Cid,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), TransferError> {
        frame::write_message(writer, Message::Opened).await?;
        match answer_wants(&self.store, root, reader, writer).await? {
            None => Ok(()),
            Some(_) => Err(TransferError::Protocol("an unexpected message".into())),
        }
    }

    async fn manifest(&self, root: Cid) -> Result<Node, TransferError> {
        let store = self.store.clone();
        let block = blocking(move || store.get(&root))
            .await?
            .map_err(|error| match error {
                StoreError::Missing(_) => TransferError::Refused("this object is not here".into()),
                other => other.into(),
            })?;
        match Node::decode(&block).map_err(|e| TransferError::Protocol(e.to_string()))? {
            Node::Index(_) => Err(TransferError::Refused("an index node is no root".into())),
            manifest => Ok(manifest),
        }
    }

    async fn hold(
        &self,
        peer: &NodeId,
        request: KeepRequest,
        reader: &mut (impl AsyncRead + Unpin),
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), TransferError> {
        let terms = self
            .authorise
            .may_keep(peer, &request)
            .map_err(TransferError::Refused)?;
        let root = request.root;
        frame::write_message(writer, Message::Keeping).await?;
        let options = FetchOptions {
            until: Some(terms.until.0),
            bytes_max: request.bytes,
            ..FetchOptions::new(match &request.series {
                Some(series) => owner_of(series),
                None => format!("keep:{peer}"),
            })
        };
        let shared = Arc::new(Shared::new(&self.store, options, Some(request.namespace)));
        pull(&shared, root, reader, writer).await?;
        let fetched = blocking(move || shared.conclude(&root)).await??;
        let receipt = self.sign(&root, fetched.root.bytes, terms.until)?;
        frame::write_message(writer, Message::Kept { receipt }).await
    }

    /// Lets go of what a series holds besides `roots`. Who knows its name may ask for that.
    async fn retain(
        &self,
        series: &Series,
        roots: Vec<Cid>,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), TransferError> {
        let (store, owner) = (self.store.clone(), owner_of(series));
        blocking(move || store.retain(&owner, &roots)).await??;
        frame::write_message(writer, Message::Retained).await
    }

    fn sign(
        &self,
        root: &Cid,
        bytes: u64,
        until: UnixMillis,
    ) -> Result<Box<StorageReceipt>, TransferError> {
        let root: ContentId = root
            .to_string()
            .parse()
            .map_err(|e| TransferError::Receipt(format!("{e}")))?;
        Ok(Box::new(StorageReceipt::sign(
            &self.key, root, bytes, until,
        )))
    }
}

/// Who pins the objects of a series. The secret itself is not written down.
fn owner_of(series: &Series) -> String {
    format!("series:{}", blake3::hash(series.as_ref()).to_hex())
}

/// What a peer is told of an error: our own disk's troubles are not its business.
fn reason(error: &TransferError) -> String {
    match error {
        TransferError::Refused(reason) => reason.clone(),
        TransferError::Store(error) if error.is_full() => "the store is full".into(),
        TransferError::Store(_) => "the store failed".into(),
        other => other.to_string(),
    }
}

/// Pulls the DAG below `root` from the peer at the other end of this stream.
async fn pull(
    shared: &Arc<Shared>,
    root: Cid,
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<(), TransferError> {
    let planning = Arc::clone(shared);
    blocking(move || planning.begin(&root)).await??;
    let id = shared.enlist("asker".into());
    let give_up = tokio::time::timeout(IDLE * 30, session::run(shared, id, reader, writer));
    match give_up.await {
        Ok(result) => result,
        Err(_) => Err(TransferError::Stalled(IDLE * 30)),
    }
}

/// An answer on its way out.
enum Answer {
    Block(Vec<u8>),
    Message(Message),
}

/// Answers requests for blocks below `root` until the stream ends or another message comes, which is returned.
pub(super) async fn answer_wants(
    store: &BlockStore,
    root: Cid,
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<Option<Message>, TransferError> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let scope = Arc::new(Mutex::new(Scope::new(&root)));
    let (message, written) = tokio::join!(
        read_wants(store, &scope, reader, sender),
        write_answers(writer, receiver)
    );
    // A peer that ends the stream may have said why: its last message counts more than the failed write.
    match message? {
        Some(message) => Ok(Some(message)),
        None => written.map(|()| None),
    }
}

async fn read_wants(
    store: &BlockStore,
    scope: &Arc<Mutex<Scope>>,
    reader: &mut (impl AsyncRead + Unpin),
    answers: mpsc::Sender<Answer>,
) -> Result<Option<Message>, TransferError> {
    loop {
        let cids = match frame::read(reader, IDLE).await? {
            None => return Ok(None),
            Some(Frame::Message(Message::Want { cids })) => cids,
            Some(Frame::Message(Message::Have { cids })) => {
                let answer = Answer::Message(has(store, scope, cids).await?);
                let _ = answers.send(answer).await;
                continue;
            }
            Some(Frame::Message(other)) => return Ok(Some(other)),
            Some(Frame::Block(_)) => {
                return Err(TransferError::Protocol("a block nobody asked for".into()));
            }
        };
        for cid in cids {
            // Once nothing can be written any more, the rest is read only for a last message.
            if !answers.is_closed() {
                let _ = answers.send(load(store, scope, cid).await?).await;
            }
        }
    }
}

async fn load(
    store: &BlockStore,
    scope: &Arc<Mutex<Scope>>,
    cid: Cid,
) -> Result<Answer, TransferError> {
    let (store, scope) = (store.clone(), Arc::clone(scope));
    blocking(move || {
        if !lock(&scope).admits(&store, &cid) {
            return Ok(Answer::Message(Message::Missing));
        }
        match store.get_unverified(&cid) {
            Ok(block) => Ok(Answer::Block(block)),
            Err(StoreError::Missing(_) | StoreError::Address(_)) => {
                Ok(Answer::Message(Message::Missing))
            }
            Err(error) => Err(error.into()),
        }
    })
    .await?
}

async fn has(
    store: &BlockStore,
    scope: &Arc<Mutex<Scope>>,
    cids: Vec<Cid>,
) -> Result<Message, TransferError> {
    let (store, scope) = (store.clone(), Arc::clone(scope));
    let here = blocking(move || {
        let mut scope = lock(&scope);
        let here = |cid: &Cid| scope.admits(&store, cid) && store.contains(cid);
        cids.iter().map(here).collect()
    });
    Ok(Message::Has { here: here.await? })
}

async fn write_answers(
    writer: &mut (impl AsyncWrite + Unpin),
    mut answers: mpsc::Receiver<Answer>,
) -> Result<(), TransferError> {
    while let Some(answer) = answers.recv().await {
        let write = async {
            match answer {
                Answer::Block(block) => frame::write_block(writer, &block).await,
                Answer::Message(message) => frame::write_message(writer, message).await,
            }
        };
        frame::within(IDLE, write).await?;
    }
    Ok(())
}
