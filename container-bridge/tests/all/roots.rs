//! Root filesystems from a directory and from a tarball.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use atoll_container_bridge::{
    backend::SandboxSpec,
    protocol::{ExecSpec, Root},
};

use crate::support::{Kind, Place, block};

/// A root filesystem with one static program, if this machine has one.
fn root(dir: &Path) -> Option<()> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists())?;
    for name in ["bin", "etc", "proc", "dev", "tmp"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(busybox, dir.join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", dir.join("bin/sh")).unwrap();
    fs::write(dir.join("etc/issue"), "mine\n").unwrap();
    let ldd = Command::new("ldd").arg(busybox).output().ok()?;
    (!ldd.status.success()).then_some(()) // a dynamic one needs more than itself
}

#[test]
fn a_directory_and_a_tarball() {
    let source = tempfile::tempdir().unwrap();
    if root(source.path()).is_none() {
        eprintln!("SKIPPED: no static busybox on this machine to make a root filesystem from");
        return;
    }
    block(async {
        let place = Place::of(Kind::Native);
        let tarball = tempfile::NamedTempFile::new().unwrap();
        let mut builder = tar::Builder::new(tarball.as_file());
        builder.follow_symlinks(false);
        builder.append_dir_all(".", source.path()).unwrap();
        builder.finish().unwrap();
        for root in [Root::Directory(source.path().into()), Root::Tarball(tarball.path().into())] {
            let sandbox = place.launch(&SandboxSpec { root, ..SandboxSpec::default() }).await.unwrap();
            let line = "busybox cat /etc/issue; echo w > f; busybox cat f; busybox ls /usr 2>/dev/null; echo x > /etc/issue";
            let done = sandbox.run(ExecSpec::shell(line)).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&done.stdout), "mine\nw\n");
            let own = !rustix::process::geteuid().is_root(); // one user: the copy in the overlay is its own
            assert!(own || done.exit.code != 0, "the root filesystem's own files are not the workload's");
            sandbox.stop().await;
        }
        assert_eq!(fs::read_to_string(source.path().join("etc/issue")).unwrap(), "mine\n");
    });
}
