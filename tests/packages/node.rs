//! Scripts of `tests/packages/src` in Node, at the other end of a worker.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::packages::packages;

/// A server in Node; it ends with its standard input.
pub(crate) struct NodeServer {
    child: Child,
    /// Host and port.
    pub(crate) address: String,
}

impl NodeServer {
    /// Starts `node SCRIPT server`, which prints its port.
    pub(crate) fn start(script: &str) -> Self {
        let mut command = Command::new("node");
        command.arg(path_of(script)).arg("server").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("node runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a port");
        Self { child, address: format!("127.0.0.1:{}", line.trim()) }
    }
}

impl Drop for NodeServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a script to its end: its standard output, and its standard error for messages.
pub(crate) async fn run(script: &str, arguments: &[&str]) -> (String, String) {
    let mut command = Command::new("node");
    command.arg(path_of(script)).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
    let output = output.expect("node runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn path_of(script: &str) -> PathBuf {
    packages().join("src").join(script)
}
