//! Who this gateway is in the cluster: the same after a restart, and nobody else.
//!
//! The name is in a file that its holder keeps locked. A gateway that comes back finds its predecessor's file free and
//! takes over the name, and with it what that one left in the cluster. A second gateway in the same directory finds it
//! locked and takes the next file. One without a lasting directory is somebody new each time: what it left behind ends
//! by itself, and any gateway removes what has ended.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use crate::{
    backend::SandboxId,
    error::{Code, Context, Result, SandboxError},
};

/// Most gateways with one directory.
const GATEWAYS_MAX: u32 = 64;

/// This gateway's name, for as long as this lives.
pub(super) struct Instance {
    name: String,
    _file: File,
}

impl Instance {
    pub(super) fn take(state_dir: &Path) -> Result<Self> {
        DirBuilder::new().recursive(true).mode(0o755).create(state_dir).context("state directory")?;
        for number in 0..GATEWAYS_MAX {
            let path = state_dir.join(format!("gateway-{number}"));
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)
                .context("the gateway's name")?;
            if file.try_lock().is_err() {
                continue;
            }
            let mut name = String::new();
            file.read_to_string(&mut name).context("the gateway's name")?;
            // Names go into selectors: what was cut off or changed by somebody is not one.
            if name.len() != 20 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                name = SandboxId::random()?.as_str().to_owned();
                file.set_len(0)
                    .and_then(|()| file.rewind())
                    .and_then(|()| file.write_all(name.as_bytes()))
                    .and_then(|()| file.sync_all())
                    .context("the gateway's name")?;
            }
            return Ok(Self { name, _file: file });
        }
        Err(SandboxError::new(Code::SandboxUnavailable, "too many gateways with one state directory"))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_lasts_and_is_one_gateways() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (Instance::take(dir.path()).unwrap(), Instance::take(dir.path()).unwrap());
        assert_ne!(one.name(), two.name());
        let name = one.name().to_owned();
        drop(one);
        let again = Instance::take(dir.path()).unwrap();
        assert_eq!(again.name(), name);
        drop(again);
        std::fs::write(dir.path().join("gateway-0"), "x=y").unwrap();
        let fresh = Instance::take(dir.path()).unwrap();
        assert!(fresh.name() != name && fresh.name().len() == 20);
    }
}
