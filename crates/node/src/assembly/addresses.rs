//! At which addresses others reach this node.
//!
//! A node may listen on every interface; what it tells others must be one they can dial.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::config::NetworkConfig;
use crate::swarm::Swarm;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// Most addresses of one kind in a record.
const ADDRESSES_MAX: usize = 4;

/// The address that stands for "every interface" in what others are told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach(IpAddr);

impl Reach {
    /// The configured address; else the one that packets to a bootstrap peer leave from; else
    /// loopback, for a cloud on one machine.
    pub(super) async fn of(network: &NetworkConfig) -> Self {
        if let Some(advertised) = network.advertise {
            return Self(advertised);
        }
        for peer in &network.bootstrap {
            if let Some(local) = local_towards(&peer.address).await {
                return Self(local);
            }
        }
        Self(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// `address` as others dial it.
    pub(super) const fn at(self, address: SocketAddr) -> SocketAddr {
        match address.ip().is_unspecified() {
            true => SocketAddr::new(self.0, address.port()),
            false => address,
        }
    }

    /// The base URL of what listens at `address`.
    pub(super) fn url(self, address: SocketAddr) -> String {
        format!("http://{}", self.at(address))
    }

    /// The swarm's addresses as others dial them, best first, each with the peer id. Loopback ones
    /// are told only if nothing else is there.
    pub(super) fn peers(self, swarm: &Swarm) -> Vec<String> {
        let all: Vec<String> = swarm
            .listen_addrs()
            .iter()
            .map(ToString::to_string)
            .collect();
        let (local, far): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|text| text.starts_with("/ip4/127.") || text.starts_with("/ip6/::1/"));
        let wants_local = self.0.is_loopback() || far.is_empty();
        let (first, second) = if wants_local {
            (local, far)
        } else {
            (far, Vec::new())
        };
        first
            .into_iter()
            .chain(second)
            .take(ADDRESSES_MAX)
            .collect()
    }
}

/// The local address that the kernel would send from. No packet is sent.
async fn local_towards(peer: &str) -> Option<IpAddr> {
    let remote = tokio::net::lookup_host(peer).await.ok()?.next()?;
    let any: SocketAddr = match remote {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = tokio::net::UdpSocket::bind(any).await.ok()?;
    socket.connect(remote).await.ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// QUIC and TCP at one address and port.
pub(super) fn multiaddrs(listen: SocketAddr) -> Vec<Multiaddr> {
    let ip = match listen.ip() {
        IpAddr::V4(ip) => Protocol::Ip4(ip),
        IpAddr::V6(ip) => Protocol::Ip6(ip),
    };
    let base = Multiaddr::empty().with(ip);
    let quic = base
        .clone()
        .with(Protocol::Udp(listen.port()))
        .with(Protocol::QuicV1);
    vec![quic, base.with(Protocol::Tcp(listen.port()))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn others_are_told_an_address_they_can_dial() {
        let network = NetworkConfig {
            advertise: Some([192, 0, 2, 7].into()),
            ..NetworkConfig::default()
        };
        let reach = Reach::of(&network).await;
        assert_eq!(
            reach.at(([0, 0, 0, 0], 7600).into()),
            ([192, 0, 2, 7], 7600).into()
        );
        assert_eq!(
            reach.at(([10, 0, 0, 1], 7600).into()),
            ([10, 0, 0, 1], 7600).into()
        );
        let alone = Reach::of(&NetworkConfig::default()).await;
        assert_eq!(alone.url(([0, 0, 0, 0], 80).into()), "http://127.0.0.1:80");
        assert_eq!(
            multiaddrs(([127, 0, 0, 1], 9).into())
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            ["/ip4/127.0.0.1/udp/9/quic-v1", "/ip4/127.0.0.1/tcp/9"]
        );
    }
}
