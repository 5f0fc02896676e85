//! One command in a fresh sandbox: `cargo run --release -p atoll-container-bridge --example exec -- 'id; ls /'`.
//!
//! Also shows the one thing a program must do to host native sandboxes: be able to become their init.

use std::process::ExitCode;

use atoll_container_bridge::{
    backend::{Backend, SandboxId, SandboxSpec},
    native::{Native, NativeConfig},
    protocol::ExecSpec,
    sandbox::Sandbox,
};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let first = args.next();
    // First thing of all: the init must be single-threaded.
    if first.as_deref() == Some("sandbox-init") {
        return atoll_container_bridge::init::main();
    }
    let line = first.unwrap_or_else(|| "id; uname -n; ls /".to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    match runtime.block_on(run(line)) {
        Ok(code) => ExitCode::from(code as u8),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(line: String) -> Result<i32, atoll_container_bridge::error::SandboxError> {
    let state_dir =
        std::env::temp_dir().join(format!("atoll-sandboxes-{}", rustix::process::geteuid().as_raw()));
    let mut config = NativeConfig::own_program("sandbox-init", state_dir)?;
    // An ordinary user can seldom make cgroups; say so explicitly.
    config.allow_no_cgroup = std::env::var_os("ATOLL_ALLOW_NO_CGROUP").is_some();
    let native = Native::new(config)?;
    native.reap().await?;
    let launched = native.launch(&SandboxId::random()?, &SandboxSpec::default()).await?;
    let sandbox = Sandbox::new(launched.link.clone());
    let done = sandbox.run(ExecSpec::shell(line)).await?;
    print!("{}", String::from_utf8_lossy(&done.stdout));
    eprint!("{}", String::from_utf8_lossy(&done.stderr));
    launched.instance.stop().await?;
    Ok(done.exit.code)
}
