//! Inputs that are not what their manifest says, and outputs that are not the task's.

use std::fs;

use mutual_data::DataKey;
use mutual_data::address::{Codec, name};
use mutual_demand::{Manifest, Reason};
use mutual_model::identity::NodeKey;
use mutual_model::job::{Failure, IsolationClass, JobState};
use mutual_model::receipt::StorageReceipt;
use mutual_model::time::UnixMillis;
use mutual_node::agent::INPUT_KEY;

use super::cloud::{Cloud, script};

/// Why a task with this input does not start, and whether another machine might do better.
async fn refused(cloud: &Cloud, input: Manifest) -> (String, bool) {
    let mut spec = script("true");
    spec.has_input = true;
    let job = cloud.submit_with(spec, Some(input)).await;
    let view = cloud.ended(job).await;
    match view.reason {
        Some(Reason::Failure(Failure::NotStarted { reason, retryable })) => (reason, retryable),
        _ => panic!("{view:#?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_is_not_what_its_manifest_says_is_refused_and_leaves_nothing() {
    let cloud = Cloud::start().await;
    let _agent = cloud.agent(20).await;
    let source = cloud.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("words"), "secret").unwrap();
    let good = cloud.input(&source).await;

    let mut other_key = good.clone();
    let store = NodeKey::from_seed(&[4; 32]).sealing_public();
    let key = DataKey::generate().unwrap();
    let sealed = store.seal(INPUT_KEY, key.expose(), &mut rand::rng());
    other_key.enc_meta.sealed_key = sealed.unwrap();
    let (reason, retryable) = refused(&cloud, other_key).await;
    assert!(reason.contains("key") && !retryable, "{reason}");

    // A peer vouches for what it does not hold: the store cannot know, the agent finds out.
    let claimed = |codec| {
        let mut claimed = good.clone();
        claimed.root = name(codec, b"nowhere").to_string().parse().unwrap();
        let (liar, root) = (NodeKey::from_seed(&[2; 32]), claimed.root.clone());
        let until = UnixMillis(u64::MAX >> 12);
        claimed.receipts = vec![StorageReceipt::sign(&liar, root, claimed.bytes, until)];
        claimed
    };
    let nowhere = claimed(Codec::Node);
    let (reason, retryable) = refused(&cloud, nowhere).await;
    assert!(
        reason.contains("this object is not here") && retryable,
        "{reason}"
    );

    let (reason, _) = refused(&cloud, claimed(Codec::Raw)).await;
    assert!(reason.starts_with("input: "), "{reason}");

    let mut scheme = good.clone();
    scheme.enc_meta.scheme = "rot13".into();
    let (reason, retryable) = refused(&cloud, scheme).await;
    assert!(reason.contains("rot13") && !retryable, "{reason}");

    let tasks = fs::read_dir(cloud.agent_dir(20).join("state/tasks")).unwrap();
    let left = tasks.filter(|task| task.as_ref().unwrap().path().join("input/words").exists());
    assert_eq!(left.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_cannot_pass_off_this_machines_files_as_its_own() {
    let cloud = Cloud::start().await;
    let _agent = cloud.agent(20).await;
    for isolation in [IsolationClass::Process, IsolationClass::Container] {
        let mut spec = script("rmdir \"$MUTUAL_OUTPUT\" && ln -s /etc \"$MUTUAL_OUTPUT\"");
        spec.class = Some(isolation);
        // Where there are no containers it waits in the queue no longer than this.
        spec.expires_ms = 5_000;
        let view = cloud.ended(cloud.submit(spec).await).await;
        if view.state == JobState::Expired {
            continue;
        }
        let Some(Reason::Failure(Failure::ResultNotStored { reason })) = view.reason else {
            panic!("{view:#?}");
        };
        assert!(reason.contains("output"), "{reason}");
        assert!(view.result.unwrap().output.is_none());

        let mut spec = script(
            "rmdir \"$MUTUAL_CHECKPOINT_DIR\" && ln -s /etc \"$MUTUAL_CHECKPOINT_DIR\"; sleep 1",
        );
        spec.class = Some(isolation);
        spec.checkpoint_ms = Some(100);
        let view = cloud.ended(cloud.submit(spec).await).await;
        assert_eq!(view.state, JobState::Succeeded, "{view:#?}");
        assert!(
            view.checkpoints.is_empty(),
            "the machine's files are a checkpoint"
        );
    }
}
