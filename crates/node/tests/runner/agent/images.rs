//! Tasks in images: from the submitter through peers, and from a registry.

mod heavy {
    use std::path::Path;

    use mutual_demand::{JobView, Reason};
    use mutual_model::job::{Failure, Image, IsolationClass, JobState, TaskSpec};
    use mutual_node::agent::AgentNode;

    use super::super::cloud::{Cloud, script};
    use crate::oci::{both_forms, shell_image};
    use crate::registry::Registry;

    /// Set in the second round, so that it does not start a third.
    const AGAIN: &str = "MUTUAL_TEST_ORDINARY_USER";

    fn skipped(what: &str, why: &str) {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "SKIPPED {what}: {why}");
    }

    /// A cloud and an agent that proved class `container`; none where that does not work.
    async fn containers() -> Option<(Cloud, AgentNode)> {
        let cloud = Cloud::start().await;
        let agent = cloud.agent(20).await;
        let classes = agent.status().borrow().free.classes.clone();
        if !classes.contains(&IsolationClass::Container) {
            skipped("tasks in images", "class container does not work here");
            return None;
        }
        Some((cloud, agent))
    }

    fn within(image: Image, text: &str) -> TaskSpec {
        let mut spec = script(text);
        spec.class = Some(IsolationClass::Container);
        spec.image = image;
        spec
    }

    const SHOW: &str =
        "cat greeting; echo $FROM $MUTUAL_ATTEMPT; pwd; echo kept > $MUTUAL_OUTPUT/kept
        ls /usr/share 2>/dev/null; touch /new 2>/dev/null && echo wrote; true";
    const SHOWN: [&str; 3] = [
        "Stdout: from the image",
        "Stdout: image 1",
        "Stdout: /srv/app",
    ];

    async fn shows(cloud: &Cloud, image: Image) {
        let job = cloud.submit(within(image, SHOW)).await;
        let view = cloud.ended(job).await;
        assert_eq!(view.state, JobState::Succeeded, "{view:#?}");
        assert_eq!(cloud.log(&view).await, SHOWN);
        let output = view.result.unwrap().output.unwrap();
        let kept = cloud.fetch(&output).await.join("kept");
        assert_eq!(std::fs::read_to_string(kept).unwrap(), "kept\n");
    }

    async fn refused(cloud: &Cloud, image: Image) -> (String, bool) {
        let view = cloud.ended(cloud.submit(within(image, "true")).await).await;
        not_started(view)
    }

    fn not_started(view: JobView) -> (String, bool) {
        match view.reason {
            Some(Reason::Failure(Failure::NotStarted { reason, retryable })) => (reason, retryable),
            _ => panic!("{view:#?}"),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_submitters_image_runs_on_agents_that_fetch_it_from_peers() {
        let Some((cloud, _agent)) = containers().await else {
            return;
        };
        let image = shell_image(cloud.dir.path());
        let mut names = Vec::new();
        for form in both_forms(&image, cloud.dir.path()) {
            names.push(cloud.image(&form, Some("lab")).await);
        }
        assert_eq!(names[0], names[1], "one image has one name in every form");
        shows(&cloud, Image::Content(names[0].clone())).await;
        shows(&cloud, Image::Content(names[0].clone())).await;
        let public = cloud.image(&cloud.dir.path().join("layout"), None).await;
        assert_ne!(public, names[0], "whose it is belongs to its name");
        shows(&cloud, Image::Content(public)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_image_that_is_none_or_nowhere_or_anothers_is_told() {
        let Some((cloud, _agent)) = containers().await else {
            return;
        };
        let source = cloud.dir.path().join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("file"), "no image").unwrap();
        let tree = cloud.input(&source).await.root.to_string();
        let (reason, retryable) = refused(&cloud, Image::Content(tree)).await;
        assert!(reason.contains("an image") && !retryable, "{reason}");
        let (reason, retryable) = refused(&cloud, Image::Content("nonsense".into())).await;
        assert!(
            reason.contains("not a content address") && !retryable,
            "{reason}"
        );
        let nowhere = mutual_data::address::name(mutual_data::address::Codec::Node, b"nowhere");
        let (reason, retryable) = refused(&cloud, Image::Content(nowhere.to_string())).await;
        assert!(
            reason.contains("no provider has them") && retryable,
            "{reason}"
        );
        let image = shell_image(cloud.dir.path());
        let [layout, _] = both_forms(&image, cloud.dir.path());
        // The agent's machine may have it, this task may not.
        let other = cloud.image(&layout, Some("other")).await;
        let (reason, retryable) = refused(&cloud, Image::Content(other)).await;
        assert!(reason.contains("namespace") && !retryable, "{reason}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_command_that_the_image_lacks_is_named() {
        let Some((cloud, _agent)) = containers().await else {
            return;
        };
        let [layout, _] = both_forms(&shell_image(cloud.dir.path()), cloud.dir.path());
        let image = Image::Content(cloud.image(&layout, Some("lab")).await);
        let mut spec = within(image, "");
        // The machine itself has it, the image does not.
        spec.command = vec!["sort".into()];
        let (reason, retryable) = not_started(cloud.ended(cloud.submit(spec).await).await);
        assert!(reason.contains("sort") && !retryable, "{reason}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_image_is_never_left_out_for_a_weaker_class() {
        let cloud = Cloud::start().await;
        let _agent = cloud.agent(20).await;
        let mut spec = within(Image::Registry("127.0.0.1:1/app".into()), "true");
        spec.class = Some(IsolationClass::Process);
        let (reason, _) = not_started(cloud.ended(cloud.submit(spec).await).await);
        assert!(reason.contains("class container"), "{reason}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_registrys_image_runs_by_tag_and_by_digest() {
        let Some((cloud, _agent)) = containers().await else {
            return;
        };
        let Some(registry) = Registry::start() else {
            return skipped("images from a registry", "no registry server");
        };
        let image = shell_image(cloud.dir.path());
        registry.push(&image, "tools/shell", "1").await;
        let name = format!("{}/tools/shell", registry.address);
        shows(&cloud, Image::Registry(format!("{name}:1"))).await;
        shows(&cloud, Image::Registry(format!("{name}@{}", image.name))).await;
        let (reason, _) = refused(&cloud, Image::Registry(format!("{name}:absent"))).await;
        assert!(reason.contains(&registry.address), "{reason}");
        drop(registry);
        // What is here needs no registry any more.
        shows(&cloud, Image::Registry(format!("{name}:1"))).await;
        let (reason, retryable) = refused(&cloud, Image::Registry(format!("{name}:2"))).await;
        assert!(reason.contains(&name[..9]) && retryable, "{reason}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_layer_that_a_registry_spoilt_is_refused() {
        let Some((cloud, _agent)) = containers().await else {
            return;
        };
        let Some(registry) = Registry::start() else {
            return skipped("a spoilt registry", "no registry server");
        };
        let image = shell_image(cloud.dir.path());
        registry.push(&image, "shell", "1").await;
        spoil(&registry.blob(&image.layer));
        let reference = format!("{}/shell:1", registry.address);
        let (reason, _) = refused(&cloud, Image::Registry(reference)).await;
        assert!(reason.contains(&image.layer), "{reason}");
        let left = cloud.agent_dir(20).join("state/images");
        assert_eq!(
            std::fs::read_dir(left).unwrap().count(),
            0,
            "something half-pulled is left"
        );
    }

    /// Changes a byte in the middle.
    fn spoil(file: &Path) {
        let mut bytes = std::fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(file, bytes).unwrap();
    }

    #[test]
    fn all_this_holds_for_an_ordinary_users_agent() {
        if std::env::var_os(AGAIN).is_some() {
            return;
        }
        if !rustix::process::geteuid().is_root() {
            return skipped("an ordinary user", "this is one already");
        }
        let output = std::process::Command::new("setpriv")
            .args([
                "--reuid",
                "65534",
                "--regid",
                "65534",
                "--clear-groups",
                "--",
            ])
            .arg(std::env::current_exe().unwrap())
            .args(["agent::images::", "--nocapture", "--test-threads", "1"])
            .env(AGAIN, "1")
            .current_dir("/")
            .output();
        let output = match output {
            Ok(output) => output,
            Err(error) => return skipped("an ordinary user", &format!("setpriv: {error}")),
        };
        let (out, err) = (output.stdout, output.stderr);
        let text = [out, err].map(|text| String::from_utf8_lossy(&text).into_owned());
        for line in text[1].lines().filter(|line| line.starts_with("SKIPPED")) {
            skipped("as an ordinary user", line);
        }
        assert!(output.status.success(), "{}\n{}", text[0], text[1]);
    }
}
