//! Frames: a length, a kind, a body; every size is bounded before memory is taken.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use mutual_model::receipt::StorageReceipt;

use super::TransferError;
use crate::address::{BLOCK_BYTES_MAX, Cid};

/// Largest frame body, in bytes: a block.
pub const FRAME_BYTES_MAX: usize = BLOCK_BYTES_MAX;

/// Largest message body, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Most names in one `want` or `have`.
pub const CIDS_MAX: usize = 256;

/// Most roots named in one `retain`.
pub const RETAINED_MAX: usize = 8;

/// Longest text in a refusal that is shown, in bytes.
const REASON_BYTES_MAX: usize = 1024;

const MESSAGE: u8 = 0;
const BLOCK: u8 = 1;

/// Everything but blocks. Unknown kinds and fields are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Message {
    /// Opens a stream for the DAG below a root.
    Open {
        /// The root.
        root: Cid,
    },
    /// The stream may be used.
    Opened,
    /// The request is refused, or cannot be done; the stream ends.
    Refused {
        /// For people.
        reason: String,
    },
    /// Asks for blocks; each is answered by a block frame or `Missing`, in this order.
    Want {
        /// Their names, at most [`CIDS_MAX`].
        cids: Vec<Cid>,
    },
    /// The next wanted block is not here.
    Missing,
    /// Asks which blocks are here.
    Have {
        /// Their names, at most [`CIDS_MAX`].
        cids: Vec<Cid>,
    },
    /// Answers `Have`, in its order.
    Has {
        /// Whether each is here.
        here: Vec<bool>,
    },
    /// Asks the peer to let go of all it holds in a series but these.
    Retain {
        /// The series.
        series: Series,
        /// Roots that stay, at most [`RETAINED_MAX`].
        roots: Vec<Cid>,
    },
    /// The peer has let go of the others.
    Retained,
    /// Asks the peer to hold a DAG, which it pulls over this stream.
    Keep {
        /// The root.
        root: Cid,
        /// Its namespace, none for public images.
        namespace: Option<String>,
        /// Bytes of all its blocks.
        bytes: u64,
        /// For how long, in seconds.
        seconds: u64,
        /// The series it belongs to, if later ones will replace it.
        series: Option<Series>,
    },
    /// The peer will hold it and starts pulling.
    Keeping,
    /// Answers `Open` where a lane was asked for: the DAG is served on another port to whoever shows the ticket there.
    Lane {
        /// The TCP port.
        port: u16,
        /// What opens it, once.
        ticket: Ticket,
    },
    /// The peer holds it, durably.
    Kept {
        /// Its signed word.
        receipt: Box<StorageReceipt>,
    },
}

/// A secret that opens one lane.
pub type Ticket = serde_bytes::ByteArray<32>;

/// Names objects of which later ones replace earlier ones, as checkpoints of a job do. It is a secret of those who may
/// replace them: who knows it may have earlier ones let go.
pub type Series = serde_bytes::ByteArray<32>;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A message.
    Message(Message),
    /// A block's bytes, not yet verified.
    Block(Vec<u8>),
}

/// Reads the next frame; `None` if the stream ended between frames. Gives up when no byte comes for `patience`. Not
/// cancel-safe.
///
/// # Errors
/// [`TransferError::Io`], [`TransferError::Protocol`], [`TransferError::Stalled`].
pub async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    patience: Duration,
) -> Result<Option<Frame>, TransferError> {
    let Some((length, kind)) = within(patience, read_head(stream)).await? else {
        return Ok(None);
    };
    let max = match kind {
        MESSAGE => MESSAGE_BYTES_MAX,
        BLOCK => FRAME_BYTES_MAX,
        other => return Err(TransferError::Protocol(format!("a frame of kind {other}"))),
    };
    if length > max {
        return Err(TransferError::Protocol(format!(
            "a frame of {length} bytes, at most {max} are allowed"
        )));
    }
    let body = read_body(stream, length, patience).await?;
    match kind {
        BLOCK => Ok(Some(Frame::Block(body))),
        _ => decode(&body).map(|message| Some(Frame::Message(message))),
    }
}

/// Bounds how long a peer may stay silent.
pub(super) async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, TransferError>>,
) -> Result<T, TransferError> {
    match tokio::time::timeout(patience, work).await {
        Ok(result) => result,
        Err(_) => Err(TransferError::Stalled(patience)),
    }
}

async fn read_head(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<(usize, u8)>, TransferError> {
    let mut head = [0; 5];
    if stream.read(&mut head[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut head[1..]).await?;
    let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    Ok(Some((
        usize::try_from(length).unwrap_or(usize::MAX),
        head[4],
    )))
}

/// Memory is taken as bytes arrive: an announced length alone costs nothing.
async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    length: usize,
    patience: Duration,
) -> Result<Vec<u8>, TransferError> {
    const TRUST_BYTES: usize = 64 * 1024;
    let mut body = Vec::with_capacity(length.min(TRUST_BYTES));
    let mut part = stream.take(length as u64);
    while body.len() < length {
        if body.len() == body.capacity() {
            body.reserve_exact(length - body.len());
        }
        let read = within(patience, async { Ok(part.read_buf(&mut body).await?) });
        if read.await? == 0 {
            return Err(TransferError::Io(std::io::ErrorKind::UnexpectedEof.into()));
        }
    }
    Ok(body)
}

fn decode(body: &[u8]) -> Result<Message, TransferError> {
    let message = serde_ipld_dagcbor::from_slice(body)
        .map_err(|e| TransferError::Protocol(format!("a message that does not decode: {e}")))?;
    match &message {
        Message::Want { cids } | Message::Have { cids } if cids.len() > CIDS_MAX => Err(
            TransferError::Protocol(format!("{} names in one message", cids.len())),
        ),
        Message::Retain { roots, .. } if roots.len() > RETAINED_MAX => Err(
            TransferError::Protocol(format!("{} roots to retain", roots.len())),
        ),
        _ => Ok(message),
    }
}

/// Writes a message.
///
/// # Errors
/// [`TransferError::Io`].
pub async fn write_message(
    stream: &mut (impl AsyncWrite + Unpin),
    message: Message,
) -> Result<(), TransferError> {
    let body =
        serde_ipld_dagcbor::to_vec(&message).expect("messages hold only types DAG-CBOR can write");
    write(stream, MESSAGE, &body).await
}

/// Sends `message` and reads the one that answers it. A refusal is heard although sending failed: whoever refuses the
/// caller itself stops reading at once. Not cancel-safe.
///
/// # Errors
/// [`TransferError::Refused`], [`TransferError::Io`] (also if the stream ends), [`TransferError::Protocol`],
/// [`TransferError::Stalled`].
pub async fn ask(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    message: Message,
    patience: Duration,
) -> Result<Message, TransferError> {
    let sent = match within(patience, write_message(writer, message)).await {
        Err(error) if !matches!(error, TransferError::Io(_)) => return Err(error),
        sent => sent,
    };
    match (read(reader, patience).await, sent) {
        (Ok(Some(Frame::Message(Message::Refused { reason }))), _) => {
            Err(TransferError::Refused(shorten(&reason)))
        }
        (_, Err(error)) | (Err(error), Ok(())) => Err(error),
        (Ok(Some(Frame::Message(answer))), Ok(())) => Ok(answer),
        (Ok(Some(Frame::Block(_))), Ok(())) => Err(TransferError::Protocol(
            "a block that none asked for".into(),
        )),
        (Ok(None), Ok(())) => Err(TransferError::Io(std::io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Writes a block.
///
/// # Errors
/// [`TransferError::Io`].
pub async fn write_block(
    stream: &mut (impl AsyncWrite + Unpin),
    block: &[u8],
) -> Result<(), TransferError> {
    write(stream, BLOCK, block).await
}

async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    kind: u8,
    body: &[u8],
) -> Result<(), TransferError> {
    let length = u32::try_from(body.len())
        .map_err(|_| TransferError::Protocol("a frame above 4 GiB".into()))?;
    let mut head = [0; 5];
    head[..4].copy_from_slice(&length.to_be_bytes());
    head[4] = kind;
    stream.write_all(&head).await?;
    stream.write_all(body).await?;
    Ok(stream.flush().await?)
}

/// Refuses with a reason short enough to be sent.
pub(super) fn refusal(reason: impl ToString) -> Message {
    Message::Refused {
        reason: shorten(&reason.to_string()),
    }
}

/// Cuts a foreign text to a length fit for a log line.
pub(super) fn shorten(text: &str) -> String {
    let end = text.floor_char_boundary(REASON_BYTES_MAX);
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Codec, name};

    const LONG: Duration = Duration::from_secs(10);

    async fn round_trip(frame: Frame) {
        let mut wire = Vec::new();
        match &frame {
            Frame::Message(message) => write_message(&mut wire, message.clone()).await.unwrap(),
            Frame::Block(block) => write_block(&mut wire, block).await.unwrap(),
        }
        let mut reader = wire.as_slice();
        assert_eq!(read(&mut reader, LONG).await.unwrap(), Some(frame));
        assert!(read(&mut reader, LONG).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn frames_round_trip() {
        let cids = vec![name(Codec::Raw, b"x"); 3];
        for message in [
            Message::Open { root: cids[0] },
            Message::Opened,
            Message::Want { cids },
            Message::Has {
                here: vec![true, false],
            },
            Message::Keep {
                root: name(Codec::Node, b""),
                namespace: None,
                bytes: 1,
                seconds: 2,
                series: Some(Series::new([1; 32])),
            },
            Message::Retain {
                series: Series::new([1; 32]),
                roots: vec![name(Codec::Node, b"")],
            },
        ] {
            round_trip(Frame::Message(message)).await;
        }
        round_trip(Frame::Block(vec![7; 100_000])).await;
        round_trip(Frame::Block(vec![])).await;
    }

    #[tokio::test]
    async fn absurd_frames_are_refused() {
        let too_long = [0xff, 0xff, 0xff, 0xff, BLOCK];
        let long_message = [0, 2, 0, 0, MESSAGE];
        let unknown = [0, 0, 0, 0, 9];
        let wires: [&[u8]; 3] = [&too_long, &long_message, &unknown];
        for mut wire in wires {
            assert!(matches!(
                read(&mut wire, LONG).await,
                Err(TransferError::Protocol(_))
            ));
        }
        for cut in [&[0, 0, 0, 9, BLOCK, 1][..], &[0, 0]] {
            assert!(matches!(
                read(&mut &*cut, LONG).await,
                Err(TransferError::Io(_))
            ));
        }
        let many = Message::Want {
            cids: vec![name(Codec::Raw, b""); CIDS_MAX + 1],
        };
        let mut wire = Vec::new();
        write_message(&mut wire, many).await.unwrap();
        assert!(matches!(
            read(&mut wire.as_slice(), LONG).await,
            Err(TransferError::Protocol(_))
        ));
    }

    #[test]
    fn fuzz_block_stream() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        bolero::check!().for_each(|bytes: &[u8]| {
            let mut reader = bytes;
            while let Ok(Some(_)) = runtime.block_on(read(&mut reader, LONG)) {}
        });
    }

    #[test]
    fn fuzz_messages() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = decode(bytes);
        });
    }
}
