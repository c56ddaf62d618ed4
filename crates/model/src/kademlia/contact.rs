//! How to reach a node.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::Key;
use crate::identity::{NodeId, PublicKey};
use crate::record::CodecError;
use crate::record::codec::{Reader, Writer};

/// A node's public key and address; its id is the hash of the key and never taken from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contact {
    id: Key,
    public: PublicKey,
    // Less than half the size of a `SocketAddr`: there are hundreds in each node.
    ip: [u8; 16],
    port: u16,
}

impl Contact {
    /// The node with this key at this address.
    pub fn new(public: PublicKey, addr: SocketAddr) -> Self {
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self {
            id: Key::new(public.node_id().0),
            public,
            ip: ip.octets(),
            port: addr.port(),
        }
    }

    /// Its position: the hash of its key.
    pub const fn id(&self) -> &Key {
        &self.id
    }

    /// The same position, as the id of a node.
    pub const fn node_id(&self) -> NodeId {
        NodeId(*self.id.as_bytes())
    }

    /// Its key.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Where its datagrams go.
    pub fn addr(&self) -> SocketAddr {
        let ip = Ipv6Addr::from(self.ip).to_canonical();
        SocketAddr::new(ip, self.port)
    }

    pub(super) fn write(&self, out: &mut Writer) {
        out.put(self.public.as_bytes());
        out.socket(self.addr());
    }

    pub(super) fn read(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let public = PublicKey(input.array("contact key")?);
        let addr = input.socket("contact address")?;
        if addr.port() == 0 || addr.ip().is_unspecified() || addr.ip().is_multicast() {
            return Err(CodecError::Invalid {
                field: "contact address",
            });
        }
        Ok(Self::new(public, addr))
    }
}
