//! A primary is killed and its synchronous standby promoted: reads go on meanwhile, writes go on by themselves, and
//! nothing that was acknowledged is lost.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mutual_demand::postgres::PostgresStore;
use mutual_demand::{
    ClaimRequest, ClaimScope, DemandStore, JobFilter, ReleaseRequest, StoreConfig,
};
use mutual_model::ids::{JobId, Nonce};
use mutual_model::lease::Claim;
use tokio::sync::watch;

use crate::runner::failover::{claim_request, submission, worker};
use crate::runner::postgres_server::{PostgresServer, programs_for_tests};

/// A server that follows `primary`, whose commits wait for it from now on.
fn standby_of(bin: &Path, primary: &PostgresServer) -> PostgresServer {
    let port = format!("--port={}", primary.port());
    let options = [
        "--write-recovery-conf",
        "--checkpoint=fast",
        "--no-sync",
        "--host=127.0.0.1",
        "--username=mutual",
        &port,
    ];
    let standby = PostgresServer::start_made_by(bin, "pg_basebackup", &options, &[]).unwrap();
    let named = [
        "ALTER SYSTEM SET synchronous_standby_names = '*'",
        "SELECT pg_reload_conf()",
    ];
    primary.sql_each("postgres", &named).unwrap();
    let follows = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    let began = Instant::now();
    while primary.sql("postgres", follows).unwrap().trim() != "1" {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "it does not follow"
        );
        // may sleep: polls for the event, with a bound
        std::thread::sleep(Duration::from_millis(20));
    }
    standby
}

/// Makes a standby the primary; returns when it writes.
fn promote(standby: &PostgresServer) {
    standby
        .sql("postgres", "SELECT pg_promote(true, 60)")
        .unwrap();
}

/// What a client that hands in one job after the other was told.
#[derive(Debug, Default)]
struct Diary {
    acknowledged: Vec<JobId>,
    /// When the first job was acknowledged after the promotion.
    resumed: Option<Instant>,
}

/// Hands in jobs until told to end, but not before one was acknowledged after the promotion, each again and again under its own key until it is acknowledged.
async fn hand_in(
    store: Arc<PostgresStore>,
    promoted: watch::Receiver<Option<Instant>>,
    is_over: Arc<AtomicBool>,
) -> Diary {
    let mut diary = Diary::default();
    for number in 0.. {
        let task = submission(&format!("written-{number}"));
        loop {
            if is_over.load(Ordering::SeqCst) && diary.resumed.is_some() {
                return diary;
            }
            let was_promoted = promoted.borrow().is_some();
            match store.submit(&worker(), vec![task.clone()]).await {
                Ok(stored) => {
                    diary.acknowledged.push(stored[0].job);
                    if was_promoted {
                        diary.resumed.get_or_insert_with(Instant::now);
                    }
                    break;
                }
                Err(error) => assert!(error.is_retryable(), "{error:?}"),
            }
            // may sleep: a client's pause between two tries
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    diary
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_goes_on_with_all_that_was_acknowledged() {
    let Some(bin) = programs_for_tests() else {
        return;
    };
    let mut primary = PostgresServer::start(&bin, &[]).unwrap();
    primary.database("store").unwrap();
    let standby = standby_of(&bin, &primary);
    let (one, two) = (primary.port(), standby.port());
    let url = format!("postgres://mutual@127.0.0.1:{one},127.0.0.1:{two}/store");
    let store = PostgresStore::connect(&url, StoreConfig::default()).await;
    let (who, store) = (worker(), Arc::new(store.unwrap()));
    let epoch = store.info().await.unwrap().epoch;
    let held = store.submit(&who, vec![submission("held")]).await.unwrap()[0].job;
    let before = claim_only(&store, held, 1).await;

    let (told, promoted) = watch::channel(None);
    let is_over = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn(hand_in(store.clone(), promoted, is_over.clone()));
    until(async || {
        !store
            .jobs(&who, &JobFilter::default())
            .await
            .unwrap()
            .jobs
            .is_empty()
    })
    .await;
    tokio::task::block_in_place(|| primary.kill().unwrap());
    // Nobody writes, and everybody can still look.
    let view = store.job(&who, held).await.unwrap();
    assert!(view.possibly_old, "{view:#?}");
    let page = store.jobs(&who, &JobFilter::default()).await.unwrap();
    assert!(page.possibly_old && page.jobs.iter().all(|job| job.possibly_old));
    let refused = store.submit(&who, vec![submission("refused")]).await;
    assert!(refused.is_err_and(|error| error.is_retryable()));

    tokio::task::block_in_place(|| promote(&standby));
    let at = Instant::now();
    told.send_replace(Some(at));
    let again = claim_when_written(&store, held).await;
    assert!(
        again.fence > before.fence && again.fence.epoch > epoch,
        "{again:?}"
    );
    assert!(!store.job(&who, held).await.unwrap().possibly_old);
    is_over.store(true, Ordering::SeqCst);
    let diary = writing.await.unwrap();
    let gap = diary.resumed.expect("writes went on").duration_since(at);
    println!("the first write was acknowledged {gap:?} after the promotion");
    assert!(gap < Duration::from_secs(10), "{gap:?}");
    for job in &diary.acknowledged {
        assert!(
            store.job(&who, *job).await.is_ok(),
            "{job} was acknowledged and is lost"
        );
    }
    println!(
        "{} jobs were acknowledged, none is lost",
        diary.acknowledged.len()
    );
    assert!(store.info().await.unwrap().epoch > epoch);
}

/// Claims one job under a nonce of its own.
async fn claim_only(store: &PostgresStore, job: JobId, nonce: u8) -> Claim {
    let request = ClaimRequest {
        scope: ClaimScope::Jobs(vec![job]),
        nonce: Nonce([nonce; 16]),
        ..claim_request()
    };
    let reply = store.try_claim(&worker(), request).await.unwrap();
    reply.grants[0].claim
}

/// Gives the job back under its old claim, which a failover leaves standing, and claims it again.
async fn claim_when_written(store: &PostgresStore, job: JobId) -> Claim {
    let old = store.job(&worker(), job).await.unwrap();
    let fence = old.current().unwrap().fence;
    let claim = Claim {
        job,
        fence,
        nonce: Nonce([1; 16]),
    };
    let request = ReleaseRequest {
        claim,
        reason: "to be claimed again".into(),
    };
    until(async || {
        let released = store.release(&worker(), request.clone()).await;
        released.is_ok()
    })
    .await;
    claim_only(store, job, 2).await
}

/// Asks again until it holds, within a bound.
async fn until(holds: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(30), "not in time");
        // may sleep: polls for the event, with a bound
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
