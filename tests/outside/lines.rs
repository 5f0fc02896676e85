//! A server that is no web server, for connections of guests.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::shared::certificate;

/// A server of lines over TCP: it sends each back in upper case. A connection that begins with TLS is TLS; `starttls` begins
/// it, `bye` ends the connection.
pub(crate) struct Lines {
    pub(crate) port: u16,
    /// The authority that signed its certificate.
    pub(crate) root: CertificateDer<'static>,
}

impl Lines {
    pub(crate) async fn new(names: &[&str]) -> Self {
        let (root, config) = certificate(names);
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port of the loopback");
        let port = listener.local_addr().expect("a port of the loopback").port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut first = [0];
                    let tls = matches!(stream.peek(&mut first).await, Ok(1)) && first[0] == 0x16;
                    let rest = if tls { Some(stream) } else { shout(stream).await };
                    if let Some(stream) = rest
                        && let Ok(stream) = acceptor.accept(stream).await
                    {
                        shout(stream).await;
                    }
                });
            }
        });
        Self { port, root }
    }
}

/// Until the end, or until TLS is wanted on what is given back.
async fn shout<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> Option<S> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        if !matches!(stream.read_until(b'\n', &mut line).await, Ok(1..)) || line == b"bye\n" {
            let _ = stream.shutdown().await;
            return None;
        }
        line.make_ascii_uppercase();
        if stream.write_all(&line).await.is_err() || stream.flush().await.is_err() {
            return None;
        }
        if line == b"STARTTLS\n" {
            return Some(stream.into_inner());
        }
    }
}
