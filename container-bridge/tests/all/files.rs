//! The file API: what it does, and what it refuses.

use atoll_container_bridge::{
    error::Code,
    limits::MIB,
    protocol::{FileKind, WatchEvent},
};

use crate::support::{Kind, Place, block};

fn files_are_written_whole_and_read_in_parts(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let sandbox = place.start().await;
        let body: Vec<u8> = (0..2_000_000u32).map(|n| n as u8).collect();
        sandbox.write("a/b", b"x").await.unwrap_err();
        sandbox.mkdir("a/b/c", true).await.unwrap();
        sandbox.mkdir("a/b/c", true).await.unwrap();
        assert_eq!(sandbox.mkdir("a/b", false).await.unwrap_err().code, Code::FileExists);
        sandbox.write("a/b/f", &body).await.unwrap();
        assert_eq!(sandbox.read("/workspace/a/b/f", 4 * MIB).await.unwrap(), body);
        assert_eq!(sandbox.read("a/b/f", 10).await.unwrap_err().code, Code::FileTooLarge);
        let part = sandbox.read_stream("a/b/f", 100, Some(5)).await.unwrap().all(100).await.unwrap();
        assert_eq!(part, body[100..105]);
        // The file belongs to the workload and keeps its mode when it is replaced.
        assert_eq!(
            sandbox.out("stat -c '%u %a' a/b/f; chmod 700 a/b/f").await,
            format!("{} 644\n", sandbox.out("id -u").await.trim())
        );
        sandbox.write("a/b/f", b"new").await.unwrap();
        assert_eq!(sandbox.stat("a/b/f").await.unwrap().mode, 0o700);
        // A dropped upload leaves nothing.
        let upload = sandbox.write_stream("a/b/g", None, 100).await.unwrap();
        upload.send(b"half").await.unwrap();
        drop(upload);
        let upload = sandbox.write_stream("a/b/g", None, 3).await.unwrap();
        upload.send(b"long").await.unwrap();
        assert_eq!(upload.finish().await.unwrap_err().code, Code::FileTooLarge);
        while sandbox.list("a/b").await.unwrap().len() != 2 {}
        let names: Vec<_> =
            sandbox.list("a/b").await.unwrap().into_iter().map(|f| (f.name, f.kind)).collect();
        assert_eq!(names, [("c".to_owned(), FileKind::Directory), ("f".to_owned(), FileKind::File)]);
        sandbox.rename("a/b/f", "h").await.unwrap();
        assert!(sandbox.exists("h").await.unwrap() && !sandbox.exists("a/b/f").await.unwrap());
        assert_eq!(sandbox.delete("a", false).await.unwrap_err().code, Code::NotEmpty);
        sandbox.delete("a", true).await.unwrap();
        assert!(!sandbox.exists("a").await.unwrap());
        sandbox.stop().await;
    });
}

/// A container has a store of its own for each place that can be written; nobody who moves a file should have to know.
fn files_move_wherever_they_may_be(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let sandbox = place.start().await;
        sandbox.out("echo new > f; chmod 750 f; touch -d @1000000000.5 f; echo old > /tmp/f; mkdir d").await;
        sandbox.rename("f", "/tmp/f").await.unwrap();
        assert!(!sandbox.exists("f").await.unwrap());
        assert_eq!(sandbox.read("/tmp/f", 10).await.unwrap(), b"new\n");
        let moved = sandbox.stat("/tmp/f").await.unwrap();
        assert_eq!((moved.mode, moved.modified_ms), (0o750, 1_000_000_000_500));
        sandbox.rename("/tmp/f", "/home/user/f").await.unwrap();
        // A link moves or is refused, and is never followed; and nothing half done is left.
        sandbox.out("ln -s /etc/passwd link; mkdir /tmp/full; mkfifo pipe").await;
        for odd in ["link", "d", "pipe"] {
            if let Err(error) = sandbox.rename(odd, "/tmp/odd").await {
                assert_eq!(error.code, Code::Unsupported, "{odd}: {error}");
                assert!(sandbox.exists(odd).await.unwrap() && !sandbox.exists("/tmp/odd").await.unwrap());
            }
            assert_eq!(
                sandbox.out("test -f /tmp/odd -a ! -L /tmp/odd && echo followed; rm -rf /tmp/odd").await,
                ""
            );
        }
        let onto = sandbox.rename("/home/user/f", "/tmp/full").await.unwrap_err();
        assert_eq!(onto.code, Code::IsDirectory, "{onto}");
        assert_eq!(sandbox.rename("/home/user/f", "/usr/f").await.unwrap_err().code, Code::PermissionDenied);
        assert_eq!(sandbox.out("ls -A /tmp; cat ~/f").await, "full\nnew\n");
        sandbox.stop().await;
    });
}

fn bad_paths(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let sandbox = place.start().await;
        sandbox
            .out(
                "mkfifo pipe; ln -s /etc/passwd link; ln -s ../../../../etc/passwd up; ln -s loop loop; \
                 ln -s /proc/1 one; ln -s /proc/self/root self; mkdir d; ln -s / d/root",
            )
            .await;
        // The init's processes are not even visible, except to an ordinary user, who shares theirs but may not look into them.
        let hidden = if place.separates_users() { Code::FileNotFound } else { Code::PermissionDenied };
        for (path, code) in [
            ("pipe", Code::NotAFile),
            ("/dev/zero", Code::NotAFile),
            ("/dev/tty", Code::System),
            ("d", Code::IsDirectory),
            ("loop", Code::InvalidPath),
            ("", Code::InvalidPath),
            ("a\0b", Code::InvalidPath),
            ("nothing", Code::FileNotFound),
            ("link/x", Code::NotDirectory),
            ("/proc/1/environ", hidden),
            ("/proc/self/mem", Code::PermissionDenied),
            ("one/maps", hidden),
            ("self/etc/passwd", Code::InvalidPath),
            ("/proc/self/exe", Code::InvalidPath),
            ("/etc/shadow", Code::FileNotFound),
        ] {
            let error = sandbox.read(path, MIB).await.unwrap_err();
            assert_eq!(error.code, code, "{path:?}: {error}");
        }
        // Links and ".." stay inside: this is the sandbox's own file, which names only its users.
        for path in ["up", "link", "../../../../etc/passwd", "d/root/etc/passwd"] {
            let text = String::from_utf8(sandbox.read(path, MIB).await.unwrap()).unwrap();
            assert!(text.contains("user:x:1") && !text.contains("daemon"), "{path}: {text}");
        }
        // An ordinary user's sandbox has one user, to whom all made files belong; what is the host's is read-only.
        let root = place.separates_users();
        for path in ["/usr/bin/new", "/proc/sys/kernel/core_pattern", "/dev/new", "/etc/passwd", "/new"] {
            if !root && matches!(path, "/etc/passwd" | "/new") {
                continue;
            }
            let error = sandbox.write(path, b"x").await.unwrap_err();
            let refused = matches!(error.code, Code::PermissionDenied | Code::NotAFile | Code::FileNotFound);
            assert!(refused, "{path}: {error}");
        }
        // A link at the end of a path is replaced, its target untouched.
        sandbox.write("link", b"mine").await.unwrap();
        assert_eq!(sandbox.stat("link").await.unwrap().kind, FileKind::File);
        for path in ["/", ".", ".."] {
            assert_eq!(sandbox.delete(path, true).await.unwrap_err().code, Code::InvalidPath, "{path}");
        }
        sandbox.delete("d", true).await.unwrap();
        assert!(sandbox.exists("/etc/passwd").await.unwrap());
        sandbox.stop().await;
    });
}

fn changes_are_seen(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let sandbox = place.start().await;
        sandbox.mkdir("w", false).await.unwrap();
        let mut watch = sandbox.watch("w", true).await.unwrap();
        sandbox.out("echo 1 > w/f").await;
        assert_eq!(watch.next().await.unwrap(), WatchEvent::Created("w/f".to_owned()));
        assert_eq!(watch.next().await.unwrap(), WatchEvent::Modified("w/f".to_owned()));
        sandbox.out("rm w/f; mkdir w/d").await;
        assert_eq!(watch.next().await.unwrap(), WatchEvent::Deleted("w/f".to_owned()));
        assert_eq!(watch.next().await.unwrap(), WatchEvent::Created("w/d".to_owned()));
        assert_eq!(sandbox.watch("nowhere", false).await.err().unwrap().code, Code::FileNotFound);
        sandbox.stop().await;
    });
}

fn a_snapshot_comes_back(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let (one, two) = (place.start().await, place.start().await);
        one.out("mkdir -p d/e; echo hello > d/e/f; ln -s e/f d/l; chmod 700 d; echo secret > s; chmod 000 s")
            .await;
        one.start(
            "ticker",
            atoll_container_bridge::protocol::ExecSpec::shell("while :; do date; sleep 0.01; done"),
        )
        .await
        .unwrap();
        let tar = one.snapshot().await.unwrap().all(10 * MIB).await.unwrap();
        // What stood still goes on.
        one.out("true").await;
        two.out("echo old > old; mkdir olddir").await;
        let upload = two.restore(10 * MIB).await.unwrap();
        upload.send(&tar).await.unwrap();
        upload.finish().await.unwrap();
        assert_eq!(two.out("cat d/l; stat -c %a d s; ls -A").await, "hello\n755\n0\nd\ns\n");
        let _ = one.launched.instance.stop().await.unwrap();
        two.stop().await;
    });
}

fn tar_with(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, link) in entries {
        let mut header = tar::Header::new_gnu();
        // Straight into the bytes: the builder itself would refuse these names.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        let body: &[u8] = if *kind == tar::EntryType::Regular { b"body" } else { b"" };
        header.set_size(body.len() as u64);
        header.set_cksum();
        builder.append(&header, body).unwrap();
    }
    builder.into_inner().unwrap()
}

fn bad_archives_change_nothing(kind: Kind) {
    use tar::EntryType as T;
    block(async {
        let place = Place::of(kind);
        let sandbox = place.start().await;
        sandbox.out("echo kept > kept").await;
        let mut short = tar_with(&[("a", T::Regular, "")]);
        short.truncate(514);
        let mut bomb = tar::Builder::new(Vec::new());
        for n in 0..5 {
            let mut header = tar::Header::new_gnu();
            header.set_size(MIB);
            header.set_mode(0o644);
            bomb.append_data(&mut header, format!("f{n}"), std::io::Read::take(std::io::repeat(0), MIB))
                .unwrap();
        }
        let rows: Vec<(&str, Vec<u8>)> = vec![
            ("traversal", tar_with(&[("ok", T::Regular, ""), ("../out", T::Regular, "")])),
            ("absolute", tar_with(&[("/tmp/out", T::Regular, "")])),
            ("device", tar_with(&[("null", T::Char, "")])),
            ("pipe", tar_with(&[("pipe", T::Fifo, "")])),
            ("hard link", tar_with(&[("l", T::Link, "/etc/passwd")])),
            ("link out", tar_with(&[("l", T::Symlink, "../../etc")])),
            ("absolute link", tar_with(&[("l", T::Symlink, "/etc")])),
            (
                "through a link",
                tar_with(&[("d", T::Directory, ""), ("l", T::Symlink, "d"), ("l/f", T::Regular, "")]),
            ),
            ("twice", tar_with(&[("a", T::Regular, ""), ("a", T::Regular, "")])),
            ("own names", tar_with(&[(".atoll-restore-old/x", T::Regular, "")])),
            ("cut off", short),
            ("not a tar", vec![7; 2000]),
            ("too large", bomb.into_inner().unwrap()),
        ];
        for (what, tar) in rows {
            let upload = sandbox.restore(4 * MIB).await.unwrap();
            upload.send(&tar).await.unwrap();
            assert_eq!(upload.finish().await.unwrap_err().code, Code::ArchiveRefused, "{what}");
            assert_eq!(sandbox.out("ls -A; cat kept").await, "kept\nkept\n", "{what}");
        }
        sandbox.stop().await;
    });
}

crate::support::for_each_backend! {
    files_are_written_whole_and_read_in_parts,
    files_move_wherever_they_may_be,
    bad_paths,
    changes_are_seen,
    a_snapshot_comes_back,
    bad_archives_change_nothing,
}
