//! A command with streams, to its end.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    sync::watch,
};

use super::{
    Shared,
    flow::{Flow, Outlet},
    spawn::{Child, Control, EndOf, spawn},
};
use crate::{
    error::Result,
    limits::{CHUNK_BYTES_MAX, GRACE_MAX},
    protocol::{Channel, ExecSpec, Exit},
};

/// Runs `spec`; output goes to the host as fast as it takes it, up to the bound.
pub(super) async fn exec(shared: &Shared, flow: &mut Flow, spec: &ExecSpec) -> Result<Exit> {
    let Child { stdin, stdout, stderr, mut control, mut end, .. } = spawn(shared, spec).await?;
    let outlet = flow.outlet();
    outlet.started().await;
    let budget = Budget::new(spec.output_bytes_max);
    let (over, is_over) = watch::channel(false);
    let work = async {
        let waiting = async {
            let exit = wait(shared, &mut control, &mut end, spec).await;
            let _ = over.send(true);
            exit
        };
        let (exit, (), ()) = tokio::join!(
            waiting,
            pump(stdout, is_over.clone(), |bytes| budget.send(&outlet, Channel::Out, bytes)),
            pump(stderr, is_over.clone(), |bytes| budget.send(&outlet, Channel::Err, bytes)),
        );
        exit
    };
    let feeding = async {
        if let Some(mut stdin) = stdin {
            // Once the program closes its end, the rest is taken and dropped: the host's credit must come back.
            let mut open = true;
            while let Some(bytes) = flow.receive().await {
                open = open && stdin.write_all(&bytes).await.is_ok();
            }
        }
        std::future::pending::<()>().await;
    };
    let mut exit = tokio::select! {
        exit = work => exit,
        () = feeding => unreachable!("feeding never ends"),
    };
    exit.dropped_bytes = budget.dropped();
    Ok(exit)
}

/// Waits for the end, and brings it about when the time is over.
pub(super) async fn wait(shared: &Shared, control: &mut Control, end: &mut EndOf, spec: &ExecSpec) -> Exit {
    let waiting = end.wait(shared);
    tokio::pin!(waiting);
    let Some(timeout_ms) = spec.timeout_ms else { return waiting.await };
    tokio::select! {
        exit = &mut waiting => return exit,
        () = tokio::time::sleep(Duration::from_millis(timeout_ms)) => {}
    }
    control.kill(Duration::from_millis(spec.grace_ms).min(GRACE_MAX)).await;
    Exit { timed_out: true, ..waiting.await }
}

/// Moves a pipe's bytes until its end, or, once the command is over, until it is empty: somebody else may have been
/// given the pipe and keep it open for ever.
pub(super) async fn pump<F: Future<Output = ()>>(
    mut pipe: pipe::Receiver,
    mut over: watch::Receiver<bool>,
    mut take: impl FnMut(Vec<u8>) -> F,
) {
    let mut buffer = vec![0; CHUNK_BYTES_MAX];
    while !*over.borrow() {
        tokio::select! {
            read = pipe.read(&mut buffer) => match read {
                Ok(length) if length > 0 => take(buffer[..length].to_vec()).await,
                _ => return,
            },
            _ = over.changed() => {}
        }
    }
    // By the system call itself: the event loop may not have heard yet that there is something to read.
    while let Ok(length) = rustix::io::read(&pipe, &mut buffer) {
        if length == 0 {
            return;
        }
        take(buffer[..length].to_vec()).await;
    }
}

/// How much output still goes to the host.
struct Budget {
    left: AtomicU64,
    dropped: AtomicU64,
}

impl Budget {
    fn new(bytes: u64) -> Self {
        Self { left: AtomicU64::new(bytes), dropped: AtomicU64::new(0) }
    }

    fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    async fn send(&self, outlet: &Outlet, channel: Channel, bytes: Vec<u8>) {
        let left = self.left.load(Ordering::Relaxed);
        let keep = left.min(bytes.len() as u64);
        self.left.store(left - keep, Ordering::Relaxed);
        self.dropped.fetch_add(bytes.len() as u64 - keep, Ordering::Relaxed);
        let _ = outlet.send(channel, &bytes[..keep as usize]).await;
    }
}
