//! File operations, as the workload's user, on what the workload sees.
//!
//! Every path is opened with `openat2` and `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`: links may be followed, but the
//! root is the sandbox's, and no link of `/proc` that stands for an open file is. Only regular files are read;
//! `/proc` is not served at all, because what it shows depends on who asks, and here the agent would be asking.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, fstatfs, mkdirat, openat2,
    renameat, statat, unlinkat,
};
use rustix::io::Errno;

use super::{flow::Flow, spawn::absolute};
use crate::{
    error::{Code, Context, Result, SandboxError},
    limits::{ARCHIVE_DEPTH_MAX, CHUNK_BYTES_MAX, LIST_ENTRIES_MAX},
    protocol::{Channel, FileInfo, FileKind},
};

/// `statfs` type of `/proc` (linux/magic.h).
const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// Runs file work on a thread with the workload's file identity.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        Err(SandboxError::new(Code::OperationInterrupted, "the file operation was dropped"))
    })
}

/// Opens a path inside. Never blocks on a pipe, never follows a magic link, never serves `/proc`.
pub(super) fn open(path: &str, flags: OFlags) -> Result<OwnedFd> {
    let path = absolute(path)?;
    let root =
        rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.context("open /")?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // A path descriptor opens nothing, so nothing can block; openat2 refuses needless flags.
    let calm = if flags.contains(OFlags::PATH) { OFlags::empty() } else { OFlags::NOCTTY | OFlags::NONBLOCK };
    let flags = flags | OFlags::CLOEXEC | calm;
    let file = openat2(&root, path.as_str(), flags, Mode::empty(), resolve).context(&path)?;
    if fstatfs(&file).context(&path)?.f_type as u64 == PROC_SUPER_MAGIC {
        return Err(SandboxError::new(Code::NotAFile, format!("{path}: the file API does not serve /proc")));
    }
    Ok(file)
}

/// The directory that holds a path's last component, and that component.
fn parent(path: &str) -> Result<(OwnedFd, String)> {
    let path = absolute(path)?;
    let trimmed = path.trim_end_matches('/');
    let (dir, name) = trimmed.rsplit_once('/').unwrap_or(("", trimmed));
    if name.is_empty() || name == "." || name == ".." {
        return Err(SandboxError::new(Code::InvalidPath, format!("{path}: no name at the end")));
    }
    let dir = if dir.is_empty() { "/" } else { dir };
    Ok((open(dir, OFlags::RDONLY | OFlags::DIRECTORY)?, name.to_owned()))
}

fn kind(stat: &Stat) -> FileKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Other,
    }
}

fn info(name: &str, stat: &Stat) -> FileInfo {
    FileInfo {
        name: name.to_owned(),
        kind: kind(stat),
        size_bytes: stat.st_size.max(0).cast_unsigned(),
        mode: stat.st_mode & 0o7777,
        modified_ms: stat
            .st_mtime
            .saturating_mul(1000)
            .saturating_add(stat.st_mtime_nsec.cast_signed() / 1_000_000),
    }
}

fn open_regular(path: &str) -> Result<File> {
    let file = open(path, OFlags::RDONLY)?;
    match kind(&fstat(&file).context(path)?) {
        FileKind::File => Ok(File::from(file)),
        FileKind::Directory => Err(SandboxError::new(Code::IsDirectory, format!("{path} is a directory"))),
        _ => Err(SandboxError::new(Code::NotAFile, format!("{path} is a device, pipe or socket"))),
    }
}

/// Streams a file, or a part of it.
pub(super) async fn read(flow: &mut Flow, path: String, offset: u64, length: Option<u64>) -> Result<()> {
    let name = path.clone();
    let file = Arc::new(blocking(move || open_regular(&path)).await?);
    let outlet = flow.outlet();
    outlet.started().await;
    let end = offset.saturating_add(length.unwrap_or(u64::MAX));
    let mut at = offset;
    while at < end {
        let want = (end - at).min(CHUNK_BYTES_MAX as u64) as usize;
        let (file, name) = (Arc::clone(&file), name.clone());
        let bytes = blocking(move || {
            let mut bytes = vec![0; want];
            let length = file.read_at(&mut bytes, at).context(&name)?;
            bytes.truncate(length);
            Ok(bytes)
        })
        .await?;
        if bytes.is_empty() {
            break;
        }
        at += bytes.len() as u64;
        let _ = outlet.send(Channel::Out, &bytes).await;
    }
    Ok(())
}

/// A file being written beside its final place; gone again unless it is put there.
struct Partial {
    dir: OwnedFd,
    temporary: String,
    file: File,
    placed: bool,
}

impl Partial {
    fn new(dir: OwnedFd) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let temporary = format!(".atoll-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dir, temporary.as_str(), flags, Mode::from_raw_mode(0o600));
        Ok(Self { file: file.context("make a file")?.into(), dir, temporary, placed: false })
    }

    fn place(mut self, name: &str, mode: Option<u32>) -> Result<()> {
        let old = statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW).ok();
        if old.is_some_and(|old| kind(&old) == FileKind::Directory) {
            return Err(SandboxError::new(Code::IsDirectory, format!("{name} is a directory")));
        }
        let kept = old.filter(|old| kind(old) == FileKind::File).map(|old| old.st_mode & 0o777);
        let mode = mode.or(kept).unwrap_or(0o644) & 0o777;
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode)).context("set the mode")?;
        renameat(&self.dir, self.temporary.as_str(), &self.dir, name).context(name)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.placed {
            let _ = unlinkat(&self.dir, self.temporary.as_str(), AtFlags::empty());
        }
    }
}

/// Writes a whole file; readers see the old one or the new one. A link at the end of the path is replaced, not
/// followed.
pub(super) async fn write(flow: &mut Flow, path: String, mode: Option<u32>, bytes_max: u64) -> Result<()> {
    let (mut partial, name) = blocking(move || {
        let (dir, name) = parent(&path)?;
        Ok((Partial::new(dir)?, name))
    })
    .await?;
    flow.outlet().started().await;
    let mut total = 0;
    while let Some(bytes) = flow.receive().await {
        total += bytes.len() as u64;
        if total > bytes_max {
            return Err(SandboxError::new(
                Code::FileTooLarge,
                format!("the file is larger than {bytes_max} bytes"),
            ));
        }
        partial = blocking(move || {
            io::Write::write_all(&mut partial.file, &bytes).context("write")?;
            Ok(partial)
        })
        .await?;
    }
    blocking(move || partial.place(&name, mode)).await
}

/// Metadata; a link itself, not what it points to.
pub(super) fn stat(path: &str) -> Result<FileInfo> {
    let file = open(path, OFlags::PATH | OFlags::NOFOLLOW)?;
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    Ok(info(name, &fstat(&file).context(path)?))
}

/// Entries of a directory, by name.
pub(super) fn list(path: &str) -> Result<Vec<FileInfo>> {
    let dir = open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut all = Vec::new();
    for entry in Dir::read_from(&dir).context(path)? {
        let entry = entry.context(path)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "." || name == ".." {
            continue;
        }
        if all.len() >= LIST_ENTRIES_MAX {
            let text = format!("{path} has more than {LIST_ENTRIES_MAX} entries");
            return Err(SandboxError::new(Code::TooMany, text));
        }
        // An entry that went away meanwhile is not there.
        if let Ok(stat) = statat(&dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            all.push(info(&name, &stat));
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Makes a directory; with `parents`, all that are missing, and an existing one is fine.
pub(super) fn mkdir(path: &str, parents: bool) -> Result<()> {
    let make = |path: &str| {
        let (dir, name) = parent(path)?;
        mkdirat(&dir, name.as_str(), Mode::from_raw_mode(0o755)).context(path)
    };
    if !parents {
        return make(path);
    }
    let path = absolute(path)?;
    let mut at = String::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        at = format!("{at}/{part}");
        match open(&at, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(_) => {}
            Err(error) if error.code == Code::FileNotFound => match make(&at) {
                Err(error) if error.code != Code::FileExists => return Err(error),
                _ => {}
            },
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Moves; replaces an existing file. A container has several stores: between two of them a file is copied, as `mv` does.
pub(super) fn rename(from: &str, to: &str) -> Result<()> {
    let ((from_dir, from_name), (to_dir, to_name)) = (parent(from)?, parent(to)?);
    match renameat(&from_dir, from_name.as_str(), &to_dir, to_name.as_str()) {
        Err(Errno::XDEV) => {
            carry(&from_dir, &from_name, to_dir, &to_name)?;
            unlinkat(&from_dir, from_name.as_str(), AtFlags::empty()).context(from)
        }
        moved => moved.context(from),
    }
}

/// Copies a file to another store, with its mode and the time of its last change; never follows a link.
fn carry(from_dir: &OwnedFd, from: &str, to_dir: OwnedFd, to: &str) -> Result<()> {
    let found = statat(from_dir, from, AtFlags::SYMLINK_NOFOLLOW).context(from)?;
    if kind(&found) != FileKind::File {
        let text =
            format!("{from}: only files move between stores of a sandbox; let a command move the rest");
        return Err(SandboxError::new(Code::Unsupported, text));
    }
    let mut partial = Partial::new(to_dir)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(from_dir, from, flags, Mode::empty()).context(from)?;
    io::copy(&mut File::from(file), &mut partial.file).context("copy")?;
    let modified = UNIX_EPOCH.checked_add(Duration::new(
        found.st_mtime.max(0).cast_unsigned(),
        u32::try_from(found.st_mtime_nsec).unwrap_or(0),
    ));
    partial.file.set_modified(modified.unwrap_or(UNIX_EPOCH)).context("set the time")?;
    partial.place(to, Some(found.st_mode))
}

/// Deletes; never follows a link.
pub(super) fn delete(path: &str, recursive: bool) -> Result<()> {
    let (dir, name) = parent(path)?;
    let found = statat(&dir, name.as_str(), AtFlags::SYMLINK_NOFOLLOW).context(path)?;
    if kind(&found) != FileKind::Directory {
        return unlinkat(&dir, name.as_str(), AtFlags::empty()).context(path);
    }
    if recursive {
        empty(&dir, &name, 0)?;
    }
    unlinkat(&dir, name.as_str(), AtFlags::REMOVEDIR).context(path)
}

/// Deepest tree that is deleted here; deeper ones are a bomb, which `rm -r` inside can have.
const DELETE_DEPTH_MAX: usize = 4 * ARCHIVE_DEPTH_MAX;

/// Deletes everything in a directory, one open directory per level, no path ever resolved anew.
pub(super) fn empty(dir: &impl AsFd, name: &str, depth: usize) -> Result<()> {
    if depth > DELETE_DEPTH_MAX {
        return Err(SandboxError::new(Code::TooMany, "the directory is nested too deeply"));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inner = rustix::fs::openat(dir, name, flags, Mode::empty()).context(name)?;
    for entry in Dir::read_from(&inner).context(name)? {
        let entry = entry.context(name)?;
        let child = entry.file_name().to_string_lossy().into_owned();
        if child == "." || child == ".." {
            continue;
        }
        match unlinkat(&inner, entry.file_name(), AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::ISDIR) => {
                empty(&inner, &child, depth + 1)?;
                unlinkat(&inner, entry.file_name(), AtFlags::REMOVEDIR).context(&child)?;
            }
            Err(error) => return Err(error).context(&child),
        }
    }
    Ok(())
}
