//! What a task sees of the machine, and what it cannot touch.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use mutual_node::runtime::{Backend, Class, Outcome, Stream, TASK_USER};

use super::{Ground, is_root, skipped};

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_the_runtimes_own() {
    let ground = Ground::new().await;
    for class in ground.classes() {
        let mut spec = ground.spec("env", class, &["env"]);
        spec.env.insert("GREETING".into(), "hello world".into());
        spec.attempt = 3;
        let dir = spec.dir.display().to_string();
        let done = ground.run(spec).await;
        let text = done.stdout();
        let root = if class == Class::Process {
            dir.as_str()
        } else {
            "/mutual"
        };
        let expected = [
            "GREETING=hello world".to_owned(),
            format!("HOME={root}"),
            "LANG=C.UTF-8".to_owned(),
            "MUTUAL_ATTEMPT=3".to_owned(),
            format!("MUTUAL_CHECKPOINT_DIR={root}/checkpoint"),
            format!("MUTUAL_DIR={root}"),
            format!("MUTUAL_INPUT={root}/input"),
            format!("MUTUAL_JOB=env-{class}"),
            format!("MUTUAL_OUTPUT={root}/output"),
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            format!("TMPDIR={root}/tmp"),
        ];
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(lines, expected, "{class}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_task_directory_has_its_four_parts() {
    let ground = Ground::new().await;
    for class in ground.classes() {
        let script = "cat input/in && echo out > output/out && echo kept > checkpoint/kept && echo t > $TMPDIR/t && \
                      echo t > /tmp/t; cat \"$MUTUAL_INPUT/in\" > here";
        let spec = ground.shell("parts", class, script);
        std::fs::write(spec.dir.join("input/in"), "given").expect("a file");
        let dir = spec.dir.clone();
        let done = ground.run(spec).await;
        let read =
            |name: &str| std::fs::read_to_string(dir.join(name)).expect("a file of the task");
        assert_eq!(
            done.exit.outcome,
            Outcome::Code(0),
            "{class}: {}",
            done.text(Stream::Stderr)
        );
        assert_eq!(done.stdout(), "given", "{class}");
        assert_eq!(
            (
                read("output/out").as_str(),
                read("checkpoint/kept").as_str()
            ),
            ("out\n", "kept\n"),
            "{class}"
        );
        assert_eq!(read("here"), "given", "{class}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_tasks_share_is_read_by_all_and_written_by_none() {
    for backend in [Backend::Embedded, Backend::Runc] {
        let ground = Ground::with(|config| config.backend = backend).await;
        if !ground.has(Class::Container) {
            continue;
        }
        let shared = ground.dir.path().join("shared");
        std::fs::create_dir(&shared).expect("a directory");
        std::fs::write(shared.join("in"), "given").expect("a file");
        std::fs::set_permissions(shared.join("in"), PermissionsExt::from_mode(0o600))
            .expect("own file");
        ground.runtime.give(&shared).expect("a new owner");
        for name in ["one", "other"] {
            let script = "cat input/in; for change in 'touch input/new' 'chmod 777 input/in' 'rm input/in'; do \
                          $change 2>/dev/null && echo \", changed by $change\"; done; true";
            let mut spec = ground.shell(name, Class::Container, script);
            std::fs::write(spec.dir.join("input/own"), "hidden").expect("a file");
            spec.input = Some(shared.clone());
            let done = ground.run(spec).await;
            assert_eq!(
                done.stdout(),
                "given",
                "{backend:?}: {}",
                done.text(Stream::Stderr)
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_task_is_nobody_on_the_machine() {
    let ground = Ground::new().await;
    let outside = if is_root() {
        TASK_USER
    } else {
        rustix::process::getuid().as_raw()
    };
    for class in ground.classes() {
        let spec = ground.shell("uid", class, "id -u; id -G; : > output/mine");
        let mine = spec.dir.join("output/mine");
        let done = ground.run(spec).await;
        let inside = if class == Class::Container {
            0
        } else {
            outside
        };
        let text = done.stdout();
        assert_eq!(
            text.lines().next(),
            Some(inside.to_string().as_str()),
            "{class}"
        );
        assert_eq!(
            std::fs::metadata(mine).expect("the task's file").uid(),
            outside,
            "{class}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn privileges_are_given_up() {
    let ground = Ground::new().await;
    for class in ground.classes() {
        let done = ground
            .run(ground.spec("status", class, &["cat", "/proc/self/status"]))
            .await;
        let text = done.stdout();
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name));
            value
                .unwrap_or_else(|| panic!("{class}: no {name} in {text}"))
                .trim()
                .to_owned()
        };
        assert_eq!(
            (field("NoNewPrivs:").as_str(), field("Seccomp:").as_str()),
            ("1", "2"),
            "{class}"
        );
        for capabilities in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
            assert_eq!(
                field(capabilities),
                "0000000000000000",
                "{class} {capabilities}"
            );
        }
        let script = "unshare -U true 2>/dev/null && echo unshared; mount -t tmpfs x /mnt 2>/dev/null && echo mounted; \
                      echo done";
        let done = ground.run(ground.shell("calls", class, script)).await;
        assert_eq!(done.stdout(), "done\n", "{class}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_is_read_only_and_holds_nothing_private() {
    let ground = Ground::new().await;
    if !ground.has(Class::Container) {
        return;
    }
    let script = "for f in /x /usr/x /etc/x /mutual/input/x /proc/sys/kernel/domainname; do \
                  (: > $f) 2>/dev/null && echo wrote $f; done; \
                  for d in /home /root /var /run /opt /srv /mnt /sys; do [ -e $d ] && echo sees $d; done; \
                  ls /etc/shadow 2>/dev/null; [ $(ls /proc | grep -c '^[0-9]') -lt 10 ] || echo sees processes; \
                  hostname; cat /etc/passwd | head -1";
    let done = ground
        .run(ground.shell("root", Class::Container, script))
        .await;
    assert_eq!(done.stdout(), "mutual\nroot:x:0:0:task:/mutual:/bin/sh\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn landlock_hides_what_class_process_has_no_business_with() {
    let ground = Ground::new().await;
    let Some(offer) = ground.runtime.offer().class(Class::Process) else {
        return;
    };
    if offer.notes.iter().any(|note| note.contains("no Landlock")) {
        return skipped("files in class process", "the kernel has no Landlock");
    }
    let secret = ground.dir.path().join("secret");
    std::fs::write(&secret, "secret").expect("a file");
    let script = format!(
        "cat {0} 2>/dev/null; (: > {0}) 2>/dev/null; ls /home 2>/dev/null; echo done",
        secret.display()
    );
    let done = ground
        .run(ground.shell("hidden", Class::Process, &script))
        .await;
    assert_eq!(done.stdout(), "done\n");
    assert_eq!(
        std::fs::read_to_string(secret).expect("the secret"),
        "secret"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_network_unless_asked() {
    let ground = Ground::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let script =
        format!("(exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null && echo connected; echo done");
    for class in ground.classes() {
        let notes = &ground.runtime.offer().class(class).expect("offered").notes;
        let mut spec = ground.spec("network", class, &["bash", "-c", &script]);
        if class == Class::Container || notes.iter().any(|note| note.contains("TCP")) {
            assert_eq!(ground.run(spec.clone()).await.stdout(), "done\n", "{class}");
        } else {
            skipped("network in class process", &notes.join("; "));
        }
        spec.network = true;
        spec.attempt = 2;
        assert_eq!(
            ground.run(spec).await.stdout(),
            "connected\ndone\n",
            "{class}"
        );
    }
    if ground.has(Class::Container) {
        let script = "ip -o link 2>/dev/null || tail -n +3 /proc/net/dev";
        let text = ground
            .run(ground.shell("links", Class::Container, script))
            .await
            .stdout();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("lo"), "{text}");
    }
}
