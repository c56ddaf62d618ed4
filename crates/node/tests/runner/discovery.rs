//! Discovery over real UDP sockets on this machine.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use mutual_model::identity::{Certificate, Membership, NodeKey, Role};
use mutual_model::ids::{Incarnation, JobId, Namespace};
use mutual_model::job::{IsolationClass, JobState};
use mutual_model::kademlia::Identity;
use mutual_model::matching::Need;
use mutual_model::record::{
    Ad, Body, Bulletin, NodeRecord, ProviderRecord, Record, StatusMirror, Topic, Trust, mirror_key,
};
use mutual_model::resources::Resources;
use mutual_model::time::UnixMillis;
use mutual_node::discovery::{
    Bootstrap, CallError, Contact, Discovery, DiscoveryConfig, DiscoveryError, IdleQuery, Presence,
};

const DEADLINE: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);

fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UnixMillis(since.as_millis().try_into().unwrap())
}

fn lab() -> Namespace {
    "lab".parse().unwrap()
}

fn identity(organisation: &NodeKey, number: usize) -> Identity {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    seed[8..16].copy_from_slice(&organisation.public().0[..8]);
    let key = NodeKey::from_seed(&seed);
    let membership = Membership {
        organisation: organisation.public(),
        node: key.public(),
        sealing: key.sealing_public(),
        name: format!("node-{number}"),
        namespaces: vec![lab()],
        roles: vec![Role::Agent],
        not_before: UnixMillis(0),
        not_after: now().after(MINUTE * 60),
    };
    Identity {
        certificate: Certificate::issue(organisation, membership).unwrap(),
        key,
        trust: Trust::in_organisation(organisation.public()),
        incarnation: Incarnation::new(now(), [0; 10]),
    }
}

fn organisation() -> NodeKey {
    NodeKey::from_seed(&[42; 32])
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn start(number: usize, bootstrap: Vec<Bootstrap>) -> Discovery {
    let config = DiscoveryConfig::new(any_port(), bootstrap);
    Discovery::start(config, identity(&organisation(), number))
        .await
        .unwrap()
}

/// A cloud of `count` nodes; the first two are everybody's bootstrap peers, known by address only.
async fn cloud(count: usize) -> Vec<Discovery> {
    let mut nodes: Vec<Discovery> = Vec::new();
    for number in 0..count {
        let first = nodes.iter().take(2).map(|node| node.local_addr().into());
        let bootstrap = first.collect();
        nodes.push(start(number, bootstrap).await);
    }
    let wanted = (count - 1).min(5);
    let met = join_all(
        nodes
            .iter()
            .map(|node| node.wait_for_peers(wanted, DEADLINE)),
    )
    .await;
    assert!(
        met.iter().all(|met| *met),
        "{count} nodes did not meet: {met:?}"
    );
    nodes
}

fn job(number: u8) -> JobId {
    JobId::new(UnixMillis(1), [number; 10])
}

fn mirror(number: u8, state: JobState) -> Record {
    Record {
        namespace: lab(),
        body: Body::Mirror(StatusMirror {
            job: job(number),
            state,
            holder: None,
            fence: None,
            result: Some("bafyresult".parse().unwrap()),
            sealed_key: vec![7; 80],
            providers: vec!["/ip4/127.0.0.1/udp/4001/quic-v1".into()],
        }),
    }
}

fn amount(cpus: u32, gib: u64) -> Resources {
    Resources {
        cpu_millis: cpus * 1000,
        memory_bytes: gib << 30,
        gpus: 0,
        scratch_bytes: 0,
    }
}

fn presence(node: &Discovery, free: Resources, slots_free: u16) -> Presence {
    let contact = node.contact();
    let node = NodeRecord {
        node: *contact.public(),
        udp: vec![contact.addr()],
        http: vec!["http://127.0.0.1:7070".into()],
        p2p: vec![],
        total: amount(8, 16),
        free,
        slots: 2,
        slots_free,
        isolation: vec![IsolationClass::Process],
        labels: [("site".to_owned(), "home".to_owned())].into(),
    };
    Presence {
        node,
        namespaces: vec![lab()],
    }
}

fn query(cpus: u32, gib: u64) -> IdleQuery {
    IdleQuery {
        namespace: lab(),
        need: Need {
            resources: amount(cpus, gib),
            class: None,
            labels: Default::default(),
        },
    }
}

/// Tries `ask` until it says yes, for at most `limit`.
async fn eventually<F: Future<Output = bool>>(limit: Duration, mut ask: impl FnMut() -> F) -> bool {
    let asked = async {
        while !ask().await {
            // may sleep: polls for the event, with a bound
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(limit, asked).await.is_ok()
}

async fn check_everyone_finds(count: usize) {
    let nodes = cloud(count).await;
    let publisher = &nodes[count / 2];
    publisher
        .publish(mirror(1, JobState::Running), MINUTE)
        .await
        .unwrap();
    let found = join_all(nodes.iter().map(|node| node.mirror(job(1), DEADLINE))).await;
    for (number, mirror) in found.into_iter().enumerate() {
        let mirror = mirror.unwrap_or_else(|| panic!("node {number} of {count} found nothing"));
        assert_eq!(mirror.state, JobState::Running);
    }
    assert_eq!(nodes[0].mirror(job(2), DEADLINE).await, None);
}

#[tokio::test]
async fn one_node_is_a_cloud() {
    check_everyone_finds(1).await;
}

#[tokio::test]
async fn two_three_and_five_nodes_find_records() {
    for count in [2, 3, 5] {
        check_everyone_finds(count).await;
    }
}

#[tokio::test]
async fn fifty_nodes_find_records() {
    check_everyone_finds(50).await;
}

#[tokio::test]
async fn idle_nodes_are_found_by_what_they_offer_and_busy_ones_are_not() {
    let nodes = cloud(5).await;
    for node in &nodes[1..] {
        node.announce(presence(node, amount(4, 8), 2));
    }
    let ids = |found: Vec<NodeRecord>| {
        let mut ids: Vec<_> = found.iter().map(NodeRecord::id).collect();
        ids.sort();
        ids
    };
    let four = eventually(DEADLINE, || async {
        ids(nodes[0].find_idle(&query(2, 4), 16, DEADLINE).await).len() == 4
    });
    assert!(four.await, "all idle nodes are found");
    assert_eq!(
        nodes[0].find_idle(&query(2, 4), 2, DEADLINE).await.len(),
        2,
        "no more than asked for"
    );
    assert_eq!(
        nodes[0].find_idle(&query(6, 4), 16, DEADLINE).await,
        [],
        "too large"
    );
    nodes[1].announce(presence(&nodes[1], amount(0, 0), 0));
    let busy = nodes[1].contact().node_id();
    let gone = eventually(DEADLINE, || async {
        !ids(nodes[0].find_idle(&query(2, 4), 16, DEADLINE).await).contains(&busy)
    });
    assert!(gone.await, "a busy node is found no more");
    let listed = eventually(DEADLINE, || async {
        nodes[0].nodes(&lab(), DEADLINE).await.len() == 4
    });
    assert!(listed.await, "the roster lists busy nodes too");
    let own = nodes[0].find_node(busy, DEADLINE).await.unwrap();
    assert_eq!(own.http, ["http://127.0.0.1:7070"]);
}

#[tokio::test]
async fn ads_and_providers_are_found_by_those_whom_they_concern() {
    let nodes = cloud(3).await;
    let class = amount(2, 4).class();
    let ad = Ad {
        job: job(1),
        demand_url: "http://127.0.0.1:9000".into(),
        expires: now().after(MINUTE),
    };
    let bulletin = Bulletin {
        class,
        open: 7,
        ads: vec![ad.clone(); 16],
    };
    nodes[0]
        .publish_bulletin(&lab(), bulletin, MINUTE)
        .await
        .unwrap();
    let found = nodes[2]
        .open_ads(&lab(), amount(4, 8).class(), DEADLINE)
        .await;
    assert_eq!(found.len(), 16);
    assert_eq!((&found[0].ad, found[0].open), (&ad, 7));
    assert_eq!(found[0].publisher, *nodes[0].contact().public());
    assert_eq!(
        nodes[2]
            .open_ads(&lab(), amount(1, 1).class(), DEADLINE)
            .await,
        []
    );
    let topic = Topic {
        namespace: lab(),
        class,
    };
    assert_eq!(nodes[1].ads(&topic, DEADLINE).await.len(), 16);
    let provider = ProviderRecord {
        job: job(1),
        manifest: "bafyinput".parse().unwrap(),
        seeders: vec!["/ip4/127.0.0.1/udp/4001/quic-v1".into()],
    };
    let record = Record {
        namespace: lab(),
        body: Body::Provider(provider.clone()),
    };
    nodes[0].publish(record, MINUTE).await.unwrap();
    assert_eq!(nodes[1].providers(job(1), DEADLINE).await, [provider]);
}

#[tokio::test]
async fn a_bootstrap_peer_restarts_on_its_port_and_finds_the_others_in_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("peers");
    let mut config = DiscoveryConfig::new(any_port(), vec![]);
    config.peers_file = Some(path.clone());
    let bootstrap = Discovery::start(config.clone(), identity(&organisation(), 0))
        .await
        .unwrap();
    let address = bootstrap.local_addr();
    let mut others = Vec::new();
    for number in 1..4 {
        others.push(start(number, vec![address.into()]).await);
    }
    assert!(bootstrap.wait_for_peers(3, DEADLINE).await);
    others[0]
        .publish(mirror(1, JobState::Running), MINUTE)
        .await
        .unwrap();
    bootstrap.shutdown().await;
    let stopped = bootstrap
        .publish(mirror(2, JobState::Running), MINUTE)
        .await;
    assert!(matches!(stopped, Err(DiscoveryError::Stopped)));
    // Nobody tells it of the others but its file.
    config.listen = address;
    let again = Discovery::start(config, identity(&organisation(), 0))
        .await
        .unwrap();
    assert!(
        again.wait_for_peers(3, DEADLINE).await,
        "met the others again"
    );
    let found = again
        .mirror(job(1), DEADLINE)
        .await
        .map(|mirror| mirror.state);
    assert_eq!(found, Some(JobState::Running));
    let newcomer = start(9, vec![address.into()]).await;
    assert!(
        newcomer.wait_for_peers(4, DEADLINE).await,
        "lets newcomers in again"
    );
}

#[tokio::test]
async fn a_node_started_before_its_bootstrap_peer_joins_later() {
    let reserved = std::net::UdpSocket::bind(any_port()).unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let early = start(1, vec![address.into()]).await;
    assert_eq!(
        early
            .publish(mirror(1, JobState::Running), MINUTE)
            .await
            .unwrap(),
        0
    );
    let config = DiscoveryConfig::new(address, vec![]);
    let late = Discovery::start(config, identity(&organisation(), 2))
        .await
        .unwrap();
    assert!(late.wait_for_peers(1, DEADLINE).await);
    let found = eventually(DEADLINE, || async {
        late.mirror(job(1), DEADLINE).await.is_some()
    });
    assert!(
        found.await,
        "what was published alone is copied to the first peer"
    );
}

#[tokio::test]
async fn clients_find_and_publish_without_being_routed_to() {
    let nodes = cloud(3).await;
    let mut config = DiscoveryConfig::new(any_port(), vec![nodes[0].contact().into()]);
    config.kademlia.client = true;
    let client = Discovery::start(config, identity(&organisation(), 77))
        .await
        .unwrap();
    assert!(client.wait_for_peers(3, DEADLINE).await);
    assert!(
        client
            .publish(mirror(1, JobState::Queued), MINUTE)
            .await
            .unwrap()
            >= 1
    );
    let found = nodes[2]
        .mirror(job(1), DEADLINE)
        .await
        .map(|mirror| mirror.state);
    assert_eq!(found, Some(JobState::Queued));
    for node in &nodes {
        assert!(!node.peers().await.contains(&client.contact()));
    }
}

#[tokio::test]
async fn strangers_are_kept_out() {
    let nodes = cloud(3).await;
    let config = DiscoveryConfig::new(any_port(), vec![nodes[0].local_addr().into()]);
    let foreign = NodeKey::from_seed(&[13; 32]);
    let stranger = Discovery::start(config, identity(&foreign, 5))
        .await
        .unwrap();
    assert_eq!(
        stranger
            .publish(mirror(1, JobState::Running), MINUTE)
            .await
            .unwrap(),
        0
    );
    assert_eq!(nodes[1].mirror(job(1), DEADLINE).await, None);
    let refused = stranger
        .request(nodes[0].contact(), 1, vec![1], DEADLINE)
        .await;
    assert_eq!(refused, Err(CallError::Refused));
    assert!(!nodes[0].peers().await.contains(&stranger.contact()));
}

#[tokio::test]
async fn a_certificate_for_another_key_is_refused_at_the_start() {
    let mut wrong = identity(&organisation(), 1);
    wrong.certificate = identity(&organisation(), 2).certificate;
    let config = DiscoveryConfig::new(any_port(), vec![]);
    let refused = Discovery::start(config, wrong).await;
    assert!(matches!(refused, Err(DiscoveryError::Setup(_))));
}

#[tokio::test]
async fn requests_are_answered_by_the_handler_of_their_kind() {
    let nodes = cloud(2).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    nodes[1]
        .serve(7, move |caller, payload| {
            count.fetch_add(1, Ordering::Relaxed);
            let name = caller.certificate().membership().name.clone();
            async move { Some([name.as_bytes(), b" asked ", &payload].concat()) }
        })
        .await
        .unwrap();
    let to: Contact = nodes[1].contact();
    let answer = nodes[0].request(to, 7, b"this".to_vec(), DEADLINE).await;
    assert_eq!(answer, Ok(b"node-0 asked this".to_vec()));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let unserved = nodes[0].request(to, 8, vec![], DEADLINE).await;
    assert_eq!(unserved, Err(CallError::Unserved));
    let long = nodes[0].request(to, 7, vec![0; 1_025], DEADLINE).await;
    assert_eq!(long, Err(CallError::TooLong));
    nodes[1].shutdown().await;
    let silent = nodes[0]
        .request(to, 7, vec![], Duration::from_millis(300))
        .await;
    assert_eq!(silent, Err(CallError::TimedOut));
}

#[tokio::test]
async fn a_record_that_is_too_long_is_refused_before_it_is_sent() {
    let node = start(1, vec![]).await;
    let mut long = presence(&node, amount(1, 1), 1);
    long.node.http = vec!["x".repeat(200); 4];
    long.node.p2p = vec!["x".repeat(200); 4];
    let record = Record {
        namespace: lab(),
        body: Body::Node(long.node),
    };
    let refused = node.publish(record, MINUTE).await;
    assert!(matches!(refused, Err(DiscoveryError::Record(_))));
}

#[tokio::test]
async fn garbage_and_the_withdrawn_do_no_harm() {
    let nodes = cloud(2).await;
    let socket = tokio::net::UdpSocket::bind(any_port()).await.unwrap();
    for len in [0, 1, 33, 61, 400, 1_200, 1_500, 9_000] {
        for first in [0, 1, 2, 3, 255] {
            let mut bytes = vec![7; len];
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            socket.send_to(&bytes, nodes[0].local_addr()).await.unwrap();
        }
    }
    nodes[1]
        .publish(mirror(1, JobState::Running), MINUTE)
        .await
        .unwrap();
    assert!(nodes[0].mirror(job(1), DEADLINE).await.is_some());
    nodes[1].withdraw(mirror_key(job(1))).await.unwrap();
    assert_eq!(nodes[0].mirror(job(1), DEADLINE).await, None);
}
