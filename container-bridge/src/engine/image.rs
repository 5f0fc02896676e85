//! An image with nothing in it but places: for containers that see the host's programs.

use bollard::{Docker, body_full, query_parameters::CreateImageOptions};
use futures_util::StreamExt;

use super::{EngineConfig, failed};
use crate::{
    error::{Code, Context, Result, SandboxError},
    init::HOST_DIRS,
    owned::hash,
};

/// The image's name; the tag is a hash of what is in it.
const REPOSITORY: &str = "localhost/atoll-sandbox";
/// Directories with their modes. `/.atoll` is where the init is bound.
const DIRECTORIES: &[(&str, u32)] = &[
    (".atoll", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("home/user", 0o755),
    ("proc", 0o555),
    ("run", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/tmp", 0o1777),
    ("workspace", 0o755),
];

/// The name of the image, which is imported if the engine has not got it.
pub(super) async fn base(client: &Docker, config: &EngineConfig) -> Result<String> {
    let tar = tarball(config).context("make the base image")?;
    let tag = hash(&[&tar]);
    let name = format!("{REPOSITORY}:{tag}");
    if client.inspect_image(&name).await.is_ok() {
        return Ok(name);
    }
    let options = CreateImageOptions {
        from_src: Some("-".to_owned()),
        repo: Some(name.clone()), // with its tag: Podman reads no other
        ..Default::default()
    };
    let mut progress = std::pin::pin!(client.create_image(Some(options), Some(body_full(tar.into())), None));
    while let Some(step) = progress.next().await {
        step.map_err(|error| failed("import the base image", &error))?;
    }
    match client.inspect_image(&name).await {
        Ok(_) => Ok(name),
        Err(error) => Err(SandboxError::new(Code::BackendFailed, format!("import the base image: {error}"))),
    }
}

fn tarball(config: &EngineConfig) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode) in DIRECTORIES {
        directory(&mut tar, path, *mode)?;
    }
    // As on the host: some of these are links into /usr.
    for name in HOST_DIRS {
        let from = std::path::Path::new("/").join(name);
        let Ok(found) = std::fs::symlink_metadata(&from) else { continue };
        if found.is_symlink() {
            let mut header = header(tar::EntryType::Symlink, 0o777, 0);
            tar.append_link(&mut header, name, std::fs::read_link(&from)?)?;
        } else {
            directory(&mut tar, name, 0o755)?;
        }
    }
    for (path, text) in etc(config) {
        let mut header = header(tar::EntryType::Regular, 0o644, text.len() as u64);
        tar.append_data(&mut header, path, text.as_bytes())?;
    }
    tar.into_inner()
}

/// A name for whichever user a sandbox gets.
fn etc(config: &EngineConfig) -> [(&'static str, String); 3] {
    let mut passwd = "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n".to_owned();
    let mut group = "root:x:0:\nnogroup:x:65534:\n".to_owned();
    for id in config.uid_base..config.uid_base.saturating_add(config.uids) {
        passwd += &format!("user:x:{id}:{id}::/home/user:/bin/sh\n");
        group += &format!("user:x:{id}:\n");
    }
    let nsswitch = "passwd: files\ngroup: files\nhosts: files\n".to_owned();
    [("etc/passwd", passwd), ("etc/group", group), ("etc/nsswitch.conf", nsswitch)]
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header
}

fn directory(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32) -> std::io::Result<()> {
    let mut header = header(tar::EntryType::Directory, mode, 0);
    tar.append_data(&mut header, format!("{path}/"), std::io::empty())
}
