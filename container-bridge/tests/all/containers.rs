//! What only container engines have: names that gateways share, labels for reapers, images, runtimes.

use std::{fs, path::Path, process::Command};

use atoll_container_bridge::{
    backend::{Backend, SandboxId, SandboxSpec},
    engine::{Engine, EngineConfig, Image, Runtime},
    error::Code,
    limits::Limits,
    protocol::ExecSpec,
    sandbox::Sandbox,
};
use bollard::{Docker, models::ContainerCreateBody, query_parameters::CreateContainerOptions};
use futures_util::StreamExt;

use crate::{
    engines,
    support::{Kind, Place, block},
};

fn config(place: &Place) -> EngineConfig {
    engines::config(place.kind, &place.config)
}

async fn client(kind: Kind) -> Docker {
    let socket = engines::socket(kind).display().to_string();
    let client = Docker::connect_with_unix(&socket, 60, bollard::API_DEFAULT_VERSION).unwrap();
    client.negotiate_version().await.unwrap()
}

fn two_gateways_make_one_sandbox_per_owner(kind: Kind) {
    block(async {
        let (ours, theirs) = (Place::of(kind), Place::of(kind));
        let spec = SandboxSpec { owner: Some(ours.owner("a", "ann")), ..SandboxSpec::default() };
        let sandbox = ours.launch(&spec).await.unwrap();
        let error = theirs.launch(&spec).await.err().unwrap();
        assert_eq!(error.code, Code::SandboxUnavailable, "{error}");
        assert_eq!(sandbox.out("echo alive").await, "alive\n");
        // Another user is none of that.
        let other = SandboxSpec { owner: Some(ours.owner("a", "bob")), ..SandboxSpec::default() };
        theirs.launch(&other).await.unwrap().stop().await;
        // Dropped rather than stopped: the next one waits until the name is free.
        drop(sandbox);
        ours.launch(&spec).await.unwrap().stop().await;
        theirs.launch(&spec).await.unwrap().stop().await;
    });
}

/// A container as a gateway that died between create and start leaves it.
async fn corpse(client: &Docker, image: &str, name: &str, instance: &Path, expires: u64) {
    let labels = [
        ("atoll.instance".to_owned(), instance.display().to_string()),
        ("atoll.expires".to_owned(), expires.to_string()),
    ];
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: Some(vec!["/bin/true".to_owned()]),
        labels: Some(labels.into()),
        ..Default::default()
    };
    let options = CreateContainerOptions { name: Some(name.to_owned()), ..Default::default() };
    client.create_container(Some(options), body).await.unwrap();
}

fn a_reaper_removes_the_dead_and_the_expired(kind: Kind) {
    block(async {
        let (place, other) = (Place::of(kind), Place::of(kind));
        let (living, image) = (place.start().await, busybox(kind).await);
        let client = client(kind).await;
        let far = u64::from(u32::MAX);
        let state = fs::canonicalize(&place.config.state_dir).unwrap();
        let theirs = other.start().await; // a living gateway of another directory, whose containers are its own
        let lock = fs::read_dir(&other.config.state_dir).unwrap().flatten().next().unwrap().path();
        let lock = fs::canonicalize(lock).unwrap();
        let name = |what: &str| format!("{}-{what}", place.config.args[0]);
        corpse(&client, &image, &name("no-file"), &state.join("instance-none"), far).await;
        fs::write(state.join("instance-dead"), "").unwrap();
        corpse(&client, &image, &name("unlocked"), &state.join("instance-dead"), far).await;
        corpse(&client, &image, &name("expired"), &lock, 1_000_000_000).await;
        corpse(&client, &image, &name("living"), &lock, far).await;
        place.backend().await.reap().await.unwrap();
        for (what, there) in [("no-file", false), ("unlocked", false), ("expired", false), ("living", true)] {
            let found = client.inspect_container(&name(what), None).await;
            assert_eq!(found.is_ok(), there, "{what}");
        }
        assert!(!state.join("instance-dead").exists());
        assert_eq!((living.out("echo a").await, theirs.out("echo b").await), ("a\n".into(), "b\n".into()));
        client.remove_container(&name("living"), None).await.unwrap();
        living.stop().await;
        theirs.stop().await;
    });
}

/// An image of this machine's static busybox; its name.
pub(crate) async fn busybox(kind: Kind) -> String {
    const NAME: &str = "localhost/atoll-test-busybox:1";
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    let program = fs::read("/bin/busybox").unwrap_or_else(|_| b"none".to_vec());
    header.set_size(program.len() as u64);
    tar.append_data(&mut header, "bin/busybox", program.as_slice()).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "bin/sh", "busybox").unwrap();
    let options = bollard::query_parameters::CreateImageOptions {
        from_src: Some("-".to_owned()),
        repo: Some(NAME.to_owned()),
        ..Default::default()
    };
    let body = bollard::body_full(tar.into_inner().unwrap().into());
    let client = client(kind).await;
    let mut progress = std::pin::pin!(client.create_image(Some(options), Some(body), None));
    while let Some(step) = progress.next().await {
        step.unwrap();
    }
    NAME.to_owned()
}

fn an_image_without_a_c_library(kind: Kind) {
    let dynamic =
        Command::new("ldd").arg("/bin/busybox").output().is_ok_and(|output| output.status.success());
    if dynamic || !Path::new("/bin/busybox").exists() {
        eprintln!("SKIPPED: no static busybox on this machine to make an image from");
        return;
    }
    block(async {
        let place = Place::of(kind);
        let config = EngineConfig { image: Image::Named(busybox(kind).await), ..config(&place) };
        let engine = Engine::connect(config).await.unwrap();
        let launched = engine.launch(&SandboxId::random().unwrap(), &SandboxSpec::default()).await.unwrap();
        let sandbox = Sandbox::new(launched.link.clone());
        sandbox.write("f", b"kept\n").await.unwrap();
        let line = "busybox cat f; busybox ls /usr /lib 2>&1 | busybox grep -c 'No such'; busybox id -u; busybox ls -a /";
        let done = sandbox.run(ExecSpec::shell(line)).await.unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        assert!(text.starts_with("kept\n2\n10") && text.contains(".atoll"), "{text}");
        let read_only = sandbox.write("/bin/new", b"x").await.unwrap_err();
        assert_eq!(read_only.code, Code::PermissionDenied, "{read_only}");
        launched.instance.stop().await.unwrap();
        place.assert_clean();
    });
}

fn what_an_engine_cannot_do_is_said(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let missing =
            EngineConfig { image: Image::Named("localhost/atoll-none:1".to_owned()), ..config(&place) };
        let engine = Engine::connect(missing).await.unwrap();
        let launch = |engine: Engine, spec: SandboxSpec| async move {
            engine.launch(&SandboxId::random().unwrap(), &spec).await.err().unwrap()
        };
        let error = launch(engine, SandboxSpec::default()).await;
        assert_eq!(error.code, Code::InvalidArgument, "never pulled: {error}");
        let runtime = Runtime::Named("no-such-runtime".to_owned());
        let engine = Engine::connect(EngineConfig { runtime, ..config(&place) }).await.unwrap();
        let error = launch(engine, SandboxSpec::default()).await;
        let refused = if kind == Kind::Podman { Code::Unsupported } else { Code::BackendFailed };
        assert_eq!(error.code, refused, "{error}");
        let engine = Engine::connect(config(&place)).await.unwrap();
        let limits = Limits { pids: 1, ..Limits::default() };
        assert_eq!(
            launch(engine, SandboxSpec { limits, ..SandboxSpec::default() }).await.code,
            Code::InvalidArgument
        );
        let root = EngineConfig { uid_base: 0, ..config(&place) };
        assert_eq!(Engine::connect(root).await.err().unwrap().code, Code::InvalidArgument);
        let nobody = EngineConfig { socket: "/no/such/socket".into(), ..config(&place) };
        assert_eq!(Engine::connect(nobody).await.err().unwrap().code, Code::SandboxUnavailable);
        place.assert_clean();
    });
}

/// gVisor is used where a real sandbox works with it, and else not; both are fine, but the sandbox must be.
fn a_runtime_is_probed_by_running_it(kind: Kind) {
    if kind == Kind::Podman {
        return; // its API takes none: see the test above
    }
    block(async {
        let place = Place::of(kind);
        let engine =
            Engine::connect(EngineConfig { runtime: Runtime::Probe, ..config(&place) }).await.unwrap();
        let runtime = engine.runtime().await.unwrap();
        println!("probed: {runtime:?}");
        let launched = engine.launch(&SandboxId::random().unwrap(), &SandboxSpec::default()).await.unwrap();
        let sandbox = Sandbox::new(launched.link.clone());
        let done =
            sandbox.run(ExecSpec::shell("dmesg 2>/dev/null | grep -ci gvisor; echo ran")).await.unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        assert_eq!(text, if runtime.is_some() { "1\nran\n" } else { "0\nran\n" });
        launched.instance.stop().await.unwrap();
        place.assert_clean();
    });
}

fn a_dropped_launch_leaves_nothing(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let backend = place.backend().await;
        for wait_ms in [0, 5, 20, 60, 120, 200] {
            let id = SandboxId::random().unwrap();
            let spec = SandboxSpec::default();
            let launch = backend.launch(&id, &spec);
            let cut = tokio::time::timeout(std::time::Duration::from_millis(wait_ms), launch).await;
            drop(cut);
            // The engine may still be making it: what counts is that it goes away.
            tokio::time::sleep(std::time::Duration::from_millis(400)).await;
            place.assert_clean();
        }
    });
}

crate::support::for_each_engine! {
    two_gateways_make_one_sandbox_per_owner,
    a_reaper_removes_the_dead_and_the_expired,
    an_image_without_a_c_library,
    what_an_engine_cannot_do_is_said,
    a_runtime_is_probed_by_running_it,
    a_dropped_launch_leaves_nothing,
}
