//! What a caller does with a running sandbox.
//!
//! A [`Sandbox`] is a cheap handle. Each method is one operation of the [protocol](crate::protocol); streams have
//! backpressure; dropping an [`Execution`], [`Download`], [`Upload`] or [`Watch`] cancels what it stands for, and
//! cancelling a command ends its whole process tree.

use std::{collections::BTreeMap, time::Duration};

use tokio::io::DuplexStream;

use crate::{
    error::{Code, Result, SandboxError},
    limits::{COLLECT_BYTES_MAX, GRACE_DEFAULT, OUTPUT_BYTES_DEFAULT},
    link::{Event, Input, Link, Operation},
    protocol::{
        Answer, Channel, Command, ExecSpec, Exit, FileInfo, InsideUsage, Op, ProcessInfo, WatchEvent,
    },
};

/// A running sandbox.
#[derive(Clone)]
pub struct Sandbox {
    link: Link,
}

impl ExecSpec {
    fn new(command: Command) -> Self {
        Self {
            command,
            env: BTreeMap::new(),
            cwd: None,
            stdin: false,
            timeout_ms: None,
            grace_ms: GRACE_DEFAULT.as_millis() as u64,
            output_bytes_max: OUTPUT_BYTES_DEFAULT,
            session: None,
        }
    }

    /// A line for the shell.
    pub fn shell(line: impl Into<String>) -> Self {
        Self::new(Command::Shell(line.into()))
    }

    /// A program and its arguments.
    pub fn argv<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self::new(Command::Argv(argv.into_iter().map(Into::into).collect()))
    }

    /// Ends the whole tree after this long.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout_ms = Some(timeout.as_millis() as u64);
        self
    }

    /// Adds a variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Runs in this directory.
    #[must_use]
    pub fn cwd(mut self, cwd: impl Into<String>) -> Self {
        self.cwd = Some(cwd.into());
        self
    }

    /// Runs in this session.
    #[must_use]
    pub fn session(mut self, name: impl Into<String>) -> Self {
        self.session = Some(name.into());
        self
    }
}

fn unexpected(answer: &Answer) -> SandboxError {
    SandboxError::new(Code::AgentMisbehaved, format!("an answer to another question: {answer:?}"))
}

macro_rules! expect {
    ($answer:expr, $pattern:pat => $value:expr) => {
        match $answer {
            $pattern => Ok($value),
            other => Err(unexpected(&other)),
        }
    };
}

fn ms(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

impl Sandbox {
    /// A handle on the agent behind this link.
    #[must_use]
    pub fn new(link: Link) -> Self {
        Self { link }
    }

    /// Waits until the sandbox is over, for whatever reason.
    pub async fn gone(&self) {
        self.link.closed().await;
    }

    /// Starts a command with streams.
    ///
    /// # Errors
    /// `COMMAND_NOT_FOUND`, `FILE_NOT_FOUND` (working directory), `INVALID_ARGUMENT`, `TOO_MANY`, and for a session
    /// `SESSION_NOT_FOUND`.
    pub async fn exec(&self, spec: ExecSpec) -> Result<Execution> {
        let stdin = spec.stdin && spec.session.is_none();
        let mut operation = self.link.begin(Op::Exec(spec)).await?;
        started(&mut operation).await?;
        let stdin = stdin.then(|| Stdin(operation.input()));
        Ok(Execution { operation, stdin, exit: None })
    }

    /// Runs a command and keeps its output, up to [`COLLECT_BYTES_MAX`] per stream.
    ///
    /// # Errors
    /// As [`exec`](Self::exec), and `OPERATION_INTERRUPTED`. A command that fails is not an error.
    pub async fn run(&self, spec: ExecSpec) -> Result<Completed> {
        self.exec(spec).await?.collect().await
    }

    /// Starts a background process.
    ///
    /// # Errors
    /// `PROCESS_EXISTS`, and as [`exec`](Self::exec).
    pub async fn start(&self, name: impl Into<String>, spec: ExecSpec) -> Result<ProcessInfo> {
        let answer = self.link.ask(Op::Start { name: name.into(), spec }).await?;
        expect!(answer, Answer::Process(info) => info)
    }

    /// All background processes, running or not.
    ///
    /// # Errors
    /// `OPERATION_INTERRUPTED`, as for every call.
    pub async fn processes(&self) -> Result<Vec<ProcessInfo>> {
        expect!(self.link.ask(Op::Processes).await?, Answer::Processes(all) => all)
    }

    /// Sends a signal to each process of a background process's tree.
    ///
    /// # Errors
    /// `PROCESS_NOT_FOUND`, `INVALID_ARGUMENT`.
    pub async fn signal(&self, name: impl Into<String>, signal: i32) -> Result<()> {
        self.done(Op::Signal { name: name.into(), signal }).await
    }

    /// Ends a background process's whole tree: SIGTERM, grace, SIGKILL. Returns when it is gone.
    ///
    /// # Errors
    /// `PROCESS_NOT_FOUND`.
    pub async fn kill(&self, name: impl Into<String>, grace: Duration) -> Result<ProcessInfo> {
        let answer = self.link.ask(Op::Kill { name: name.into(), grace_ms: ms(grace) }).await?;
        expect!(answer, Answer::Process(info) => info)
    }

    /// The kept log of a background process and, with `follow`, what it says until it ends.
    ///
    /// # Errors
    /// `PROCESS_NOT_FOUND`.
    pub async fn logs(&self, name: impl Into<String>, follow: bool) -> Result<Download> {
        self.download(Op::Logs { name: name.into(), follow }).await
    }

    /// Waits until something inside listens on a port.
    ///
    /// # Errors
    /// `PROCESS_READY_TIMEOUT`.
    pub async fn wait_for_port(&self, port: u16, timeout: Duration) -> Result<()> {
        self.done(Op::WaitPort { port, timeout_ms: ms(timeout) }).await
    }

    /// Waits until a background process's log contains a text.
    ///
    /// # Errors
    /// `PROCESS_NOT_FOUND`; `PROCESS_READY_TIMEOUT`, also when the process ends without it.
    pub async fn wait_for_log(
        &self,
        name: impl Into<String>,
        text: impl Into<String>,
        timeout: Duration,
    ) -> Result<()> {
        self.done(Op::WaitLog { name: name.into(), text: text.into(), timeout_ms: ms(timeout) }).await
    }

    /// Waits for the end of a background process.
    ///
    /// # Errors
    /// `PROCESS_NOT_FOUND`, `PROCESS_READY_TIMEOUT`.
    pub async fn wait_for_exit(&self, name: impl Into<String>, timeout: Duration) -> Result<ProcessInfo> {
        let answer = self.link.ask(Op::WaitExit { name: name.into(), timeout_ms: ms(timeout) }).await?;
        expect!(answer, Answer::Process(info) => info)
    }

    /// Streams a file from `offset`, at most `length` bytes. Relative paths are below `/workspace`.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`, `IS_DIRECTORY`, `NOT_A_FILE`, `INVALID_PATH`, `PERMISSION_DENIED`.
    pub async fn read_stream(
        &self,
        path: impl Into<String>,
        offset: u64,
        length: Option<u64>,
    ) -> Result<Download> {
        self.download(Op::Read { path: path.into(), offset, length }).await
    }

    /// A whole file of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// `FILE_TOO_LARGE`, and as [`read_stream`](Self::read_stream).
    pub async fn read(&self, path: impl Into<String>, bytes_max: u64) -> Result<Vec<u8>> {
        let mut download = self.read_stream(path, 0, Some(bytes_max.saturating_add(1))).await?;
        let mut all = Vec::new();
        while let Some((_, bytes)) = download.next().await? {
            all.extend(bytes);
            if all.len() as u64 > bytes_max {
                return Err(SandboxError::new(
                    Code::FileTooLarge,
                    format!("the file is over {bytes_max} bytes"),
                ));
            }
        }
        Ok(all)
    }

    /// Begins to write a file of at most `bytes_max` bytes. It appears whole, when [`Upload::finish`] succeeds.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND` (its directory), `PERMISSION_DENIED`, `INVALID_PATH`.
    pub async fn write_stream(
        &self,
        path: impl Into<String>,
        mode: Option<u32>,
        bytes_max: u64,
    ) -> Result<Upload> {
        self.upload(Op::Write { path: path.into(), mode, bytes_max }).await
    }

    /// Writes a whole file.
    ///
    /// # Errors
    /// `NO_SPACE`, and as [`write_stream`](Self::write_stream).
    pub async fn write(&self, path: impl Into<String>, bytes: &[u8]) -> Result<()> {
        let upload = self.write_stream(path, None, bytes.len() as u64).await?;
        upload.send(bytes).await?;
        upload.finish().await
    }

    /// Metadata of a path; of a link itself, not of its target.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`.
    pub async fn stat(&self, path: impl Into<String>) -> Result<FileInfo> {
        expect!(self.link.ask(Op::Stat { path: path.into() }).await?, Answer::Stat(info) => info)
    }

    /// Whether a path exists.
    ///
    /// # Errors
    /// Everything but "not found".
    pub async fn exists(&self, path: impl Into<String>) -> Result<bool> {
        match self.stat(path).await {
            Ok(_) => Ok(true),
            Err(error) if error.code == Code::FileNotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Entries of a directory, sorted by name.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`, `NOT_DIRECTORY`; `TOO_MANY` past [`LIST_ENTRIES_MAX`](crate::limits::LIST_ENTRIES_MAX).
    pub async fn list(&self, path: impl Into<String>) -> Result<Vec<FileInfo>> {
        expect!(self.link.ask(Op::List { path: path.into() }).await?, Answer::List(all) => all)
    }

    /// Makes a directory; with `parents`, the missing ones above too, and an existing one is fine.
    ///
    /// # Errors
    /// `FILE_EXISTS`, `FILE_NOT_FOUND`.
    pub async fn mkdir(&self, path: impl Into<String>, parents: bool) -> Result<()> {
        self.done(Op::Mkdir { path: path.into(), parents }).await
    }

    /// Moves a file or directory; replaces an existing file.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`, `NOT_EMPTY`.
    pub async fn rename(&self, from: impl Into<String>, to: impl Into<String>) -> Result<()> {
        self.done(Op::Rename { from: from.into(), to: to.into() }).await
    }

    /// Deletes a file or directory; never follows a link.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`, `NOT_EMPTY`.
    pub async fn delete(&self, path: impl Into<String>, recursive: bool) -> Result<()> {
        self.done(Op::Delete { path: path.into(), recursive }).await
    }

    /// Reports changes under a directory; returns once the watch is set.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`, `NOT_DIRECTORY`, `TOO_MANY`.
    pub async fn watch(&self, path: impl Into<String>, recursive: bool) -> Result<Watch> {
        let mut operation = self.link.begin(Op::Watch { path: path.into(), recursive }).await?;
        match operation.next().await {
            Event::Changed(WatchEvent::Watching) => Ok(Watch { operation }),
            Event::Reply(Err(error)) => Err(error),
            other => Err(SandboxError::new(Code::AgentMisbehaved, format!("not a watch: {other:?}"))),
        }
    }

    /// Clones a git repository that the sandbox can reach into `target`. `git` must be in the root filesystem.
    ///
    /// # Errors
    /// `COMMAND_NOT_FOUND`; `INVALID_ARGUMENT` for options in disguise. git's own failure is in the result.
    pub async fn git_checkout(
        &self,
        url: &str,
        branch: Option<&str>,
        depth: Option<u32>,
        target: &str,
        timeout: Duration,
    ) -> Result<Completed> {
        if [url, target, branch.unwrap_or_default()].iter().any(|text| text.starts_with('-')) {
            return Err(SandboxError::new(Code::InvalidArgument, "a git argument must not begin with '-'"));
        }
        let mut argv = vec!["git", "clone", "--quiet"];
        if let Some(branch) = branch {
            argv.extend(["--branch", branch]);
        }
        let depth = depth.map(|depth| depth.to_string());
        if let Some(depth) = &depth {
            argv.extend(["--depth", depth]);
        }
        argv.extend(["--", url, target]);
        let spec = ExecSpec::argv(argv).env("GIT_TERMINAL_PROMPT", "0").timeout(timeout);
        self.run(spec).await
    }

    /// Makes a session: a shell whose directory, variables and functions last.
    ///
    /// # Errors
    /// `SESSION_ALREADY_EXISTS`, `TOO_MANY`, `INVALID_ARGUMENT`.
    pub async fn create_session(
        &self,
        name: impl Into<String>,
        env: BTreeMap<String, String>,
        cwd: Option<String>,
    ) -> Result<()> {
        self.done(Op::SessionCreate { name: name.into(), env, cwd }).await
    }

    /// Ends a session and everything that runs in it.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`.
    pub async fn delete_session(&self, name: impl Into<String>) -> Result<()> {
        self.done(Op::SessionDelete { name: name.into() }).await
    }

    /// Names of all sessions.
    ///
    /// # Errors
    /// `OPERATION_INTERRUPTED`.
    pub async fn sessions(&self) -> Result<Vec<String>> {
        expect!(self.link.ask(Op::Sessions).await?, Answer::Names(names) => names)
    }

    /// Sets (or, with `None`, removes) variables for every command from now on.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`.
    pub async fn set_env(&self, env: BTreeMap<String, Option<String>>) -> Result<()> {
        self.done(Op::SetEnv { env }).await
    }

    /// Processes and disk in use.
    ///
    /// # Errors
    /// `OPERATION_INTERRUPTED`.
    pub async fn usage(&self) -> Result<InsideUsage> {
        expect!(self.link.ask(Op::Usage).await?, Answer::Usage(usage) => usage)
    }

    /// A tar of the workspace. Everything inside stands still until the download ends.
    ///
    /// # Errors
    /// `OPERATION_INTERRUPTED`.
    pub async fn snapshot(&self) -> Result<Download> {
        self.download(Op::Snapshot).await
    }

    /// Replaces the workspace's content by a tar's of at most `bytes_max` bytes unpacked, or changes nothing.
    ///
    /// # Errors
    /// From [`Upload::finish`]: `ARCHIVE_REFUSED`, `NO_SPACE`.
    pub async fn restore(&self, bytes_max: u64) -> Result<Upload> {
        self.upload(Op::Restore { bytes_max }).await
    }

    /// A connection to a port inside.
    ///
    /// # Errors
    /// `PORT_REFUSED`.
    pub async fn connect(&self, port: u16) -> Result<DuplexStream> {
        let mut operation = self.link.begin(Op::Connect { port }).await?;
        started(&mut operation).await?;
        Ok(operation.into_stream())
    }

    /// Hands every connection that the sandbox makes to `127.0.0.1:3128` to `handler`, until the sandbox ends. What
    /// may go out is the handler's to decide.
    ///
    /// # Errors
    /// `SYSTEM` if the port is taken inside, at any time; otherwise returns when the sandbox ends.
    pub async fn serve_egress<F: Future<Output = ()> + Send + 'static>(
        &self,
        handler: impl Fn(DuplexStream) -> F + Send,
    ) -> Result<()> {
        let mut connections = self.link.accept_egress();
        let listening = self.link.ask(Op::Egress);
        tokio::pin!(listening);
        loop {
            tokio::select! {
                answer = &mut listening => return answer.map(drop),
                Some(stream) = connections.recv() => drop(tokio::spawn(handler(stream))),
            }
        }
    }

    async fn done(&self, op: Op) -> Result<()> {
        expect!(self.link.ask(op).await?, Answer::Done => ())
    }

    async fn download(&self, op: Op) -> Result<Download> {
        let mut operation = self.link.begin(op).await?;
        started(&mut operation).await?;
        Ok(Download { operation })
    }

    async fn upload(&self, op: Op) -> Result<Upload> {
        let mut operation = self.link.begin(op).await?;
        started(&mut operation).await?;
        Ok(Upload { input: operation.input(), operation })
    }
}

async fn started(operation: &mut Operation) -> Result<()> {
    match operation.next().await {
        Event::Started => Ok(()),
        Event::Reply(Err(error)) => Err(error),
        other => Err(SandboxError::new(Code::AgentMisbehaved, format!("not a beginning: {other:?}"))),
    }
}

/// A running command. Dropping it ends the command's whole tree.
pub struct Execution {
    operation: Operation,
    stdin: Option<Stdin>,
    exit: Option<Exit>,
}

/// A command's standard input.
pub struct Stdin(Input);

impl Stdin {
    /// Sends bytes, as fast as the command takes them.
    ///
    /// # Errors
    /// `OPERATION_INTERRUPTED` once the command has ended.
    pub async fn write(&self, bytes: &[u8]) -> Result<()> {
        self.0.send(bytes).await
    }

    /// The end of the input.
    pub async fn close(self) {
        self.0.end().await;
    }
}

/// A command that has ended, with its output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// How it ended.
    pub exit: Exit,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Execution {
    /// The input, if the spec asked for one; once.
    pub fn stdin(&mut self) -> Option<Stdin> {
        self.stdin.take()
    }

    /// The next piece of output; `None` after the last.
    ///
    /// # Errors
    /// `OPERATION_INTERRUPTED`, `SESSION_DESTROYED`.
    pub async fn next(&mut self) -> Result<Option<(Channel, Vec<u8>)>> {
        while self.exit.is_none() {
            match self.operation.next().await {
                Event::Data(channel, bytes) => return Ok(Some((channel, bytes))),
                Event::Reply(answer) => self.exit = Some(expect!(answer?, Answer::Exit(exit) => exit)?),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Waits for the end; output not yet taken is dropped.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn wait(mut self) -> Result<Exit> {
        while self.next().await?.is_some() {}
        self.exit.ok_or_else(|| SandboxError::new(Code::AgentMisbehaved, "an end without an exit"))
    }

    /// Waits for the end and keeps the output. What is over the bound is counted as dropped.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn collect(mut self) -> Result<Completed> {
        let (mut stdout, mut stderr, mut dropped) = (Vec::new(), Vec::new(), 0);
        while let Some((channel, bytes)) = self.next().await? {
            let kept = if channel == Channel::Out { &mut stdout } else { &mut stderr };
            let room = (COLLECT_BYTES_MAX as usize).saturating_sub(kept.len()).min(bytes.len());
            kept.extend(&bytes[..room]);
            dropped += (bytes.len() - room) as u64;
        }
        let mut exit = self.wait().await?;
        exit.dropped_bytes += dropped;
        Ok(Completed { exit, stdout, stderr })
    }
}

/// Bytes that come out of a sandbox.
pub struct Download {
    operation: Operation,
}

impl Download {
    /// The next piece; `None` after the last.
    ///
    /// # Errors
    /// What ended the download early.
    pub async fn next(&mut self) -> Result<Option<(Channel, Vec<u8>)>> {
        loop {
            match self.operation.next().await {
                Event::Data(channel, bytes) => return Ok(Some((channel, bytes))),
                Event::Reply(answer) => return answer.map(|_| None),
                _ => {}
            }
        }
    }

    /// All of it, up to `bytes_max`.
    ///
    /// # Errors
    /// `FILE_TOO_LARGE`, and what ended the download early.
    pub async fn all(mut self, bytes_max: u64) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some((_, bytes)) = self.next().await? {
            all.extend(bytes);
            if all.len() as u64 > bytes_max {
                return Err(SandboxError::new(Code::FileTooLarge, format!("more than {bytes_max} bytes")));
            }
        }
        Ok(all)
    }
}

/// Bytes that go into a sandbox. Nothing has happened until [`finish`](Self::finish) succeeds.
pub struct Upload {
    input: Input,
    operation: Operation,
}

impl Upload {
    /// Sends bytes, as fast as the sandbox takes them.
    ///
    /// # Errors
    /// None that matter here: when the sandbox has stopped listening, [`finish`](Self::finish) says why.
    pub async fn send(&self, bytes: &[u8]) -> Result<()> {
        match self.input.send(bytes).await {
            Err(error) if error.code != Code::OperationInterrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// The end of the bytes; waits until they are in place.
    ///
    /// # Errors
    /// Why they are not.
    pub async fn finish(self) -> Result<()> {
        self.input.end().await;
        self.operation.answer().await.map(drop)
    }
}

/// Changes under a directory.
pub struct Watch {
    operation: Operation,
}

impl Watch {
    /// The next change.
    ///
    /// # Errors
    /// `OPERATION_INTERRUPTED` when the sandbox ends.
    pub async fn next(&mut self) -> Result<WatchEvent> {
        loop {
            match self.operation.next().await {
                Event::Changed(event) => return Ok(event),
                Event::Reply(answer) => {
                    return Err(answer.err().unwrap_or_else(|| {
                        SandboxError::new(Code::OperationInterrupted, "the watch ended")
                    }));
                }
                _ => {}
            }
        }
    }
}
