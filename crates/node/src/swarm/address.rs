//! Where a peer can be reached, as one short text: a multiaddr that ends in the peer's id.

use std::fmt;
use std::str::FromStr;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use mutual_model::identity::PublicKey;
use serde::{Deserialize, Serialize};

/// Longest address read, in bytes: a relayed one with two ids and a long DNS name fits.
const TEXT_BYTES_MAX: usize = 512;

/// An address of one peer, such as `/ip4/10.0.0.7/udp/4001/quic-v1/p2p/12D3Koo…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerAddr {
    address: Multiaddr,
    peer: PeerId,
}

/// Why a text is no peer's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerAddrError {
    /// It is no multiaddr.
    #[error("{text:?} is not a multiaddr: {reason}")]
    Malformed {
        /// Its beginning.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// It does not end in a peer id.
    #[error("{0:?} does not end in /p2p/ and a peer id")]
    NoPeer(String),
    /// The id is not one of an Ed25519 key.
    #[error("peer id {0} is not that of an Ed25519 key")]
    ForeignKey(PeerId),
}

impl PeerAddr {
    /// The address of `peer` at `address`, which may but need not end in its id.
    ///
    /// # Errors
    /// [`PeerAddrError::NoPeer`] if `address` ends in another id, [`PeerAddrError::ForeignKey`].
    pub fn new(address: Multiaddr, peer: PeerId) -> Result<Self, PeerAddrError> {
        public_key(&peer).ok_or(PeerAddrError::ForeignKey(peer))?;
        let shown = address.to_string();
        let address = address
            .with_p2p(peer)
            .map_err(|_| PeerAddrError::NoPeer(shown))?;
        Ok(Self { address, peer })
    }

    /// Who is there.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// The node key of who is there.
    pub fn node(&self) -> PublicKey {
        public_key(&self.peer).expect("checked when the address was made")
    }

    /// The whole address, id included.
    pub fn multiaddr(&self) -> &Multiaddr {
        &self.address
    }
}

/// The Ed25519 key in a peer id: such ids hold the key itself (identity multihash).
pub(super) fn public_key(peer: &PeerId) -> Option<PublicKey> {
    const IDENTITY: u64 = 0;
    let hash = peer.as_ref();
    if hash.code() != IDENTITY {
        return None;
    }
    let key = libp2p::identity::PublicKey::try_decode_protobuf(hash.digest()).ok()?;
    Some(PublicKey(key.try_into_ed25519().ok()?.to_bytes()))
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl FromStr for PeerAddr {
    type Err = PeerAddrError;

    fn from_str(text: &str) -> Result<Self, PeerAddrError> {
        let shown = || text.chars().take(80).collect::<String>();
        let malformed = |reason: String| PeerAddrError::Malformed {
            text: shown(),
            reason,
        };
        if text.len() > TEXT_BYTES_MAX {
            return Err(malformed(format!("longer than {TEXT_BYTES_MAX} bytes")));
        }
        let address: Multiaddr = text
            .parse()
            .map_err(|e: libp2p::multiaddr::Error| malformed(e.to_string()))?;
        match address.iter().last() {
            Some(Protocol::P2p(peer)) => Self::new(address, peer),
            _ => Err(PeerAddrError::NoPeer(shown())),
        }
    }
}

impl TryFrom<String> for PeerAddr {
    type Error = PeerAddrError;

    fn try_from(text: String) -> Result<Self, PeerAddrError> {
        text.parse()
    }
}

impl From<PeerAddr> for String {
    fn from(address: PeerAddr) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_text() {
        let key = mutual_model::identity::NodeKey::from_seed(&[3; 32]);
        let libp2p = libp2p::identity::Keypair::ed25519_from_bytes(*key.seed()).unwrap();
        let peer = libp2p.public().to_peer_id();
        let address = PeerAddr::new("/ip4/1.2.3.4/udp/5/quic-v1".parse().unwrap(), peer).unwrap();
        let text = serde_json::to_string(&address).unwrap();
        assert_eq!(text, format!("\"/ip4/1.2.3.4/udp/5/quic-v1/p2p/{peer}\""));
        assert_eq!(serde_json::from_str::<PeerAddr>(&text).unwrap(), address);
        assert_eq!(address.node(), key.public());
    }

    #[test]
    fn what_is_no_address_is_told() {
        for text in [
            "",
            "hello",
            "/ip4/1.2.3.4/tcp/5",
            "/ip4/1.2.3.4/tcp/5/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        ] {
            assert!(text.parse::<PeerAddr>().is_err(), "{text}");
        }
        assert!("/ip4/1.2.3.4".repeat(100).parse::<PeerAddr>().is_err());
    }
}
