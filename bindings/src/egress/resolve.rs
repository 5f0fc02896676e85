//! Names to addresses: hickory with a bounded cache of its own, on the gateway's own runtime.
//!
//! A lookup gives addresses once; the connector vets each and dials only those. Nothing looks a name up a second time
//! between the check and the dial, so an answer that changes (rebinding) changes nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

/// Answers kept.
const CACHE_ENTRIES_MAX: u64 = 4_096;
/// Longest time that an address is kept, in seconds, whatever its record says.
const CACHE_SECONDS_MAX: u64 = 300;
/// Longest time that a failure is kept, in seconds.
const CACHE_FAILURE_SECONDS_MAX: u64 = 10;
/// Longest wait for one server, in milliseconds.
const SERVER_MS_MAX: u64 = 3_000;
/// Addresses of one answer that are looked at.
const ADDRESSES_MAX: usize = 32;

/// The resolver cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("DNS: {0}")]
pub struct ResolverSetupError(String);

/// How names become addresses. Cheap to clone; clones share the cache.
#[derive(Clone)]
pub struct Resolver(Option<Arc<TokioResolver>>);

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl Resolver {
    /// With the system's name servers. Where the system names none, only literal addresses lead anywhere.
    #[must_use]
    pub fn system() -> Self {
        let built = TokioResolver::builder_tokio().and_then(|mut builder| {
            bound(builder.options_mut());
            builder.build()
        });
        if let Err(error) = &built {
            tracing::warn!(%error, "no name server is known: outgoing requests reach literal addresses only");
        }
        Self(built.ok().map(Arc::new))
    }

    /// With these name servers and no others.
    ///
    /// # Errors
    /// If hickory cannot be set up.
    pub fn with_servers(servers: &[SocketAddr]) -> Result<Self, ResolverSetupError> {
        let server = |address: &SocketAddr| {
            let mut config = NameServerConfig::udp_and_tcp(address.ip());
            for connection in &mut config.connections {
                connection.port = address.port();
            }
            config
        };
        let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        bound(builder.options_mut());
        let built = builder.build().map_err(|error| ResolverSetupError(error.to_string()))?;
        Ok(Self(Some(Arc::new(built))))
    }

    /// The addresses of a name, or the address that it is.
    pub(super) async fn addresses(&self, host: &str) -> Option<Vec<IpAddr>> {
        if let Ok(address) = host.parse() {
            return Some(vec![address]);
        }
        // Absolute, so that no search domain is tried: the URL names a host of the world, not of this machine's site.
        let name = format!("{}.", host.strip_suffix('.').unwrap_or(host));
        let found = self.0.as_ref()?.lookup_ip(name).await.ok()?;
        let addresses: Vec<IpAddr> = found.iter().take(ADDRESSES_MAX).collect();
        (!addresses.is_empty()).then_some(addresses)
    }
}

fn bound(options: &mut ResolverOpts) {
    options.cache_size = CACHE_ENTRIES_MAX;
    options.positive_max_ttl = Some(Duration::from_secs(CACHE_SECONDS_MAX));
    options.negative_max_ttl = Some(Duration::from_secs(CACHE_FAILURE_SECONDS_MAX));
    options.timeout = Duration::from_millis(SERVER_MS_MAX);
}
