//! Who made a container, and whether they still live: a file that its maker holds a lock on.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::{
    backend::SandboxId,
    error::{Context, Result},
};

/// How the files' names begin.
const PREFIX: &str = "instance-";

/// This process's own file, locked until the end.
pub(super) struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    pub(super) fn take(state_dir: &Path) -> Result<Self> {
        DirBuilder::new().recursive(true).mode(0o755).create(state_dir).context("state directory")?;
        let state_dir = fs::canonicalize(state_dir).context("state directory")?;
        let path = state_dir.join(format!("{PREFIX}{}", SandboxId::random()?.as_str()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.context("lock file")?;
        file.lock().context("lock file")?;
        Ok(Self { path, _file: file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether somebody holds the lock. A file that is not there has no holder.
pub(super) fn is_alive(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => file.try_lock_shared().is_err(),
        // What cannot be looked at is left alone: its containers expire.
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// Removes the files of the dead: their containers are told by the missing file just as well.
pub(super) fn remove_dead(state_dir: &Path, own: &Path) {
    for entry in fs::read_dir(state_dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && path != own && !is_alive(&path) {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_lives_as_long_as_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (Lock::take(dir.path()).unwrap(), Lock::take(dir.path()).unwrap());
        let dead = dir.path().join("instance-dead");
        fs::write(&dead, "").unwrap();
        assert!(is_alive(one.path()) && is_alive(two.path()) && !is_alive(&dead));
        assert!(!is_alive(&dir.path().join("instance-none")));
        remove_dead(dir.path(), one.path());
        assert!(is_alive(two.path()) && !dead.exists());
        let path = two.path().to_owned();
        drop(two);
        assert!(!is_alive(&path) && is_alive(one.path()));
    }
}
