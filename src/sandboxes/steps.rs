//! Steps in container sandboxes: what the router decided becomes files and a command in the sandbox of its user.
//!
//! ```text
//!  SandboxStep ▸ the user's turn ▸ sandbox (made on first use) ▸ way out, if any ▸ files ▸ command ▸ output … ▸ exit ▸ result
//! ```
//!
//! Steps of one user run one after the other: they share a sandbox, and each finds the step's directory empty. A step that may
//! reach something lends the sandbox its way out while it runs; what an earlier step left running could use it as well, but
//! that is the same user's of the same tenant.

use std::sync::Arc;
use std::time::{Duration, Instant};

use atoll_container_bridge::error::{Code, SandboxError};
use atoll_container_bridge::manager::{Lease, Owner, Usage};
use atoll_container_bridge::protocol::{Channel, ExecSpec, Exit};
use dashmap::DashMap;
use tokio::sync::{Mutex, mpsc};

use super::{Sandboxes, egress};
use crate::route::runner::{
    Output, RESULT_BYTES_MAX, RESULT_FILE, Run, STEP_DIR, SandboxStep, StepEnd, StepExit, StepFailed,
    StepRunner, StepUsage, Stream, Value,
};

impl Sandboxes {
    async fn step(&self, mut step: SandboxStep, output: mpsc::Sender<Output>) -> Result<StepEnd, StepFailed> {
        self.refuse_what_is_not_offered(&step)?;
        let asked = Instant::now();
        let owner = Owner { tenant: step.tenant.to_string(), user: step.user.to_string() };
        let turn = Arc::clone(&self.turns.entry(owner.clone()).or_default());
        let _leaves = Leaves { turns: &self.turns, owner: &owner };
        let _turn = turn.lock().await;
        let lease = self.acquire(&owner, None).await.map_err(unavailable)?;
        let before = self.usage(&owner).await.unwrap_or_default();
        let _lent = match step.egress.take() {
            None => None,
            Some(outlet) => {
                let life = self.life(&lease).map_err(unavailable)?;
                let lent = life.lend(outlet);
                self.open_egress(&lease, &life).await.map_err(unavailable)?;
                step.env.extend(egress::variables(&life));
                Some(lent)
            }
        };
        put_files(&lease, &step).await.map_err(lost)?;
        let started = Instant::now();
        let (exit, output_bytes) = command(&lease, &step, &output).await?;
        let value = result(&lease).await?;
        let after = self.usage(&owner).await.unwrap_or(before);
        let usage = StepUsage {
            cpu_us: after.cpu_us.saturating_sub(before.cpu_us),
            wall_us: micros(asked.elapsed()),
            start_us: micros(started - asked),
            memory_byte_seconds: after.memory_byte_seconds.saturating_sub(before.memory_byte_seconds),
            memory_bytes_peak: after.memory_bytes_peak,
            output_bytes: output_bytes + exit.dropped_bytes,
            bytes_in: after.bytes_in.saturating_sub(before.bytes_in),
            bytes_out: after.bytes_out.saturating_sub(before.bytes_out),
        };
        let sandbox = lease.id().as_str().into();
        Ok(StepEnd { exit: step_exit(&exit, &before, &after), value, usage, sandbox })
    }

    fn refuse_what_is_not_offered(&self, step: &SandboxStep) -> Result<(), StepFailed> {
        let has_mib = self.spec.limits.memory_bytes / atoll_container_bridge::limits::MIB;
        match step.limits.memory_mib {
            Some(asked) if u64::from(asked) > has_mib => Err(StepFailed::Unavailable(format!(
                "it asks for {asked} MiB, and a sandbox here has {has_mib}"
            ))),
            _ => Ok(()),
        }
    }
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

/// A step that failed while the kernel ended processes for want of memory ran out of memory, whoever told its end.
fn step_exit(exit: &Exit, before: &Usage, after: &Usage) -> StepExit {
    match exit {
        Exit { timed_out: true, .. } => StepExit::WallTime,
        Exit { code, .. } if *code != 0 && after.oom_kills > before.oom_kills => StepExit::Memory,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        let exit = |code, signal, timed_out| Exit { code, signal, timed_out, dropped_bytes: 0, wall_us: 0 };
        let quiet = Usage::default();
        let hungry = Usage { oom_kills: 1, ..quiet };
        for (exit, after, expected) in [
            (exit(0, None, false), quiet, StepExit::Code(0)),
            (exit(3, None, false), quiet, StepExit::Code(3)),
            (exit(137, Some(9), false), quiet, StepExit::Signal(9)),
            (exit(137, Some(9), false), hungry, StepExit::Memory),
            (exit(137, None, false), hungry, StepExit::Memory),
            (exit(0, None, false), hungry, StepExit::Code(0)),
            (exit(137, Some(9), true), hungry, StepExit::WallTime),
        ] {
            assert_eq!(step_exit(&exit, &quiet, &after), expected, "{exit:?}");
        }
    }
}
