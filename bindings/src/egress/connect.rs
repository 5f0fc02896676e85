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

/// Longest wait for one connection, in milliseconds.
const CONNECT_MS_MAX: u64 = 10_000;
/// Addresses of one name that are tried.
const ADDRESSES_TRIED_MAX: usize = 4;

/// Why there is no connection. What the guest sees says nothing about the network behind it.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
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

#[derive(Clone, Debug)]
pub(super) struct Connector {
    allow_private: Arc<[PrivateAllow]>,
}

impl Connector {
    pub(super) fn new(allow_private: Arc<[PrivateAllow]>) -> Self {
        Self { allow_private }
    }

    fn allows(&self, address: SocketAddr) -> bool {
        is_public(address.ip()) || self.allow_private.iter().any(|allow| allow.covers(address))
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<TcpStream>, ConnectError> {
        let scheme = uri.scheme_str().and_then(Scheme::of).ok_or(ConnectError::NoHost)?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(ConnectError::NoHost)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(scheme.port());
        let resolved = tokio::net::lookup_host((host, port)).await.map_err(|_| ConnectError::Unresolved)?;
        let vetted: Vec<_> =
            resolved.filter(|address| self.allows(*address)).take(ADDRESSES_TRIED_MAX).collect();
        if vetted.is_empty() {
            return Err(ConnectError::Denied);
        }
        for address in vetted {
            if let Ok(stream) = TcpStream::connect(address).await {
                // A small request must not wait for an acknowledgement.
                let _ = stream.set_nodelay(true);
                return Ok(TokioIo::new(stream));
            }
        }
        Err(ConnectError::Failed)
    }
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
