//! Real nodes on the loopback interface.

use std::time::SystemTime;

use mutual_data::tree::{PackOptions, Root, pack};
use mutual_data::{DataKey, store};
use mutual_model::identity::{Membership, NodeId, Role};
use mutual_model::time::UnixMillis;

use sha2::Digest as _;

use super::*;

struct Node {
    swarm: Swarm,
    store: BlockStore,
    key: Arc<NodeKey>,
    scratch: tempfile::TempDir,
}

fn organisation(seed: u8) -> NodeKey {
    NodeKey::from_seed(&[seed; 32])
}

fn certificate(organisation: &NodeKey, node: &NodeKey, namespace: &str) -> Certificate {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let now = UnixMillis(mutual_model::time::millis(now));
    let membership = Membership {
        organisation: organisation.public(),
        node: node.public(),
        sealing: node.sealing_public(),
        name: "test".into(),
        namespaces: vec![namespace.parse().unwrap()],
        roles: vec![Role::Agent],
        not_before: UnixMillis(now.0 - 60_000),
        not_after: UnixMillis(now.0 + 3_600_000),
    };
    Certificate::issue(organisation, membership).unwrap()
}

impl Node {
    /// A node of organisation 100 in namespace `lab`.
    async fn start(seed: u8) -> Self {
        Self::start_in(seed, &organisation(100), "lab", SwarmConfig::loopback()).await
    }

    async fn start_in(seed: u8, owner: &NodeKey, namespace: &str, config: SwarmConfig) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let options = store::Options {
            durable: false,
            ..store::Options::default()
        };
        let store = BlockStore::open(scratch.path().join("store"), options).unwrap();
        let key = Arc::new(NodeKey::from_seed(&[seed; 32]));
        let certificate = certificate(owner, &key, namespace);
        let gate = Arc::new(Members::of(vec![organisation(100).public()]));
        let swarm = Swarm::start(config, Arc::clone(&key), &certificate, store.clone(), gate);
        Self {
            swarm: swarm.await.unwrap(),
            store,
            key,
            scratch,
        }
    }

    fn publish(&self, bytes: usize) -> Root {
        let mut noise = vec![0; bytes];
        blake3::Hasher::new()
            .update(b"noise")
            .finalize_xof()
            .fill(&mut noise);
        let file = self.scratch.path().join("file");
        std::fs::write(&file, noise).unwrap();
        let batch = self.store.batch();
        let key = DataKey::generate().unwrap();
        let root = pack(&batch, &key, &PackOptions::private("lab"), &file)
            .unwrap()
            .root;
        batch.commit(&root.cid, "test", None).unwrap();
        root
    }

    /// An image without layers.
    fn publish_image(&self, namespace: Option<&str>) -> Cid {
        let layout = self.scratch.path().join("layout");
        let blobs = layout.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let put = |text: String| {
            let digest = hex::encode(sha2::Sha256::digest(&text));
            std::fs::write(blobs.join(&digest), &text).unwrap();
            format!(r#"{{"digest":"sha256:{digest}","size":{}}}"#, text.len())
        };
        let config = put("{}".to_owned());
        let manifest = put(format!(r#"{{"config":{config},"layers":[]}}"#));
        let index = format!(r#"{{"manifests":[{manifest}]}}"#);
        std::fs::write(layout.join("index.json"), index).unwrap();
        let batch = self.store.batch();
        let root =
            mutual_data::image::import(&batch, &layout, namespace.map(str::to_owned)).unwrap();
        batch.commit(&root.cid, "test", None).unwrap();
        root.cid
    }

    async fn fetch(&self, root: &Root, from: &[PeerAddr]) -> Result<u64, TransferError> {
        let options = FetchOptions {
            lonely: Duration::from_millis(100),
            ..FetchOptions::new("test")
        };
        let fetch = self.swarm.fetch(root.cid, from, options).finish();
        let fetched = tokio::time::timeout(Duration::from_secs(60), fetch).await;
        Ok(fetched.expect("a fetch ends")?.received)
    }

    fn quic(&self) -> Vec<PeerAddr> {
        self.swarm.listen_addrs()[..1].to_vec()
    }

    fn tcp(&self) -> Vec<PeerAddr> {
        self.swarm.listen_addrs()[1..].to_vec()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_travel_over_quic_and_tcp() {
    let seeder = Node::start(1).await;
    let root = seeder.publish(5 << 20);
    assert!(seeder.quic()[0].to_string().contains("/quic-v1/p2p/"));
    for (seed, from) in [(2, seeder.quic()), (3, seeder.tcp())] {
        let agent = Node::start(seed).await;
        assert_eq!(
            agent.fetch(&root, &from).await.unwrap(),
            root.bytes,
            "{from:?}"
        );
        assert_eq!(agent.store.complete(&root.cid).unwrap(), Some(root.bytes));
        agent.swarm.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_fetched_becomes_a_seeder() {
    let seeder = Node::start(1).await;
    let root = seeder.publish(3 << 20);
    let (second, third) = (Node::start(2).await, Node::start(3).await);
    second
        .fetch(&root, &seeder.swarm.listen_addrs())
        .await
        .unwrap();
    let mut both = seeder.swarm.listen_addrs();
    both.extend(second.swarm.listen_addrs());
    seeder.swarm.shutdown().await;
    assert_eq!(third.fetch(&root, &both).await.unwrap(), root.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_members_of_other_namespaces_get_nothing() {
    let seeder = Node::start(1).await;
    let root = seeder.publish(100);
    let local = SwarmConfig::loopback;
    let stranger = Node::start_in(2, &organisation(101), "lab", local()).await;
    let outsider = Node::start_in(3, &organisation(100), "other", local()).await;
    for (node, word) in [
        (stranger, "is not trusted"),
        (outsider, "does not name namespace lab"),
    ] {
        let error = node
            .fetch(&root, &seeder.quic())
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(word), "{error}");
        let kept = seeder_keeps_nothing_for(&node, &seeder).await;
        assert!(kept.contains("refused"), "{kept}");
    }
}

async fn seeder_keeps_nothing_for(node: &Node, seeder: &Node) -> String {
    let root = node.publish(100);
    let hour = Duration::from_secs(3600);
    let kept = node.swarm.keep_at(root.cid, &seeder.quic(), 1, hour).await;
    kept.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_keep_and_sign() {
    let nodes = [
        Node::start(1).await,
        Node::start(2).await,
        Node::start(3).await,
    ];
    let root = nodes[0].publish(3 << 20);
    // An address nobody answers at, and the producer's own, are passed over.
    let silent = PeerAddr::new(
        "/ip4/127.0.0.1/tcp/1".parse().unwrap(),
        libp2p::identity::Keypair::generate_ed25519()
            .public()
            .to_peer_id(),
    );
    let mut peers = vec![silent.unwrap()];
    peers.extend(nodes.iter().flat_map(|node| node.swarm.listen_addrs()));
    let hour = Duration::from_secs(3600);
    let receipts = nodes[0]
        .swarm
        .keep_at(root.cid, &peers, 2, hour)
        .await
        .unwrap();
    let mut holders: Vec<NodeId> = receipts.iter().map(|r| r.holder.node_id()).collect();
    holders.sort_unstable();
    let mut expected = vec![nodes[1].key.id(), nodes[2].key.id()];
    expected.sort_unstable();
    assert_eq!(holders, expected);
    let content = root.cid.to_string().parse().unwrap();
    let producer = nodes[0].key.id();
    assert_eq!(
        mutual_model::receipt::vouching(&receipts, &content, &producer),
        2
    );
    match nodes[0].swarm.keep_at(root.cid, &peers, 3, hour).await {
        Err(SwarmError::NotKept {
            wanted: 3,
            receipts,
            ..
        }) => assert_eq!(receipts.len(), 2),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_gone_is_told_quickly_and_the_swarm_goes_on() {
    let (seeder, gone, agent) = (
        Node::start(1).await,
        Node::start(2).await,
        Node::start(3).await,
    );
    let root = seeder.publish(100);
    let dead = gone.tcp();
    gone.swarm.shutdown().await;
    let error = agent.fetch(&root, &dead).await.unwrap_err();
    assert!(matches!(error, TransferError::NoProvider { .. }), "{error}");
    agent.fetch(&root, &seeder.quic()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_must_be_the_nodes_own() {
    let scratch = tempfile::tempdir().unwrap();
    let store = BlockStore::open(scratch.path(), store::Options::default()).unwrap();
    let (own, other) = (organisation(1), organisation(2));
    let certificate = certificate(&organisation(100), &other, "lab");
    let gate = Arc::new(Members::of(vec![]));
    let started = Swarm::start(
        SwarmConfig::loopback(),
        Arc::new(own),
        &certificate,
        store,
        gate,
    )
    .await;
    assert!(matches!(started, Err(SwarmError::Certificate)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_behind_a_relay_serves_through_it() {
    let config = SwarmConfig {
        relay: Some(RelayLimits::default()),
        ..SwarmConfig::loopback()
    };
    let relay = Node::start_in(1, &organisation(100), "lab", config).await;
    let hidden = SwarmConfig {
        listen: vec![],
        relays: relay.tcp(),
        ..SwarmConfig::default()
    };
    let hidden = Node::start_in(2, &organisation(100), "lab", hidden).await;
    let mut addresses = hidden.swarm.inner.addresses.clone();
    let relayed = addresses.wait_for(|known| !known.is_empty());
    let relayed = tokio::time::timeout(Duration::from_secs(20), relayed)
        .await
        .unwrap()
        .unwrap()
        .clone();
    assert!(
        relayed[0].to_string().contains("/p2p-circuit/"),
        "{relayed:?}"
    );
    // Far more than the 128 KiB that libp2p relays by default.
    let root = hidden.publish(3 << 20);
    let agent = Node::start(3).await;
    assert_eq!(agent.fetch(&root, &relayed).await.unwrap(), root.bytes);
}

/// Opens a lane to `seeder` as a fetch does.
async fn lane_to(
    node: &Node,
    seeder: &Node,
    root: &Cid,
) -> io::Result<mutual_data::transfer::BoxStream> {
    let inner = &node.swarm.inner;
    let addresses: Vec<_> = seeder
        .quic()
        .iter()
        .map(|a| a.multiaddr().clone())
        .collect();
    let peer = seeder.swarm.peer_id();
    inner.connect(peer, addresses.clone()).await?;
    lane::dial(
        &mut inner.streams.clone(),
        peer,
        &addresses,
        &inner.hello,
        root,
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_is_for_members_and_for_one_object_that_is_ciphertext() {
    use mutual_data::transfer::frame::{Frame, Message, read, write_message};
    let (seeder, member) = (Node::start(1).await, Node::start(2).await);
    let (root, other) = (seeder.publish(100), seeder.publish(200));
    for (asked, opened) in [(root.cid, true), (other.cid, false)] {
        let mut lane = lane_to(&member, &seeder, &root.cid).await.unwrap();
        write_message(&mut lane, Message::Open { root: asked })
            .await
            .unwrap();
        let reply = read(&mut lane, Duration::from_secs(10)).await;
        let is_opened = matches!(reply, Ok(Some(Frame::Message(Message::Opened))));
        assert_eq!(is_opened, opened, "{reply:?}");
    }
    let stranger = Node::start_in(3, &organisation(101), "lab", SwarmConfig::loopback()).await;
    let error = lane_to(&stranger, &seeder, &root.cid).await.err().unwrap();
    assert!(error.to_string().contains("is not trusted"), "{error}");
    let outsider = Node::start_in(4, &organisation(100), "other", SwarmConfig::loopback()).await;
    let error = lane_to(&outsider, &seeder, &root.cid).await.err().unwrap();
    assert!(
        error.to_string().contains("does not name namespace lab"),
        "{error}"
    );
    let image = seeder.publish_image(Some("lab"));
    let error = lane_to(&member, &seeder, &image).await.err().unwrap();
    assert!(error.to_string().contains("private image"), "{error}");
    let public = seeder.publish_image(None);
    assert!(lane_to(&member, &seeder, &public).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn much_travels_whether_there_is_a_lane_or_not() {
    let closed = SwarmConfig {
        lanes: None,
        ..SwarmConfig::loopback()
    };
    for (seed, config) in [(1, SwarmConfig::loopback()), (3, closed)] {
        let seeder = Node::start_in(seed, &organisation(100), "lab", config).await;
        let root = seeder.publish(20 << 20);
        let agent = Node::start(seed + 1).await;
        let mut options = FetchOptions::new("test");
        options.bytes_expected = root.bytes;
        let fetch = agent
            .swarm
            .fetch(root.cid, &seeder.quic(), options)
            .finish();
        let fetched = tokio::time::timeout(Duration::from_secs(60), fetch).await;
        assert_eq!(fetched.unwrap().unwrap().received, root.bytes);
    }
}
