//! A fetch whose process is killed in the middle goes on where it stopped.

mod heavy {
    use std::os::unix::process::ExitStatusExt as _;
    use std::path::PathBuf;
    use std::process::{Command, Output};

    use mutual_data::address;
    use mutual_data::transfer::FetchOptions;
    use mutual_node::swarm::PeerAddr;
    use rustix::process::{Signal, getpid, kill_process};

    use super::super::cloud::{Cloud, organisation, swarm};

    /// Where the second process keeps its blocks, what it fetches and from whom; and whether it dies half-way.
    const DIR: &str = "MUTUAL_TEST_FETCH_DIR";
    const ROOT: &str = "MUTUAL_TEST_FETCH_ROOT";
    const SEEDERS: &str = "MUTUAL_TEST_FETCH_SEEDERS";
    const DIES: &str = "MUTUAL_TEST_FETCH_DIES";

    /// Not a test by itself: the second process.
    #[tokio::test(flavor = "multi_thread")]
    async fn as_the_process_that_fetches() {
        let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else {
            return;
        };
        let variable = |name| std::env::var(name).unwrap();
        let root = address::parse(&variable(ROOT)).unwrap();
        let seeders = variable(SEEDERS);
        let seeders = seeders.split_whitespace().map(|text| text.parse().unwrap());
        let seeders: Vec<PeerAddr> = seeders.collect();
        let (swarm, _) = swarm(&organisation(), &dir, 30, "fetcher").await;
        let fetch = swarm.fetch(root, &seeders, FetchOptions::new("test"));
        if std::env::var_os(DIES).is_some() {
            let mut progress = fetch.progress();
            let half =
                progress.wait_for(|now| now.total.is_some_and(|total| now.bytes > total / 2));
            half.await.unwrap();
            kill_process(getpid(), Signal::KILL).unwrap();
        }
        let fetched = fetch.finish().await.unwrap();
        std::fs::write(dir.join("received"), fetched.received.to_string()).unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_killed_fetch_goes_on_where_it_stopped() {
        let cloud = Cloud::start().await;
        let source = cloud.dir.path().join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("big"), vec![7; 24 << 20]).unwrap();
        let input = cloud.input(&source).await;
        let dir = cloud.dir.path().join("fetcher");
        let again = |dies: bool| -> Output {
            let mut command = Command::new(std::env::current_exe().unwrap());
            let name = "agent::resume::heavy::as_the_process_that_fetches";
            command.args(["--exact", name, "--nocapture"]);
            command.env(DIR, &dir).env(ROOT, input.root.as_str());
            command.env(SEEDERS, input.seeders.join(" "));
            if dies {
                command.env(DIES, "1");
            }
            command.output().unwrap()
        };
        let killed = tokio::task::block_in_place(|| again(true));
        assert_eq!(killed.status.signal(), Some(9), "{killed:?}");
        // A block torn by the kill, as the disk of a machine that lost its power would show it.
        let fresh = dir.join("blocks-fetcher/fresh");
        let torn = std::fs::read_dir(fresh)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        std::fs::File::options()
            .write(true)
            .open(torn)
            .unwrap()
            .set_len(1000)
            .unwrap();
        let whole = tokio::task::block_in_place(|| again(false));
        assert!(whole.status.success(), "{whole:?}");
        let received = std::fs::read_to_string(dir.join("received")).unwrap();
        let received: u64 = received.parse().unwrap();
        assert!(
            received > 0 && received < input.bytes * 3 / 4,
            "{received} of {}",
            input.bytes
        );
    }
}
