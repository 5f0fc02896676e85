//! Policy classes of outgoing requests: `[egress.NAME]` in the configuration.
//!
//! ```toml
//! [egress.standard]
//! allow = ["*", { origin = "api.example.com", methods = ["GET"], paths = ["/v1"] }]
//! deny = ["*.internal.example.com"]
//! requests_per_second = 50
//! concurrent_max = 20
//! request_bytes_max = 1048576
//! response_bytes_max = 10485760
//! tunnels = { ports = [443], idle_s = 60, life_s = 600 }     # of sandboxes: `CONNECT`; these are the defaults
//! ```
//!
//! A class is the operator's ceiling; the list that a deployment brings along (`outbound`) can only narrow it.

use std::sync::Arc;
use std::time::Duration;

use atoll_bindings::egress::{Caps, HostPattern, PATTERNS_MAX, Policy, Rule, TunnelRules};
use http::Method;
use serde::{Deserialize, Deserializer};

use super::short::text_or_table;
use super::{ConfigError, ensure};

/// Most classes in one configuration.
pub(super) const CLASSES_MAX: usize = 1_000;
/// Most methods or paths of one rule.
const RULE_ENTRIES_MAX: usize = 100;
/// Most ports for tunnels.
const TUNNEL_PORTS_MAX: usize = 100;
/// Longest life of a tunnel, and longest silence in it, that can be configured, in seconds.
const TUNNEL_SECONDS_MAX: u64 = 24 * 3_600;

/// One class, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressClass {
    /// Where requests may go.
    pub policy: Policy,
    /// How many and how large, for each tenant.
    pub caps: Caps,
    /// Tunnels of sandboxes.
    pub tunnels: Arc<TunnelRules>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawClass {
    allow: Vec<RawRule>,
    deny: Vec<RawRule>,
    requests_per_second: Option<u32>,
    concurrent_max: Option<u32>,
    request_bytes_max: Option<u64>,
    response_bytes_max: Option<u64>,
    tunnels: RawTunnels,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawTunnels {
    ports: Option<Vec<u16>>,
    idle_s: Option<u64>,
    life_s: Option<u64>,
}

impl RawTunnels {
    fn check(self, key: &str) -> Result<TunnelRules, ConfigError> {
        let mut rules = TunnelRules::default();
        if let Some(ports) = self.ports {
            let sound = ports.len() <= TUNNEL_PORTS_MAX && !ports.contains(&0);
            ensure(sound, key, "has at most 100 ports, from 1 on")?;
            rules.ports = ports;
        }
        for (seconds, rule) in [(self.idle_s, &mut rules.idle), (self.life_s, &mut rules.life)] {
            if let Some(seconds) = seconds {
                ensure((1..=TUNNEL_SECONDS_MAX).contains(&seconds), key, "has times of 1 to 86400 seconds")?;
                *rule = Duration::from_secs(seconds);
            }
        }
        Ok(rules)
    }
}

struct RawRule(RuleTable);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    origin: String,
    #[serde(default)]
    methods: Vec<String>,
    #[serde(default)]
    paths: Vec<String>,
}

impl From<String> for RuleTable {
    fn from(origin: String) -> Self {
        Self { origin, methods: Vec::new(), paths: Vec::new() }
    }
}

impl<'de> Deserialize<'de> for RawRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_table(deserializer, "a host pattern, or a table with `origin`, `methods` and `paths`")
            .map(Self)
    }
}

impl RawClass {
    pub(super) fn check(self, name: &str) -> Result<EgressClass, ConfigError> {
        let key = |field: &str| format!("egress.{name}.{field}");
        ensure(
            super::Name::parse(name).is_some(),
            &format!("egress.{name}"),
            "a class's name is a lower-case DNS label",
        )?;
        ensure(self.allow.len() + self.deny.len() <= PATTERNS_MAX, &key("allow"), "has too many entries")?;
        for (field, value) in
            [("requests_per_second", self.requests_per_second), ("concurrent_max", self.concurrent_max)]
        {
            ensure(value != Some(0), &key(field), "must be at least 1")?;
        }
        let rules = |field: &str, rules: Vec<RawRule>, pattern: Pattern| {
            rules.into_iter().map(|raw| raw.check(&key(field), pattern)).collect::<Result<Vec<_>, _>>()
        };
        Ok(EgressClass {
            tunnels: Arc::new(self.tunnels.check(&key("tunnels"))?),
            policy: Policy {
                allow: rules("allow", self.allow, |text| text.parse().ok())?,
                deny: rules("deny", self.deny, |text| HostPattern::denying(text).ok())?,
            },
            caps: Caps {
                requests_per_second: self.requests_per_second,
                concurrent_max: self.concurrent_max,
                request_bytes_max: self.request_bytes_max,
                response_bytes_max: self.response_bytes_max,
            },
        })
    }
}

type Pattern = fn(&str) -> Option<HostPattern>;

impl RawRule {
    fn check(self, key: &str, pattern: Pattern) -> Result<Rule, ConfigError> {
        let RuleTable { origin, methods, paths } = self.0;
        let bad = |reason| ConfigError::Value { key: key.into(), reason };
        ensure(methods.len().max(paths.len()) <= RULE_ENTRIES_MAX, key, "has a rule with too many entries")?;
        let method = |text: String| {
            text.parse::<Method>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_uppercase()))
        };
        let methods: Option<Vec<_>> = methods.into_iter().map(method).collect();
        let paths: Option<Vec<_>> = paths.iter().map(|path| path.parse().ok()).collect();
        Ok(Rule {
            origin: pattern(&origin).ok_or_else(|| bad("holds something that is no host pattern"))?,
            methods: methods.ok_or_else(|| bad("holds a method that is not in capital letters"))?,
            paths: paths.ok_or_else(|| {
                bad("holds a path prefix that does not start with `/` or cannot be matched")
            })?,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Overrides};

    #[test]
    fn classes_are_understood_and_nonsense_is_refused_with_its_key() {
        let text = "[egress.std]\nallow = [\"*\", { origin = \"a.example\", methods = [\"GET\"], paths = [\"/v1\"] }]\n\
                    deny = [\"b.example\"]\nconcurrent_max = 2\n[tenants.a]\negress = [\"std\"]";
        let config = Config::parse(text, Overrides::default()).unwrap();
        let class = &config.egress["std"];
        assert_eq!(
            (class.policy.allow.len(), class.policy.deny.len(), class.caps.concurrent_max),
            (2, 1, Some(2))
        );
        for (text, named) in [
            ("[egress.\"A b\"]", "egress.A b"),
            ("[egress.a]\nallow = [\"a b\"]", "egress.a.allow"),
            ("[egress.a]\ndeny = [{ origin = \"a\", methods = [\"get\"] }]", "egress.a.deny"),
            ("[egress.a]\nallow = [{ origin = \"a\", paths = [\"v1\"] }]", "egress.a.allow"),
            ("[egress.a]\nconcurrent_max = 0", "egress.a.concurrent_max"),
            ("[tenants.t]\negress = [\"missing\"]", "tenants.t.egress"),
            ("[outbound]\nname_servers = [\"x\"]", "name_servers"),
            ("[egress.a]\ncolour = 1", "colour"),
            ("[egress.a]\ntunnels = { ports = [0] }", "egress.a.tunnels"),
            ("[egress.a]\ntunnels = { idle_s = 0 }", "egress.a.tunnels"),
            ("[egress.a]\ntunnels = { life_s = 86401 }", "egress.a.tunnels"),
        ] {
            let error = Config::parse(text, Overrides::default()).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
