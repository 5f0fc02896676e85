//! A disk of bounded size that is not memory: an ext4 image in a sparse file.
//!
//! The file is deleted and the loop device set to detach itself as soon as both are in use, so the end of the last
//! process removes everything. Only for a host that is root: mounting a real filesystem needs its rights.

use std::{
    fs::{self, File, OpenOptions},
    os::{
        fd::AsRawFd,
        unix::fs::{OpenOptionsExt, chown},
    },
    process::{Command, Stdio},
};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use super::sys;
use crate::{
    error::{Code, Context, Result, SandboxError},
    protocol::Setup,
};

/// How often another process may take the free loop device before ours does.
const TRIES_MAX: u32 = 16;

// linux/loop.h; libc has none of it.
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_config`: descriptor, block size, `struct loop_info64`, reserved words.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: [u64; 29],
    reserved: [u64; 8],
}

/// Mounts the store where [`mounts`](super::mounts) expects it, in a mount namespace of the keeper's own.
pub(super) fn mount_store(setup: &Setup) -> Result<()> {
    let Some(owner) = setup.uid_base else {
        return Err(SandboxError::new(
            Code::Unsupported,
            "a disk image needs a host that is root; use memory",
        ));
    };
    sys::own_mount_namespace().context("mount namespace")?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .context("private mounts")?;
    let path = std::env::temp_dir().join(format!("atoll-disk-{}", setup.id));
    let made = make_image(&path, setup.limits.disk_bytes);
    let opened = made.and_then(|()| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_CLOEXEC)
            .open(&path)
            .context("open the image")
    });
    let removed = fs::remove_file(&path);
    let image = opened?;
    removed.context("remove the image's name")?;
    let (device, held) = attach(&image)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount(device.as_str(), "/tmp", "ext4", flags, c"").context("mount the image")?;
    drop(held);
    chown("/tmp", Some(owner), Some(owner)).context("give the store to root inside")?;
    let _ = fs::remove_dir("/tmp/lost+found");
    Ok(())
}

fn make_image(path: &std::path::Path, bytes: u64) -> Result<()> {
    let file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).context("make the image")?;
    file.set_len(bytes).context("size the image")?;
    // -m 0: nothing kept for root; no journal: the image never outlives a crash.
    let status = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-m", "0", "-O", "^has_journal", "-E", "nodiscard,lazy_itable_init=1"])
        .arg(path)
        .env_clear()
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("run mkfs.ext4")?;
    if status.success() {
        return Ok(());
    }
    Err(SandboxError::new(Code::BackendFailed, format!("mkfs.ext4 failed: {status}")))
}

/// Binds the image to a free loop device. The device's own descriptor must stay open until it is mounted.
fn attach(image: &File) -> Result<(String, File)> {
    let control =
        OpenOptions::new().read(true).write(true).open("/dev/loop-control").context("/dev/loop-control")?;
    let mut last = std::io::Error::from_raw_os_error(libc::EBUSY);
    for _ in 0..TRIES_MAX {
        // JUSTIFICATION: loop devices are configured by ioctl only.
        // SAFETY: this request takes no argument and gives a number.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if number < 0 {
            return Err(std::io::Error::last_os_error()).context("free loop device");
        }
        let path = format!("/dev/loop{number}");
        let device = OpenOptions::new().read(true).write(true).open(&path).context("open the loop device")?;
        let mut config = LoopConfig {
            fd: image.as_raw_fd().cast_unsigned(),
            block_size: 0,
            info: [0; 29],
            reserved: [0; 8],
        };
        // loop_info64: five 64-bit words, then four 32-bit ones of which the last is the flags.
        config.info[6] = u64::from(LO_FLAGS_AUTOCLEAR) << 32;
        // JUSTIFICATION: as above.
        // SAFETY: the struct has the kernel's layout and size (304 bytes, asserted below) and outlives the call.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) } == 0 {
            return Ok((path, device));
        }
        last = std::io::Error::last_os_error();
        if last.raw_os_error() != Some(libc::EBUSY) {
            break;
        }
    }
    Err(last).context("attach the image")
}

const _: () = assert!(size_of::<LoopConfig>() == 304);
