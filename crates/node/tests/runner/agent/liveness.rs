//! Liveness sessions: who is gone is noticed, who is there is not accused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mutual_model::identity::{NodeKey, Role};
use mutual_model::ids::Incarnation;
use mutual_model::time::UnixMillis;
use mutual_node::auth::NodeSigner;
use mutual_node::liveness::{AgentDoor, Loss, Notice, Poke, Watch, WatchConfig, keep_session};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::cloud::{Cloud, WITHIN};

fn anywhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn incarnation(n: u64) -> Incarnation {
    Incarnation::new(UnixMillis(n), [7; 10])
}

struct Scene {
    cloud: Cloud,
    watch: Watch,
    notices: mpsc::Receiver<Notice>,
}

impl Scene {
    async fn new() -> Self {
        let cloud = Cloud::start().await;
        let config = WatchConfig::new(cloud.trusted());
        let (watch, notices) = Watch::open(anywhere(), config).await.unwrap();
        Self {
            cloud,
            watch,
            notices,
        }
    }

    fn agent(&self) -> NodeSigner {
        self.cloud.signer(30, "agent", &[Role::Agent])
    }

    async fn door(&self, at: SocketAddr, n: u64) -> (AgentDoor, mpsc::Receiver<Poke>) {
        let signer = self.agent();
        let key = Arc::new(NodeKey::from_seed(&[30; 32]));
        let opened = AgentDoor::open(at, key, signer.certificate().clone()).await;
        let (door, pokes) = opened.unwrap();
        door.live(incarnation(n), None);
        (door, pokes)
    }

    fn session(&self, door: &AgentDoor, n: u64) -> tokio::task::JoinHandle<()> {
        let server = self.watch.address().to_string();
        tokio::spawn(keep_session(door.clone(), server, incarnation(n)))
    }

    async fn notice(&mut self) -> Notice {
        let notice = tokio::time::timeout(WITHIN, self.notices.recv()).await;
        notice
            .expect("a notice in time")
            .expect("a watch that lives")
    }

    async fn opened(&mut self, n: u64) {
        match self.notice().await {
            Notice::Opened(peer) => assert_eq!(peer.incarnation, incarnation(n)),
            other => panic!("{other:?}"),
        }
    }

    async fn lost(&mut self) -> (Loss, Duration) {
        match self.notice().await {
            Notice::Lost { loss, after, .. } => (loss, after),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_in_a_killed_process_is_noticed_at_once() {
    let mut scene = Scene::new().await;
    let process = tokio::runtime::Runtime::new().unwrap();
    let (signer, server) = (scene.agent(), scene.watch.address().to_string());
    process.spawn(async move {
        let key = Arc::new(NodeKey::from_seed(&[30; 32]));
        let opened = AgentDoor::open(anywhere(), key, signer.certificate().clone()).await;
        let (door, _pokes) = opened.unwrap();
        door.live(incarnation(1), None);
        keep_session(door, server, incarnation(1)).await;
    });
    scene.opened(1).await;
    // All of its sockets are closed together, as by the kernel.
    process.shutdown_background();
    let (loss, after) = scene.lost().await;
    assert_eq!(loss, Loss::Refused);
    assert!(loss.is_closed());
    assert!(after < Duration::from_secs(1), "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_breaks_is_restored_by_dialling_back_and_pokes_arrive() {
    let mut scene = Scene::new().await;
    let (door, mut pokes) = scene.door(anywhere(), 1).await;
    let session = scene.session(&door, 1);
    scene.opened(1).await;
    session.abort();
    let _ = session.await;
    let agent = scene.agent().key().id();
    let began = std::time::Instant::now();
    loop {
        scene.watch.poke(&agent);
        let poke = tokio::time::timeout(Duration::from_millis(20), pokes.recv()).await;
        if let Ok(Some(poke)) = poke {
            assert_eq!(poke.incarnation, incarnation(1));
            break;
        }
        assert!(
            began.elapsed() < WITHIN,
            "no poke through the restored session"
        );
    }
    assert!(scene.notices.try_recv().is_err(), "nobody was accused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_at_the_same_port_replaces_its_predecessor() {
    let mut scene = Scene::new().await;
    // The port of a door that answers with the later incarnation only.
    let (door, _pokes) = scene.door(anywhere(), 1).await;
    let session = scene.session(&door, 1);
    scene.opened(1).await;
    door.live(incarnation(2), Some(incarnation(1)));
    session.abort();
    assert_eq!(scene.lost().await.0, Loss::Replaced(incarnation(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_farewell_is_no_verdict() {
    let mut scene = Scene::new().await;
    let (door, _pokes) = scene.door(anywhere(), 1).await;
    let session = scene.session(&door, 1);
    scene.opened(1).await;
    door.close();
    session.await.unwrap();
    let (loss, _) = scene.lost().await;
    assert_eq!(loss, Loss::Left);
    assert!(!loss.is_closed());
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_nonsense_open_no_session() {
    let scene = Scene::new().await;
    let mut stream = TcpStream::connect(scene.watch.address()).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut challenge = vec![0; length.into()];
    stream.read_exact(&mut challenge).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, &[0, 3, 1, 2, 3])
        .await
        .unwrap();
    assert!(stream.read_u8().await.is_err(), "the session is closed");
    assert!(scene.watch.present().is_empty());
}
