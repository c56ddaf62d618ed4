//! Asking a peer to hold a DAG, and checking its word.

use std::time::Duration;

use mutual_model::identity::PublicKey;
use mutual_model::receipt::StorageReceipt;

use super::frame::{self, Message, Series};
use super::serve::{IDLE, answer_wants};
use super::{Dial, TransferError};
use crate::address::Cid;
use crate::store::BlockStore;

/// What a peer is asked to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepRequest {
    /// The root.
    pub root: Cid,
    /// The namespace its manifest names; none for public images.
    pub namespace: Option<String>,
    /// Bytes of all its blocks.
    pub bytes: u64,
    /// For how long, in whole seconds.
    pub duration: Duration,
    /// The series it belongs to: [`retain`] lets go of what it replaces.
    pub series: Option<Series>,
}

/// Asks `holder` to hold a DAG that is complete in `store`. The holder pulls what it lacks over the same stream,
/// verifies all of it, makes it durable and signs for it. Dropping the future gives up; the holder keeps what it has
/// until it is collected.
///
/// # Errors
/// [`TransferError::Refused`], [`TransferError::Receipt`], [`TransferError::Io`], [`TransferError::Protocol`],
/// [`TransferError::Stalled`].
pub async fn keep(
    store: &BlockStore,
    holder: &dyn Dial,
    holder_key: &PublicKey,
    request: &KeepRequest,
) -> Result<StorageReceipt, TransferError> {
    let stream = frame::within(IDLE, async { Ok(holder.open().await?) }).await?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let ask = Message::Keep {
        root: request.root,
        namespace: request.namespace.clone(),
        bytes: request.bytes,
        seconds: request.duration.as_secs(),
        series: request.series,
    };
    match frame::ask(&mut reader, &mut writer, ask, IDLE).await? {
        Message::Keeping => {}
        _ => return Err(unexpected()),
    }
    match answer_wants(store, request.root, &mut reader, &mut writer).await? {
        Some(Message::Kept { receipt }) => check(*receipt, holder_key, request),
        Some(Message::Refused { reason }) => Err(TransferError::Refused(frame::shorten(&reason))),
        Some(_) => Err(unexpected()),
        None => Err(TransferError::Io(std::io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Asks `holder` to let go of everything it holds in `series` but `roots`.
///
/// # Errors
/// [`TransferError::Refused`], [`TransferError::Io`], [`TransferError::Protocol`], [`TransferError::Stalled`].
pub async fn retain(
    holder: &dyn Dial,
    series: Series,
    roots: Vec<Cid>,
) -> Result<(), TransferError> {
    let stream = frame::within(IDLE, async { Ok(holder.open().await?) }).await?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let ask = Message::Retain { series, roots };
    match frame::ask(&mut reader, &mut writer, ask, IDLE).await? {
        Message::Retained => Ok(()),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> TransferError {
    TransferError::Protocol("neither a receipt nor a refusal".into())
}

fn check(
    receipt: StorageReceipt,
    holder: &PublicKey,
    request: &KeepRequest,
) -> Result<StorageReceipt, TransferError> {
    let bad = |why: &str| Err(TransferError::Receipt(why.to_owned()));
    if receipt.root.as_str() != request.root.to_string() {
        return bad("it is for another root");
    }
    if receipt.holder != *holder {
        return bad("it is signed by another node");
    }
    if receipt.bytes != request.bytes {
        return bad("it is for another size");
    }
    match receipt.verify() {
        Ok(()) => Ok(receipt),
        Err(error) => Err(TransferError::Receipt(error.to_string())),
    }
}
