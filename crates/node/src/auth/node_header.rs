//! How a node proves each HTTP request: a signature over what is asked, under its certificate.
//!
//! `authorization: Mutual-Node BASE64URL`, where the bytes are: length of the certificate (u16),
//! certificate, unix milliseconds (u64), nonce (16), signature (64); integers big-endian. Signed
//! are method, path with query, the body's BLAKE3 hash, the instant and the nonce, so a request
//! cannot be changed, and within the allowed skew it is accepted once.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, Method};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mutual_demand::http::Credentials;
use mutual_model::identity::{CERTIFICATE_BYTES_MAX, Certificate, NodeKey, PublicKey, Signature};
use mutual_model::ids::Nonce;
use mutual_model::time::UnixMillis;

use super::{AuthError, unix_now};

/// The scheme's name in the `authorization` header.
pub const NODE_SCHEME: &str = "Mutual-Node";
/// How far two clocks may be apart (DESIGN §3).
pub const REQUEST_SKEW: Duration = Duration::from_secs(300);

const CONTEXT: &str = "http request v1";
const FIXED_BYTES: usize = 2 + 8 + 16 + 64;
const TEXT_BYTES_MAX: usize = (CERTIFICATE_BYTES_MAX + FIXED_BYTES).div_ceil(3) * 4;

/// A node's key and certificate: what it signs requests, log tokens and offers with.
#[derive(Debug, Clone)]
pub struct NodeSigner {
    key: Arc<NodeKey>,
    certificate: Arc<Certificate>,
}

impl NodeSigner {
    /// A signer for the node of `key`.
    ///
    /// # Errors
    /// [`AuthError::Malformed`] if the certificate is another node's.
    pub fn new(key: NodeKey, certificate: Certificate) -> Result<Self, AuthError> {
        if certificate.membership().node != key.public() {
            return Err(AuthError::Malformed(
                "the certificate belongs to another key".into(),
            ));
        }
        Ok(Self {
            key: Arc::new(key),
            certificate: Arc::new(certificate),
        })
    }

    /// The node's key.
    pub fn key(&self) -> &NodeKey {
        &self.key
    }

    /// The node's certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The value of the `authorization` header for one request, signed now with a fresh nonce.
    pub fn authorization(&self, method: &Method, path_and_query: &str, body: &[u8]) -> HeaderValue {
        let nonce = Nonce(rand::random());
        self.authorization_at(method, path_and_query, body, unix_now(), nonce)
    }

    pub(super) fn authorization_at(
        &self,
        method: &Method,
        path_and_query: &str,
        body: &[u8],
        at: UnixMillis,
        nonce: Nonce,
    ) -> HeaderValue {
        let message = signed_bytes(method, path_and_query, body, at, nonce);
        let header = NodeHeader {
            certificate: self.certificate.to_bytes(),
            at,
            nonce,
            signature: self.key.sign(CONTEXT, &message),
        };
        let text = format!("{NODE_SCHEME} {}", header.to_text());
        HeaderValue::from_str(&text).expect("base64url is a valid header value")
    }
}

impl Credentials for NodeSigner {
    fn authorize(&self, method: &Method, path_and_query: &str, body: &[u8]) -> HeaderValue {
        self.authorization(method, path_and_query, body)
    }
}

fn signed_bytes(
    method: &Method,
    path_and_query: &str,
    body: &[u8],
    at: UnixMillis,
    nonce: Nonce,
) -> Vec<u8> {
    let mut message = Vec::with_capacity(64 + path_and_query.len());
    message.extend_from_slice(blake3::hash(body).as_bytes());
    message.extend_from_slice(&at.0.to_be_bytes());
    message.extend_from_slice(&nonce.0);
    // The method holds no blank (RFC 9110 §9.1), so the two texts cannot run into each other.
    message.extend_from_slice(method.as_str().as_bytes());
    message.push(b' ');
    message.extend_from_slice(path_and_query.as_bytes());
    message
}

/// A node's header as read; nothing in it is believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeHeader {
    pub(super) certificate: Vec<u8>,
    pub(super) at: UnixMillis,
    pub(super) nonce: Nonce,
    pub(super) signature: Signature,
}

impl NodeHeader {
    fn to_text(&self) -> String {
        let length = u16::try_from(self.certificate.len()).expect("certificates take ≤ 8 KiB");
        let mut bytes = Vec::with_capacity(FIXED_BYTES + self.certificate.len());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&self.certificate);
        bytes.extend_from_slice(&self.at.0.to_be_bytes());
        bytes.extend_from_slice(&self.nonce.0);
        bytes.extend_from_slice(&self.signature.0);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what follows the scheme.
    ///
    /// # Errors
    /// [`AuthError::Malformed`].
    pub(super) fn parse(text: &str) -> Result<Self, AuthError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(AuthError::Malformed("longer than 12 KiB".into()));
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| AuthError::Malformed("not base64url".into()))?;
        Self::from_bytes(&bytes).ok_or_else(|| AuthError::Malformed("wrong length".into()))
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (certificate, rest) = rest.split_at_checked(length)?;
        let (at, rest) = rest.split_first_chunk::<8>()?;
        let (nonce, rest) = rest.split_first_chunk::<16>()?;
        let signature: [u8; 64] = rest.try_into().ok()?;
        (length <= CERTIFICATE_BYTES_MAX).then(|| Self {
            certificate: certificate.to_vec(),
            at: UnixMillis(u64::from_be_bytes(*at)),
            nonce: Nonce(*nonce),
            signature: Signature(signature),
        })
    }

    /// Checks the instant against `now`.
    ///
    /// # Errors
    /// [`AuthError::Skew`].
    pub(super) fn check_skew(&self, now: UnixMillis) -> Result<(), AuthError> {
        let skew_ms = self.at.0.abs_diff(now.0);
        let most_ms = mutual_model::time::millis(REQUEST_SKEW);
        if skew_ms > most_ms {
            return Err(AuthError::Skew { skew_ms, most_ms });
        }
        Ok(())
    }

    /// Checks the signature over the request by the certified `node`.
    ///
    /// # Errors
    /// [`AuthError::Node`].
    pub(super) fn check_signature(
        &self,
        node: &PublicKey,
        method: &Method,
        path_and_query: &str,
        body: &[u8],
    ) -> Result<(), AuthError> {
        let message = signed_bytes(method, path_and_query, body, self.at, self.nonce);
        Ok(node.verify(CONTEXT, &message, &self.signature)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_read_back() {
        let header = NodeHeader {
            certificate: vec![7; 300],
            at: UnixMillis(5),
            nonce: Nonce([1; 16]),
            signature: Signature([2; 64]),
        };
        assert_eq!(NodeHeader::parse(&header.to_text()).unwrap(), header);
    }

    #[test]
    fn fuzz_node_header() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Some(header) = NodeHeader::from_bytes(bytes) {
                let text = header.to_text();
                assert_eq!(URL_SAFE_NO_PAD.decode(text).unwrap(), bytes);
            }
            let _refused = NodeHeader::parse(&String::from_utf8_lossy(bytes));
        });
    }
}
