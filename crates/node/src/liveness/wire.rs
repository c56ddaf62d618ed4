//! The two frames of a session: challenge and hello.

use std::io;
use std::time::Duration;

use mutual_model::identity::{Certificate, IdentityError, NodeKey, PublicKey, Role, Signature};
use mutual_model::ids::Incarnation;
use mutual_model::time::UnixMillis;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const CONTEXT: &str = "liveness hello v1";
/// Longest frame: a certificate and a few fixed fields.
const FRAME_BYTES_MAX: usize = 10 * 1024;
/// How long the other side may take to send its frame.
pub(super) const FRAME_TIME_MAX: Duration = Duration::from_secs(5);

/// From the server to the agent: something changed, renew now.
pub(super) const POKE: u8 = b'!';
/// From the server to the agent: the hello is accepted.
pub(super) const WELCOME: u8 = b'+';
/// From the agent to the server: it leaves in good order.
pub(super) const BYE: u8 = b'.';

/// A random number by which an agent knows a guardian's session.
pub type Pass = [u8; 16];

/// What the server asks whoever is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// A fresh random number for the agent to sign.
    pub nonce: [u8; 16],
    /// The incarnation whose session broke, if this is a server dialling back.
    pub expected: Option<Incarnation>,
    /// What the agent gave a guardian to open its session with; `None` from a demand server.
    #[serde(default)]
    pub pass: Option<Pass>,
}

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// Its membership.
    pub certificate: Certificate,
    /// Its run.
    pub incarnation: Incarnation,
    /// Its liveness port, at the address the session comes from; 0 if it has none.
    pub port: u16,
    /// Signature over the challenge's nonce, the incarnation and the port.
    pub signature: Signature,
}

/// Why a hello was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// The connection failed or ended, or nothing came in time.
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    /// The bytes are no such frame.
    #[error("malformed frame")]
    Malformed,
    /// Certificate or signature are not accepted.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate is not an agent's.
    #[error("the certificate does not carry the role `agent`")]
    NotAgent,
}

fn signed_bytes(challenge: &Challenge, incarnation: Incarnation, port: u16) -> Vec<u8> {
    let mut bytes = challenge.nonce.to_vec();
    bytes.extend_from_slice(incarnation.0.as_bytes());
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes
}

impl Hello {
    /// Answers `challenge`.
    pub fn sign(
        key: &NodeKey,
        certificate: &Certificate,
        incarnation: Incarnation,
        port: u16,
        challenge: &Challenge,
    ) -> Self {
        let message = signed_bytes(challenge, incarnation, port);
        Self {
            certificate: certificate.clone(),
            incarnation,
            port,
            signature: key.sign(CONTEXT, &message),
        }
    }

    /// Checks certificate, role and signature.
    ///
    /// # Errors
    /// [`HelloError::Identity`], [`HelloError::NotAgent`].
    pub fn verify(
        &self,
        challenge: &Challenge,
        trusted: &[PublicKey],
        now: UnixMillis,
    ) -> Result<(), HelloError> {
        self.certificate.verify(trusted, now)?;
        let member = self.certificate.membership();
        if !member.roles.contains(&Role::Agent) {
            return Err(HelloError::NotAgent);
        }
        let message = signed_bytes(challenge, self.incarnation, self.port);
        member.node.verify(CONTEXT, &message, &self.signature)?;
        Ok(())
    }
}

/// Writes one frame: length (u16, big-endian) and CBOR.
pub(super) async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> io::Result<()> {
    let mut frame = vec![0; 2];
    ciborium::into_writer(message, &mut frame).map_err(io::Error::other)?;
    let length = u16::try_from(frame.len() - 2).map_err(io::Error::other)?;
    frame[..2].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&frame).await
}

/// Reads one frame within [`FRAME_TIME_MAX`].
pub(super) async fn receive<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<T, HelloError> {
    let read = async {
        let length = usize::from(stream.read_u16().await?);
        if length > FRAME_BYTES_MAX {
            return Err(HelloError::Malformed);
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        decode(&body)
    };
    match tokio::time::timeout(FRAME_TIME_MAX, read).await {
        Ok(frame) => frame,
        Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

fn decode<T: DeserializeOwned>(mut body: &[u8]) -> Result<T, HelloError> {
    let value = ciborium::from_reader(&mut body).map_err(|_| HelloError::Malformed)?;
    match body.is_empty() {
        true => Ok(value),
        false => Err(HelloError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_frames_never_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = decode::<Hello>(bytes);
            let _ = decode::<Challenge>(bytes);
        });
    }
}
