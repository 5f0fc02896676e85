//! Master keys: read once at start, held by the cipher, never written anywhere.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use super::seal::KEY_BYTES;
use crate::config::{KeyFrom, KeySource, SecretsConfig, parse_hex};

/// Longest text of a key, in bytes.
const TEXT_BYTES_MAX: u64 = 4_096;
/// Longest time that a command may take to print a key, in seconds.
const COMMAND_SECONDS_MAX: u64 = 30;
/// Rights of anyone but the owner.
const OTHERS: u32 = 0o077;

/// Why there is no master key. Never says anything of the key itself.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// The file or the command failed.
    #[error("the master key {id:?} cannot be read: {source}")]
    Read {
        /// Which key.
        id: String,
        /// Why.
        source: std::io::Error,
    },
    /// Others could read the file too.
    #[error("the file of the master key {id:?} is readable for others; run `chmod 600` on it")]
    Readable {
        /// Which key.
        id: String,
    },
    /// The variable is not there.
    #[error("the environment variable of the master key {id:?} is not set")]
    Unset {
        /// Which key.
        id: String,
    },
    /// The command failed or took too long.
    #[error("the command of the master key {id:?} {reason}")]
    Command {
        /// Which key.
        id: String,
        /// What it did.
        reason: String,
    },
    /// Not 32 bytes.
    #[error("the master key {id:?} is not 32 bytes in hexadecimal or base64")]
    Shape {
        /// Which key.
        id: String,
    },
}

/// One master key.
pub(crate) struct MasterKey {
    pub(crate) id: String,
    pub(crate) key: RandomizedNonceKey,
}

/// The key that seals, and those that only open.
pub(crate) struct MasterKeys {
    current: MasterKey,
    previous: Vec<MasterKey>,
}

impl MasterKeys {
    /// Reads all that the configuration names.
    pub(crate) async fn load(config: &SecretsConfig) -> Result<Self, MasterError> {
        let current = load(&config.current).await?;
        let mut previous = Vec::new();
        for source in &config.previous {
            previous.push(load(source).await?);
        }
        Ok(Self { current, previous })
    }

    /// The one that seals.
    pub(crate) fn current(&self) -> &MasterKey {
        &self.current
    }

    /// The one of this name.
    pub(crate) fn find(&self, id: &str) -> Option<&MasterKey> {
        self.all().find(|key| key.id == id)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &MasterKey> {
        std::iter::once(&self.current).chain(&self.previous)
    }

    #[cfg(test)]
    pub(crate) fn of(current: (String, [u8; KEY_BYTES]), previous: Vec<(String, [u8; KEY_BYTES])>) -> Self {
        let key = |(id, bytes): (String, [u8; KEY_BYTES])| MasterKey {
            id,
            key: RandomizedNonceKey::new(&AES_256_GCM, &bytes).unwrap(),
        };
        Self { current: key(current), previous: previous.into_iter().map(key).collect() }
    }
}

async fn load(source: &KeySource) -> Result<MasterKey, MasterError> {
    let id = source.id.clone();
    let text = match &source.from {
        KeyFrom::File(path) => file(path, &id)?,
        KeyFrom::Env(name) => {
            let unset = |_| MasterError::Unset { id: id.clone() };
            Zeroizing::new(std::env::var(name).map_err(unset)?.into_bytes())
        }
        KeyFrom::Command(command) => printed(command, &id).await?,
    };
    let shape = || MasterError::Shape { id: id.clone() };
    let bytes = parse(&text).ok_or_else(shape)?;
    let key = RandomizedNonceKey::new(&AES_256_GCM, &*bytes).map_err(|_| shape())?;
    Ok(MasterKey { id, key })
}

fn file(path: &Path, id: &str) -> Result<Zeroizing<Vec<u8>>, MasterError> {
    use std::io::Read as _;
    let fail = |source| MasterError::Read { id: id.to_owned(), source };
    let file = std::fs::File::open(path).map_err(fail)?;
    // Of the open file, so that nobody can put another one in its place in between.
    if file.metadata().map_err(fail)?.permissions().mode() & OTHERS != 0 {
        return Err(MasterError::Readable { id: id.to_owned() });
    }
    let mut text = Zeroizing::new(Vec::with_capacity(TEXT_BYTES_MAX as usize));
    file.take(TEXT_BYTES_MAX).read_to_end(&mut text).map_err(fail)?;
    Ok(text)
}

/// What a command prints; its errors go where the gateway's own go.
async fn printed(command: &[String], id: &str) -> Result<Zeroizing<Vec<u8>>, MasterError> {
    let fail = |source| MasterError::Read { id: id.to_owned(), source };
    let failed = |reason: String| MasterError::Command { id: id.to_owned(), reason };
    let (program, arguments) = command.split_first().ok_or_else(|| failed("is empty".to_owned()))?;
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(fail)?;
    let out = child.stdout.take().ok_or_else(|| failed("has no output".to_owned()))?;
    let run = async {
        let mut text = Zeroizing::new(Vec::with_capacity(TEXT_BYTES_MAX as usize));
        out.take(TEXT_BYTES_MAX).read_to_end(&mut text).await?;
        Ok((text, child.wait().await?))
    };
    match tokio::time::timeout(Duration::from_secs(COMMAND_SECONDS_MAX), run).await {
        Err(_) => Err(failed(format!("took longer than {COMMAND_SECONDS_MAX} s"))),
        Ok(Err(source)) => Err(fail(source)),
        Ok(Ok((_, status))) if !status.success() => Err(failed(format!("failed: {status}"))),
        Ok(Ok((text, _))) => Ok(text),
    }
}

/// 32 bytes from hexadecimal or base64.
fn parse(text: &[u8]) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    if let Some(bytes) = parse_hex(text) {
        return Some(Zeroizing::new(bytes));
    }
    let decode = |text: &str| STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text));
    let bytes = Zeroizing::new(decode(text).ok()?);
    bytes.as_slice().try_into().ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn try_load(from: KeyFrom) -> Result<MasterKey, String> {
        load(&KeySource { id: "k".into(), from }).await.map_err(|error| error.to_string())
    }

    #[test]
    fn keys_are_hexadecimal_or_base64() {
        let hex = "ab".repeat(32);
        for good in
            [hex.clone(), format!("{hex}\n"), STANDARD.encode([7; 32]), URL_SAFE_NO_PAD.encode([7; 32])]
        {
            assert!(parse(good.as_bytes()).is_some(), "{good}");
        }
        for bad in ["", "ab", &hex[1..], &STANDARD.encode([7; 31]), &format!("{hex}00")] {
            assert!(parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[tokio::test]
    async fn files_for_others_failing_commands_and_missing_variables_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "ab".repeat(32)).unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o600);
        assert!(try_load(KeyFrom::File(path.clone())).await.is_ok());
        mode(0o640);
        assert!(try_load(KeyFrom::File(path.clone())).await.err().unwrap().contains("chmod 600"));
        let command = |script: &str| KeyFrom::Command(["sh", "-c", script].map(str::to_owned).to_vec());
        assert!(try_load(command(&format!("echo {}", "ab".repeat(32)))).await.is_ok());
        for (script, expected) in [("exit 3", "failed"), ("echo canary", "32 bytes")] {
            let error = try_load(command(script)).await.err().unwrap();
            assert!(error.contains(expected) && !error.contains("canary"), "{error}");
        }
        let unset = try_load(KeyFrom::Env("ATOLL_TEST_NO_SUCH_KEY".into())).await.err().unwrap();
        assert!(unset.contains("not set"), "{unset}");
    }
}
