//! The task that owns the libp2p swarm: dials on request, and keeps the list of addresses.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::core::transport::ListenerId;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{DialError, NetworkBehaviour, SwarmEvent};
use libp2p::{
    Multiaddr, PeerId, SwarmBuilder, dcutr, identify, identity, noise, relay, tcp, yamux,
};
use mutual_model::identity::NodeKey;
use tokio::sync::{mpsc, oneshot, watch};

use super::{PeerAddr, RelayLimits, SwarmConfig, SwarmError};

/// Connections without streams stay this long: the next fetch saves the handshake.
const IDLE: Duration = Duration::from_secs(120);

/// How long the addresses may take to listen.
const LISTEN_PATIENCE: Duration = Duration::from_secs(10);

/// The largest datagram that path discovery tries: jumbo frames where the network has them.
const MTU_MAX: u16 = 8952;

/// How long closing connections may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// What other tasks ask of the driver.
pub(super) enum Command {
    /// Connect to a peer, unless there is a connection.
    Connect {
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        reply: oneshot::Sender<io::Result<()>>,
    },
    /// Close everything.
    Shutdown(oneshot::Sender<()>),
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    streams: libp2p_stream::Behaviour,
    identify: identify::Behaviour,
    relay_client: relay::client::Behaviour,
    relay: Toggle<relay::Behaviour>,
    dcutr: dcutr::Behaviour,
}

impl Behaviour {
    fn new(
        key: &identity::Keypair,
        client: relay::client::Behaviour,
        limits: Option<RelayLimits>,
    ) -> Self {
        let id = key.public().to_peer_id();
        let about = identify::Config::new("/mutual/1".into(), key.public())
            .with_agent_version(concat!("mutual/", env!("CARGO_PKG_VERSION")).into());
        Self {
            streams: libp2p_stream::Behaviour::new(),
            identify: identify::Behaviour::new(about),
            relay_client: client,
            relay: limits
                .map(|limits| relay::Behaviour::new(id, relay_config(limits)))
                .into(),
            dcutr: dcutr::Behaviour::new(id),
        }
    }
}

fn relay_config(limits: RelayLimits) -> relay::Config {
    relay::Config {
        max_circuit_duration: limits.duration,
        max_circuit_bytes: limits.bytes,
        ..relay::Config::default()
    }
}

fn build(
    key: identity::Keypair,
    limits: Option<RelayLimits>,
) -> Result<libp2p::Swarm<Behaviour>, SwarmError> {
    let failed = |e: &dyn std::fmt::Display| SwarmError::Transport(e.to_string());
    let swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            noise::Config::new,
            yamux::Config::default,
        )
        .map_err(|e| failed(&e))?
        .with_quic_config(|config| config.mtu_upper_bound(MTU_MAX))
        .with_relay_client(noise::Config::new, yamux::Config::default)
        .map_err(|e| failed(&e))?
        .with_behaviour(|key, client| Behaviour::new(key, client, limits))
        .map_err(|e| failed(&e))?
        .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE))
        .build();
    Ok(swarm)
}

/// The libp2p swarm and who waits for what.
pub(super) struct Driver {
    swarm: libp2p::Swarm<Behaviour>,
    dialling: HashMap<PeerId, Vec<oneshot::Sender<io::Result<()>>>>,
    listening: HashMap<ListenerId, Vec<Multiaddr>>,
    addresses: watch::Sender<Vec<PeerAddr>>,
    /// A relay tells its clients where it is reached: its listening addresses, unless others were configured.
    announces_itself: bool,
}

impl Driver {
    /// Sets up the transports and starts to listen.
    pub(super) fn new(
        config: &SwarmConfig,
        key: &NodeKey,
    ) -> Result<(Self, libp2p_stream::Control), SwarmError> {
        let key = identity::Keypair::ed25519_from_bytes(*key.seed())
            .map_err(|e| SwarmError::Transport(e.to_string()))?;
        let mut swarm = build(key, config.relay)?;
        for address in &config.external {
            swarm.add_external_address(address.clone());
        }
        let control = swarm.behaviour().streams.new_control();
        let mut driver = Self {
            swarm,
            dialling: HashMap::new(),
            listening: HashMap::new(),
            addresses: watch::Sender::new(Vec::new()),
            announces_itself: config.relay.is_some() && config.external.is_empty(),
        };
        for address in &config.listen {
            driver.listen(address.clone())?;
        }
        for relay in &config.relays {
            let through = libp2p::multiaddr::Protocol::P2pCircuit;
            driver.listen(relay.multiaddr().clone().with(through))?;
        }
        Ok((driver, control))
    }

    pub(super) fn id(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    fn listen(&mut self, address: Multiaddr) -> Result<(), SwarmError> {
        let shown = address.to_string();
        let listener = self
            .swarm
            .listen_on(address)
            .map_err(|e| SwarmError::Listen {
                address: shown,
                reason: e.to_string(),
            })?;
        self.listening.insert(listener, Vec::new());
        Ok(())
    }

    /// Waits until `count` listeners stand, then runs until it is told to stop or nobody is left to tell it anything.
    pub(super) async fn start(
        mut self,
        count: usize,
        inbox: mpsc::Receiver<Command>,
    ) -> Result<watch::Receiver<Vec<PeerAddr>>, SwarmError> {
        match tokio::time::timeout(LISTEN_PATIENCE, self.until_listening(count)).await {
            Ok(listening) => listening?,
            Err(_) => {
                return Err(SwarmError::Listen {
                    address: "some address".into(),
                    reason: format!("it did not listen within {LISTEN_PATIENCE:?}"),
                });
            }
        }
        let addresses = self.addresses.subscribe();
        tokio::spawn(self.run(inbox));
        Ok(addresses)
    }

    async fn until_listening(&mut self, count: usize) -> Result<(), SwarmError> {
        while self
            .listening
            .values()
            .filter(|addresses| !addresses.is_empty())
            .count()
            < count
        {
            let event = self.swarm.select_next_some().await;
            if let SwarmEvent::ListenerClosed {
                addresses, reason, ..
            } = &event
            {
                return Err(SwarmError::Listen {
                    address: addresses.iter().map(ToString::to_string).collect(),
                    reason: format!("{reason:?}"),
                });
            }
            self.event(event);
        }
        Ok(())
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.event(event),
                command = inbox.recv() => match command {
                    None => return,
                    Some(Command::Connect { peer, addresses, reply }) => self.connect(peer, addresses, reply),
                    Some(Command::Shutdown(done)) => {
                        self.close().await;
                        let _ = done.send(());
                        return;
                    }
                },
            }
        }
    }

    /// Tells peers goodbye, so that they need not wait for a time-out.
    async fn close(mut self) {
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let all_closed = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        let _ = tokio::time::timeout(GOODBYE, all_closed).await;
    }

    fn connect(
        &mut self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        reply: oneshot::Sender<io::Result<()>>,
    ) {
        if self.swarm.is_connected(&peer) {
            let _ = reply.send(Ok(()));
            return;
        }
        let waiting = self.dialling.entry(peer).or_default();
        waiting.push(reply);
        if waiting.len() > 1 {
            return;
        }
        let dial = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addresses)
            .build();
        match self.swarm.dial(dial) {
            // Someone is dialling it already (hole punching, say): the outcome answers us too.
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(error) => self.answer(peer, &Err(error.to_string())),
        }
    }

    fn answer(&mut self, peer: PeerId, result: &Result<(), String>) {
        for reply in self.dialling.remove(&peer).unwrap_or_default() {
            let result = result
                .clone()
                .map_err(|e| io::Error::new(io::ErrorKind::NotConnected, e));
            let _ = reply.send(result);
        }
    }

    fn event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => self.answer(peer_id, &Ok(())),
            SwarmEvent::OutgoingConnectionError {
                peer_id: Some(peer),
                error,
                ..
            } => self.answer(peer, &Err(error.to_string())),
            SwarmEvent::NewListenAddr {
                listener_id,
                address,
            } => {
                if self.announces_itself {
                    self.swarm.add_external_address(address.clone());
                }
                self.listening.entry(listener_id).or_default().push(address);
                self.publish();
            }
            SwarmEvent::ExpiredListenAddr {
                listener_id,
                address,
            } => {
                self.listening
                    .entry(listener_id)
                    .or_default()
                    .retain(|a| *a != address);
                self.publish();
            }
            SwarmEvent::ListenerClosed {
                listener_id,
                reason,
                ..
            } => {
                tracing::warn!(?reason, "an address is no longer listened at");
                self.listening.remove(&listener_id);
                self.publish();
            }
            _ => {}
        }
    }

    /// Publishes the addresses, QUIC before TCP: that is the order in which others should try.
    fn publish(&self) {
        let id = self.id();
        let mut addresses: Vec<_> = self
            .listening
            .values()
            .flatten()
            .chain(self.swarm.external_addresses())
            .filter_map(|address| PeerAddr::new(address.clone(), id).ok())
            .collect();
        addresses
            .sort_by_key(|address| (!address.to_string().contains("/quic-v1"), address.clone()));
        addresses.dedup();
        self.addresses.send_replace(addresses);
    }
}

/// A listener under a random key that lives for a few seconds, to be dialled once.
pub(super) async fn throwaway_listener() -> Option<(PeerId, Multiaddr)> {
    const LIFE: Duration = Duration::from_secs(5);
    let mut swarm = build(identity::Keypair::generate_ed25519(), None).ok()?;
    let local = "/ip4/127.0.0.1/udp/0/quic-v1".parse().ok()?;
    swarm.listen_on(local).ok()?;
    let address = loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => break address,
            SwarmEvent::ListenerClosed { .. } => return None,
            _ => {}
        }
    };
    let id = *swarm.local_peer_id();
    tokio::spawn(tokio::time::timeout(LIFE, async move {
        loop {
            if let SwarmEvent::ConnectionEstablished { .. } = swarm.select_next_some().await {
                return;
            }
        }
    }));
    Some((id, address))
}
