//! How far an isolate host's process is confined: what it says of itself at its start, and what the gateway added.
//!
//! A host writes one line of JSON on its standard output before it runs anything of anybody's. It is believed because no guest
//! has been inside yet; whatever comes later on that pipe is thrown away.

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::oneshot;

/// Longest report, in bytes.
const REPORT_BYTES_MAX: usize = 4 * 1024;

/// A layer of the confinement that could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Its name.
    pub layer: String,
    /// Why not.
    pub reason: String,
}

/// What of the confinement is missing; nothing, where all of it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Layers that could not be applied.
    pub missing: Vec<Missing>,
}

impl Sandbox {
    /// Nothing holds at all.
    #[must_use]
    pub fn none(reason: &str) -> Self {
        Self { missing: vec![Missing { layer: "all".into(), reason: reason.into() }] }
    }

    /// Whether every layer holds.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// The names of what is missing, separated by spaces.
    #[must_use]
    pub fn names(&self) -> String {
        let names: Vec<_> = self.missing.iter().map(|missing| missing.layer.as_str()).collect();
        names.join(" ")
    }

    /// What is missing and why, for people.
    #[must_use]
    pub fn reasons(&self) -> String {
        let reasons: Vec<_> =
            self.missing.iter().map(|missing| format!("{} ({})", missing.layer, missing.reason)).collect();
        reasons.join(", ")
    }

    /// As a host reports it.
    #[must_use]
    pub fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn parse(line: &[u8]) -> Self {
        serde_json::from_slice(line).unwrap_or_else(|_| Self::none("the host's report cannot be read"))
    }
}

/// Reads the report, then throws away what follows until the host ends: a pipe that nobody reads would stop or end a writer.
pub(super) fn reported(mut output: impl AsyncRead + Unpin + Send + 'static) -> oneshot::Receiver<Sandbox> {
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let mut report = Vec::new();
        let mut tell = Some(tell);
        let mut piece = [0; 1024];
        while let Ok(count @ 1..) = output.read(&mut piece).await {
            if tell.is_none() {
                continue;
            }
            report.extend_from_slice(&piece[..count]);
            let end = report.iter().position(|&byte| byte == b'\n');
            if (end.is_some() || report.len() > REPORT_BYTES_MAX)
                && let Some(tell) = tell.take()
            {
                report.truncate(end.unwrap_or(0));
                let _gone = tell.send(Sandbox::parse(&report));
            }
        }
    });
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &'static [u8]) -> Option<Sandbox> {
        reported(bytes).await.ok()
    }

    #[tokio::test]
    async fn a_report_is_one_line_and_anything_else_is_no_confinement() {
        let missing = Missing { layer: "landlock".into(), reason: "no such call".into() };
        let sandbox = Sandbox { missing: vec![missing] };
        assert_eq!(Sandbox::parse(sandbox.line().as_bytes()), sandbox);
        assert_eq!(sandbox.reasons(), "landlock (no such call)");
        assert_eq!(read(b"{\"missing\":[]}\nrest").await, Some(Sandbox::default()));
        assert!(!read(b"running 1 test\n").await.expect("a line").is_complete());
        assert!(!read(&[b'x'; 2 * REPORT_BYTES_MAX]).await.expect("too long").is_complete());
        assert_eq!(read(b"{\"missing\":[]}").await, None, "no line");
    }
}
