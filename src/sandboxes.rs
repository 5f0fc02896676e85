//! Steps in container sandboxes: what the router decided becomes files and a command in the sandbox of its user.
//!
//! ```text
//!  SandboxStep ▸ the user's turn ▸ sandbox (made on first use) ▸ files ▸ command ▸ output … ▸ exit ▸ result file
//! ```
//!
//! Steps of one user run one after the other: they share a sandbox, and each finds the step's directory empty. There is no
//! network in a sandbox, so a step that asks for some is refused rather than run without.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use atoll_container_bridge::backend::{Backend, SandboxSpec};
use atoll_container_bridge::engine::{Engine, EngineConfig, Image, Kind, Runtime};
use atoll_container_bridge::error::{Code, SandboxError};
use atoll_container_bridge::manager::{AuditEvent, Lease, Manager, ManagerConfig, Owner};
use atoll_container_bridge::native::{Native, NativeConfig};
use atoll_container_bridge::protocol::{Channel, ExecSpec, Exit};
use dashmap::DashMap;
use tokio::sync::{Mutex, mpsc};

use crate::config::{SandboxBackend, SandboxConfig};
use crate::route::runner::{
    Output, RESULT_BYTES_MAX, RESULT_FILE, Run, STEP_DIR, SandboxStep, StepEnd, StepExit, StepFailed,
    StepRunner, StepUsage, Stream, Value,
};

/// The hidden argument with which this program becomes the init of a sandbox.
pub const INIT_ARGUMENT: &str = "sandbox-init";
/// Where below the data directory the sandboxes' state is.
const STATE_FOLDER: &str = "sandboxes";

/// The sandboxes of this gateway.
pub struct Sandboxes {
    manager: Manager,
    spec: SandboxSpec,
    /// Whose step runs: an entry per user with a step under way or waiting.
    turns: DashMap<Owner, Arc<Mutex<()>>>,
}

impl std::fmt::Debug for Sandboxes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandboxes").field("alive", &self.manager.list().len()).finish_non_exhaustive()
    }
}

impl Sandboxes {
    /// Ready to make sandboxes; removes what an earlier process left.
    ///
    /// # Errors
    /// If the state directory cannot be made or read, or bounds cannot be set on this machine.
    pub async fn start(config: &SandboxConfig, data_dir: &Path) -> Result<Self, SandboxError> {
        let backend = backend(config, &data_dir.join(STATE_FOLDER)).await?;
        let bounds = ManagerConfig {
            sandboxes_max: config.sandboxes_max,
            sandboxes_per_tenant_max: config.sandboxes_per_tenant_max,
            idle: Duration::from_secs(config.idle_s.into()),
        };
        let manager = Manager::new(backend, bounds, tell).await?;
        let spec = SandboxSpec { limits: config.limits(), ..SandboxSpec::default() };
        Ok(Self { manager, spec, turns: DashMap::new() })
    }

    /// Ends all sandboxes.
    pub async fn stop(&self) {
        self.manager.destroy_all().await;
    }

    async fn step(&self, step: SandboxStep, output: mpsc::Sender<Output>) -> Result<StepEnd, StepFailed> {
        self.refuse_what_is_not_offered(&step)?;
        let asked = Instant::now();
        let owner = Owner { tenant: step.tenant.to_string(), user: step.user.to_string() };
        let turn = Arc::clone(&self.turns.entry(owner.clone()).or_default());
        let _leaves = Leaves { turns: &self.turns, owner: &owner };
        let _turn = turn.lock().await;
        let cpu_before = self.manager.usage(&owner).map_or(0, |usage| usage.cpu_us);
        let lease = match self.manager.acquire(&owner, &self.spec).await {
            // Its time was over just now: the next one is new.
            Err(error) if error.code == Code::SandboxGone => self.manager.acquire(&owner, &self.spec).await,
            other => other,
        }
        .map_err(unavailable)?;
        put_files(&lease, &step).await.map_err(lost)?;
        let started = Instant::now();
        let (exit, output_bytes) = command(&lease, &step, &output).await?;
        let value = result(&lease).await?;
        let cpu_after = self.manager.usage(&owner).map_or(0, |usage| usage.cpu_us);
        let usage = StepUsage {
            cpu_us: cpu_after.saturating_sub(cpu_before),
            wall_us: micros(asked.elapsed()),
            start_us: micros(started - asked),
            memory_bytes_peak: 0,
            output_bytes: output_bytes + exit.dropped_bytes,
        };
        Ok(StepEnd { exit: step_exit(&exit), value, usage })
    }

    fn refuse_what_is_not_offered(&self, step: &SandboxStep) -> Result<(), StepFailed> {
        if !step.outbound.is_empty() {
            return Err(StepFailed::Unavailable(
                "sandboxes have no network yet; leave out `outbound`".into(),
            ));
        }
        let has_mib = self.spec.limits.memory_bytes / atoll_container_bridge::limits::MIB;
        match step.limits.memory_mib {
            Some(asked) if u64::from(asked) > has_mib => Err(StepFailed::Unavailable(format!(
                "it asks for {asked} MiB, and a sandbox here has {has_mib}"
            ))),
            _ => Ok(()),
        }
    }
}

/// What the configuration names as the maker of sandboxes.
async fn backend(config: &SandboxConfig, state_dir: &Path) -> Result<Arc<dyn Backend>, SandboxError> {
    let (kind, socket) = match config.backend {
        SandboxBackend::Native => {
            let mut native = NativeConfig::own_program(INIT_ARGUMENT, state_dir)?;
            native.allow_no_cgroup = config.allow_unbounded;
            return Ok(Arc::new(Native::new(native)?));
        }
        SandboxBackend::Docker => (Kind::Docker, "/var/run/docker.sock"),
        SandboxBackend::Podman => (Kind::Podman, "/run/podman/podman.sock"),
    };
    let options = &config.engine;
    let socket = options.socket.clone().unwrap_or_else(|| socket.into());
    let mut engine = EngineConfig::own_program(kind, socket, INIT_ARGUMENT, state_dir)?;
    engine.image = options.image.clone().map_or(Image::Host, Image::Named);
    engine.runtime = match options.runtime.as_deref() {
        None => Runtime::Default,
        Some("probe") => Runtime::Probe,
        Some(name) => Runtime::Named(name.to_owned()),
    };
    Ok(Arc::new(Engine::connect(engine).await?))
}

impl StepRunner for Sandboxes {
    fn run(&self, step: SandboxStep, output: mpsc::Sender<Output>) -> Run<'_> {
        Box::pin(self.step(step, output))
    }
}

/// Forgets a user's turn when nobody else waits for it.
struct Leaves<'a> {
    turns: &'a DashMap<Owner, Arc<Mutex<()>>>,
    owner: &'a Owner,
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        // The map's own handle and the one of the step that leaves.
        self.turns.remove_if(self.owner, |_, turn| Arc::strong_count(turn) <= 2);
    }
}

async fn put_files(lease: &Lease, step: &SandboxStep) -> Result<(), SandboxError> {
    if lease.exists(STEP_DIR).await? {
        lease.delete(STEP_DIR, true).await?;
    }
    lease.mkdir(STEP_DIR, true).await?;
    for (name, bytes) in &step.files {
        let path = format!("{STEP_DIR}/{name}");
        if let Some((folder, _)) = name.rsplit_once('/') {
            lease.mkdir(format!("{STEP_DIR}/{folder}"), true).await?;
        }
        lease.write(path, bytes).await?;
    }
    Ok(())
}

async fn command(
    lease: &Lease,
    step: &SandboxStep,
    output: &mpsc::Sender<Output>,
) -> Result<(Exit, u64), StepFailed> {
    let mut spec = ExecSpec::argv(step.argv.iter().cloned())
        .cwd(STEP_DIR)
        .timeout(Duration::from_millis(step.limits.wall_ms.into()));
    spec.env.extend(step.env.iter().cloned());
    spec.output_bytes_max = step.limits.output_bytes.into();
    let mut execution = match lease.exec(spec).await {
        Err(error) if error.code == Code::CommandNotFound => {
            return Err(StepFailed::NoProgram(step.argv.first().cloned().unwrap_or_default()));
        }
        other => other.map_err(lost)?,
    };
    let mut written = 0;
    while let Some((channel, bytes)) = execution.next().await.map_err(lost)? {
        written += bytes.len() as u64;
        let stream = if channel == Channel::Err { Stream::Stderr } else { Stream::Stdout };
        // Nobody may want to read it: the step goes on.
        let _nobody_reads = output.send(Output { stream, bytes: bytes.into() }).await;
    }
    Ok((execution.wait().await.map_err(lost)?, written))
}

async fn result(lease: &Lease) -> Result<Value, StepFailed> {
    match lease.read(format!("{STEP_DIR}/{RESULT_FILE}"), RESULT_BYTES_MAX as u64).await {
        Ok(bytes) => Ok(Value::Bytes(bytes.into())),
        Err(error) if error.code == Code::FileTooLarge => Ok(Value::TooLarge),
        // A directory or a pipe of that name is no result either.
        Err(error) if error.code.http_status() < 500 && error.code != Code::OperationInterrupted => {
            Ok(Value::None)
        }
        Err(error) => Err(lost(error)),
    }
}

fn step_exit(exit: &Exit) -> StepExit {
    match exit {
        Exit { timed_out: true, .. } => StepExit::WallTime,
        Exit { signal: Some(signal), .. } => StepExit::Signal(u8::try_from(*signal).unwrap_or(u8::MAX)),
        Exit { code, .. } => StepExit::Code(u8::try_from(*code).unwrap_or(u8::MAX)),
    }
}

fn unavailable(error: SandboxError) -> StepFailed {
    StepFailed::Unavailable(error.to_string())
}

fn lost(error: SandboxError) -> StepFailed {
    StepFailed::Lost(error.to_string())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Who used a sandbox and how it ended, for the log.
fn tell(event: AuditEvent) {
    match event {
        AuditEvent::Started { owner, sandbox } => {
            tracing::info!(
                tenant = owner.tenant,
                user = owner.user,
                sandbox = sandbox.as_str(),
                "sandbox started"
            );
        }
        AuditEvent::StartFailed { owner, sandbox, error } => {
            tracing::warn!(tenant = owner.tenant, user = owner.user, sandbox = sandbox.as_str(), %error, "sandbox did not start");
        }
        AuditEvent::Used { owner, sandbox } => {
            tracing::info!(
                tenant = owner.tenant,
                user = owner.user,
                sandbox = sandbox.as_str(),
                "sandbox used"
            );
        }
        AuditEvent::Refused { owner, code } => {
            tracing::warn!(tenant = owner.tenant, user = owner.user, code = code.as_str(), "sandbox refused");
        }
        AuditEvent::Ended { owner, sandbox, why, usage } => {
            tracing::info!(
                tenant = owner.tenant,
                user = owner.user,
                sandbox = sandbox.as_str(),
                why = ?why,
                cpu_us = usage.cpu_us,
                memory_byte_seconds = usage.memory_byte_seconds,
                wall_us = usage.wall_us,
                bytes_in = usage.bytes_in,
                bytes_out = usage.bytes_out,
                uses = usage.uses,
                "sandbox ended"
            );
        }
    }
}
