//! Images as roots, and `runc` by name.

use mutual_node::runtime::{Class, Outcome, Rootfs, StartError, Stream};

use super::{Ground, runc_backend, skipped};
use crate::oci::shell_root;

async fn runs_an_image(ground: &Ground) {
    let root = ground.dir.path().join("image");
    shell_root(&root);
    let before = std::fs::read_dir(&root).expect("the image").count();
    let mut spec = ground.shell("image", Class::Container, "cat greeting; touch /new 2>/dev/null && echo wrote; ls /usr/share 2>/dev/null; echo ok > /mutual/output/ok");
    spec.rootfs = Rootfs::Image { dir: root.clone() };
    spec.workdir = Some("/srv/app".into());
    let dir = spec.dir.clone();
    let done = ground.run(spec).await;
    assert_eq!(
        done.exit.outcome,
        Outcome::Code(0),
        "{}",
        done.text(Stream::Stderr)
    );
    assert_eq!(done.stdout(), "from the image\n");
    assert_eq!(
        std::fs::read_to_string(dir.join("output/ok")).expect("output"),
        "ok\n"
    );
    assert_eq!(
        std::fs::read_dir(&root).expect("the image").count(),
        before,
        "the image was written to"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_the_root_and_stays_as_it_is() {
    let ground = Ground::new().await;
    if ground.has(Class::Container) {
        runs_an_image(&ground).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_there_is_told() {
    let ground = Ground::new().await;
    if !ground.has(Class::Container) {
        return;
    }
    let mut spec = ground.spec("noimage", Class::Container, &["true"]);
    spec.rootfs = Rootfs::Image {
        dir: "/no/such/image".into(),
    };
    let error = ground.refused(spec).await;
    assert!(
        matches!(&error, StartError::BadImage(text) if text.contains("/no/such/image")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn runc_runs_the_same_specification() {
    let ground = Ground::with(runc_backend).await;
    if ground.runtime.offer().class(Class::Container).is_none() {
        return skipped("runc", ground.runtime.offer().reason(Class::Container));
    }
    let script = "echo out; echo err >&2; cat input/in; echo done > output/done; exit 4";
    let spec = ground.shell("runc", Class::Container, script);
    std::fs::write(spec.dir.join("input/in"), "given\n").expect("a file");
    let dir = spec.dir.clone();
    let done = ground.run(spec).await;
    assert_eq!(
        done.exit.outcome,
        Outcome::Code(4),
        "{}",
        done.text(Stream::Stderr)
    );
    assert_eq!(
        (done.stdout().as_str(), done.text(Stream::Stderr).as_str()),
        ("out\ngiven\n", "err\n")
    );
    assert_eq!(
        std::fs::read_to_string(dir.join("output/done")).expect("output"),
        "done\n"
    );

    let running = ground
        .start(ground.spec("long", Class::Container, &["sleep", "100"]))
        .await;
    running.kill().await.expect("a living task");
    assert_eq!(
        super::bounded(running.wait()).await.outcome,
        Outcome::Killed
    );

    let missing = ground
        .run(ground.spec("gone", Class::Container, &["no-such-program"]))
        .await;
    assert!(
        matches!(&missing.exit.outcome, Outcome::NotStarted(text) if text.contains("no-such-program")),
        "{:?}",
        missing.exit
    );
}
