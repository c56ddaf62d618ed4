//! The Kademlia core in networks of 1 to 1,000 nodes, quiet and rough.

use std::time::{Duration, Instant};

use mutual_model::ids::JobId;
use mutual_model::job::JobState;
use mutual_model::kademlia::{CallError, Config, Found, Key};
use mutual_model::record::{
    Body, Bulletin, Record, SignedRecord, Stamp, StatusMirror, Version, mirror_key, topic_key,
};
use mutual_model::resources::ResourceClass;
use mutual_model::time::UnixMillis;
use mutual_sim::network::{Link, World, namespace};

const CLASS: ResourceClass = ResourceClass {
    gpu: 0,
    memory: 3,
    cpu: 2,
};

fn job(number: u8) -> JobId {
    JobId::new(UnixMillis(1), [number; 10])
}

fn mirror_of(number: u8, state: JobState) -> Record {
    let mirror = StatusMirror {
        job: job(number),
        state,
        holder: None,
        fence: None,
        result: None,
        sealed_key: Vec::new(),
        providers: vec![],
    };
    Record {
        namespace: namespace(),
        body: Body::Mirror(mirror),
    }
}

fn bulletin(open: u32) -> Record {
    let bulletin = Bulletin {
        class: CLASS,
        open,
        ads: vec![],
    };
    Record {
        namespace: namespace(),
        body: Body::Bulletin(bulletin),
    }
}

fn states(found: &Found) -> Vec<JobState> {
    let states = found.records.iter().map(|record| match record.body() {
        Body::Mirror(mirror) => mirror.state,
        other => panic!("not a mirror: {other:?}"),
    });
    states.collect()
}

const MINUTE: Duration = Duration::from_secs(60);

/// Every node finds what some node published, in a network of `count`.
fn check_everyone_finds(seed: u64, link: Link, count: usize) {
    let mut world = World::joined(seed, link, count).unwrap();
    let publisher = count / 2;
    let record = mirror_of(1, JobState::Running);
    world.publish(publisher, record, MINUTE * 5).unwrap();
    for index in 0..count {
        let found = world.find(index, mirror_key(job(1)), 1).unwrap();
        assert_eq!(
            states(&found),
            [JobState::Running],
            "seed {seed}, node {index} of {count}"
        );
    }
}

#[test]
fn records_are_found_in_networks_of_any_size() {
    for (seed, count) in [(1, 1), (2, 2), (3, 3), (4, 5), (5, 50)] {
        check_everyone_finds(seed, Link::LAN, count);
    }
}

#[test]
fn records_are_found_over_a_rough_network() {
    for (seed, count) in [(11, 2), (12, 3), (13, 5), (14, 50)] {
        check_everyone_finds(seed, Link::ROUGH, count);
    }
}

#[test]
fn a_thousand_nodes_find_each_other() {
    let began = Instant::now();
    let mut world = World::joined(21, Link::LAN, 1_000).unwrap();
    let joining = world.messages();
    println!(
        "join: {} messages a node, {:?}",
        joining / 1_000,
        began.elapsed()
    );
    let mut asked = world.messages();
    world
        .publish(7, mirror_of(1, JobState::Running), MINUTE * 5)
        .unwrap();
    for index in (0..1_000).step_by(37) {
        let found = world.find(index, mirror_key(job(1)), 1).unwrap();
        assert_eq!(states(&found), [JobState::Running], "seed 21, node {index}");
    }
    asked = world.messages() - asked;
    println!("28 look-ups: {asked} messages");
    let target = Key::hash("test", &[b"target"]);
    let found = world.find_nodes(500, target).unwrap();
    let mut nearest: Vec<Key> = (0..1_000).map(|index| *world.contact(index).id()).collect();
    nearest.sort_by_key(|id| id.distance(&target));
    nearest.retain(|id| id != world.contact(500).id());
    let got: Vec<Key> = found.contacts.iter().map(|contact| *contact.id()).collect();
    let right = got.iter().filter(|id| nearest[..20].contains(id)).count();
    assert!(right >= 19, "seed 21: only {right} of the 20 nearest");
    assert!(
        joining / 1_000 <= 300,
        "seed 21: {} messages a join",
        joining / 1_000
    );
}

#[test]
fn one_seed_gives_one_trace() {
    let run = |seed| {
        let mut world = World::joined(seed, Link::ROUGH, 20).unwrap();
        world
            .publish(3, mirror_of(1, JobState::Queued), MINUTE)
            .unwrap();
        world.run_for(MINUTE * 3);
        (world.digest(), world.messages())
    };
    assert_eq!(run(31), run(31));
    assert_ne!(run(31), run(32));
}

#[test]
fn a_record_outlives_the_loss_of_a_third_of_all_nodes() {
    for seed in 40..43 {
        let mut world = World::joined(seed, Link::LAN, 60).unwrap();
        for number in 0..20 {
            world
                .publish(0, mirror_of(number, JobState::Succeeded), MINUTE * 60)
                .unwrap();
        }
        // The publisher too: what it said must not depend on it.
        (0..20).for_each(|index| world.crash(index));
        for number in 0..20 {
            let found = world.find(30, mirror_key(job(number)), 1).unwrap();
            assert_eq!(
                states(&found),
                [JobState::Succeeded],
                "seed {seed}, job {number}"
            );
        }
    }
}

#[test]
fn holders_repair_replicas_one_loss_after_another() {
    let mut world = World::joined(44, Link::LAN, 60).unwrap();
    let key = mirror_key(job(1));
    world
        .publish(0, mirror_of(1, JobState::Succeeded), MINUTE * 600)
        .unwrap();
    world.crash(0);
    let mut order: Vec<usize> = (1..60).collect();
    order.sort_by_key(|index| world.contact(*index).id().distance(&key));
    // Every one of the first holders goes, and as many again, a few minutes apart.
    for index in &order[..16] {
        world.crash(*index);
        world.run_for(MINUTE * 6);
    }
    let found = world.find(order[58], key, 1).unwrap();
    assert_eq!(states(&found), [JobState::Succeeded], "seed 44");
}

#[test]
fn expired_records_vanish_and_live_ones_stay() {
    let mut world = World::joined(51, Link::LAN, 10).unwrap();
    let key = topic_key(&namespace(), CLASS);
    world
        .publish(1, bulletin(5), Duration::from_secs(30))
        .unwrap();
    world.run_for(MINUTE * 10);
    assert_eq!(
        world.find(8, key, 2).unwrap().records.len(),
        1,
        "kept fresh"
    );
    world.crash(1);
    world.run_for(Duration::from_secs(31));
    assert_eq!(
        world.find(8, key, 2).unwrap().records,
        [],
        "gone with its publisher"
    );
}

#[test]
fn the_newest_version_is_found_and_a_withdrawn_one_is_not() {
    let mut world = World::joined(52, Link::ROUGH, 10).unwrap();
    let key = mirror_key(job(1));
    world
        .publish(1, mirror_of(1, JobState::Queued), MINUTE * 5)
        .unwrap();
    world
        .publish(1, mirror_of(1, JobState::Running), MINUTE * 5)
        .unwrap();
    assert_eq!(states(&world.find(8, key, 3).unwrap()), [JobState::Running]);
    world.set_link(Link::LAN);
    world.withdraw(1, key).unwrap();
    assert_eq!(world.find(8, key, 3).unwrap().records, []);
    world
        .publish(1, mirror_of(1, JobState::Failed), MINUTE * 5)
        .unwrap();
    assert_eq!(states(&world.find(8, key, 3).unwrap()), [JobState::Failed]);
}

#[test]
fn several_publishers_share_a_key() {
    let mut world = World::joined(53, Link::LAN, 50).unwrap();
    for index in 0..40 {
        world.publish(index, bulletin(1), MINUTE * 5).unwrap();
    }
    let found = world.find(45, topic_key(&namespace(), CLASS), 3).unwrap();
    assert_eq!(found.records.len(), 40, "paged over many datagrams");
}

#[test]
fn a_restarted_bootstrap_peer_is_met_again() {
    let mut world = World::joined(61, Link::LAN, 5).unwrap();
    world.crash(0);
    world.run_for(MINUTE * 2);
    assert!(
        (1..5).all(|index| world.peers(index) == 3),
        "the dead one is forgotten"
    );
    world.start(0, &[]).unwrap();
    let met = world.run_until(MINUTE * 2, |world| {
        (0..5).all(|index| world.peers(index) == 4)
    });
    assert!(met, "seed 61");
    world
        .publish(0, mirror_of(1, JobState::Running), MINUTE)
        .unwrap();
    assert_eq!(
        states(&world.find(4, mirror_key(job(1)), 1).unwrap()),
        [JobState::Running]
    );
}

#[test]
fn a_parted_network_grows_together() {
    let mut world = World::joined(62, Link::LAN, 12).unwrap();
    (0..12).for_each(|index| world.place_in_group(index, index % 2));
    world.run_for(MINUTE * 5);
    assert!(
        (0..12).all(|index| world.peers(index) == 5),
        "each half keeps its own"
    );
    (0..12).for_each(|index| world.place_in_group(index, 0));
    let whole = world.run_until(MINUTE * 10, |world| {
        (0..12).all(|index| world.peers(index) == 11)
    });
    assert!(whole, "seed 62");
}

#[test]
fn a_node_without_peers_finds_them_when_they_come() {
    let mut world = World::new(63, Link::LAN);
    let first = world.add(Config::default(), &[]).unwrap();
    world.crash(first);
    let second = world.add(Config::default(), &[first]).unwrap();
    world
        .publish(second, mirror_of(1, JobState::Running), MINUTE * 5)
        .unwrap();
    world.run_for(MINUTE);
    world.start(first, &[]).unwrap();
    assert!(world.run_until(MINUTE, |world| world.peers(second) == 1));
    world.run_for(Duration::from_secs(15));
    world.crash(second);
    let found = world.find(first, mirror_key(job(1)), 1).unwrap();
    assert_eq!(
        states(&found),
        [JobState::Running],
        "copied once there was somebody"
    );
}

#[test]
fn clients_ask_and_publish_but_are_routed_to_by_nobody() {
    let mut world = World::joined(71, Link::LAN, 5).unwrap();
    let config = Config {
        client: true,
        ..Config::default()
    };
    let client = world.add(config, &[0, 1]).unwrap();
    assert!(world.run_until(MINUTE, |world| world.peers(client) == 5));
    world
        .publish(client, mirror_of(1, JobState::Running), MINUTE * 5)
        .unwrap();
    assert_eq!(
        states(&world.find(3, mirror_key(job(1)), 1).unwrap()),
        [JobState::Running]
    );
    world
        .publish(2, mirror_of(2, JobState::Queued), MINUTE * 5)
        .unwrap();
    assert_eq!(
        states(&world.find(client, mirror_key(job(2)), 1).unwrap()),
        [JobState::Queued]
    );
    let id = *world.contact(client).id();
    assert!((0..5).all(|index| world.core(index).unwrap().contact(&id).is_none()));
    assert_eq!(
        world.call(client, 1, b"offer".to_vec()).unwrap(),
        Ok(b"offer".to_vec())
    );
    assert_eq!(
        world.call(1, client, b"offer".to_vec()).unwrap(),
        Ok(b"offer".to_vec())
    );
}

#[test]
fn strangers_are_kept_out() {
    let mut world = World::joined(72, Link::LAN, 5).unwrap();
    let stranger = world.add_stranger(Config::default(), &[0, 1]).unwrap();
    let holders = world
        .publish(stranger, mirror_of(1, JobState::Succeeded), MINUTE * 5)
        .unwrap();
    assert_eq!(holders, 0);
    assert_eq!(world.find(3, mirror_key(job(1)), 1).unwrap().records, []);
    let id = *world.contact(stranger).id();
    assert!((0..5).all(|index| world.core(index).unwrap().contact(&id).is_none()));
    let refused = world.call(stranger, 1, b"offer".to_vec()).unwrap();
    assert_eq!(refused, Err(CallError::Refused));
}

#[test]
fn calls_reach_the_other_side_over_a_rough_network() {
    let mut world = World::joined(73, Link::ROUGH, 5).unwrap();
    for number in 0..50 {
        let payload = vec![number; 1_024];
        assert_eq!(
            world.call(1, 4, payload.clone()).unwrap(),
            Ok(payload),
            "seed 73"
        );
    }
    world.crash(4);
    assert_eq!(world.call(1, 4, vec![1]).unwrap(), Err(CallError::TimedOut));
    assert_eq!(
        world.call(1, 4, vec![1; 1_025]).unwrap(),
        Err(CallError::TooLong)
    );
}

#[test]
fn idle_traffic_stays_small() {
    let mut world = World::joined(81, Link::LAN, 50).unwrap();
    world.run_for(MINUTE * 10);
    let before = world.bytes();
    world.run_for(MINUTE * 10);
    let rate = (world.bytes() - before) / 600 / 50;
    println!("idle: {rate} bytes a second and node");
    assert!(rate <= 512, "{rate} bytes a second and node");
}

/// A record signed by node 1 for another namespace, or with its bytes changed, must not get in.
#[test]
fn forged_and_foreign_records_do_not_pass_the_checks() {
    let world = World::joined(82, Link::LAN, 3).unwrap();
    let trust = mutual_model::record::Trust::in_organisation(
        world.certificate(1).membership().organisation,
    );
    let stamp = |lifetime| Stamp {
        version: Version {
            incarnation: mutual_model::ids::Incarnation::new(world.wall(), [0; 10]),
            sequence: 1,
        },
        lifetime,
        signed_at: world.wall(),
        tombstone: false,
    };
    let hash = world.certificate(1).hash();
    let sign =
        |key, record, lifetime| SignedRecord::sign(key, hash, record, stamp(lifetime)).unwrap();
    let check = |signed: &SignedRecord, wall| signed.check(world.certificate(1), &trust, wall);
    let mine = sign(world.key(1), mirror_of(1, JobState::Running), MINUTE);
    let now = world.wall();
    assert!(check(&mine, now).is_ok());
    assert!(check(&mine, now.after(MINUTE * 7)).is_err(), "replayed");
    assert!(
        check(&mine, UnixMillis(now.0 - 301_000)).is_err(),
        "from the future"
    );
    let mut changed = mine.bytes().to_vec();
    let place = changed.len() - 70;
    changed[place] ^= 1;
    let passed = SignedRecord::decode(&changed).is_ok_and(|signed| check(&signed, now).is_ok());
    assert!(!passed, "changed");
    let by_other = sign(world.key(2), mirror_of(1, JobState::Running), MINUTE);
    assert!(check(&by_other, now).is_err(), "another's certificate");
    let foreign = Record {
        namespace: "other".parse().unwrap(),
        ..mirror_of(1, JobState::Running)
    };
    assert!(
        check(&sign(world.key(1), foreign, MINUTE), now).is_err(),
        "foreign namespace"
    );
    let forever = sign(world.key(1), bulletin(1), MINUTE * 11);
    assert!(check(&forever, now).is_err(), "longer than bulletins live");
}
