//! Commands, background processes and sessions.

use std::{collections::BTreeMap, time::Duration};

use atoll_container_bridge::{
    error::Code,
    protocol::{Channel, ExecSpec, ProcessStatus},
};

use crate::support::{HANG, Kind, Place, block};

fn a_command_has_streams_and_a_status(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let sandbox = place.start().await;
        let done = sandbox.sh("echo out; echo err >&2; exit 3").await;
        assert_eq!(
            (done.stdout.as_slice(), done.stderr.as_slice(), done.exit.code),
            (&b"out\n"[..], &b"err\n"[..], 3)
        );
        let mut spec = ExecSpec::argv(["cat"]);
        spec.stdin = true;
        let mut running = sandbox.exec(spec).await.unwrap();
        let stdin = running.stdin().unwrap();
        let text = vec![b'x'; 3_000_000];
        let (sent, got) = tokio::join!(
            async {
                stdin.write(&text).await.unwrap();
                stdin.close().await;
            },
            running.collect()
        );
        let () = sent;
        assert_eq!(got.unwrap().stdout.len(), 3_000_000);
        let spec = ExecSpec::argv(["sh", "-c", "echo $A; pwd"]).env("A", "b c").cwd("/tmp");
        assert_eq!(sandbox.run(spec).await.unwrap().stdout, b"b c\n/tmp\n");
        sandbox.stop().await;
    });
}

fn what_cannot_start_says_why(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let sandbox = place.start().await;
        for (spec, code) in [
            (ExecSpec::argv(["no-such-program"]), Code::CommandNotFound),
            (ExecSpec::argv(["/etc/passwd"]), Code::PermissionDenied),
            (ExecSpec::argv(["true"]).cwd("/nowhere"), Code::FileNotFound),
            (ExecSpec::argv(Vec::<String>::new()), Code::InvalidArgument),
            (ExecSpec::argv(["a\0b"]), Code::InvalidArgument),
            (ExecSpec::argv(["true"]).env("A=B", "c"), Code::InvalidArgument),
            (ExecSpec::argv(["true".to_owned(), "x".repeat(200_000)]), Code::InvalidArgument),
            (ExecSpec::argv(["true"]).session("none"), Code::SessionNotFound),
        ] {
            assert_eq!(sandbox.run(spec.clone()).await.unwrap_err().code, code, "{spec:?}");
        }
        sandbox.stop().await;
    });
}

fn a_timeout_ends_the_whole_tree(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let sandbox = place.start().await;
        // Traps SIGTERM, forks away twice, leaves its session, closes its streams.
        let line = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; exec >/dev/null 2>&1 </dev/null; sleep 1000 & sleep 1000' &) ; \
                    sleep 1000";
        let mut spec = ExecSpec::shell(line).timeout(Duration::from_millis(300));
        spec.grace_ms = 100;
        let done = sandbox.run(spec).await.unwrap();
        assert!(done.exit.timed_out);
        assert_eq!(sandbox.out("ps -A -o args= | grep -c '[s]leep 1000' || true").await, "0\n");
        // SIGTERM comes first.
        let mut spec = ExecSpec::shell("trap 'echo bye; exit 0' TERM; while :; do sleep 0.05; done");
        spec = spec.timeout(Duration::from_millis(300));
        spec.grace_ms = 10_000;
        let done = sandbox.run(spec).await.unwrap();
        assert_eq!((done.exit.timed_out, done.stdout.as_slice()), (true, &b"bye\n"[..]));
        sandbox.stop().await;
    });
}

fn a_dropped_command_is_ended_and_leaves_nothing(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let sandbox = place.start().await;
        let mut running = sandbox.exec(ExecSpec::shell("echo go; sleep 1000 & sleep 1000")).await.unwrap();
        assert_eq!(running.next().await.unwrap(), Some((Channel::Out, b"go\n".to_vec())));
        drop(running);
        while sandbox.out("ps -A -o args= | grep -c '[s]leep 1000' || true").await != "0\n" {}
        // A command that ends leaves no daemon behind either, and does not wait for one that holds its streams.
        sandbox.out("setsid sleep 1000 & exit 0").await;
        assert_eq!(sandbox.out("ps -A -o args= | grep -c '[s]leep 1000' || true").await, "0\n");
        sandbox.stop().await;
    });
}

fn background_processes(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let sandbox = place.start().await;
        let line = "echo ready; echo oops >&2; while :; do sleep 0.1; done";
        let info = sandbox.start("server", ExecSpec::shell(line)).await.unwrap();
        assert_eq!((info.status, info.command.as_str(), info.ended_ms), (ProcessStatus::Running, line, None));
        assert_eq!(
            sandbox.start("server", ExecSpec::shell("true")).await.unwrap_err().code,
            Code::ProcessExists
        );
        sandbox.wait_for_log("server", "ready", HANG).await.unwrap();
        sandbox.wait_for_log("server", "oops", HANG).await.unwrap();
        let late = sandbox.wait_for_exit("server", Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(late.code, Code::ProcessReadyTimeout);
        assert_eq!(sandbox.logs("server", false).await.unwrap().all(1000).await.unwrap().len(), 11);
        let info = sandbox.kill("server", Duration::from_secs(5)).await.unwrap();
        assert_eq!(info.status, ProcessStatus::Killed);
        assert!(info.ended_ms >= Some(info.started_ms), "{info:?}");
        assert_eq!(sandbox.processes().await.unwrap(), [info]);
        // Its log stays; its name is free.
        assert_eq!(sandbox.logs("server", true).await.unwrap().all(1000).await.unwrap().len(), 11);
        sandbox.start("server", ExecSpec::shell("exit 4")).await.unwrap();
        let info = sandbox.wait_for_exit("server", HANG).await.unwrap();
        assert_eq!((info.status, info.exit.unwrap().code), (ProcessStatus::Failed, 4));
        let ended = sandbox.wait_for_log("server", "never", HANG).await.unwrap_err();
        assert_eq!(ended.code, Code::ProcessReadyTimeout);
        assert_eq!(sandbox.kill("nobody", HANG).await.unwrap_err().code, Code::ProcessNotFound);
        // A flood keeps only the end of the log.
        sandbox.start("flood", ExecSpec::shell("head -c 5000000 /dev/zero; echo the-end")).await.unwrap();
        sandbox.wait_for_log("flood", "the-end", HANG).await.unwrap();
        let info = sandbox.wait_for_exit("flood", HANG).await.unwrap();
        assert!(info.log_dropped_bytes >= 3_900_000, "{info:?}");
        sandbox.stop().await;
    });
}

fn sessions_keep_directory_variables_and_functions(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let sandbox = place.start().await;
        let env = BTreeMap::from([("S".to_owned(), "1".to_owned())]);
        sandbox.create_session("a", env, Some("/tmp".to_owned())).await.unwrap();
        sandbox.create_session("b", BTreeMap::new(), None).await.unwrap();
        let again = sandbox.create_session("a", BTreeMap::new(), None).await.unwrap_err();
        assert_eq!(again.code, Code::SessionAlreadyExists);
        let run = |name: &'static str, line: &'static str| {
            let sandbox = sandbox.sandbox.clone();
            async move { sandbox.run(ExecSpec::shell(line).session(name)).await.unwrap() }
        };
        assert_eq!(run("a", "pwd; echo $S; cd /usr; X=5; f() { echo f$1; }").await.stdout, b"/tmp\n1\n");
        assert_eq!(run("a", "pwd; echo $X; f 2; false").await.stdout, b"/usr\n5\nf2\n");
        assert_eq!(run("a", "false").await.exit.code, 1);
        assert_eq!(run("b", "pwd; echo [$X]; echo e >&2").await.stdout, b"/workspace\n[]\n");
        // A command without a newline at its end, and one that ends the shell: the next gets a fresh one.
        assert_eq!(run("a", "printf abc").await.stdout, b"abc");
        assert_eq!(run("a", "exit 7").await.exit.code, 7);
        assert_eq!(run("a", "pwd; echo [$X]").await.stdout, b"/tmp\n[]\n");
        assert_eq!(sandbox.sessions().await.unwrap(), ["a", "b"]);
        // Deleting a session ends what runs in it.
        let running = tokio::spawn({
            let sandbox = sandbox.sandbox.clone();
            async move { sandbox.run(ExecSpec::shell("sleep 1000").session("b")).await }
        });
        while sandbox.out("ps -A -o args= | grep -c '[s]leep 1000' || true").await == "0\n" {}
        sandbox.delete_session("b").await.unwrap();
        assert_eq!(running.await.unwrap().unwrap_err().code, Code::SessionDestroyed);
        assert_eq!(sandbox.out("ps -A -o args= | grep -c '[s]leep 1000' || true").await, "0\n");
        sandbox.stop().await;
    });
}

fn variables_of_the_sandbox(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let sandbox = place.start().await;
        sandbox.set_env(BTreeMap::from([("K".to_owned(), Some("v".to_owned()))])).await.unwrap();
        assert_eq!(sandbox.out("echo [$K]").await, "[v]\n");
        sandbox.set_env(BTreeMap::from([("K".to_owned(), None)])).await.unwrap();
        assert_eq!(sandbox.out("echo [$K]").await, "[]\n");
        sandbox.stop().await;
    });
}

fn git_checks_out_what_the_sandbox_can_reach(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let sandbox = place.start().await;
        let line = "git init -q -b trunk src && cd src && git config user.email a@b && git config user.name a \
                    && echo one > f && git add f && git commit -qm one && git checkout -q -b side \
                    && echo two > f && git commit -qam two && git checkout -q trunk";
        sandbox.out(line).await;
        let done = sandbox.git_checkout("/workspace/src", None, None, "a", HANG).await.unwrap();
        assert_eq!(done.exit.code, 0, "{}", String::from_utf8_lossy(&done.stderr));
        let url = "file:///workspace/src";
        let done = sandbox.git_checkout(url, Some("side"), Some(1), "b/deep", HANG).await.unwrap();
        assert_eq!(done.exit.code, 0, "{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(
            sandbox.out("cat a/f b/deep/f; git -C b/deep log --oneline | wc -l").await,
            "one\ntwo\n1\n"
        );
        // A branch or a place that is not there is git's own failure; an option in disguise never reaches it.
        for (url, branch) in
            [("/workspace/src", Some("none")), ("/nowhere", None), ("https://example.com/x", None)]
        {
            let done = sandbox.git_checkout(url, branch, None, "c", HANG).await.unwrap();
            assert!(done.exit.code != 0 && !done.stderr.is_empty(), "{url}: {done:?}");
        }
        for (url, branch, target) in [
            ("--upload-pack=touch x", None, "d"),
            ("/workspace/src", Some("-b"), "d"),
            ("/workspace/src", None, "--bare"),
        ] {
            let refused = sandbox.git_checkout(url, branch, None, target, HANG).await.unwrap_err();
            assert_eq!(refused.code, Code::InvalidArgument, "{url}");
        }
        sandbox.stop().await;
    });
}

crate::support::for_each_backend! {
    a_command_has_streams_and_a_status,
    what_cannot_start_says_why,
    a_timeout_ends_the_whole_tree,
    a_dropped_command_is_ended_and_leaves_nothing,
    background_processes,
    sessions_keep_directory_variables_and_functions,
    variables_of_the_sandbox,
    git_checks_out_what_the_sandbox_can_reach,
}
