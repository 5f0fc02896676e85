//! A program with all it needs to run in any image: itself, its loader and its libraries.
//!
//! The init must run in containers whose image has another C library, or none. A static program needs only itself. A
//! dynamic one brings its own loader, which is started by name and told where the libraries are:
//! `DIR/loader --library-path DIR DIR/init …`. What those files are is asked of the loader, the way `ldd` does.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::error::{Code, Context, Result, SandboxError};

/// The program's name in a kit's directory.
const PROGRAM: &str = "init";
/// The loader's.
const LOADER: &str = "loader";
/// Most bytes of the program that are searched for the name of its loader.
const HEAD_BYTES: usize = 4096;

/// The files of one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kit {
    /// Where each file is on this machine, and its name in the kit's directory.
    files: Vec<(PathBuf, String)>,
    dynamic: bool,
}

impl Kit {
    /// Finds the files of a program.
    ///
    /// # Errors
    /// If it cannot be read, or its loader does not tell.
    pub fn of(program: &Path) -> Result<Self> {
        let program = fs::canonicalize(program).context(&program.display().to_string())?;
        let mut files = vec![(program.clone(), PROGRAM.to_owned())];
        let Some(loader) = interpreter(&program)? else { return Ok(Self { files, dynamic: false }) };
        let real = fs::canonicalize(&loader).context(&loader.display().to_string())?;
        files.push((real, LOADER.to_owned()));
        let output = Command::new(&loader).arg("--list").arg(&program).env_clear().output();
        let output = output.context(&format!("start {}", loader.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        // Lines "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)"; others are the kernel's page and the loader.
        for line in text.lines() {
            let Some((name, rest)) = line.trim().split_once(" => ") else { continue };
            let Some((path, _)) = rest.rsplit_once(" (") else {
                return Err(SandboxError::new(Code::BackendFailed, format!("the init needs {name}: {rest}")));
            };
            if !name.starts_with('/') {
                files.push((fs::canonicalize(path).context(path)?, name.to_owned()));
            }
        }
        if !output.status.success() {
            let text = format!("{} --list {}: {}", loader.display(), program.display(), output.status);
            return Err(SandboxError::new(Code::BackendFailed, text));
        }
        Ok(Self { files, dynamic: true })
    }

    /// Where each file is on this machine, and its name in the kit's directory.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.files.iter().map(|(path, name)| (path.as_path(), name.as_str()))
    }

    /// The command that starts the program when the files are in `dir`.
    #[must_use]
    pub fn command(&self, dir: &str) -> Vec<String> {
        let program = format!("{dir}/{PROGRAM}");
        if !self.dynamic {
            return vec![program];
        }
        vec![format!("{dir}/{LOADER}"), "--library-path".to_owned(), dir.to_owned(), program]
    }

    /// Copies the files into a directory, for everybody to read and start.
    ///
    /// # Errors
    /// If the directory cannot be written to.
    pub fn copy_to(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).context(&dir.display().to_string())?;
        for (from, name) in self.files() {
            let to = dir.join(name);
            fs::copy(from, &to).context(&to.display().to_string())?;
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).context(&to.display().to_string())?;
        }
        Ok(())
    }
}

/// The loader that a program names (ELF, segment `PT_INTERP`); none for a static one.
fn interpreter(program: &Path) -> Result<Option<PathBuf>> {
    const PT_INTERP: u32 = 3;
    let mut head = Vec::new();
    let file = fs::File::open(program).context(&program.display().to_string())?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, HEAD_BYTES as u64), &mut head)
        .context(&program.display().to_string())?;
    let bad =
        || SandboxError::new(Code::BackendFailed, format!("{}: not a 64-bit program", program.display()));
    let number = |at: usize, bytes: usize| -> Result<u64> {
        let mut value = [0; 8];
        value[..bytes].copy_from_slice(head.get(at..at.saturating_add(bytes)).ok_or_else(bad)?);
        Ok(u64::from_le_bytes(value))
    };
    // "\x7fELF", 64-bit, little-endian; elf(5) gives the offsets.
    if head.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err(bad());
    }
    let (table, size, count) = (number(32, 8)? as usize, number(54, 2)? as usize, number(56, 2)? as usize);
    for index in 0..count {
        let segment = table.saturating_add(index * size);
        if number(segment, 4)? == u64::from(PT_INTERP) {
            let (at, length) = (
                number(segment.saturating_add(8), 8)? as usize,
                number(segment.saturating_add(32), 8)? as usize,
            );
            let name = head.get(at..at.saturating_add(length)).ok_or_else(bad)?;
            let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
            return Ok(Some(PathBuf::from(name)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_and_its_copy_run_anywhere() {
        let kit = Kit::of(&std::env::current_exe().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        kit.copy_to(dir.path()).unwrap();
        let command = kit.command(dir.path().to_str().unwrap());
        let output =
            Command::new(&command[0]).args(&command[1..]).arg("--list").env_clear().output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("this_program_and_its_copy_run_anywhere"));
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for bytes in [&b""[..], b"#!/bin/sh\n", b"\x7fELF\x02\x01", b"\x7fELF\x01\x01"] {
            fs::write(file.path(), bytes).unwrap();
            assert_eq!(Kit::of(file.path()).unwrap_err().code, Code::BackendFailed, "{bytes:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_head_gives_an_answer_or_an_error(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), [b"\x7fELF\x02\x01".as_slice(), &bytes].concat()).unwrap();
            let _ = interpreter(file.path());
        }
    }
}
