//! The files of a sandbox, built in its own mount namespace.
//!
//! ```text
//!  /                 small tmpfs owned by root inside ("host" root), or overlay over a root filesystem
//!  /usr /bin /lib…   the host's, read-only
//!  /etc              a few made files; the host's alternatives, ld.so.cache and certificates, read-only
//!  /proc             private, only own processes visible, dangerous files masked or read-only
//!  /dev              null zero full random urandom tty, own pts, shm
//!  /workspace /tmp /home/user   writable by the workload
//! ```
//!
//! Everything writable lies on one store of bounded size, so "disk full" is one number. No `/sys` at all.
//! The root filesystem is the keeper's working directory when this starts: a directory that only the host's root may
//! reach then needs no path from inside.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    mount_remount, unmount,
};

use super::Ids;
use crate::{
    error::{Context, Result, SandboxError},
    protocol::{Disk, Root, Setup},
};

/// Where the workload's work is.
pub(crate) const WORKSPACE: &str = "/workspace";
/// Directories that the workload may write to, with their modes.
const WRITABLE: &[(&str, u32)] =
    &[("workspace", 0o755), ("tmp", 0o1777), ("var/tmp", 0o1777), ("home/user", 0o755)];
/// The host's directories that make programs run.
pub(crate) const HOST_DIRS: &[&str] = &["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// The host's files under /etc without which compilers, name lookup and TLS clients fail. Nothing secret.
pub(crate) const HOST_ETC: &[&str] =
    &["alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "ssl/certs", "mime.types"];
/// Readable, but never writable, not even by root inside.
const PROC_READ_ONLY: &[&str] =
    &["sys", "sysrq-trigger", "irq", "bus", "fs", "asound", "acpi", "scsi", "driver"];
/// Not there.
pub(crate) const PROC_MASKED: &[&str] = &[
    "kcore",
    "keys",
    "key-users",
    "kmsg",
    "kallsyms",
    "kpagecount",
    "kpageflags",
    "kpagecgroup",
    "latency_stats",
    "sched_debug",
    "timer_list",
    "timer_stats",
    "vmallocinfo",
    "slabinfo",
    "pagetypeinfo",
    "modules",
    "config.gz",
];
/// Where the new root is built. Any directory that exists everywhere; what it holds is hidden, not touched.
const STAGE: &str = "/tmp";
/// Inodes of the store: each costs kernel memory.
const INODES_MAX: u64 = 200_000;

/// Builds the tree and makes it the root. Gives the directories that the workload may write to.
pub(super) fn build(setup: &Setup, ids: Ids) -> Result<Vec<String>> {
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .context("private mounts")?;
    if setup.disk == Disk::Memory {
        let inodes = (setup.limits.disk_bytes / 4096).clamp(1024, INODES_MAX);
        tmpfs(STAGE, &format!("size={},nr_inodes={inodes},mode=755", setup.limits.disk_bytes))?;
    }
    let stage = Path::new(STAGE);
    let root = stage.join("root");
    dir(&root, 0o755)?;
    match &setup.root {
        Root::Host => {
            mount_bind(&root, &root).context("bind the new root")?;
            host_dirs(&root)?;
        }
        Root::Directory(_) | Root::Tarball(_) => overlay(stage, &root)?,
    }
    etc(&root, ids)?;
    let writable = writable(stage, &root, ids)?;
    proc(&root, ids)?;
    dev(stage, &root, ids)?;
    switch_root(&root)?;
    Ok(writable)
}

fn tmpfs(path: impl rustix::path::Arg, options: &str) -> Result<()> {
    let options = std::ffi::CString::new(options).map_err(io::Error::from).context("mount options")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", path, "tmpfs", flags, options.as_c_str()).context("mount a tmpfs")
}

fn dir(path: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(path).context(&format!("make {}", path.display()))?;
    let permissions = fs::Permissions::from_mode(mode);
    fs::set_permissions(path, permissions).context(&format!("mode of {}", path.display()))
}

/// Binds and makes read-only, without devices and set-id programs, submounts included.
fn bind_read_only(from: &Path, to: &Path) -> Result<()> {
    mount_bind_recursive(from, to).context(&format!("bind {}", from.display()))?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    remount_keeping(to, flags)?;
    // Submounts one by one: the classic call has no recursive form.
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read mountinfo")?;
    let below = format!("{}/", to.display());
    for point in
        mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| point.starts_with(&below))
    {
        remount_keeping(Path::new(&point.replace("\\040", " ")), flags)?;
    }
    Ok(())
}

/// A remount inside a user namespace must keep flags that the host locked: try with each of them.
fn remount_keeping(path: &Path, flags: MountFlags) -> Result<()> {
    let locked = rustix::fs::statvfs(path).context("look at a mount")?.f_flag;
    let mut all = flags;
    for (seen, flag) in [
        (rustix::fs::StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (rustix::fs::StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (rustix::fs::StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (rustix::fs::StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ] {
        if locked.contains(seen) {
            all |= flag;
        }
    }
    mount_remount(path, all, c"").context(&format!("make {} read-only", path.display()))
}

fn host_dirs(root: &Path) -> Result<()> {
    for name in HOST_DIRS {
        let (from, to) = (Path::new("/").join(name), root.join(name));
        let Ok(found) = fs::symlink_metadata(&from) else { continue };
        if found.is_symlink() {
            let target = fs::read_link(&from).context("read a link of the host")?;
            symlink(target, &to).context("copy a link of the host")?;
        } else {
            dir(&to, 0o755)?;
            bind_read_only(&from, &to)?;
        }
    }
    for name in HOST_ETC {
        let (from, to) = (Path::new("/etc").join(name), root.join("etc").join(name));
        let Ok(found) = fs::metadata(&from) else { continue };
        if let Some(parent) = to.parent() {
            dir(parent, 0o755)?;
        }
        if found.is_dir() {
            dir(&to, 0o755)?;
        } else {
            fs::write(&to, "").context("make a file under /etc")?;
        }
        bind_read_only(&from, &to)?;
    }
    Ok(())
}

fn overlay(stage: &Path, root: &Path) -> Result<()> {
    dir(&stage.join("upper"), 0o755)?;
    dir(&stage.join("work"), 0o755)?;
    // Extended attributes in the user's name space: the others belong to the host's root.
    let options = c"lowerdir=.,upperdir=/tmp/upper,workdir=/tmp/work,userxattr";
    mount("overlay", root, "overlay", MountFlags::NOSUID | MountFlags::NODEV, options)
        .context("mount the overlay")
}

/// Names for the two users; only where the root filesystem has none.
fn etc(root: &Path, ids: Ids) -> Result<()> {
    let files = [
        (
            "passwd",
            format!(
                "root:x:0:0::/root:/bin/sh\nuser:x:{}:{}::/home/user:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
                ids.uid, ids.gid
            ),
        ),
        ("group", format!("root:x:0:\nuser:x:{}:\nnogroup:x:65534:\n", ids.gid)),
        ("hosts", "127.0.0.1 localhost\n::1 localhost\n".to_owned()),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n".to_owned()),
        ("resolv.conf", String::new()),
    ];
    let etc = root.join("etc");
    if !etc.exists() {
        dir(&etc, 0o755)?;
    }
    for (name, text) in files {
        let path = etc.join(name);
        match fs::write(&path, text) {
            Ok(()) => {}
            // Its /etc as a whole may belong to nobody here, too: then it is as its maker wanted it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(_) if path.exists() => {} // a root filesystem's own, of an owner that is nobody here
            Err(error) => return Err(SandboxError::from_io("write under /etc", &error)),
        }
    }
    Ok(())
}

/// Makes the writable directories, or covers those of the root filesystem, whose owner does not exist here.
fn writable(stage: &Path, root: &Path, ids: Ids) -> Result<Vec<String>> {
    for (name, mode) in WRITABLE {
        let path = root.join(name);
        let made = if path.exists() {
            let cover = stage.join("cover").join(name);
            dir(&cover, *mode)?;
            mount_bind(&cover, &path).context("cover a directory")?;
            path.clone()
        } else {
            match dir(&path, *mode) {
                Ok(()) => path.clone(),
                Err(_) if *name == "var/tmp" || *name == "home/user" => continue, // the parent is the image's own
                Err(error) => return Err(error),
            }
        };
        ids.own(&made)?;
    }
    let mut all = writable_places();
    for name in ["etc", "var", "opt", "root", "srv", "home", "run", "usr"] {
        all.push(format!("/{name}")); // for an overlay; file permissions and read-only mounts still rule
    }
    Ok(all)
}

/// Where a workload may write in any kind of sandbox.
pub(super) fn writable_places() -> Vec<String> {
    let mut all: Vec<String> = WRITABLE.iter().map(|(name, _)| format!("/{name}")).collect();
    all.push("/dev/shm".to_owned());
    all
}

fn proc(root: &Path, ids: Ids) -> Result<()> {
    let proc = root.join("proc");
    if !proc.exists() {
        dir(&proc, 0o555)?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // Processes of other users (the init's) are invisible but to group 0 inside, the init's own: it must see all to
    // end a tree. Pointless where all share one user.
    let options = if ids.separate { c"hidepid=2,gid=0" } else { c"" };
    mount("proc", &proc, "proc", flags, options).context("mount /proc")?;
    for name in PROC_READ_ONLY {
        let path = proc.join(name);
        if path.exists() {
            mount_bind_recursive(&path, &path).context("bind a part of /proc")?;
            remount_keeping(&path, flags | MountFlags::BIND | MountFlags::RDONLY)?;
        }
    }
    for name in PROC_MASKED {
        let path = proc.join(name);
        if path.exists() {
            mount_bind("/dev/null", &path).context("mask a part of /proc")?;
        }
    }
    Ok(())
}

fn dev(stage: &Path, root: &Path, ids: Ids) -> Result<()> {
    let dev = root.join("dev");
    if !dev.exists() {
        dir(&dev, 0o755)?;
    }
    tmpfs(&dev, "size=64k,nr_inodes=64,mode=755")?;
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let path = dev.join(name);
        fs::write(&path, "").context("make a device's place")?;
        mount_bind(Path::new("/dev").join(name), &path).context("bind a device")?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, dev.join(name)).context("link in /dev")?;
    }
    let pts = dev.join("pts");
    dir(&pts, 0o755)?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("devpts", &pts, "devpts", flags, c"newinstance,ptmxmode=0666,mode=0620")
        .context("mount /dev/pts")?;
    // Shared memory lies on the store, so the one size bound covers it.
    let (shm, place) = (stage.join("shm"), dev.join("shm"));
    dir(&shm, 0o1777)?;
    dir(&place, 0o1777)?;
    mount_bind(&shm, &place).context("bind /dev/shm")?;
    ids.own(&place)?;
    // The devices' directory itself holds nothing to change.
    let read_only = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC;
    remount_keeping(&dev, read_only)
}

/// Makes `root` the root and forgets the old one (pivot_root(2), "pivot_root(".", ".")").
fn switch_root(root: &Path) -> Result<()> {
    rustix::process::chdir(root).context("enter the new root")?;
    rustix::process::pivot_root(".", ".").context("pivot_root")?;
    unmount(".", UnmountFlags::DETACH).context("leave the old root")?;
    rustix::process::chdir("/").context("enter /")
}
