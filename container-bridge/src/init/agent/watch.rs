//! Changes under a directory, through inotify.

use std::{
    collections::{HashMap, VecDeque},
    io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use super::{files, flow::Flow};
use crate::{
    error::{Code, Context, Result, SandboxError},
    init::sys,
    limits::{WATCH_DIRECTORIES_MAX, WATCH_EVENTS_QUEUED_MAX},
    protocol::{FileKind, WatchEvent},
};

/// Reports changes until cancelled. New directories of a recursive watch are covered from when they are seen.
pub(super) async fn watch(flow: &mut Flow, path: String, recursive: bool) -> Result<()> {
    let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("inotify")?;
    let mut watches = Watches { dirs: HashMap::new(), recursive };
    let root = path.trim_end_matches('/').to_owned();
    let (queue, mut watches) = files::blocking(move || {
        watches.add_tree(&queue, &root)?;
        Ok((queue, watches))
    })
    .await?;
    let queue = sys::readable(queue).context("inotify")?;
    let outlet = flow.outlet();
    outlet.changed(WatchEvent::Watching).await;
    loop {
        let mut ready = queue.readable().await.context("inotify")?;
        let mut events = VecDeque::new();
        match watches.read(queue.get_ref(), &mut events) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            Err(error) => return Err(error).context("inotify"),
            Ok(()) => {}
        }
        for event in events {
            if recursive && let WatchEvent::Created(path) = &event {
                watches.add_new(queue.get_ref(), path);
            }
            outlet.changed(event).await;
        }
    }
}

struct Watches {
    dirs: HashMap<i32, String>,
    recursive: bool,
}

impl Watches {
    fn add(&mut self, queue: &OwnedFd, path: &str) -> Result<()> {
        if self.dirs.len() >= WATCH_DIRECTORIES_MAX {
            return Err(SandboxError::new(
                Code::TooMany,
                format!("more than {WATCH_DIRECTORIES_MAX} directories"),
            ));
        }
        let dir = files::open(path, rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY)?;
        let flags = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::ONLYDIR;
        // By the descriptor just checked, not by the path again.
        let by_fd = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir));
        let number = inotify::add_watch(queue, by_fd, flags).context(path)?;
        self.dirs.insert(number, path.to_owned());
        Ok(())
    }

    fn add_tree(&mut self, queue: &OwnedFd, path: &str) -> Result<()> {
        self.add(queue, path)?;
        if self.recursive {
            for entry in files::list(path)? {
                if entry.kind == FileKind::Directory {
                    self.add_tree(queue, &format!("{path}/{}", entry.name))?;
                }
            }
        }
        Ok(())
    }

    /// A directory that appeared; one that is gone again, or one too many, is not covered.
    fn add_new(&mut self, queue: &OwnedFd, path: &str) {
        if files::stat(path).is_ok_and(|found| found.kind == FileKind::Directory) {
            let _ = self.add_tree(queue, path);
        }
    }

    fn read(&mut self, queue: &OwnedFd, events: &mut VecDeque<WatchEvent>) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(queue, &mut buffer);
        loop {
            let event = reader.next()?;
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                events.push_back(WatchEvent::Overflow);
            } else if flags.contains(ReadFlags::IGNORED) {
                self.dirs.remove(&event.wd());
            } else if let (Some(dir), Some(name)) = (self.dirs.get(&event.wd()), event.file_name()) {
                let path = format!("{dir}/{}", name.to_string_lossy());
                events.push_back(if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                    WatchEvent::Created(path)
                } else if flags.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
                    WatchEvent::Deleted(path)
                } else {
                    WatchEvent::Modified(path)
                });
            }
            if events.len() >= WATCH_EVENTS_QUEUED_MAX || reader.is_buffer_empty() {
                return Ok(());
            }
        }
    }
}
