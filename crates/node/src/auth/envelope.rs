//! A small signed document of a member node: certificate, signature, then the body it covers.
//!
//! Encoded as length of the certificate (u16, big-endian), certificate, signature (64 bytes),
//! body (CBOR). Log tokens, offers and their answers all travel like this.

use mutual_model::identity::{
    CERTIFICATE_BYTES_MAX, Certificate, IdentityError, Membership, PublicKey, Signature,
};
use mutual_model::time::UnixMillis;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::NodeSigner;

/// Longest body of a signed document.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// Why a signed document was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The bytes are no such document.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// Certificate or signature are not accepted.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The token inside is not accepted.
    #[error(transparent)]
    Token(#[from] super::TokenError),
    /// The signer may not sign this kind of document, or not for this namespace.
    #[error("the signer may not do this: {0}")]
    NotAllowed(&'static str),
    /// Past its end.
    #[error("expired {late_ms} ms ago")]
    Expired {
        /// How long ago, in milliseconds.
        late_ms: u64,
    },
}

/// Signs `body` for `context`.
pub(super) fn sign(signer: &NodeSigner, context: &str, body: &impl Serialize) -> Vec<u8> {
    let body = encode(body);
    let certificate = signer.certificate().to_bytes();
    let length = u16::try_from(certificate.len()).expect("certificates take ≤ 8 KiB");
    let signature = signer.key().sign(context, &body);
    [&length.to_be_bytes()[..], &certificate, &signature.0, &body].concat()
}

/// Checks a document and gives its body and what its signer's organisation says of the signer.
pub(super) fn open<T: DeserializeOwned>(
    bytes: &[u8],
    context: &str,
    what: &'static str,
    trusted: &[PublicKey],
    now: UnixMillis,
) -> Result<(T, Membership), EnvelopeError> {
    let (certificate, signature, body) = split(bytes).ok_or(EnvelopeError::Malformed(what))?;
    let certificate = Certificate::from_bytes(certificate)?;
    certificate.verify(trusted, now)?;
    let membership = certificate.membership();
    membership.node.verify(context, body, &signature)?;
    Ok((decode(body, what)?, membership.clone()))
}

fn split(bytes: &[u8]) -> Option<(&[u8], Signature, &[u8])> {
    if bytes.len() > 2 + CERTIFICATE_BYTES_MAX + 64 + BODY_BYTES_MAX {
        return None;
    }
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (certificate, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    let (signature, body) = rest.split_first_chunk::<64>()?;
    Some((certificate, Signature(*signature), body))
}

/// A value in CBOR.
pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("plain data encodes into memory");
    bytes
}

/// A value from CBOR, all of it.
pub(super) fn decode<T: DeserializeOwned>(
    mut bytes: &[u8],
    what: &'static str,
) -> Result<T, EnvelopeError> {
    if bytes.len() > BODY_BYTES_MAX {
        return Err(EnvelopeError::Malformed(what));
    }
    let value = ciborium::from_reader(&mut bytes).map_err(|_| EnvelopeError::Malformed(what))?;
    if bytes.is_empty() {
        Ok(value)
    } else {
        Err(EnvelopeError::Malformed(what))
    }
}

/// Refuses what ended at `expires`.
pub(super) fn check_end(expires: UnixMillis, now: UnixMillis) -> Result<(), EnvelopeError> {
    if now < expires {
        return Ok(());
    }
    Err(EnvelopeError::Expired {
        late_ms: now.0 - expires.0,
    })
}
