//! The first bytes of every stream: the opener's membership certificate.
//!
//! `length (u16, big-endian) ‖ certificate`. It costs no round trip: the opener goes on at once, and a refusal comes as
//! the block protocol's own. The connection already proved the opener's key; the certificate says whose it is.

use std::time::Duration;

use mutual_model::identity::{CERTIFICATE_BYTES_MAX, Certificate, PublicKey};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// How long an opener may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a hello was not accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum HelloError {
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("no certificate came in time")]
    TimedOut,
    #[error("a certificate of {0} bytes is too long")]
    TooLong(usize),
    #[error("{0}")]
    Certificate(#[from] mutual_model::identity::IdentityError),
    #[error("the certificate is another node's")]
    OtherNode,
}

pub(super) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    certificate: &[u8],
) -> std::io::Result<()> {
    let length = u16::try_from(certificate.len()).map_err(std::io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(certificate).await
}

/// Reads the certificate of the peer whose key the connection proved to be `key`. Its signature is not checked here.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    key: &PublicKey,
) -> Result<Certificate, HelloError> {
    let bytes = match tokio::time::timeout(PATIENCE, read_bytes(stream)).await {
        Ok(bytes) => bytes?,
        Err(_) => return Err(HelloError::TimedOut),
    };
    let certificate = Certificate::from_bytes(&bytes)?;
    if certificate.membership().node != *key {
        return Err(HelloError::OtherNode);
    }
    Ok(certificate)
}

async fn read_bytes(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, HelloError> {
    let length = usize::from(stream.read_u16().await?);
    if length > CERTIFICATE_BYTES_MAX {
        return Err(HelloError::TooLong(length));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
