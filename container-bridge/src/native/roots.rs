//! Tarballs of root filesystems, unpacked once.
//!
//! A tarball is the operator's, not a tenant's. It is known by device, inode, size and change time: a changed file
//! is unpacked anew. Device nodes in it are left out; a sandbox makes its own `/dev`.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::error::{Context, Result};

/// The directory with a tarball's content.
pub(super) fn unpacked(state_dir: &Path, tarball: &Path) -> Result<PathBuf> {
    let file = File::open(tarball).context(&tarball.display().to_string())?;
    let found = file.metadata().context("tarball")?;
    let key =
        format!("{}-{}-{}-{}", found.dev(), found.ino(), found.size(), found.mtime_nsec() ^ found.mtime());
    let roots = state_dir.join("roots");
    let ready = roots.join(&key);
    if ready.is_dir() {
        return Ok(ready);
    }
    fs::create_dir_all(&roots).context("directory for root filesystems")?;
    let partial = roots.join(format!("{key}.partial-{}", std::process::id()));
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir(&partial).context("directory for a root filesystem")?;
    let done = unpack(file, &partial).and_then(|()| match fs::rename(&partial, &ready) {
        Err(_) if ready.is_dir() => Ok(()), // another start was faster
        renamed => renamed.context("put a root filesystem in place"),
    });
    let _ = fs::remove_dir_all(&partial);
    done.map(|()| ready)
}

fn unpack(file: File, to: &Path) -> Result<()> {
    let mut archive = tar::Archive::new(std::io::BufReader::new(file));
    archive.set_preserve_permissions(true);
    for entry in archive.entries().context("read the tarball")? {
        let mut entry = entry.context("read the tarball")?;
        let kind = entry.header().entry_type();
        if kind.is_block_special() || kind.is_character_special() || kind.is_fifo() {
            continue;
        }
        entry.unpack_in(to).context("unpack the tarball")?; // refuses what would land outside
    }
    Ok(())
}

/// Removes what an unpacking that died has left. One that is under way belongs to a living process.
pub(super) fn remove_partial(state_dir: &Path) {
    let Ok(entries) = fs::read_dir(state_dir.join("roots")) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some((_, owner)) = name.split_once(".partial-")
            && !Path::new("/proc").join(owner).exists()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
