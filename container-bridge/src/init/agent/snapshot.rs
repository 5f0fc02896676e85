//! The workspace as a tar, and back.
//!
//! Everything but the init is stopped (SIGSTOP) meanwhile, so the tar is one moment. A restore unpacks beside, in a
//! hidden directory of the workspace, and only when the whole archive was good swaps the entries by renames; until
//! then nothing of the old content is touched, and after a failure nothing of the new is left.
//!
//! Refused in an archive: absolute paths, `..`, devices and pipes, hard links, symbolic links that lead out of the
//! workspace, too many entries, too much depth or size. The tar crate unpacks nothing here: entries are made with
//! `openat2` and `RESOLVE_BENEATH` inside the hidden directory.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Component, Path},
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat2, renameat, statat, symlinkat},
    process::{Pid, Signal, kill_process},
};
use tokio::{runtime::Handle, sync::mpsc};

use super::{
    Shared,
    files::{self, blocking},
    flow::{Flow, Outlet},
};
use crate::{
    error::{Code, Context, Result, SandboxError},
    init::{WORKSPACE, sys},
    limits::{ARCHIVE_DEPTH_MAX, ARCHIVE_ENTRIES_MAX, CHUNK_BYTES_MAX},
    protocol::Channel,
};

/// While this lives, no process of the workload runs.
struct Paused;

impl Paused {
    /// All but `relay` stand still.
    fn new(relay: Option<Pid>) -> Self {
        sys::signal_everyone(libc::SIGSTOP);
        if let Some(relay) = relay {
            let _ = kill_process(relay, Signal::CONT);
        }
        Self
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        sys::signal_everyone(libc::SIGCONT);
    }
}

fn refused(text: impl Into<String>) -> SandboxError {
    SandboxError::new(Code::ArchiveRefused, text)
}

/// Streams a tar of the workspace.
pub(super) async fn save(shared: &Arc<Shared>, flow: &mut Flow) -> Result<()> {
    let _one = shared.pause.lock().await;
    let _paused = Paused::new(shared.relay);
    let outlet = flow.outlet();
    outlet.started().await;
    let (handle, separate) = (Handle::current(), shared.ids.separate);
    let ids = shared.ids;
    let task = tokio::task::spawn_blocking(move || {
        // Also what the workload has made unreadable for itself belongs to its snapshot.
        if separate {
            sys::set_file_ids(0, 0);
        }
        let saved = save_blocking(&handle, &outlet);
        if separate {
            sys::set_file_ids(ids.uid, ids.gid);
        }
        saved
    });
    task.await
        .unwrap_or_else(|_| Err(SandboxError::new(Code::OperationInterrupted, "the snapshot was dropped")))
}

struct Sink<'a>(&'a Handle, &'a Outlet);

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(CHUNK_BYTES_MAX);
        let sent = self.0.block_on(self.1.send(Channel::Out, &bytes[..length]));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn save_blocking(handle: &Handle, outlet: &Outlet) -> Result<()> {
    let output = io::BufWriter::with_capacity(CHUNK_BYTES_MAX, Sink(handle, outlet));
    let mut tar = tar::Builder::new(output);
    let root = files::open(WORKSPACE, OFlags::RDONLY | OFlags::DIRECTORY)?;
    save_dir(&mut tar, &root, Path::new(""))?;
    tar.into_inner().and_then(|mut output| output.flush()).context("finish the snapshot")
}

/// Opens also what the workload has made unreadable for itself. An agent without the right to overlook that has the
/// workload's user, so it may change the mode for a moment; everything else is paused.
fn open_own(dir: &OwnedFd, name: &Path, flags: OFlags, mode: u32) -> Result<OwnedFd> {
    let open = || rustix::fs::openat(dir, name, flags, Mode::empty());
    let chmod =
        |mode: u32| rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty());
    match open() {
        Err(rustix::io::Errno::ACCESS) if chmod(mode | 0o500).is_ok() => {
            let opened = open();
            chmod(mode).context("restore a mode")?;
            opened
        }
        other => other,
    }
    .context("open a file")
}

fn save_dir(tar: &mut tar::Builder<impl Write>, dir: &OwnedFd, at: &Path) -> Result<()> {
    for entry in Dir::read_from(dir).context("read a directory")? {
        let entry = entry.context("read a directory")?;
        let name = Path::new(std::ffi::OsStr::from_bytes(entry.file_name().to_bytes())).to_owned();
        if name == Path::new(".") || name == Path::new("..") {
            continue;
        }
        let path = at.join(&name);
        let stat = statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW).context("look at a file")?;
        let mut header = tar::Header::new_gnu();
        header.set_mode(stat.st_mode & 0o777);
        header.set_mtime(stat.st_mtime.max(0).cast_unsigned());
        header.set_size(0);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = |flags| open_own(dir, &name, flags, stat.st_mode);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                tar.append_data(&mut header, &path, io::empty()).context("snapshot")?;
                save_dir(tar, &open(flags | OFlags::DIRECTORY)?, &path)?;
            }
            FileType::RegularFile => {
                header.set_size(stat.st_size.max(0).cast_unsigned());
                tar.append_data(&mut header, &path, File::from(open(flags)?)).context("snapshot")?;
            }
            FileType::Symlink => {
                header.set_entry_type(tar::EntryType::Symlink);
                let target = rustix::fs::readlinkat(dir, &name, Vec::new()).context("read a link")?;
                let target = std::ffi::OsStr::from_bytes(target.as_bytes());
                tar.append_link(&mut header, &path, target).context("snapshot")?;
            }
            _ => {} // pipes and sockets are of the moment
        }
    }
    Ok(())
}

/// Bytes of the archive as a blocking reader.
struct Source {
    input: mpsc::Receiver<Vec<u8>>,
    rest: Vec<u8>,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            self.rest = self.input.blocking_recv().unwrap_or_default();
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest[..length]);
        self.rest.drain(..length);
        Ok(length)
    }
}

/// Replaces the workspace's content by the archive's, or changes nothing.
pub(super) async fn restore(shared: &Arc<Shared>, flow: &mut Flow, bytes_max: u64) -> Result<()> {
    let _one = shared.pause.lock().await;
    flow.outlet().started().await;
    let (sender, input) = mpsc::channel(1);
    let unpacking = blocking(move || {
        let staged = Staged::new()?;
        unpack(&staged, Source { input, rest: Vec::new() }, bytes_max)?;
        Ok(staged)
    });
    let feeding = async {
        let mut open = true;
        while let Some(bytes) = flow.receive().await {
            open = open && sender.send(bytes).await.is_ok();
        }
        drop(sender);
    };
    let (staged, ()) = tokio::join!(unpacking, feeding);
    let staged = staged?;
    // Stopped from the main thread, which may signal the workload; renamed by a thread with its file identity.
    let _paused = Paused::new(shared.relay);
    blocking(move || staged.commit()).await
}

/// The hidden directories beside the content; removed with all they hold.
struct Staged {
    workspace: OwnedFd,
    fresh: OwnedFd,
    old: OwnedFd,
}

const FRESH: &str = ".atoll-restore-new";
const OLD: &str = ".atoll-restore-old";

impl Staged {
    fn new() -> Result<Self> {
        let workspace = files::open(WORKSPACE, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let make = |name: &str| {
            let _ = files::empty(&workspace, name, 0);
            let _ = rustix::fs::unlinkat(&workspace, name, AtFlags::REMOVEDIR);
            mkdirat(&workspace, name, Mode::RWXU).context("make a hidden directory")?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&workspace, name, flags, Mode::empty()).context("open a hidden directory")
        };
        let (fresh, old) = (make(FRESH)?, make(OLD)?);
        Ok(Self { workspace, fresh, old })
    }

    /// Old entries out, new ones in; on any failure everything back.
    fn commit(self) -> Result<()> {
        let mut done = Vec::new();
        let result = self.swap(&mut done);
        if result.is_err() {
            for (name, from, to) in done.iter().rev() {
                let _ = renameat(to, name.as_path(), from, name.as_path());
            }
        }
        result
    }

    fn swap<'a>(&'a self, done: &mut Vec<(std::path::PathBuf, &'a OwnedFd, &'a OwnedFd)>) -> Result<()> {
        for (from, to) in [(&self.workspace, &self.old), (&self.fresh, &self.workspace)] {
            let names: Vec<_> = Dir::read_from(from)
                .context("read a directory")?
                .collect::<Result<_, _>>()
                .context("read")?;
            for entry in names {
                let name =
                    std::path::PathBuf::from(std::ffi::OsStr::from_bytes(entry.file_name().to_bytes()));
                if [".", "..", FRESH, OLD].iter().any(|own| name == Path::new(own)) {
                    continue;
                }
                renameat(from, &name, to, &name).context("swap the workspace")?;
                done.push((name, from, to));
            }
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for name in [FRESH, OLD] {
            let _ = files::empty(&self.workspace, name, 0);
            let _ = rustix::fs::unlinkat(&self.workspace, name, AtFlags::REMOVEDIR);
        }
    }
}

fn unpack(staged: &Staged, source: Source, bytes_max: u64) -> Result<()> {
    let mut archive = tar::Archive::new(source);
    let (mut entries, mut bytes) = (0, 0u64);
    for entry in archive.entries().map_err(|error| refused(format!("not a tar: {error}")))? {
        let mut entry = entry.map_err(|error| refused(format!("not a tar: {error}")))?;
        entries += 1;
        bytes = bytes.saturating_add(entry.size());
        if entries > ARCHIVE_ENTRIES_MAX || bytes > bytes_max {
            return Err(refused("the archive has too many entries or bytes"));
        }
        let path = entry.path().map_err(|error| refused(format!("a bad path: {error}")))?.into_owned();
        let path = checked(&path)?;
        let kind = entry.header().entry_type();
        let mode = Mode::from_raw_mode(entry.header().mode().unwrap_or(0o644) & 0o777);
        if path.as_os_str().is_empty() {
            continue; // "./" itself
        }
        match kind {
            tar::EntryType::Directory => make_dirs(&staged.fresh, &path)?,
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mut file = File::from(beneath(&staged.fresh, &path, flags, mode | Mode::WUSR)?);
                io::copy(&mut entry, &mut file).map_err(|error| match error.kind() {
                    io::ErrorKind::StorageFull => SandboxError::from_io("restore", &error),
                    _ => refused(format!("the archive ends early or is damaged: {error}")),
                })?;
                rustix::fs::fchmod(&file, mode).context("restore a mode")?;
            }
            tar::EntryType::Symlink => {
                let target =
                    entry.link_name().ok().flatten().ok_or_else(|| refused("a link without target"))?;
                let parent = path.parent().unwrap_or(Path::new(""));
                if target.is_absolute() || leaves(parent, &target) {
                    return Err(refused(format!(
                        "a link leads out: {} -> {}",
                        path.display(),
                        target.display()
                    )));
                }
                make_dirs(&staged.fresh, parent)?;
                let (dir, name) = (open_dir(&staged.fresh, parent)?, path.file_name().unwrap_or_default());
                symlinkat(target.as_ref(), &dir, name).context("restore a link")?;
            }
            other => return Err(refused(format!("{}: an entry of type {other:?}", path.display()))),
        }
    }
    Ok(())
}

/// A path with nothing but names, at most so deep.
fn checked(path: &Path) -> Result<std::path::PathBuf> {
    let mut clean = std::path::PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            _ => return Err(refused(format!("a path leads out: {}", path.display()))),
        }
    }
    let reserved = clean
        .components()
        .next()
        .is_some_and(|first| [FRESH, OLD].iter().any(|own| first.as_os_str() == *own));
    if clean.components().count() > ARCHIVE_DEPTH_MAX || reserved {
        return Err(refused(format!("a path is too deep or reserved: {}", path.display())));
    }
    Ok(clean)
}

/// Whether a relative link in `dir` climbs above the root, looking at names alone.
fn leaves(dir: &Path, target: &Path) -> bool {
    let mut depth = dir.components().count() as i64;
    target.components().any(|part| {
        depth += match part {
            Component::ParentDir => -1,
            Component::Normal(_) => 1,
            _ => 0,
        };
        depth < 0
    })
}

fn open_dir(root: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(root, path, flags, Mode::empty(), resolve)
        .map_err(|_| refused(format!("{} is no directory", path.display())))
}

fn make_dirs(root: &OwnedFd, path: &Path) -> Result<()> {
    let mut at = std::path::PathBuf::new();
    for part in path.components() {
        let dir = open_dir(root, &at)?;
        match mkdirat(&dir, part.as_os_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error).context("restore a directory"),
        }
        at.push(part);
    }
    open_dir(root, path).map(drop)
}

/// Opens below the hidden directory; a link made by an earlier entry is never followed.
fn beneath(root: &OwnedFd, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    make_dirs(root, path.parent().unwrap_or(Path::new("")))?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(root, path, flags, mode, resolve).map_err(|error| match error {
        rustix::io::Errno::EXIST => refused(format!("{} comes twice", path.display())),
        rustix::io::Errno::LOOP | rustix::io::Errno::XDEV => refused(format!("{} leads out", path.display())),
        error => SandboxError::from_io("restore a file", &error.into()),
    })
}
