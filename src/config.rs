//! Configuration: a TOML file plus command-line overrides in, one checked [`Config`] out.
//!
//! Raw, unchecked structs stop in this file. Whoever holds a [`Config`] holds values that were checked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use atoll_loader::CheckConfig;
use atoll_loader::limits::{Limits, MIB};
use serde::Deserialize;

use crate::admission::{GlobalPolicy, TenantPolicy};
use crate::route::overrides::{ROUTE_RULES_MAX, RawRouteRule, RouteRule};

/// Longest tenant or worker name, in bytes: both are DNS labels.
pub const NAME_BYTES_MAX: usize = 63;
/// Largest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 4 * MIB as u64;
/// Least memory of an isolate host, in MiB.
const HOST_MEMORY_MIB_MIN: u64 = 256;
/// Most tenants in one configuration.
const TENANTS_MAX: usize = 10_000;
/// Most tokens of one tenant.
const TOKENS_PER_TENANT_MAX: usize = 64;

/// What went wrong with the configuration, and where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is larger than any sensible configuration.
    #[error("the configuration {0} is larger than 4 MiB")]
    TooLarge(PathBuf),
    /// Not TOML, or an unknown key, or a value of the wrong type.
    #[error("{path}: {source}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Position and reason.
        source: Box<toml::de::Error>,
    },
    /// A value that parses but makes no sense.
    #[error("configuration key `{key}`: {reason}")]
    Value {
        /// Dotted key.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// A tenant's or worker's name: a lower-case DNS label, so that it can be part of a host name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// Accepts `[a-z0-9]([a-z0-9-]*[a-z0-9])?` of at most [`NAME_BYTES_MAX`] bytes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        let fits = !bytes.is_empty() && bytes.len() <= NAME_BYTES_MAX;
        let ends = fits && ok(bytes[0]) && ok(bytes[bytes.len() - 1]);
        (ends && bytes.iter().all(|&b| ok(b) || b == b'-')).then(|| Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, shared.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How guests are hosted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosting {
    /// In the gateway's own process: for development and embedding, no wall.
    InProcess,
    /// In this many isolate host processes.
    Processes(usize),
}

/// Certificate chain and private key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, leaf first.
    pub certificate: PathBuf,
    /// Private key (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
}

/// Bounds and timeouts of the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections open at once; further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// Time to receive a whole request head, and longest idle time between requests.
    pub head_timeout: Duration,
    /// Longest silence within a request body, and longest stall of a client that does not read.
    pub body_timeout: Duration,
    /// Largest request body, in bytes.
    pub body_bytes_max: u64,
    /// How long running requests may take to finish once draining begins.
    pub drain_timeout: Duration,
}

/// What one bearer token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Read workers, versions and logs.
    Read,
    /// Deploy, roll back, delete, fire scheduled events.
    Deploy,
    /// `POST /v1/execute`.
    Execute,
}

/// A bearer token as the gateway knows it: never the token, only its SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the token's bytes.
    pub sha256: [u8; 32],
    /// What it allows.
    pub scopes: Vec<Scope>,
}

/// One tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// Its name.
    pub name: Name,
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// Custom host names that its workers may claim: exact names or `*.suffix`.
    pub hosts: Vec<String>,
    /// Whether its workers may be given outbound network access at all.
    pub outbound: bool,
    /// Ceiling of what one invocation may use.
    pub limits: Limits,
    /// Its share of the machine.
    pub policy: TenantPolicy,
}

/// The checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses to listen on; port 0 picks one.
    pub listen: Vec<SocketAddr>,
    /// Workers answer at `{worker}.{tenant}.{base_domain}`.
    pub base_domain: String,
    /// Where deployments are stored.
    pub data_dir: PathBuf,
    /// TLS on every listener, if set.
    pub tls: Option<TlsFiles>,
    /// Development mode: guest errors with stacks reach the client.
    pub dev: bool,
    /// How guests are hosted.
    pub hosting: Hosting,
    /// Resident memory that one isolate host may hold, in MiB; by default a share of what there is.
    pub isolate_host_memory_mib: Option<u64>,
    /// Isolate hosts that cannot be confined completely serve nobody.
    pub require_sandbox: bool,
    /// Listener bounds.
    pub http: HttpLimits,
    /// Bounds over all tenants.
    pub admission: GlobalPolicy,
    /// Private destinations (`host:port`) that outbound channels may reach in spite of the address rules.
    pub allow_private: Vec<String>,
    /// What the operator asks of code beyond the fixed rules.
    pub checks: CheckConfig,
    /// The operator's own rules for where steps run, in order.
    pub routes: Vec<RouteRule>,
    /// Sandboxes for steps that need a filesystem or a binary; `None`: there are none.
    pub sandbox: Option<SandboxConfig>,
    /// Tenants by name.
    pub tenants: BTreeMap<Name, Arc<Tenant>>,
}

/// What the command line may override.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Replaces `listen` if not empty.
    pub listen: Vec<SocketAddr>,
    /// Replaces `base_domain`.
    pub base_domain: Option<String>,
    /// Replaces `data_dir`.
    pub data_dir: Option<PathBuf>,
    /// Replaces `[tls]`.
    pub tls: Option<TlsFiles>,
    /// Turns development mode on.
    pub dev: bool,
    /// Replaces `isolate_hosts`.
    pub hosting: Option<Hosting>,
    /// Turns `require_sandbox` on.
    pub require_sandbox: bool,
}

impl Config {
    /// Reads the file, if any, applies the overrides, checks everything.
    pub fn load(file: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigError> {
        let raw = match file {
            None => Raw::default(),
            Some(path) => {
                let read = |source| ConfigError::Read { path: path.into(), source };
                if std::fs::metadata(path).map_err(read)?.len() > FILE_BYTES_MAX {
                    return Err(ConfigError::TooLarge(path.into()));
                }
                let text = std::fs::read_to_string(path).map_err(read)?;
                parse_raw(&text, path)?
            }
        };
        raw.check(overrides)
    }

    /// The same from text, for embedding and tests.
    pub fn parse(text: &str, overrides: Overrides) -> Result<Self, ConfigError> {
        parse_raw(text, Path::new("configuration"))?.check(overrides)
    }
}

fn parse_raw(text: &str, path: &Path) -> Result<Raw, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError::Syntax { path: path.into(), source: Box::new(error) })
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw {
    listen: Option<Vec<SocketAddr>>,
    base_domain: Option<String>,
    data_dir: Option<PathBuf>,
    isolate_hosts: Option<usize>,
    isolate_host_memory_mib: Option<u64>,
    require_sandbox: bool,
    dev: bool,
    tls: Option<RawTls>,
    http: RawHttp,
    admission: RawAdmission,
    outbound: RawOutbound,
    checks: CheckConfig,
    route: Vec<RawRouteRule>,
    sandbox: Option<SandboxConfig>,
    tenants: BTreeMap<String, RawTenant>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTls {
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawHttp {
    connections_max: usize,
    head_timeout_ms: u64,
    body_timeout_ms: u64,
    body_bytes_max: u64,
    drain_timeout_ms: u64,
}

impl Default for RawHttp {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            head_timeout_ms: 30_000,
            body_timeout_ms: 60_000,
            body_bytes_max: 100 * MIB as u64,
            drain_timeout_ms: 30_000,
        }
    }
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawAdmission {
    in_flight_max: u32,
}

impl Default for RawAdmission {
    fn default() -> Self {
        Self { in_flight_max: GlobalPolicy::default().in_flight_max }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawOutbound {
    allow_private: Vec<String>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawTenant {
    tokens: Vec<RawToken>,
    hosts: Vec<String>,
    outbound: bool,
    limits: Limits,
    concurrent_max: u32,
    executions_max: u32,
    loads_per_second: u32,
    loads_burst: u32,
}

impl Default for RawTenant {
    fn default() -> Self {
        let policy = TenantPolicy::default();
        Self {
            tokens: Vec::new(),
            hosts: Vec::new(),
            outbound: true,
            limits: Limits::default(),
            concurrent_max: policy.concurrent_max,
            executions_max: policy.executions_max,
            loads_per_second: policy.loads_per_second,
            loads_burst: policy.loads_burst,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawToken {
    Hash(String),
    Scoped { sha256: String, scopes: Vec<Scope> },
}

impl Raw {
    fn check(self, overrides: Overrides) -> Result<Config, ConfigError> {
        let mut listen = self.listen.unwrap_or_else(|| vec![SocketAddr::from(([127, 0, 0, 1], 8080))]);
        if !overrides.listen.is_empty() {
            listen = overrides.listen;
        }
        ensure(!listen.is_empty(), "listen", "needs at least one address")?;
        let base_domain = overrides.base_domain.or(self.base_domain).unwrap_or_else(|| "localhost".into());
        ensure(is_host_name(&base_domain), "base_domain", "is not a lower-case host name")?;
        let file_tls = self.tls.map(|t| TlsFiles { certificate: t.certificate, key: t.key });
        let hosting = match (overrides.hosting, self.isolate_hosts) {
            (Some(hosting), _) => hosting,
            (None, Some(0)) => Hosting::InProcess,
            (None, count) => Hosting::Processes(count.unwrap_or(1)),
        };
        if let Hosting::Processes(count) = hosting {
            ensure((1..=64).contains(&count), "isolate_hosts", "must be 0 (in-process) to 64")?;
        }
        let require_sandbox = overrides.require_sandbox || self.require_sandbox;
        let walled = hosting != Hosting::InProcess;
        ensure(walled || !require_sandbox, "require_sandbox", "needs isolate hosts: in-process has no wall")?;
        let memory = self.isolate_host_memory_mib.unwrap_or(HOST_MEMORY_MIB_MIN);
        ensure(memory >= HOST_MEMORY_MIB_MIN, "isolate_host_memory_mib", "must be at least 256")?;
        ensure(self.tenants.len() <= TENANTS_MAX, "tenants", "has too many entries")?;
        let mut tenants = BTreeMap::new();
        for (name, raw) in self.tenants {
            let tenant = raw.check(&name)?;
            tenants.insert(tenant.name.clone(), Arc::new(tenant));
        }
        ensure(self.admission.in_flight_max > 0, "admission.in_flight_max", "must be at least 1")?;
        Ok(Config {
            listen,
            base_domain,
            data_dir: overrides.data_dir.or(self.data_dir).unwrap_or_else(|| "atoll-data".into()),
            tls: overrides.tls.or(file_tls),
            dev: overrides.dev || self.dev,
            hosting,
            isolate_host_memory_mib: self.isolate_host_memory_mib,
            require_sandbox,
            http: self.http.check()?,
            admission: GlobalPolicy { in_flight_max: self.admission.in_flight_max },
            allow_private: self.outbound.allow_private,
            checks: self.checks,
            routes: routes(self.route)?,
            sandbox: self.sandbox.map(SandboxConfig::checked).transpose()?,
            tenants,
        })
    }
}

/// `[sandbox]`: container sandboxes made by this program itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxConfig {
    /// Memory of one sandbox, its disk included, in MiB.
    pub memory_mib: u32,
    /// What one sandbox can write, in MiB.
    pub disk_mib: u32,
    /// CPU share of one sandbox, in thousandths of a core.
    pub cpu_millis: u32,
    /// Processes and threads of one sandbox.
    pub pids: u32,
    /// Longest life of one sandbox, in seconds.
    pub lifetime_s: u32,
    /// Longest time without use, in seconds.
    pub idle_s: u32,
    /// Sandboxes at once.
    pub sandboxes_max: usize,
    /// Sandboxes of one tenant at once.
    pub sandboxes_per_tenant_max: usize,
    /// Go on where the system does not let memory, processes and CPU be bounded. For development only.
    pub allow_unbounded: bool,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            memory_mib: 512,
            disk_mib: 256,
            cpu_millis: 1_000,
            pids: 256,
            lifetime_s: 600,
            idle_s: 120,
            sandboxes_max: 128,
            sandboxes_per_tenant_max: 32,
            allow_unbounded: false,
        }
    }
}

impl SandboxConfig {
    /// The bounds in the bridge's units.
    #[must_use]
    pub fn limits(&self) -> atoll_container_bridge::limits::Limits {
        const BYTES_PER_MIB: u64 = atoll_container_bridge::limits::MIB;
        atoll_container_bridge::limits::Limits {
            memory_bytes: u64::from(self.memory_mib) * BYTES_PER_MIB,
            cpu_millis: self.cpu_millis,
            pids: self.pids,
            disk_bytes: u64::from(self.disk_mib) * BYTES_PER_MIB,
            lifetime_ms: u64::from(self.lifetime_s) * 1_000,
            ..atoll_container_bridge::limits::Limits::default()
        }
    }

    fn checked(self) -> Result<Self, ConfigError> {
        const REASON: &str = "has a bound out of range: memory_mib is at least disk_mib + 32, disk_mib at least 1, cpu_millis 10 to \
                              1024000, pids 16 to 32768, lifetime_s 1 to 86400";
        ensure(self.limits().check().is_ok(), "sandbox", REASON)?;
        Ok(self)
    }
}

fn routes(rules: Vec<RawRouteRule>) -> Result<Vec<RouteRule>, ConfigError> {
    ensure(rules.len() <= ROUTE_RULES_MAX, "route", "has more than 1000 rules")?;
    let check = |(at, rule): (usize, RawRouteRule)| {
        // Counted from 1: the first, second … `[[route]]` of the file.
        let key = |field| format!("route[{}].{field}", at + 1);
        rule.check().map_err(|(field, reason)| ConfigError::Value { key: key(field), reason })
    };
    rules.into_iter().enumerate().map(check).collect()
}

impl RawHttp {
    fn check(self) -> Result<HttpLimits, ConfigError> {
        ensure(self.connections_max > 0, "http.connections_max", "must be at least 1")?;
        ensure(self.connections_max <= 1_000_000, "http.connections_max", "must be at most 1000000")?;
        ensure(self.head_timeout_ms > 0, "http.head_timeout_ms", "must be at least 1")?;
        ensure(self.body_timeout_ms > 0, "http.body_timeout_ms", "must be at least 1")?;
        Ok(HttpLimits {
            connections_max: self.connections_max,
            head_timeout: Duration::from_millis(self.head_timeout_ms),
            body_timeout: Duration::from_millis(self.body_timeout_ms),
            body_bytes_max: self.body_bytes_max,
            drain_timeout: Duration::from_millis(self.drain_timeout_ms),
        })
    }
}

impl RawTenant {
    fn check(self, name: &str) -> Result<Tenant, ConfigError> {
        let key = |field: &str| format!("tenants.{name}.{field}");
        let Some(name) = Name::parse(name) else {
            return Err(ConfigError::Value {
                key: format!("tenants.{name}"),
                reason: "a tenant's name is a lower-case DNS label",
            });
        };
        ensure(self.tokens.len() <= TOKENS_PER_TENANT_MAX, &key("tokens"), "has too many entries")?;
        let tokens =
            self.tokens.into_iter().map(|raw| raw.check(&key("tokens"))).collect::<Result<_, _>>()?;
        for host in &self.hosts {
            let bare = host.strip_prefix("*.").unwrap_or(host);
            ensure(is_host_name(bare), &key("hosts"), "is not a lower-case host name or `*.` pattern")?;
        }
        let policy = TenantPolicy {
            concurrent_max: self.concurrent_max,
            executions_max: self.executions_max,
            loads_per_second: self.loads_per_second,
            loads_burst: self.loads_burst,
        };
        ensure(policy.loads_burst > 0, &key("loads_burst"), "must be at least 1")?;
        Ok(Tenant {
            name,
            tokens,
            hosts: self.hosts,
            outbound: self.outbound,
            limits: self.limits.lower_of(Limits::CEILING),
            policy,
        })
    }
}

impl RawToken {
    fn check(self, key: &str) -> Result<Token, ConfigError> {
        let (hex, scopes) = match self {
            Self::Hash(hex) => (hex, vec![Scope::Read, Scope::Deploy, Scope::Execute]),
            Self::Scoped { sha256, scopes } => (sha256, scopes),
        };
        let sha256 = parse_hex(&hex).ok_or_else(|| ConfigError::Value {
            key: key.into(),
            reason: "a token is given as the 64 hexadecimal digits of its SHA-256",
        })?;
        Ok(Token { sha256, scopes })
    }
}

fn ensure(holds: bool, key: &str, reason: &'static str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::Value { key: key.into(), reason }) }
}

/// 64 hexadecimal digits as 32 bytes.
#[must_use]
pub fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let nibble = |d: u8| char::from(d).to_digit(16).and_then(|n| u8::try_from(n).ok());
        *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
    }
    Some(out)
}

/// Whether this is a lower-case DNS host name.
#[must_use]
pub fn is_host_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|label| Name::parse(label).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_gives_safe_defaults() {
        let config = Config::parse("", Overrides::default()).unwrap();
        assert_eq!(config.listen, ["127.0.0.1:8080".parse().unwrap()]);
        assert_eq!(config.hosting, Hosting::Processes(1));
        assert!(config.tenants.is_empty() && !config.dev && config.tls.is_none());
    }

    #[test]
    fn a_full_file_is_understood_and_flags_win() {
        let hash = "ab".repeat(32);
        let text = format!(
            "listen = [\"0.0.0.0:80\"]\nbase_domain = \"example.com\"\n[tls]\ncertificate = \"c\"\nkey = \"k\"\n\
             [tenants.acme]\ntokens = [\"{hash}\", {{ sha256 = \"{hash}\", scopes = [\"read\"] }}]\n\
             hosts = [\"*.acme.dev\"]\nlimits = {{ cpu_ms = 4000000 }}\n"
        );
        let listen = vec!["127.0.0.1:0".parse().unwrap()];
        let config =
            Config::parse(&text, Overrides { listen: listen.clone(), ..Overrides::default() }).unwrap();
        assert_eq!(config.listen, listen);
        let acme = &config.tenants[&Name::parse("acme").unwrap()];
        assert_eq!(acme.tokens[0].sha256, [0xab; 32]);
        assert_eq!(acme.tokens[1].scopes, [Scope::Read]);
        assert_eq!(acme.limits.cpu_ms, Limits::CEILING.cpu_ms, "an operator cannot exceed the ceiling");
    }

    #[test]
    fn nonsense_is_refused_with_the_key_that_holds_it() {
        for (text, named) in [
            ("listen = []", "listen"),
            ("colour = 1", "colour"),
            ("base_domain = \"-x\"", "base_domain"),
            ("[tenants.\"../x\"]", "tenants"),
            ("[tenants.a]\ntokens = [\"secret\"]", "tenants.a.tokens"),
            ("[tenants.a]\nhosts = [\"a b\"]", "tenants.a.hosts"),
            ("isolate_hosts = 65", "isolate_hosts"),
            ("isolate_hosts = 0\nrequire_sandbox = true", "require_sandbox"),
            ("isolate_host_memory_mib = 10", "isolate_host_memory_mib"),
            ("[http]\nconnections_max = 0", "http.connections_max"),
            (
                "[[route]]\nname = \"a\"\nruntime = \"sandbox\"\n[[route]]\nname = \"\"\nruntime = \"sandbox\"",
                "route[2].name",
            ),
            ("[[route]]\nname = \"a\"\nruntime = \"moon\"", "runtime"),
        ] {
            let error = Config::parse(text, Overrides::default()).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "a1", "a-b", &"x".repeat(63)] {
            assert!(Name::parse(good).is_some(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "../a", "ä", &"x".repeat(64)] {
            assert!(Name::parse(bad).is_none(), "{bad}");
        }
    }
}
