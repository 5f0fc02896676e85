//! Commands with streams.
//!
//! ```text
//!  JSON in ─────────────────┐                     ┌─▶ JSON, when it is over
//!  ?spec=JSON, body = stdin ┴▶ exec ▸ output … ───┤
//!                                                 └─▶ events: start, stdout | stderr …, complete | error
//! ```
//!
//! Whoever goes away ends the command, its whole process tree included: the execution is dropped with the answer.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use atoll_container_bridge::limits::{COLLECT_BYTES_MAX, GRACE_MAX};
use atoll_container_bridge::manager::{Lease, Usage};
use atoll_container_bridge::protocol::{Channel, ExecSpec, Exit};
use atoll_container_bridge::sandbox::Stdin;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Response, StatusCode};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::output::{Piece, Text, send, send_error};
use super::{Call, Op, next, problem};
use crate::api::events::{self, Events, Gone};
use crate::api::input::{self, Wanted, wanted};
use crate::api::json;
use crate::deploy::now_ms;
use crate::problem::Problem;
use crate::server::body::ReplyBody;

/// What to run: a line for a shell, or a program and its arguments.
pub(super) enum CommandInput {
    Line(String),
    Argv(Vec<String>),
}

/// By hand, since serde's untagged enums do not say what is wrong.
impl<'de> Deserialize<'de> for CommandInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LineOrArgv)
    }
}

struct LineOrArgv;

impl<'de> Visitor<'de> for LineOrArgv {
    type Value = CommandInput;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a line for a shell, or a list of a program and its arguments")
    }

    fn visit_str<E: de::Error>(self, line: &str) -> Result<CommandInput, E> {
        Ok(CommandInput::Line(line.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, argv: A) -> Result<CommandInput, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(argv)).map(CommandInput::Argv)
    }
}

impl CommandInput {
    pub(super) fn spec(self) -> ExecSpec {
        match self {
            Self::Line(line) => ExecSpec::shell(line),
            Self::Argv(argv) => ExecSpec::argv(argv),
        }
    }
}

/// How output is written in answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Utf8,
    Base64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ExecInput {
    command: CommandInput,
    cwd: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    stdin: Option<String>,
    timeout_ms: Option<u64>,
    grace_ms: Option<u64>,
    session: Option<String>,
    #[serde(default)]
    encoding: Encoding,
}

/// What was used meanwhile. Of the sandbox: commands that run at once share it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UsedOutput {
    cpu_us: u64,
    memory_byte_seconds: u64,
    memory_bytes_peak: u64,
    bytes_in: u64,
    bytes_out: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CompleteOutput {
    success: bool,
    exit_code: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    timed_out: bool,
    /// It failed while processes of the sandbox were ended for want of memory.
    out_of_memory: bool,
    /// Output that was left out.
    dropped_bytes: u64,
    command: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    started_ms: u64,
    duration_ms: u64,
    usage: UsedOutput,
}

#[derive(Serialize)]
struct ExecOutput {
    #[serde(flatten)]
    complete: CompleteOutput,
    stdout: String,
    stderr: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StartOutput<'a> {
    command: &'a str,
    started_ms: u64,
}

/// A command about to run.
struct Run {
    lease: Arc<Lease>,
    spec: ExecSpec,
    stdin: Input,
    encoding: Encoding,
    before: Usage,
    call: Call,
    started_ms: u64,
    began: Instant,
}

/// Where its input comes from.
enum Input {
    None,
    Text(String),
    Body,
}

pub(super) async fn exec(mut call: Call) -> Result<Response<ReplyBody>, Problem> {
    let form = wanted(&call.headers)?;
    let (input, body) = exec_input(&mut call).await?;
    let stdin = match input.stdin {
        Some(text) if !body => Input::Text(text),
        Some(_) => return Err(Problem::bad_request("The body is the input: leave `stdin` out.")),
        None if body => Input::Body,
        None => Input::None,
    };
    let mut spec = input.command.spec();
    (spec.env, spec.cwd, spec.timeout_ms) = (input.env, input.cwd, input.timeout_ms);
    spec.session = if call.op == Op::SessionExec { Some(call.name.clone()) } else { input.session };
    spec.grace_ms = input.grace_ms.unwrap_or(spec.grace_ms).min(GRACE_MAX.as_millis() as u64);
    spec.stdin = !matches!(stdin, Input::None);
    if spec.stdin && spec.session.is_some() {
        return Err(Problem::bad_request("A command in a session has no input of its own."));
    }
    let lease = call.lease().await?;
    let before = call.caller.sandboxes.usage(&call.owner).await.unwrap_or_default();
    let (encoding, started_ms, began) = (input.encoding, now_ms(), Instant::now());
    let run = Run { lease, spec, stdin, encoding, before, call, started_ms, began };
    match form {
        Wanted::Json => run.whole().await,
        Wanted::Events => Ok(run.live()),
    }
}

/// What to run, and whether the body is its input.
async fn exec_input(call: &mut Call) -> Result<(ExecInput, bool), Problem> {
    if input::media_type(&call.headers).as_deref() != Some("application/octet-stream") {
        call.query(&[])?;
        return Ok((call.json().await?, false));
    }
    let spec = call.query(&["spec"])?.json("spec")?;
    let missing =
        || Problem::bad_request("With input as the body, the command is JSON in the query parameter `spec`.");
    Ok((spec.ok_or_else(missing)?, true))
}

/// Where output goes.
enum Sink<'a> {
    Keep { stdout: Vec<u8>, stderr: Vec<u8>, left_out: u64 },
    Live { events: &'a Events, encoding: Encoding, stdout: Text, stderr: Text },
}

impl Sink<'_> {
    async fn take(&mut self, channel: Channel, bytes: Vec<u8>) -> Result<(), Gone> {
        match self {
            Self::Keep { stdout, stderr, left_out } => {
                let kept = if channel == Channel::Err { stderr } else { stdout };
                let room = (COLLECT_BYTES_MAX as usize).saturating_sub(kept.len()).min(bytes.len());
                kept.extend_from_slice(&bytes[..room]);
                *left_out += (bytes.len() - room) as u64;
                Ok(())
            }
            Self::Live { events, encoding, stdout, stderr } => {
                let (name, text) =
                    if channel == Channel::Err { ("stderr", stderr) } else { ("stdout", stdout) };
                let data = match encoding {
                    Encoding::Utf8 => text.push(&bytes),
                    Encoding::Base64 => STANDARD.encode(bytes),
                };
                if data.is_empty() { Ok(()) } else { send(events, name, &Piece { data }).await }
            }
        }
    }

    /// What waited for the rest of a character that never came.
    async fn flush(&mut self) -> Result<(), Gone> {
        let Self::Live { events, stdout, stderr, .. } = self else { return Ok(()) };
        for (name, data) in [("stdout", stdout.rest()), ("stderr", stderr.rest())] {
            if !data.is_empty() {
                send(events, name, &Piece { data }).await?;
            }
        }
        Ok(())
    }
}

impl Run {
    async fn whole(mut self) -> Result<Response<ReplyBody>, Problem> {
        let mut sink = Sink::Keep { stdout: Vec::new(), stderr: Vec::new(), left_out: 0 };
        let mut exit = self.drive(&mut sink).await?;
        let (mut stdout, mut stderr) = (String::new(), String::new());
        if let Sink::Keep { stdout: out, stderr: err, left_out } = sink {
            exit.dropped_bytes += left_out;
            let text = |bytes: Vec<u8>| match self.encoding {
                Encoding::Utf8 => String::from_utf8_lossy(&bytes).into_owned(),
                Encoding::Base64 => STANDARD.encode(bytes),
            };
            (stdout, stderr) = (text(out), text(err));
        }
        Ok(json(StatusCode::OK, &ExecOutput { complete: self.complete(exit).await, stdout, stderr }))
    }

    fn live(mut self) -> Response<ReplyBody> {
        let (events, response) = events::response();
        tokio::spawn(async move {
            // A client that goes away ends the command: dropping the run drops what it started.
            tokio::select! {
                _ = self.tell(&events) => {}
                () = events.gone() => {}
            }
        });
        response
    }

    async fn tell(&mut self, events: &Events) -> Result<(), Gone> {
        let start = StartOutput { command: &self.spec.command.line(), started_ms: self.started_ms };
        send(events, "start", &start).await?;
        let (encoding, stdout, stderr) = (self.encoding, Text::default(), Text::default());
        let mut sink = Sink::Live { events, encoding, stdout, stderr };
        let ended = self.drive(&mut sink).await;
        sink.flush().await?;
        match ended {
            Ok(exit) => send(events, "complete", &self.complete(exit).await).await,
            Err(problem) => send_error(events, &problem).await,
        }
    }

    /// Runs the command to its end.
    async fn drive(&mut self, sink: &mut Sink<'_>) -> Result<Exit, Problem> {
        let mut execution = self.lease.exec(self.spec.clone()).await.map_err(problem)?;
        let stdin = execution.stdin();
        let input = std::mem::replace(&mut self.stdin, Input::None);
        let reading = async {
            while let Some((channel, bytes)) = execution.next().await.map_err(problem)? {
                if sink.take(channel, bytes).await.is_err() {
                    // Wait to be dropped with everything else.
                    std::future::pending::<()>().await;
                }
            }
            Ok(())
        };
        let read: Result<(), Problem> = tokio::select! {
            read = reading => read,
            broken = feed(stdin, input, &mut self.call) => Err(broken),
        };
        read?;
        execution.wait().await.map_err(problem)
    }

    async fn complete(&self, exit: Exit) -> CompleteOutput {
        let before = self.before;
        let after = self.call.caller.sandboxes.usage(&self.call.owner).await.unwrap_or(before);
        CompleteOutput {
            success: exit.code == 0,
            exit_code: exit.code,
            signal: exit.signal,
            timed_out: exit.timed_out,
            out_of_memory: exit.code != 0 && after.oom_kills > before.oom_kills,
            dropped_bytes: exit.dropped_bytes,
            command: self.spec.command.line(),
            session: self.spec.session.clone(),
            started_ms: self.started_ms,
            duration_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            usage: UsedOutput {
                cpu_us: after.cpu_us.saturating_sub(before.cpu_us),
                memory_byte_seconds: after.memory_byte_seconds.saturating_sub(before.memory_byte_seconds),
                memory_bytes_peak: after.memory_bytes_peak,
                bytes_in: after.bytes_in.saturating_sub(before.bytes_in),
                bytes_out: after.bytes_out.saturating_sub(before.bytes_out),
            },
        }
    }
}

/// Hands over the input; ends only if it breaks off.
async fn feed(stdin: Option<Stdin>, input: Input, call: &mut Call) -> Problem {
    if let Some(stdin) = stdin {
        match input {
            Input::None => {}
            // A command that has ended takes no more: its end says the rest.
            Input::Text(text) => drop(stdin.write(text.as_bytes()).await),
            Input::Body => loop {
                match next(call.body()).await {
                    Ok(Some(bytes)) if stdin.write(&bytes).await.is_ok() => {}
                    Ok(_) => break,
                    Err(problem) => return problem,
                }
            },
        }
        stdin.close().await;
    }
    std::future::pending().await
}
