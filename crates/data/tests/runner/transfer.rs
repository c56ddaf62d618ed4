//! Fetching and keeping between real stores over in-memory streams, with faults.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mutual_data::DataKey;
use mutual_data::store::StoreError;
use mutual_data::transfer::frame::{self, Frame, Message};
use mutual_data::transfer::{
    Dial, FetchOptions, Fetched, KeepRequest, Progress, ProviderState, Series, TransferError,
    fetch, keep, retain,
};
use mutual_data::tree::{Limits, Root, Tree};
use mutual_model::identity::NodeKey;

use crate::world::{Fault, Local, MEBIBYTE, Peer, noise, options};

pub(crate) async fn fetch_all(
    to: &Peer,
    root: &Root,
    providers: Vec<Arc<dyn Dial>>,
) -> (Result<Fetched, TransferError>, Progress) {
    let fetch = fetch(&to.store, root.cid, providers, options());
    let progress = fetch.progress();
    let result = tokio::time::timeout(Duration::from_secs(60), fetch.finish()).await;
    let progress = progress.borrow().clone();
    (result.expect("a fetch ends"), progress)
}

pub(crate) fn assert_whole(peer: &Peer, root: &Root, key: &DataKey, bytes: usize) {
    assert_eq!(peer.store.complete(&root.cid).unwrap(), Some(root.bytes));
    assert!(peer.store.is_pinned(&root.cid));
    let target = peer.path("target");
    let tree = Tree::open(&peer.store, &root.cid, key).unwrap();
    tree.unpack(&target, Limits::default()).unwrap();
    assert!(std::fs::read(target.join("file")).unwrap() == noise(bytes));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_travels_whole_and_progress_is_told() {
    let (seeder, agent) = (Peer::new(2), Peer::new(3));
    for bytes in [0, 1, 5 * MEBIBYTE + 1] {
        let (root, key) = seeder.publish(bytes);
        let (result, progress) = fetch_all(&agent, &root, vec![seeder.provider()]).await;
        assert_eq!(result.unwrap().root, root);
        assert_eq!(
            (progress.bytes, progress.total),
            (root.bytes, Some(root.bytes))
        );
        assert_whole(&agent, &root, &key, bytes);
        std::fs::remove_dir_all(agent.path("target")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_seeders_share_the_work() {
    let first = Peer::new(2);
    let (root, key) = first.publish(24 * MEBIBYTE);
    let second = Peer::new(4);
    fetch_all(&second, &root, vec![first.provider()])
        .await
        .0
        .unwrap();
    let agent = Peer::new(3);
    let providers: Vec<Arc<dyn Dial>> = vec![first.provider(), second.provider(), first.provider()];
    let (result, progress) = fetch_all(&agent, &root, providers).await;
    result.unwrap();
    assert!(
        progress.providers.iter().all(|p| p.bytes > 0),
        "{progress:?}"
    );
    assert_whole(&agent, &root, &key, 24 * MEBIBYTE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_transfer_goes_on_where_it_stopped() {
    let (seeder, agent) = (Peer::new(2), Peer::new(3));
    let (root, key) = seeder.publish(10 * MEBIBYTE);
    let cut = Fault::CutAfter {
        bytes: 4 * MEBIBYTE,
        streams: 1,
    };
    let provider = Local::faulty(seeder.server(), cut);
    let (result, _) = fetch_all(&agent, &root, vec![Arc::clone(&provider) as _]).await;
    let received = result.unwrap().received;
    assert_eq!(provider.opened.load(Ordering::Relaxed), 2);
    assert!(
        received < root.bytes + 2 * MEBIBYTE as u64,
        "{received} of {}",
        root.bytes
    );
    assert_whole(&agent, &root, &key, 10 * MEBIBYTE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_fetch_asks_only_for_what_is_missing() {
    let (seeder, agent) = (Peer::new(2), Peer::new(3));
    let (root, key) = seeder.publish(10 * MEBIBYTE);
    let always_cut = Fault::CutAfter {
        bytes: 6 * MEBIBYTE,
        streams: 1,
    };
    let provider = Local::faulty(seeder.server(), always_cut);
    let running = fetch(&agent.store, root.cid, vec![provider], options());
    let mut progress = running.progress();
    let some = progress.wait_for(|p| p.bytes > 3 * MEBIBYTE as u64);
    tokio::time::timeout(Duration::from_secs(20), some)
        .await
        .unwrap()
        .unwrap();
    drop(running);
    let (result, _) = fetch_all(&agent, &root, vec![seeder.provider()]).await;
    assert!(result.unwrap().received < root.bytes - 2 * MEBIBYTE as u64);
    assert_whole(&agent, &root, &key, 10 * MEBIBYTE);
    let (result, _) = fetch_all(&agent, &root, vec![]).await;
    assert_eq!(
        result.unwrap().received,
        0,
        "what is here needs no provider"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_seeders_are_dropped_and_their_blocks_fetched_elsewhere() {
    let seeder = Peer::new(2);
    let (root, key) = seeder.publish(12 * MEBIBYTE);
    for (number, fault) in [
        Fault::CorruptAfter(2 * MEBIBYTE + MEBIBYTE / 2),
        Fault::StallAfter(2 * MEBIBYTE),
        Fault::Refuse,
    ]
    .into_iter()
    .enumerate()
    {
        let agent = Peer::new(10 + u8::try_from(number).unwrap());
        // The good one is so slow that the bad one gets its chance.
        let good = Local::faulty(seeder.server(), Fault::Slow(Duration::from_millis(1)));
        let bad = Local::faulty(seeder.server(), fault);
        let running = fetch(&agent.store, root.cid, vec![bad], options());
        let mut progress = running.progress();
        let tried = progress.wait_for(|p| match fault {
            Fault::Refuse => !p.providers.is_empty(),
            _ => p.bytes > MEBIBYTE as u64,
        });
        tokio::time::timeout(Duration::from_secs(20), tried)
            .await
            .unwrap()
            .unwrap();
        assert!(running.add(good));
        let result = tokio::time::timeout(Duration::from_secs(60), running.finish())
            .await
            .unwrap();
        result.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_whole(&agent, &root, &key, 12 * MEBIBYTE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_a_bad_seeder_gives_a_clear_error_and_stores_nothing_bad() {
    let seeder = Peer::new(2);
    let (root, _) = seeder.publish(3 * MEBIBYTE);
    for (fault, word) in [
        (Fault::CorruptAfter(MEBIBYTE + MEBIBYTE / 2), "bad block"),
        (Fault::StallAfter(MEBIBYTE), "nothing came"),
        (Fault::Refuse, "refused"),
    ] {
        let agent = Peer::new(3);
        let provider = Local::faulty(seeder.server(), fault);
        let (result, progress) = fetch_all(&agent, &root, vec![provider]).await;
        let error = result.unwrap_err();
        assert!(matches!(error, TransferError::NoProvider { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
        assert!(matches!(
            progress.providers[0].state,
            ProviderState::Dropped(_)
        ));
        assert!(agent.store.pins().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seeder_that_still_fetches_serves_what_it_has() {
    let seeder = Peer::new(2);
    let (root, key) = seeder.publish(8 * MEBIBYTE);
    let (middle, agent) = (Peer::new(3), Peer::new(4));
    let slow = Local::faulty(seeder.server(), Fault::Slow(Duration::from_millis(2)));
    let upstream = fetch(&middle.store, root.cid, vec![slow], options());
    let mut progress = upstream.progress();
    let begun = progress.wait_for(|p| p.total.is_some());
    tokio::time::timeout(Duration::from_secs(20), begun)
        .await
        .unwrap()
        .unwrap();
    let (result, _) = fetch_all(&agent, &root, vec![middle.provider()]).await;
    result.unwrap();
    assert_whole(&agent, &root, &key, 8 * MEBIBYTE);
    upstream.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_ends_the_fetch() {
    let seeder = Peer::new(2);
    let (root, _) = seeder.publish(5 * MEBIBYTE);
    let agent = Peer::with_quota(3, 2 * MEBIBYTE as u64);
    let (result, _) = fetch_all(&agent, &root, vec![seeder.provider()]).await;
    assert!(matches!(
        result,
        Err(TransferError::Store(StoreError::Full { .. }))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn size_and_namespace_are_judged_by_the_manifest() {
    let (seeder, agent) = (Peer::new(2), Peer::new(3));
    let (root, _) = seeder.publish(2 * MEBIBYTE);
    let attempt = |options: FetchOptions| {
        fetch(&agent.store, root.cid, vec![seeder.provider()], options).finish()
    };
    let small = FetchOptions {
        bytes_max: root.bytes - 1,
        ..options()
    };
    assert!(matches!(
        attempt(small).await,
        Err(TransferError::TooLarge { .. })
    ));
    let foreign = FetchOptions {
        namespace: Some("other".into()),
        ..options()
    };
    assert!(matches!(
        attempt(foreign).await,
        Err(TransferError::Namespace { .. })
    ));
    let exact = FetchOptions {
        bytes_max: root.bytes,
        namespace: Some("lab".into()),
        ..options()
    };
    attempt(exact).await.unwrap();
}

/// Opens a stream to a peer's server and says `messages`; returns the answers until the stream ends or enough came.
async fn talk(provider: &Local, messages: Vec<Message>, answers: usize) -> Vec<Frame> {
    let mut stream = provider.open().await.unwrap();
    for message in messages {
        frame::write_message(&mut stream, message).await.unwrap();
    }
    let mut frames = Vec::new();
    while frames.len() < answers {
        match frame::read(&mut stream, Duration::from_secs(10))
            .await
            .unwrap()
        {
            Some(frame) => frames.push(frame),
            None => break,
        }
    }
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_of_other_objects_are_not_served() {
    let seeder = Peer::new(2);
    let (mine, _) = seeder.publish(10);
    let (other, _) = seeder.publish(20);
    let cids = vec![other.cid, mine.cid];
    let messages = vec![
        Message::Open { root: mine.cid },
        Message::Have { cids: cids.clone() },
        Message::Want { cids },
    ];
    let frames = talk(&seeder.provider(), messages, 4).await;
    assert_eq!(frames[0], Frame::Message(Message::Opened));
    assert_eq!(
        frames[1],
        Frame::Message(Message::Has {
            here: vec![false, true]
        })
    );
    assert_eq!(frames[2], Frame::Message(Message::Missing));
    assert!(matches!(frames[3], Frame::Block(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_namespaces_chunks_and_nonsense_are_refused() {
    let seeder = Peer::new(2);
    let file = seeder.path("file");
    std::fs::write(&file, b"private").unwrap();
    let batch = seeder.store.batch();
    let options = mutual_data::tree::PackOptions::private("foreign");
    let key = DataKey::generate().unwrap();
    let foreign = mutual_data::tree::pack(&batch, &key, &options, &file)
        .unwrap()
        .root
        .cid;
    let unknown = mutual_data::address::name(mutual_data::address::Codec::Node, b"unknown");
    for (first, word) in [
        (Message::Open { root: foreign }, "no member of foreign"),
        (Message::Open { root: unknown }, "not here"),
        (Message::Opened, "begins with open, keep or retain"),
    ] {
        let frames = talk(&seeder.provider(), vec![first], 1).await;
        let Some(Frame::Message(Message::Refused { reason })) = frames.first() else {
            panic!("{frames:?}");
        };
        assert!(reason.contains(word), "{reason}");
    }
}

fn request(root: &Root) -> KeepRequest {
    KeepRequest {
        root: root.cid,
        namespace: Some("lab".into()),
        bytes: root.bytes,
        duration: Duration::from_secs(3600),
        series: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_series_replaces_is_let_go_and_freed_by_whoever_knows_its_name() {
    let (producer, holder) = (Peer::new(2), Peer::new(3));
    let (series, other) = (Series::new([1; 32]), Series::new([2; 32]));
    let (public, provider) = (holder.key.public(), holder.provider());
    let mut roots = Vec::new();
    for bytes in [1, 2, 3] {
        let (root, _) = producer.publish(bytes * MEBIBYTE);
        let wish = KeepRequest {
            series: Some(series),
            ..request(&root)
        };
        let kept = keep(&producer.store, &*provider, &public, &wish);
        kept.await.unwrap();
        roots.push(root.cid);
    }
    let full = holder.store.usage().bytes;
    retain(&*provider, other, vec![]).await.unwrap();
    assert_eq!(holder.store.pins().len(), 3);
    retain(&*provider, series, roots[1..].to_vec())
        .await
        .unwrap();
    let left: Vec<_> = holder.store.pins().iter().map(|pin| pin.root).collect();
    assert!(left.len() == 2 && !left.contains(&roots[0]), "{left:?}");
    let freed = full - holder.store.usage().bytes;
    assert!(freed > MEBIBYTE as u64, "{freed}");
    let many = vec![roots[0]; frame::RETAINED_MAX + 1];
    assert!(retain(&*provider, series, many).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_pulls_pins_and_signs() {
    let (producer, holder) = (Peer::new(2), Peer::new(3));
    let (root, key) = producer.publish(6 * MEBIBYTE);
    let public = holder.key.public();
    for _ in 0..2 {
        // Asked again, it has everything and signs again.
        let receipt = keep(
            &producer.store,
            &*holder.provider(),
            &public,
            &request(&root),
        )
        .await
        .unwrap();
        assert_eq!(receipt.root.to_string(), root.cid.to_string());
        assert_eq!((receipt.bytes, receipt.holder), (root.bytes, public));
        receipt.verify().unwrap();
    }
    assert_whole(&holder, &root, &key, 6 * MEBIBYTE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_refuses_what_it_may_not_or_cannot_hold() {
    let (producer, holder) = (Peer::new(2), Peer::with_quota(3, MEBIBYTE as u64));
    let (root, _) = producer.publish(3 * MEBIBYTE);
    let honest = request(&root);
    let huge = KeepRequest {
        bytes: 1 << 40,
        ..honest.clone()
    };
    let understated = KeepRequest {
        bytes: 10,
        ..honest.clone()
    };
    let misnamed = KeepRequest {
        namespace: None,
        ..honest.clone()
    };
    for (request, word) in [
        (huge, "100 MiB"),
        (understated, "at most 10"),
        (misnamed, "namespace"),
        (honest, "full"),
    ] {
        let public = holder.key.public();
        let error = keep(&producer.store, &*holder.provider(), &public, &request)
            .await
            .unwrap_err();
        let TransferError::Refused(reason) = &error else {
            panic!("{word}: {error}");
        };
        assert!(reason.contains(word), "{reason}");
        assert!(holder.store.pins().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_by_another_node_is_not_accepted() {
    let (producer, holder) = (Peer::new(2), Peer::new(3));
    let (root, _) = producer.publish(10);
    let other = NodeKey::from_seed(&[9; 32]).public();
    let error = keep(
        &producer.store,
        &*holder.provider(),
        &other,
        &request(&root),
    )
    .await;
    assert!(matches!(error, Err(TransferError::Receipt(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_while_keeping_is_an_error_and_pins_nothing() {
    let (producer, holder) = (Peer::new(2), Peer::new(3));
    let (root, _) = producer.publish(10);
    let cut = Local::faulty(
        holder.server(),
        Fault::CutAfter {
            bytes: 0,
            streams: 9,
        },
    );
    let public = holder.key.public();
    let result = keep(&producer.store, &*cut, &public, &request(&root)).await;
    assert!(
        matches!(
            result,
            Err(TransferError::Io(_) | TransferError::Protocol(_))
        ),
        "{result:?}"
    );
}
