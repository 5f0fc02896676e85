//! A small outside world for the server under test: the one that the bindings' own tests use, and what the configuration
//! must say to reach it.

use std::fmt::Write as _;
use std::io::Write as _;

use base64::Engine as _;

mod lines;

#[path = "../../bindings/tests/all/outside.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared with the tests of another crate, which use all of it"
)]
mod shared;

pub(crate) use lines::Lines;
pub(crate) use shared::{Answer, NameServer, Web, certificate};

/// `[outbound]` that trusts the origin's authority, asks this name server and may dial this port of the loopback.
pub(crate) struct Outside {
    /// The table.
    pub(crate) config: String,
    _root: tempfile::NamedTempFile,
}

impl Outside {
    /// For one origin.
    pub(crate) fn new(web: &Web, names: &NameServer) -> Self {
        Self::at(web.port, &web.root, names)
    }

    /// For whoever listens there, with a certificate of this authority.
    pub(crate) fn at(port: u16, authority: &[u8], names: &NameServer) -> Self {
        let mut root = tempfile::NamedTempFile::new().expect("a temporary file");
        let pem = base64::engine::general_purpose::STANDARD.encode(authority);
        write!(root, "-----BEGIN CERTIFICATE-----\n{pem}\n-----END CERTIFICATE-----\n")
            .expect("the file is writable");
        let mut config = String::new();
        let _ = write!(
            config,
            "[outbound]\nallow_private = [\"127.0.0.1:{}\"]\nname_servers = [\"{}\"]\nextra_roots = [{:?}]\n",
            port,
            names.address,
            root.path()
        );
        Self { config, _root: root }
    }
}
