//! Lanes: blocks over plain TCP between members that reach each other (DESIGN §8).
//!
//! Blocks of private objects are ciphertext and every block is verified, so that a second encryption buys them little,
//! and costs more than all the rest of a transfer. So a fetcher of much asks for a lane, over the connection that proves
//! who both are: it shows its certificate and names one object. The provider judges both as for any stream, and answers
//! with a port and a ticket, 32 random bytes that open one TCP stream for that object within [`TICKET_LIFE`]. The fetcher
//! dials that port at the addresses it knows the provider by. Where any of this fails, the ordinary stream serves.
//!
//! Who listens on the wire learns what it learns from an encrypted stream (who, when, how much), the object's content
//! id, and ciphertext. Who can change what passes can spoil blocks, which is noticed, or read blocks of that one object,
//! which it sees anyway. So private images, which are not encrypted, travel on no lane, and nothing is kept over one.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};
use mutual_data::Cid;
use mutual_data::transfer::frame::{self, Frame, Message, Ticket};
use mutual_data::transfer::{BoxStream, Server, TransferError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

use super::SwarmError;
use super::provider::{Host, Places};

/// The protocol in which lanes are asked for.
const PROTOCOL: &str = "/mutual/lane/1";

/// How long a ticket waits to be shown.
const TICKET_LIFE: Duration = Duration::from_secs(10);

/// Tickets that wait at a time; further wishes are refused.
const TICKETS_MAX: usize = 256;

/// How long each end waits for the other's next step.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long opening a lane may take before the ordinary stream is used: a firewall may swallow what is dialled.
const DIAL_PATIENCE: Duration = Duration::from_millis(500);

/// How long a peer to which no lane could be opened is not asked for another.
const AVOIDED_FOR: Duration = Duration::from_secs(600);

/// Peers to which no lane could be opened lately.
#[derive(Debug, Default)]
pub(super) struct Avoided(Mutex<HashMap<PeerId, Instant>>);

impl Avoided {
    pub(super) fn add(&self, peer: PeerId) {
        let mut avoided = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        avoided.retain(|_, since| since.elapsed() < AVOIDED_FOR);
        avoided.insert(peer, Instant::now());
    }

    pub(super) fn has(&self, peer: &PeerId) -> bool {
        let avoided = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = avoided.get(peer);
        since.is_some_and(|since| since.elapsed() < AVOIDED_FOR)
    }
}

/// What a ticket opens.
struct Granted {
    root: Cid,
    server: Server,
    until: Instant,
}

/// The tickets that were given out and not shown yet.
#[derive(Clone, Default)]
struct Tickets(Arc<Mutex<HashMap<[u8; 32], Granted>>>);

impl Tickets {
    /// None if too many wait.
    fn give(&self, root: Cid, server: Server) -> Option<Ticket> {
        let now = Instant::now();
        // What a panicking thread left is still a map of tickets.
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.retain(|_, granted| granted.until > now);
        if tickets.len() >= TICKETS_MAX {
            return None;
        }
        let ticket: [u8; 32] = rand::random();
        let until = now + TICKET_LIFE;
        tickets.insert(
            ticket,
            Granted {
                root,
                server,
                until,
            },
        );
        Some(Ticket::new(ticket))
    }

    /// A ticket is good once.
    fn take(&self, ticket: &[u8; 32]) -> Option<Granted> {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let granted = tickets.remove(ticket);
        granted.filter(|granted| granted.until > Instant::now())
    }
}

/// Serves lanes until the swarm ends: on a port of its own at `address`.
pub(super) async fn serve_all(
    mut control: libp2p_stream::Control,
    address: SocketAddr,
    host: Host,
    places: Places,
) -> Result<(), SwarmError> {
    let failed = |error: &dyn std::fmt::Display| SwarmError::Listen {
        address: format!("{address} for lanes"),
        reason: error.to_string(),
    };
    let listener = TcpListener::bind(address).await.map_err(|e| failed(&e))?;
    let port = listener.local_addr().map_err(|e| failed(&e))?.port();
    let wishes = control.accept(StreamProtocol::new(PROTOCOL));
    let mut wishes = wishes.map_err(|e| SwarmError::Transport(e.to_string()))?;
    let tickets = Tickets::default();
    let door = tokio::spawn(open_door(listener, tickets.clone(), places));
    tokio::spawn(async move {
        while let Some((peer, stream)) = wishes.next().await {
            let (host, tickets) = (host.clone(), tickets.clone());
            let answering = async move {
                if let Err(error) = answer(peer, stream, port, &host, &tickets).await {
                    tracing::debug!(%peer, %error, "a lane was refused");
                }
            };
            tokio::spawn(tokio::time::timeout(PATIENCE, answering));
        }
        door.abort();
    });
    Ok(())
}

/// Answers one wish for a lane.
async fn answer(
    peer: PeerId,
    stream: Stream,
    port: u16,
    host: &Host,
    tickets: &Tickets,
) -> Result<(), TransferError> {
    let mut stream = stream.compat();
    let granted = grant(peer, &mut stream, host, tickets).await;
    let reply = match &granted {
        Ok(ticket) => Message::Lane {
            port,
            ticket: *ticket,
        },
        Err(error) => Message::Refused {
            reason: error.to_string(),
        },
    };
    frame::write_message(&mut stream, reply).await?;
    stream.shutdown().await?;
    granted.map(drop)
}

async fn grant(
    peer: PeerId,
    stream: &mut (impl mutual_data::transfer::Stream + Sized),
    host: &Host,
    tickets: &Tickets,
) -> Result<Ticket, TransferError> {
    let (node, server) = host
        .admit(peer, stream)
        .await
        .map_err(TransferError::Refused)?;
    let Some(Frame::Message(Message::Open { root })) = frame::read(stream, PATIENCE).await? else {
        return Err(TransferError::Protocol("no object is named".into()));
    };
    server.allow_lane(&node, root).await?;
    let ticket = tickets.give(root, server);
    ticket.ok_or_else(|| TransferError::Refused("too many lanes wait to be used".into()))
}

/// Lets in whoever has a ticket.
async fn open_door(listener: TcpListener, tickets: Tickets, places: Places) {
    loop {
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Too many open files, say: what is open will close.
                tracing::warn!(%error, "a lane cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tickets, places) = (tickets.clone(), places.clone());
        tokio::spawn(async move {
            let Some(granted) = admit(&mut stream, &tickets).await else {
                return;
            };
            let Ok(_place) = places.acquire().await else {
                return;
            };
            if let Err(error) = granted.server.serve_lane(granted.root, stream).await {
                tracing::debug!(%error, "a lane ended early");
            }
        });
    }
}

/// Nothing is answered to whoever shows no ticket.
async fn admit(stream: &mut TcpStream, tickets: &Tickets) -> Option<Granted> {
    let mut ticket = [0; 32];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut ticket)).await;
    read.ok()?.ok()?;
    stream.set_nodelay(true).ok()?;
    tickets.take(&ticket)
}

/// Asks over `stream`, which proves who both are, for a lane to the object below `root`, and dials it.
pub(super) async fn dial(
    control: &mut libp2p_stream::Control,
    peer: PeerId,
    addresses: &[Multiaddr],
    hello: &[u8],
    root: &Cid,
) -> io::Result<BoxStream> {
    let opening = async {
        let stream = control.open_stream(peer, StreamProtocol::new(PROTOCOL));
        let mut stream = stream.await.map_err(io::Error::other)?.compat();
        super::hello::write(&mut stream, hello).await?;
        let (port, ticket) = ask(stream, root).await.map_err(io::Error::other)?;
        let mut lane = reach(addresses, port).await?;
        lane.set_nodelay(true)?;
        lane.write_all(ticket.as_slice()).await?;
        Ok(Box::pin(lane) as BoxStream)
    };
    match tokio::time::timeout(DIAL_PATIENCE, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn ask(
    stream: impl mutual_data::transfer::Stream,
    root: &Cid,
) -> Result<(u16, Ticket), TransferError> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let open = Message::Open { root: *root };
    match frame::ask(&mut reader, &mut writer, open, PATIENCE).await? {
        Message::Lane { port, ticket } => Ok((port, ticket)),
        _ => Err(TransferError::Protocol(
            "no answer to a wish for a lane".into(),
        )),
    }
}

/// Connects at whichever of the peer's own addresses answers first.
async fn reach(addresses: &[Multiaddr], port: u16) -> io::Result<TcpStream> {
    let mut hosts: Vec<IpAddr> = addresses.iter().filter_map(own_host).collect();
    hosts.sort_unstable();
    hosts.dedup();
    if hosts.is_empty() {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    let dials = hosts
        .into_iter()
        .map(|host| Box::pin(TcpStream::connect((host, port))));
    let (stream, _) = futures::future::select_ok(dials).await?;
    Ok(stream)
}

/// The machine that an address names, unless that is a relay.
fn own_host(address: &Multiaddr) -> Option<IpAddr> {
    let mut parts = address.iter();
    let is_relayed = address.iter().any(|part| part == Protocol::P2pCircuit);
    match parts.next()? {
        _ if is_relayed => None,
        Protocol::Ip4(host) => Some(host.into()),
        Protocol::Ip6(host) => Some(host.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relays_address_is_not_the_peers() {
        let host = |text: &str| own_host(&text.parse().unwrap());
        assert_eq!(
            host("/ip4/10.0.0.7/udp/4001/quic-v1"),
            Some([10, 0, 0, 7].into())
        );
        assert_eq!(
            host("/ip6/::1/tcp/1"),
            Some(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST))
        );
        assert_eq!(host("/dns/example.org/tcp/1"), None);
        let relay = libp2p::identity::Keypair::generate_ed25519()
            .public()
            .to_peer_id();
        assert_eq!(
            host(&format!("/ip4/10.0.0.7/tcp/1/p2p/{relay}/p2p-circuit")),
            None
        );
    }
}
