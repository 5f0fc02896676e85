//! From host name and path to a worker: pure functions, and the table of what is deployed.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::config::Name;
use crate::dispatch::Deployment;

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// To a worker named by host or path.
    Worker {
        /// Whose.
        tenant: &'a str,
        /// Which.
        worker: &'a str,
        /// Bytes at the front of the path that the guest does not see.
        strip: usize,
    },
    /// To the worker that claims this host name; if none does, to the gateway's own paths.
    Custom(&'a str),
    /// To an exposed port of a sandbox, for whoever knows its token.
    Preview {
        /// The token.
        token: &'a str,
        /// Bytes at the front of the path that the program inside does not see.
        strip: usize,
    },
    /// To the gateway's own paths, which no worker can take away on the base domain.
    Gateway,
}

/// What precedes the token in a preview's host name: one label, so that one certificate covers workers' neighbours too.
pub const PREVIEW_HOST_PREFIX: &str = "preview-";
/// What precedes the token in a preview's path, under the gateway's own host name.
pub const PREVIEW_PATH_PREFIX: &str = "/preview/";

/// The host name of an authority: without port, without a trailing dot. `None` for what is no host name.
#[must_use]
pub fn host_name(authority: &str) -> Option<&str> {
    if let Some(bracketed) = authority.strip_prefix('[') {
        return bracketed.split_once(']').map(|(address, _)| address);
    }
    let (host, port) = authority.split_once(':').map_or((authority, None), |(h, p)| (h, Some(p)));
    if port.is_some_and(|port| !port.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    (!host.is_empty()).then_some(host)
}

/// Decides from a lower-case host name and a path.
#[must_use]
pub fn route<'a>(host: &'a str, path: &'a str, base_domain: &str) -> Route<'a> {
    if let Some(labels) = host.strip_suffix(base_domain).and_then(|rest| rest.strip_suffix('.')) {
        return match labels.split_once('.') {
            Some((worker, tenant)) if !tenant.contains('.') => Route::Worker { tenant, worker, strip: 0 },
            None if labels.starts_with(PREVIEW_HOST_PREFIX) => {
                Route::Preview { token: &labels[PREVIEW_HOST_PREFIX.len()..], strip: 0 }
            }
            _ => Route::Custom(host),
        };
    }
    if let Some(rest) = path.strip_prefix("/w/") {
        let mut parts = rest.splitn(3, '/');
        if let (Some(tenant), Some(worker)) = (parts.next(), parts.next()) {
            return Route::Worker { tenant, worker, strip: "/w/".len() + tenant.len() + 1 + worker.len() };
        }
    }
    let own = host == base_domain || host.parse::<std::net::IpAddr>().is_ok();
    if let Some(rest) = path.strip_prefix(PREVIEW_PATH_PREFIX).filter(|_| own) {
        let token = rest.split('/').next().unwrap_or_default();
        return Route::Preview { token, strip: PREVIEW_PATH_PREFIX.len() + token.len() };
    }
    if own && is_gateway_path(path) { Route::Gateway } else { Route::Custom(host) }
}

fn is_gateway_path(path: &str) -> bool {
    let own =
        ["/healthz", "/readyz", "/metrics", "/.well-known/jwks.json", "/.well-known/openid-configuration"];
    own.contains(&path) || path.starts_with("/v1/") || path == "/v1"
}

/// What is deployed now, by tenant and worker, and by custom host name.
#[derive(Default)]
pub struct Routes {
    tables: RwLock<Tables>,
}

#[derive(Default)]
struct Tables {
    tenants: HashMap<Arc<str>, HashMap<Arc<str>, Arc<Deployment>>>,
    hosts: HashMap<Arc<str>, Arc<Deployment>>,
}

impl Routes {
    /// The deployment that serves this worker.
    #[must_use]
    pub fn worker(&self, tenant: &str, worker: &str) -> Option<Arc<Deployment>> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).tenants.get(tenant)?.get(worker).cloned()
    }

    /// The deployment that claims this host name.
    #[must_use]
    pub fn host(&self, host: &str) -> Option<Arc<Deployment>> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).hosts.get(host).cloned()
    }

    /// Every deployment.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Deployment>> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables.tenants.values().flat_map(|workers| workers.values().cloned()).collect()
    }

    /// Puts a deployment in the place of the one before it; returns that one.
    pub fn switch(&self, deployment: &Arc<Deployment>) -> Option<Arc<Deployment>> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let workers = tables.tenants.entry(deployment.tenant.shared()).or_default();
        let old = workers.insert(deployment.worker.shared(), deployment.clone());
        if let Some(old) = &old {
            tables.hosts.retain(|_, claimed| !Arc::ptr_eq(claimed, old));
        }
        for host in &deployment.hosts {
            tables.hosts.insert(host.as_str().into(), deployment.clone());
        }
        old
    }

    /// Takes a worker away; returns its deployment.
    pub fn remove(&self, tenant: &Name, worker: &Name) -> Option<Arc<Deployment>> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let old = tables.tenants.get_mut(tenant.as_str())?.remove(worker.as_str())?;
        tables.hosts.retain(|_, claimed| !Arc::ptr_eq(claimed, &old));
        Some(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_found_by_host_and_by_path() {
        let worker = |tenant, worker, strip| Route::Worker { tenant, worker, strip };
        for (host, path, expected) in [
            ("hello.acme.example.com", "/v1/x", worker("acme", "hello", 0)),
            ("hello.acme.example.com", "/w/a/b", worker("acme", "hello", 0)),
            ("example.com", "/w/acme/hello", worker("acme", "hello", 13)),
            ("example.com", "/w/acme/hello/", worker("acme", "hello", 13)),
            ("127.0.0.1", "/w/acme/hello/a/b", worker("acme", "hello", 13)),
            ("example.com", "/w/acme", Route::Custom("example.com")),
            ("example.com", "/v1", Route::Gateway),
            ("other.org", "/healthz", Route::Custom("other.org")),
            ("127.0.0.1", "/healthz", Route::Gateway),
            ("127.0.0.1", "/v1/workers", Route::Gateway),
            ("other.org", "/", Route::Custom("other.org")),
            ("acme.example.com", "/", Route::Custom("acme.example.com")),
            ("a.b.c.example.com", "/", Route::Custom("a.b.c.example.com")),
            ("notexample.com", "/", Route::Custom("notexample.com")),
            ("preview-t0.example.com", "/v1/x", Route::Preview { token: "t0", strip: 0 }),
            ("preview-t0.acme.example.com", "/", worker("acme", "preview-t0", 0)),
            ("example.com", "/preview/t0/a", Route::Preview { token: "t0", strip: 11 }),
            ("127.0.0.1", "/preview/t0", Route::Preview { token: "t0", strip: 11 }),
            ("other.org", "/preview/t0/", Route::Custom("other.org")),
        ] {
            assert_eq!(route(host, path, "example.com"), expected, "{host} {path}");
        }
    }

    #[test]
    fn authorities_are_read() {
        for (authority, expected) in [
            ("a.b", Some("a.b")),
            ("a.b:80", Some("a.b")),
            ("a.b.", Some("a.b")),
            ("[::1]:80", Some("::1")),
            ("a:b", None),
            ("", None),
            ("[::1", None),
        ] {
            assert_eq!(host_name(authority), expected, "{authority}");
        }
    }
}
