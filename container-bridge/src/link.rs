//! The host's end of one sandbox's socket: numbers operations, routes what comes back, gives and takes credit.
//!
//! The agent is believed nothing: a frame for an unknown operation is ignored (it may have been cancelled), one that
//! breaks the rules of credit closes the link, and with it the sandbox.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    sync::{Semaphore, mpsc, watch},
};

use crate::{
    error::{Code, Result, SandboxError},
    flow::{QUEUED_MAX, cost},
    frame,
    limits::{CHUNK_BYTES_MAX, FRAMES_QUEUED_MAX, OPERATIONS_MAX, WINDOW_BYTES},
    protocol::{AGENT_ID, Answer, Channel, FromAgent, Id, Op, ToAgent, WatchEvent},
};

/// A handle on the socket; clones share it.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    next: AtomicU32,
    calls: Mutex<HashMap<Id, Call>>,
    frames: mpsc::Sender<ToAgent>,
    cancels: mpsc::UnboundedSender<Id>,
    closed: watch::Sender<bool>,
    egress: Mutex<Option<mpsc::Sender<DuplexStream>>>,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

struct Call {
    events: mpsc::Sender<Event>,
    credit: Arc<Semaphore>,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.credit.close(); // what waits to send is told
    }
}

/// What comes back from an operation.
#[derive(Debug)]
pub(crate) enum Event {
    Started,
    Data(Channel, Vec<u8>),
    Changed(WatchEvent),
    Reply(Result<Answer>),
}

/// One operation; dropping it cancels it.
pub(crate) struct Operation {
    link: Arc<Inner>,
    id: Id,
    events: mpsc::Receiver<Event>,
    credit: Arc<Semaphore>,
    done: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn interrupted() -> SandboxError {
    SandboxError::new(Code::OperationInterrupted, "the sandbox stopped")
}

impl Link {
    /// Takes over a socket and waits until the agent says that the sandbox is up.
    ///
    /// # Errors
    /// What the init reports, or `BACKEND_FAILED` if it says nothing.
    pub async fn open(
        mut input: impl AsyncRead + Unpin + Send + 'static,
        output: impl AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Self> {
        match frame::read::<FromAgent>(&mut input).await {
            Ok(Some(FromAgent::Ready)) => {}
            Ok(Some(FromAgent::Failed(error))) => return Err(error),
            Ok(Some(_)) => {
                return Err(SandboxError::new(Code::AgentMisbehaved, "the agent did not say ready"));
            }
            Ok(None) => {
                return Err(SandboxError::new(Code::BackendFailed, "the sandbox's init ended at once"));
            }
            Err(error) => return Err(SandboxError::new(Code::BackendFailed, error.to_string())),
        }
        let (frames, queue) = mpsc::channel(FRAMES_QUEUED_MAX);
        #[expect(
            clippy::disallowed_methods,
            reason = "one entry per operation at most, and those are bounded"
        )]
        let (cancels, cancelled) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            next: AtomicU32::new(1),
            calls: Mutex::default(),
            frames,
            cancels,
            closed: watch::channel(false).0,
            egress: Mutex::default(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        });
        tokio::spawn(write(output, queue, cancelled, inner.closed.subscribe()));
        tokio::spawn(read(input, Arc::clone(&inner)));
        Ok(Self(inner))
    }

    /// Ends the link: everything that waits on it is interrupted.
    pub fn close(&self) {
        self.0.close();
    }

    /// Waits until the link is over, from whatever side.
    pub async fn closed(&self) {
        let mut closed = self.0.closed.subscribe();
        let _ = closed.wait_for(|closed| *closed).await;
    }

    /// Bytes sent into and received from the sandbox so far.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.0.bytes_in.load(Ordering::Relaxed), self.0.bytes_out.load(Ordering::Relaxed))
    }

    /// Begins an operation.
    pub(crate) async fn begin(&self, op: Op) -> Result<Operation> {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed) & !AGENT_ID;
        let operation = self.0.register(id)?;
        let message = ToAgent::Request { id, op };
        self.0.frames.send(message).await.map_err(|_| interrupted())?;
        Ok(operation)
    }

    /// An operation with nothing but an answer.
    pub(crate) async fn ask(&self, op: Op) -> Result<Answer> {
        self.begin(op).await?.answer().await
    }

    /// Connections that the sandbox makes to its egress port, from now on.
    pub(crate) fn accept_egress(&self) -> mpsc::Receiver<DuplexStream> {
        let (sender, receiver) = mpsc::channel(OPERATIONS_MAX);
        *lock(&self.0.egress) = Some(sender);
        receiver
    }
}

impl Inner {
    fn register(self: &Arc<Self>, id: Id) -> Result<Operation> {
        // A few more than the window's frames: start, end and reply cost no credit.
        let (events, receiver) = mpsc::channel(QUEUED_MAX + 4);
        let credit = Arc::new(Semaphore::new(WINDOW_BYTES));
        let mut calls = lock(&self.calls);
        if *self.closed.borrow() {
            return Err(interrupted());
        }
        if calls.len() >= 2 * OPERATIONS_MAX || calls.contains_key(&id) {
            return Err(SandboxError::new(Code::TooMany, "too many operations at once"));
        }
        calls.insert(id, Call { events, credit: Arc::clone(&credit) });
        Ok(Operation { link: Arc::clone(self), id, events: receiver, credit, done: false })
    }

    fn close(&self) {
        self.closed.send_replace(true);
        lock(&self.calls).clear();
        *lock(&self.egress) = None;
    }

    /// Routes one frame. `Err` means that the agent broke the rules.
    fn route(self: &Arc<Self>, message: FromAgent) -> Result<(), &'static str> {
        let (id, event) = match message {
            FromAgent::Started { id } => (id, Event::Started),
            FromAgent::Data { id, channel, bytes } => {
                if bytes.len() > CHUNK_BYTES_MAX {
                    return Err("a piece is too large");
                }
                self.bytes_out.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                (id, Event::Data(channel, bytes))
            }
            FromAgent::Changed { id, event } => (id, Event::Changed(event)),
            FromAgent::Reply { id, result } => {
                if let Some(call) = lock(&self.calls).remove(&id) {
                    let _ = call.events.try_send(Event::Reply(result));
                }
                return Ok(());
            }
            FromAgent::Credit { id, bytes } => {
                if let Some(call) = lock(&self.calls).get(&id) {
                    let room = WINDOW_BYTES.saturating_sub(call.credit.available_permits());
                    call.credit.add_permits(room.min(bytes as usize));
                }
                return Ok(());
            }
            FromAgent::Accepted { id } => return self.accepted(id),
            FromAgent::Ready | FromAgent::Failed(_) => return Err("a second beginning"),
        };
        match lock(&self.calls).get(&id).map(|call| call.events.try_send(event)) {
            Some(Err(mpsc::error::TrySendError::Full(_))) => Err("more than its credit"),
            _ => Ok(()),
        }
    }

    fn accepted(self: &Arc<Self>, id: Id) -> Result<(), &'static str> {
        if id & AGENT_ID == 0 {
            return Err("a stream with a number of the host's");
        }
        let Some(egress) = lock(&self.egress).clone() else { return Err("egress that nobody asked for") };
        let Ok(operation) = self.register(id) else { return Err("too many egress streams") };
        if egress.try_send(operation.into_stream()).is_err() {
            return Err("more egress streams than fit");
        }
        Ok(())
    }
}

async fn write(
    mut output: impl AsyncWrite + Unpin,
    mut frames: mpsc::Receiver<ToAgent>,
    mut cancels: mpsc::UnboundedReceiver<Id>,
    mut closed: watch::Receiver<bool>,
) {
    loop {
        let message = tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => break,
            Some(id) = cancels.recv() => ToAgent::Cancel { id },
            Some(message) = frames.recv() => message,
            else => break,
        };
        let written = tokio::select! {
            _ = closed.wait_for(|closed| *closed) => break,
            written = frame::write(&mut output, &message) => written,
        };
        if written.is_err() {
            break;
        }
    }
    let _ = output.shutdown().await;
}

async fn read(mut input: impl AsyncRead + Unpin, inner: Arc<Inner>) {
    let mut closed = inner.closed.subscribe();
    loop {
        let message = tokio::select! {
            _ = closed.wait_for(|closed| *closed) => break,
            message = frame::read(&mut input) => message,
        };
        let broken = match message {
            Ok(Some(message)) => inner.route(message).err().map(str::to_owned),
            Ok(None) => break,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Some(error.to_string()),
            Err(_) => break,
        };
        if let Some(what) = broken {
            tracing::warn!(what, "a sandbox's agent broke the protocol");
            break;
        }
    }
    inner.close();
}

impl Operation {
    /// The next event; gives credit for data. After the reply, or when the sandbox is gone: an error reply.
    pub(crate) async fn next(&mut self) -> Event {
        if self.done {
            return Event::Reply(Err(interrupted()));
        }
        let event = self.events.recv().await.unwrap_or_else(|| Event::Reply(Err(interrupted())));
        match &event {
            Event::Data(_, bytes) if !bytes.is_empty() => self.grant(bytes.len()).await,
            Event::Changed(_) => self.grant(0).await,
            Event::Reply(_) => self.done = true,
            _ => {}
        }
        event
    }

    async fn grant(&self, length: usize) {
        let _ = self.link.frames.send(ToAgent::Credit { id: self.id, bytes: cost(length) }).await;
    }

    /// The final answer; what comes before is dropped.
    pub(crate) async fn answer(mut self) -> Result<Answer> {
        loop {
            if let Event::Reply(result) = self.next().await {
                return result;
            }
        }
    }

    /// A way to send input while somebody else reads the events.
    pub(crate) fn input(&self) -> Input {
        Input { link: Arc::clone(&self.link), id: self.id, credit: Arc::clone(&self.credit) }
    }

    /// The operation as a plain byte stream, carried by a task of its own.
    pub(crate) fn into_stream(mut self) -> DuplexStream {
        let (outer, inner) = tokio::io::duplex(CHUNK_BYTES_MAX);
        tokio::spawn(async move {
            let (mut from_user, mut to_user) = tokio::io::split(inner);
            let input = self.input();
            let inward = async {
                let mut buffer = vec![0; CHUNK_BYTES_MAX];
                while let Ok(length) = from_user.read(&mut buffer).await
                    && length > 0
                {
                    if input.send(&buffer[..length]).await.is_err() {
                        return;
                    }
                }
                input.end().await;
            };
            let outward = async {
                loop {
                    match self.next().await {
                        Event::Data(_, bytes) if bytes.is_empty() => drop(to_user.shutdown().await),
                        Event::Data(_, bytes) => match to_user.write_all(&bytes).await {
                            Ok(()) => {}
                            Err(_) => return,
                        },
                        Event::Reply(_) => {
                            let _ = to_user.shutdown().await;
                            return;
                        }
                        _ => {}
                    }
                }
            };
            tokio::pin!(inward, outward);
            // The end of the stream is the agent's reply; input may end long before.
            tokio::select! {
                () = &mut outward => {}
                () = &mut inward => outward.await,
            }
        });
        outer
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if !self.done {
            lock(&self.link.calls).remove(&self.id);
            let _ = self.link.cancels.send(self.id);
        }
    }
}

/// The input of an operation.
pub(crate) struct Input {
    link: Arc<Inner>,
    id: Id,
    credit: Arc<Semaphore>,
}

impl Input {
    /// Sends bytes, as fast as the sandbox takes them.
    pub(crate) async fn send(&self, bytes: &[u8]) -> Result<()> {
        for chunk in bytes.chunks(CHUNK_BYTES_MAX) {
            self.credit.acquire_many(cost(chunk.len())).await.map_err(|_| interrupted())?.forget();
            self.link.bytes_in.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            let message = ToAgent::Data { id: self.id, bytes: chunk.to_vec() };
            self.link.frames.send(message).await.map_err(|_| interrupted())?;
        }
        Ok(())
    }

    /// No more input.
    pub(crate) async fn end(&self) {
        let _ = self.link.frames.send(ToAgent::End { id: self.id }).await;
    }
}
