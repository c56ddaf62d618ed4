//! An agent whose disk is really full: a small tmpfs below all it has.

mod heavy {
    use std::path::Path;

    use mutual_demand::Reason;
    use mutual_model::job::{Failure, JobState};
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

    use super::super::cloud::{Cloud, script};

    /// A tmpfs over a directory, gone with this.
    struct Disk<'a>(&'a Path);

    impl Drop for Disk<'_> {
        fn drop(&mut self) {
            let _ = unmount(self.0, UnmountFlags::DETACH);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_agent_with_a_full_disk_says_so_and_goes_on() {
        let cloud = Cloud::start().await;
        let dir = cloud.agent_dir(20);
        std::fs::create_dir(&dir).unwrap();
        let size = c"size=24m,mode=755";
        if let Err(error) = mount("none", &dir, "tmpfs", MountFlags::empty(), size) {
            use std::io::Write as _;
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED a full disk: cannot mount a tmpfs: {error}"
            );
            return;
        }
        let disk = Disk(&dir);
        let roomy = |config: &mut mutual_node::agent::AgentConfig| {
            config.resources.scratch_bytes = 4 << 30;
        };
        let agent = cloud.agent_with(20, roomy, |store| store).await;
        let source = cloud.dir.path().join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("big"), vec![7; 32 << 20]).unwrap();
        let input = cloud.input(&source).await;
        let mut spec = script("true");
        spec.has_input = true;
        let view = cloud
            .ended(cloud.submit_with(spec, Some(input)).await)
            .await;
        let Some(Reason::Failure(Failure::NotStarted { reason, retryable })) = view.reason else {
            panic!("{view:#?}");
        };
        assert!(
            reason.contains("input: no space left on the disk") && retryable,
            "{reason}"
        );
        let mut spec = script("head -c 32M /dev/zero > \"$MUTUAL_OUTPUT/big\"");
        spec.resources.scratch_bytes = 1 << 30;
        let view = cloud.ended(cloud.submit(spec).await).await;
        let failure = Failure::ExitCode { code: 1 };
        assert_eq!(view.reason, Some(Reason::Failure(failure)), "{view:#?}");
        let view = cloud.ended(cloud.submit(script("echo well")).await).await;
        assert_eq!(view.state, JobState::Succeeded, "{view:#?}");
        assert_eq!(cloud.log(&view).await, ["Stdout: well"]);
        drop((agent, disk));
    }
}
