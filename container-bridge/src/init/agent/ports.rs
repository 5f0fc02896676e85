//! Bytes to and from ports inside: previews, and the way out through the host's egress.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use super::{Running, Shared, flow::Flow};
use crate::{
    error::{Code, Context, Result, SandboxError},
    limits::{CHUNK_BYTES_MAX, EGRESS_PORT, OPERATIONS_MAX},
    protocol::{AGENT_ID, Answer, Channel, FromAgent},
};

/// Time between two looks at a port.
const LOOK: Duration = Duration::from_millis(25);

/// Waits until something listens.
pub(super) async fn wait(port: u16, timeout_ms: u64) -> Result<()> {
    let waiting = async {
        while dial(port).await.is_err() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(Duration::from_millis(timeout_ms), waiting).await.map_err(|_| {
        SandboxError::new(Code::ProcessReadyTimeout, format!("nothing listens on port {port} in time"))
    })
}

async fn dial(port: u16) -> std::io::Result<TcpStream> {
    match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(stream) => Ok(stream),
        Err(_) => TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await,
    }
}

/// One connection to a port inside.
pub(super) async fn connect(flow: &mut Flow, port: u16) -> Result<()> {
    let stream = dial(port)
        .await
        .map_err(|error| SandboxError::new(Code::PortRefused, format!("port {port} inside: {error}")))?;
    flow.outlet().started().await;
    carry(flow, stream).await;
    Ok(())
}

/// Moves bytes both ways until both directions have ended.
async fn carry(flow: &mut Flow, stream: TcpStream) {
    let (mut input, mut output) = stream.into_split();
    let outlet = flow.outlet();
    let out = async {
        let mut buffer = vec![0; CHUNK_BYTES_MAX];
        while let Ok(length) = input.read(&mut buffer).await
            && length > 0
        {
            let _ = outlet.send(Channel::Out, &buffer[..length]).await;
        }
        // No bytes: the other side has sent all. The host still may send.
        outlet.end().await;
    };
    let inward = async {
        let mut open = true;
        while let Some(bytes) = flow.receive().await {
            open = open && output.write_all(&bytes).await.is_ok();
        }
        let _ = output.shutdown().await;
    };
    tokio::join!(out, inward);
}

/// Listens on the egress port until cancelled; each connection is a stream of its own to the host.
pub(super) async fn egress(shared: &Arc<Shared>) -> Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, EGRESS_PORT));
    let listener = TcpListener::bind(address).await.context("listen for egress")?;
    let places = Arc::new(Semaphore::new(OPERATIONS_MAX / 2));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let (stream, _) = listener.accept().await.context("accept for egress")?;
        let id = AGENT_ID | (NEXT.fetch_add(1, Ordering::Relaxed) & !AGENT_ID);
        let (mut flow, inlet, window) = Flow::new(id, shared.frames.clone());
        let mut running = shared.running(); // held over the spawn: the task must find itself in here
        let tunnel = Arc::clone(shared);
        let task = tokio::spawn(async move {
            let _place = place;
            let _ = tunnel.frames.send(FromAgent::Accepted { id }).await;
            carry(&mut flow, stream).await;
            let _ = tunnel.frames.send(FromAgent::Reply { id, result: Ok(Answer::Done) }).await;
            tunnel.running().remove(&id);
        });
        running.insert(id, Running { inlet, window, task: task.abort_handle() });
    }
}
