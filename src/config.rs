//! Configuration: a TOML file plus command-line overrides in, one checked [`Config`] out.
//!
//! Raw, unchecked structs stop in this module. Whoever holds a [`Config`] holds values that were checked. Each table has its
//! file; what only the whole can know is checked here.

mod audit;
mod egress;
mod hosts;
mod http;
mod identity;
mod name;
mod sandbox;
mod secrets;
mod short;
mod tenant;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atoll_loader::CheckConfig;
use atoll_loader::limits::MIB;
use serde::Deserialize;

pub use audit::{AuditConfig, Fsync, OnFull};
pub use egress::EgressClass;
pub use hosts::HostClassConfig;
pub use http::HttpLimits;
pub use identity::IdentityConfig;
pub use name::{NAME_BYTES_MAX, Name, is_host_name};
pub use sandbox::{
    EngineOptions, KubernetesOptions, NetworkPolicy, PullPolicy, SandboxBackend, SandboxConfig, Toleration,
};
pub use secrets::{KeyFrom, KeySource, SecretsConfig};
pub use tenant::{Scope, Tenant, Token, parse_hex};

use http::RawHttp;
use tenant::RawTenant;

use crate::access::proxies::settings::{PROXIES_MAX, ProxySettings};
use crate::admission::GlobalPolicy;
use crate::cost::Prices;
use crate::hosts::PenaltyPolicy;
use crate::route::overrides::{ROUTE_RULES_MAX, RawRouteRule, RouteRule};

/// Largest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 4 * MIB as u64;
/// Least memory of an isolate host, in MiB.
const HOST_MEMORY_MIB_MIN: u64 = 256;
/// Most tenants in one configuration.
const TENANTS_MAX: usize = 10_000;

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
    /// Addresses that outbound channels never reach: those of the gateway itself that it cannot know, as behind NAT.
    pub deny_addresses: Vec<String>,
    /// Name servers for outbound channels; empty: the system's.
    pub name_servers: Vec<SocketAddr>,
    /// PEM files of certificate authorities that outbound TLS trusts besides those of the web.
    pub extra_roots: Vec<PathBuf>,
    /// Policy classes of outgoing requests, by name.
    pub egress: BTreeMap<String, EgressClass>,
    /// The operator's secret proxies, by name.
    pub proxies: BTreeMap<Name, ProxySettings>,
    /// Where the master key of secrets comes from; `None`: there are no secrets.
    pub secrets: Option<SecretsConfig>,
    /// As whom the gateway signs.
    pub identity: IdentityConfig,
    /// What the operator asks of code beyond the fixed rules.
    pub checks: CheckConfig,
    /// The operator's own rules for where steps run, in order.
    pub routes: Vec<RouteRule>,
    /// Sandboxes for steps that need a filesystem or a binary; `None`: there are none.
    pub sandbox: Option<SandboxConfig>,
    /// Further classes of isolate hosts, by name.
    pub host_classes: BTreeMap<String, HostClassConfig>,
    /// What tenants that end isolate hosts are made to do.
    pub blame: PenaltyPolicy,
    /// The audit log.
    pub audit: AuditConfig,
    /// What executions cost; `None`: nobody counts.
    pub cost: Option<Prices>,
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
    egress: BTreeMap<String, egress::RawClass>,
    proxy: BTreeMap<String, ProxySettings>,
    secrets: Option<secrets::RawSecrets>,
    identity: identity::RawIdentity,
    checks: CheckConfig,
    route: Vec<RawRouteRule>,
    sandbox: Option<SandboxConfig>,
    host_class: BTreeMap<String, hosts::RawHostClass>,
    blame: PenaltyPolicy,
    audit: audit::RawAudit,
    cost: Option<Prices>,
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
    deny_addresses: Vec<String>,
    name_servers: Vec<SocketAddr>,
    extra_roots: Vec<PathBuf>,
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
        let identity = self.identity.check(&base_domain)?;
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
        ensure(self.egress.len() <= egress::CLASSES_MAX, "egress", "has too many entries")?;
        let class = |(name, raw): (String, egress::RawClass)| raw.check(&name).map(|class| (name, class));
        let egress: BTreeMap<_, _> = self.egress.into_iter().map(class).collect::<Result<_, _>>()?;
        ensure(self.host_class.len() <= hosts::CLASSES_MAX, "host_class", "has too many entries")?;
        ensure(
            walled || self.host_class.is_empty(),
            "host_class",
            "needs isolate hosts: in-process has none",
        )?;
        let class = |(name, raw): (String, hosts::RawHostClass)| raw.check(&name).map(|class| (name, class));
        let host_classes: BTreeMap<_, _> =
            self.host_class.into_iter().map(class).collect::<Result<_, _>>()?;
        ensure(
            self.blame.is_sound(),
            "blame",
            "makes no sense: suspend_after is above quarantine_after, every number at least 1",
        )?;
        let mut tenants = BTreeMap::new();
        for (name, raw) in self.tenants {
            let tenant = raw.check(&name)?;
            let known = tenant.egress.iter().all(|class| egress.contains_key(class));
            ensure(known, &format!("tenants.{name}.egress"), "names a class that is not there")?;
            let known = tenant.host_class.as_ref().is_none_or(|class| host_classes.contains_key(class));
            ensure(known, &format!("tenants.{name}.host_class"), "names a class that is not there")?;
            tenants.insert(tenant.name.clone(), Arc::new(tenant));
        }
        let proxies = proxies(self.proxy, &egress, &tenants)?;
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
            deny_addresses: self.outbound.deny_addresses,
            name_servers: self.outbound.name_servers,
            extra_roots: self.outbound.extra_roots,
            egress,
            proxies,
            secrets: self.secrets.map(secrets::RawSecrets::check).transpose()?,
            identity,
            checks: self.checks,
            routes: routes(self.route)?,
            sandbox: self.sandbox.map(SandboxConfig::checked).transpose()?,
            host_classes,
            blame: self.blame,
            audit: self.audit.check()?,
            cost: self.cost,
            tenants,
        })
    }
}

fn proxies(
    raw: BTreeMap<String, ProxySettings>,
    egress: &BTreeMap<String, EgressClass>,
    tenants: &BTreeMap<Name, Arc<Tenant>>,
) -> Result<BTreeMap<Name, ProxySettings>, ConfigError> {
    ensure(raw.len() <= PROXIES_MAX, "proxy", "has too many entries")?;
    let check = |(name, settings): (String, ProxySettings)| {
        let bad = |field: &str, reason| ConfigError::Value { key: format!("proxy.{name}.{field}"), reason };
        let label = Name::parse(&name).ok_or_else(|| bad("", "a proxy's name is a lower-case DNS label"))?;
        settings.check().map_err(|error| bad(error.field, error.reason))?;
        let known = settings.egress.as_ref().is_none_or(|class| egress.contains_key(class));
        ensure(known, &format!("proxy.{name}.egress"), "names a class that is not there")?;
        let known = |tenant: &String| tenant == "*" || tenants.keys().any(|name| name.as_str() == tenant);
        let some = !settings.tenants.is_empty() && settings.tenants.iter().all(known);
        ensure(some, &format!("proxy.{name}.tenants"), "needs names of tenants, or `*` for all of them")?;
        Ok((label, settings))
    };
    raw.into_iter().map(check).collect()
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

fn ensure(holds: bool, key: &str, reason: &'static str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::Value { key: key.into(), reason }) }
}

#[cfg(test)]
mod tests {
    use atoll_loader::limits::Limits;

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
             [tenants.acme]\ntokens = [\"{hash}\", {{ sha256 = \"{hash}\", scopes = [\"read\"] }}, {{ sha256 = \"{hash}\" }}]\n\
             hosts = [\"*.acme.dev\"]\nlimits = {{ cpu_ms = 4000000 }}\n"
        );
        let listen = vec!["127.0.0.1:0".parse().unwrap()];
        let config =
            Config::parse(&text, Overrides { listen: listen.clone(), ..Overrides::default() }).unwrap();
        assert_eq!(config.listen, listen);
        let acme = &config.tenants[&Name::parse("acme").unwrap()];
        assert_eq!(acme.tokens[0].sha256, [0xab; 32]);
        assert_eq!(acme.tokens[1].scopes, [Scope::Read]);
        assert_eq!(acme.tokens[2].scopes, acme.tokens[0].scopes, "without scopes a table is its hash alone");
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
            ("[tenants.a]\ntokens = [1]", "or a table with `sha256` and `scopes`"),
            ("[tenants.a]\ntokens = [{ scopes = [] }]", "missing field `sha256`"),
            ("[tenants.a]\ntokens = [{ sha256 = \"\", scopes = [\"root\"] }]", "unknown variant `root`"),
            ("[tenants.a]\ntokens = [{ sha256 = \"\", scope = [\"read\"] }]", "unknown field `scope`"),
            ("[egress.a]\nallow = [{ origin = \"a.b\", method = [] }]", "unknown field `method`"),
            ("[tenants.a]\nhosts = [\"a b\"]", "tenants.a.hosts"),
            ("isolate_hosts = 65", "isolate_hosts"),
            ("isolate_hosts = 0\nrequire_sandbox = true", "require_sandbox"),
            ("isolate_host_memory_mib = 10", "isolate_host_memory_mib"),
            ("[http]\nconnections_max = 0", "http.connections_max"),
            ("[audit]\nfile_bytes_max = 1", "audit.file_bytes_max"),
            ("[audit]\non_full = \"ignore\"", "on_full"),
            ("[cost]\ncpu_ms = -1", "cpu_ms"),
            ("[blame]\nsuspend_after = 3", "blame"),
            ("[host_class.a]\nhosts = 0", "host_class.a.hosts"),
            ("[host_class.A]", "host_class.A"),
            ("[tenants.a]\nhost_class = \"b\"", "tenants.a.host_class"),
            ("isolate_hosts = 0\n[host_class.a]", "host_class"),
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
