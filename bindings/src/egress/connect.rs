//! The connector: a name is resolved once, every address is vetted, and the connection goes to a vetted address.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use super::address::{PrivateAllow, is_public};
use super::hosts::Scheme;
use super::resolve::Resolver;

/// Longest wait for one connection, in milliseconds.
const CONNECT_MS_MAX: u64 = 10_000;
/// Addresses of one name that are tried.
const ADDRESSES_TRIED_MAX: usize = 4;

/// Why there is no connection. What the guest sees says nothing about the network behind it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("the URL names no host")]
    NoHost,
    #[error("the name does not resolve")]
    Unresolved,
    #[error("the address is not allowed")]
    Denied,
    #[error("the connection failed")]
    Failed,
    #[error("the connection took too long")]
    TimedOut,
}

/// Whom the gateway dials, and whom never.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    pub(super) allow_private: Arc<[PrivateAllow]>,
    pub(super) deny: Arc<[PrivateAllow]>,
    pub(super) resolver: Resolver,
}

impl Connector {
    fn allows(&self, address: SocketAddr) -> bool {
        let named = |list: &[PrivateAllow]| list.iter().any(|entry| entry.covers(address));
        if named(&self.deny) {
            return false;
        }
        named(&self.allow_private) || (is_public(address.ip()) && !is_own(address))
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<TcpStream>, ConnectError> {
        let scheme = uri.scheme_str().and_then(Scheme::of).ok_or(ConnectError::NoHost)?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(ConnectError::NoHost)?;
        let port = uri.port_u16().unwrap_or(scheme.port());
        self.reach(host, port).await.map(TokioIo::new)
    }

    /// A connection to a vetted address of this host.
    pub(super) async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let limit = Duration::from_millis(CONNECT_MS_MAX);
        tokio::time::timeout(limit, self.reach(host, port)).await.unwrap_or(Err(ConnectError::TimedOut))
    }

    async fn reach(&self, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let resolved = self.resolver.addresses(host).await.ok_or(ConnectError::Unresolved)?;
        let resolved = resolved.into_iter().map(|address| SocketAddr::new(address, port));
        let vetted: Vec<_> =
            resolved.filter(|address| self.allows(*address)).take(ADDRESSES_TRIED_MAX).collect();
        if vetted.is_empty() {
            return Err(ConnectError::Denied);
        }
        for address in vetted {
            if let Ok(stream) = TcpStream::connect(address).await {
                // The kernel says where it went: nothing but the vetted address counts.
                if stream.peer_addr().ok() != Some(address) {
                    return Err(ConnectError::Denied);
                }
                // A small request must not wait for an acknowledgement.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
        }
        Err(ConnectError::Failed)
    }
}

/// Whether this is one of the machine's own addresses, public ones included. A connected UDP socket sends nothing; the kernel
/// only picks the route, and to an own address it picks that address as the source as well.
fn is_own(address: SocketAddr) -> bool {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let source = std::net::UdpSocket::bind(any).and_then(|socket| {
        socket.connect(address)?;
        socket.local_addr()
    });
    // A loopback source means that the route does not leave the machine. Without a route there will be no connection either.
    source.is_ok_and(|source| source.ip() == address.ip() || source.ip().is_loopback())
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let limit = Duration::from_millis(CONNECT_MS_MAX);
            match tokio::time::timeout(limit, connector.connect(uri)).await {
                Ok(connected) => connected,
                Err(_) => Err(ConnectError::TimedOut),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_known_without_a_list() {
        assert!(is_own("127.0.0.1:80".parse().unwrap()));
        assert!(is_own("127.9.9.9:80".parse().unwrap()), "all of the loopback block is this machine");
        assert!(!is_own("192.0.2.1:80".parse().unwrap()));
    }
}
