//! Files: bytes as bodies in both directions, everything else as JSON. A path is a query parameter, decoded once; where it
//! leads is resolved inside the sandbox, by what runs there.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use atoll_container_bridge::error::Code;
use atoll_container_bridge::manager::Lease;
use atoll_container_bridge::protocol::{FileInfo, FileKind, WatchEvent};
use atoll_container_bridge::sandbox::{Download, Watch};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::output::{send, send_error};
use super::processes::draining;
use super::{Call, next, no_content, problem};
use crate::api::events::{self, Events, Gone};
use crate::api::json;
use crate::problem::Problem;
use crate::server::body::{BoxError, ReplyBody};

/// Pieces of a download that wait for a slow client.
const PIECES_WAITING_MAX: usize = 2;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FileOutput {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    size: u64,
    mode: u32,
    modified_ms: i64,
}

impl From<FileInfo> for FileOutput {
    fn from(info: FileInfo) -> Self {
        let kind = match info.kind {
            FileKind::File => "file",
            FileKind::Directory => "directory",
            FileKind::Symlink => "symlink",
            FileKind::Other => "other",
        };
        Self { name: info.name, kind, size: info.size_bytes, mode: info.mode, modified_ms: info.modified_ms }
    }
}

#[derive(Serialize)]
struct FilesOutput {
    path: String,
    files: Vec<FileOutput>,
}

#[derive(Serialize)]
struct StatOutput {
    exists: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<FileOutput>,
}

#[derive(Serialize)]
struct WrittenOutput {
    path: String,
    bytes: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MkdirInput {
    path: String,
    #[serde(default)]
    recursive: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RenameInput {
    from: String,
    to: String,
}

pub(super) async fn read(call: &Call) -> Result<Response<ReplyBody>, Problem> {
    let query = call.query(&["path", "offset", "length"])?;
    let (offset, length) = (query.json("offset")?.unwrap_or(0), query.json("length")?);
    let lease = call.lease().await?;
    let download = lease.read_stream(query.need("path")?, offset, length).await.map_err(problem)?;
    Ok(bytes(lease, download, "application/octet-stream"))
}

/// A download as a body; the sandbox is in use until it is over.
pub(super) fn bytes(
    lease: Arc<Lease>,
    mut download: Download,
    media_type: &'static str,
) -> Response<ReplyBody> {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, BoxError>>(PIECES_WAITING_MAX);
    tokio::spawn(async move {
        let _in_use = lease;
        loop {
            let piece = tokio::select! {
                piece = download.next() => piece,
                () = sender.closed() => return,
            };
            let piece = match piece {
                Ok(Some((_, bytes))) => Ok(bytes.into()),
                Ok(None) => return,
                Err(error) => Err(error.into()),
            };
            let last = piece.is_err();
            if sender.send(piece).await.is_err() || last {
                return;
            }
        }
    });
    let mut response = Response::new(ReplyBody::stream(Pieces(receiver)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A body from a queue.
struct Pieces(mpsc::Receiver<Result<Bytes, BoxError>>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// The file appears whole, or not at all.
pub(super) async fn write(mut call: Call) -> Result<Response<ReplyBody>, Problem> {
    let query = call.query(&["path", "mode"])?;
    let path = query.need("path")?.to_owned();
    let mode = query.json("mode")?;
    let disk_bytes = call.caller.sandboxes.disk_bytes();
    let upload = call.lease().await?.write_stream(&*path, mode, disk_bytes).await.map_err(problem)?;
    let mut written = 0;
    while let Some(bytes) = next(call.body()).await? {
        upload.send(&bytes).await.map_err(problem)?;
        written += bytes.len() as u64;
    }
    upload.finish().await.map_err(problem)?;
    Ok(json(StatusCode::OK, &WrittenOutput { path, bytes: written }))
}

pub(super) async fn delete(call: &Call) -> Result<Response<ReplyBody>, Problem> {
    let query = call.query(&["path", "recursive"])?;
    let (path, recursive) = (query.need("path")?, query.flag("recursive")?);
    call.lease().await?.delete(path, recursive).await.map_err(problem)?;
    Ok(no_content())
}

pub(super) async fn list(call: &Call) -> Result<Response<ReplyBody>, Problem> {
    let query = call.query(&["path"])?;
    let path = query.need("path")?;
    let files = call.lease().await?.list(path).await.map_err(problem)?;
    let files = files.into_iter().map(Into::into).collect();
    Ok(json(StatusCode::OK, &FilesOutput { path: path.to_owned(), files }))
}

pub(super) async fn stat(call: &Call) -> Result<Response<ReplyBody>, Problem> {
    let query = call.query(&["path"])?;
    let path = query.need("path")?;
    let file = match call.lease().await?.stat(path).await {
        Ok(info) => Some(info.into()),
        Err(error) if matches!(error.code, Code::FileNotFound | Code::NotDirectory) => None,
        Err(error) => return Err(problem(error)),
    };
    Ok(json(StatusCode::OK, &StatOutput { exists: file.is_some(), file }))
}

pub(super) async fn mkdir(mut call: Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    let MkdirInput { path, recursive } = call.json().await?;
    call.lease().await?.mkdir(path, recursive).await.map_err(problem)?;
    Ok(no_content())
}

pub(super) async fn rename(mut call: Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    let RenameInput { from, to } = call.json().await?;
    call.lease().await?.rename(from, to).await.map_err(problem)?;
    Ok(no_content())
}

#[derive(Serialize)]
struct Changed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
}

pub(super) async fn watch(call: Call) -> Result<Response<ReplyBody>, Problem> {
    let query = call.query(&["path", "recursive"])?;
    let (path, recursive) = (query.need("path")?.to_owned(), query.flag("recursive")?);
    let lease = call.lease().await?;
    let watch = lease.watch(path, recursive).await.map_err(problem)?;
    let (events, response) = events::response();
    tokio::spawn(async move {
        let _in_use = lease;
        tokio::select! {
            _ = tell(watch, &events) => {}
            () = events.gone() => {}
            () = draining(&call) => {}
        }
    });
    Ok(response)
}

async fn tell(mut watch: Watch, events: &Events) -> Result<(), Gone> {
    send(events, "watching", &Changed { path: None }).await?;
    loop {
        let (name, path) = match watch.next().await {
            Ok(WatchEvent::Watching) => continue,
            Ok(WatchEvent::Created(path)) => ("create", Some(path)),
            Ok(WatchEvent::Modified(path)) => ("modify", Some(path)),
            Ok(WatchEvent::Deleted(path)) => ("delete", Some(path)),
            Ok(WatchEvent::Overflow) => ("overflow", None),
            Err(error) => return send_error(events, &problem(error)).await,
        };
        send(events, name, &Changed { path: path.as_deref() }).await?;
    }
}
