//! `[tenants.NAME]` of the configuration: who may do what, and how much.

use atoll_loader::limits::Limits;
use serde::{Deserialize, Deserializer, Serialize};

use super::short::text_or_table;
use super::{ConfigError, Name, ensure, is_host_name};
use crate::admission::TenantPolicy;
use crate::kv::KvQuota;

/// Most tokens of one tenant.
const TOKENS_PER_TENANT_MAX: usize = 64;

/// What one bearer token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Read workers, versions and logs.
    Read,
    /// Deploy, roll back, delete, fire scheduled events.
    Deploy,
    /// `POST /v1/execute`.
    Execute,
    /// `/v1/sandboxes`.
    Sandbox,
    /// Read the tenant's own records of the audit log.
    Audit,
    /// Change secrets and proxies.
    Secrets,
    /// Make and revoke API tokens.
    Tokens,
    /// Get short-lived tokens, with which proxies are used.
    Proxy,
    /// See and restart the isolate hosts of the whole server: for operators.
    Hosts,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 9] = [
        Self::Read,
        Self::Deploy,
        Self::Execute,
        Self::Sandbox,
        Self::Audit,
        Self::Secrets,
        Self::Tokens,
        Self::Proxy,
        Self::Hosts,
    ];

    /// Those of a token whose configuration names none. What reaches credentials, or other tenants, must be named.
    pub const UNNAMED: [Self; 5] = [Self::Read, Self::Deploy, Self::Execute, Self::Sandbox, Self::Audit];

    /// The scope of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    /// Its name, as configurations and the API write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Deploy => "deploy",
            Self::Execute => "execute",
            Self::Sandbox => "sandbox",
            Self::Audit => "audit",
            Self::Secrets => "secrets",
            Self::Tokens => "tokens",
            Self::Proxy => "proxy",
            Self::Hosts => "hosts",
        }
    }
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
    /// Policy classes that its workers may use, the default one first. Empty: none.
    pub egress: Vec<String>,
    /// The class of isolate hosts that run its code; `None`: those of everybody.
    pub host_class: Option<String>,
    /// Ceiling of what one invocation may use.
    pub limits: Limits,
    /// Its share of the machine.
    pub policy: TenantPolicy,
    /// What its key-value namespaces may hold.
    pub kv: KvQuota,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawTenant {
    tokens: Vec<RawToken>,
    hosts: Vec<String>,
    outbound: bool,
    egress: Vec<String>,
    host_class: Option<String>,
    limits: Limits,
    concurrent_max: u32,
    executions_max: u32,
    loads_per_second: u32,
    loads_burst: u32,
    kv: KvQuota,
}

impl Default for RawTenant {
    fn default() -> Self {
        let policy = TenantPolicy::default();
        Self {
            tokens: Vec::new(),
            hosts: Vec::new(),
            outbound: true,
            egress: Vec::new(),
            host_class: None,
            limits: Limits::default(),
            concurrent_max: policy.concurrent_max,
            executions_max: policy.executions_max,
            loads_per_second: policy.loads_per_second,
            loads_burst: policy.loads_burst,
            kv: KvQuota::default(),
        }
    }
}

struct RawToken(TokenTable);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenTable {
    sha256: String,
    #[serde(default = "unnamed")]
    scopes: Vec<Scope>,
}

fn unnamed() -> Vec<Scope> {
    Scope::UNNAMED.to_vec()
}

impl From<String> for TokenTable {
    fn from(sha256: String) -> Self {
        Self { sha256, scopes: unnamed() }
    }
}

impl<'de> Deserialize<'de> for RawToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_table(deserializer, "a token's SHA-256, or a table with `sha256` and `scopes`").map(Self)
    }
}

impl RawTenant {
    pub(super) fn check(self, name: &str) -> Result<Tenant, ConfigError> {
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
            egress: self.egress,
            host_class: self.host_class,
            limits: self.limits.lower_of(Limits::CEILING),
            policy,
            kv: self.kv,
        })
    }
}

impl RawToken {
    fn check(self, key: &str) -> Result<Token, ConfigError> {
        let TokenTable { sha256, scopes } = self.0;
        let sha256 = parse_hex(&sha256).ok_or_else(|| ConfigError::Value {
            key: key.into(),
            reason: "a token is given as the 64 hexadecimal digits of its SHA-256",
        })?;
        Ok(Token { sha256, scopes })
    }
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
