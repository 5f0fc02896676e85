//! The operator's own rules: `[[route]]` in the configuration, in the order in which they are written.
//!
//! ```toml
//! [[route]]
//! name = "acme-builds"       # shown wherever the rule decided
//! tenant = "acme"            # every condition that is given must hold
//! language = "ts"
//! import = "typescript"      # or "@acme/*"
//! size_bytes_min = 1048576
//! runtime = "sandbox"
//! ```

use serde::Deserialize;

use super::decide::Runtime;
use super::step::{Language, Step};
use crate::config::Name;

/// Most rules in one configuration.
pub const ROUTE_RULES_MAX: usize = 1_000;
/// Longest specifier pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 256;

/// A rule as the file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawRouteRule {
    name: String,
    tenant: Option<String>,
    language: Option<Language>,
    import: Option<String>,
    size_bytes_min: Option<u64>,
    size_bytes_max: Option<u64>,
    runtime: Runtime,
}

/// A checked rule. Conditions that are `None` hold for every step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRule {
    /// Its name, in the form of a DNS label.
    pub name: Name,
    /// Whose steps.
    pub tenant: Option<Name>,
    /// Written in what.
    pub language: Option<Language>,
    /// A specifier that the step imports, `node:` in front or not; a `*` at the end stands for anything.
    pub import: Option<String>,
    /// Least size of the step, in bytes.
    pub size_bytes_min: Option<u64>,
    /// Largest size of the step, in bytes.
    pub size_bytes_max: Option<u64>,
    /// Where such steps go.
    pub runtime: Runtime,
}

impl RawRouteRule {
    /// Checks it.
    ///
    /// # Errors
    /// The field that makes no sense, and why.
    pub fn check(self) -> Result<RouteRule, (&'static str, &'static str)> {
        let name =
            Name::parse(&self.name).ok_or(("name", "must be lower-case letters, digits and hyphens"))?;
        let tenant = match self.tenant {
            None => None,
            Some(text) => {
                Some(Name::parse(&text).ok_or(("tenant", "a tenant's name is a lower-case DNS label"))?)
            }
        };
        if let Some(import) = &self.import {
            let inner = import.strip_suffix('*').unwrap_or(import);
            if import.is_empty() || import.len() > PATTERN_BYTES_MAX || inner.contains('*') {
                let reason = "must be a specifier of at most 256 bytes, with `*` at its end at most";
                return Err(("import", reason));
            }
        }
        if let (Some(min), Some(max)) = (self.size_bytes_min, self.size_bytes_max)
            && min > max
        {
            return Err(("size_bytes_min", "is larger than size_bytes_max"));
        }
        let never = self.language.is_some_and(|language| !language.runs_in_isolate());
        if never && self.runtime == Runtime::Isolate {
            return Err(("runtime", "an isolate cannot run this language"));
        }
        Ok(RouteRule {
            name,
            tenant,
            language: self.language,
            import: self.import.map(|import| bare(&import).to_owned()),
            size_bytes_min: self.size_bytes_min,
            size_bytes_max: self.size_bytes_max,
            runtime: self.runtime,
        })
    }
}

impl RouteRule {
    /// Whether every condition holds.
    #[must_use]
    pub fn matches(&self, step: &Step) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| tenant.as_str() == step.tenant)
            && self.language.is_none_or(|language| language == step.language)
            && self.size_bytes_min.is_none_or(|min| step.size_bytes >= min)
            && self.size_bytes_max.is_none_or(|max| step.size_bytes <= max)
            && self
                .import
                .as_ref()
                .is_none_or(|import| step.imports.iter().any(|specifier| names(import, bare(specifier))))
    }

    /// Its conditions, for people.
    #[must_use]
    pub fn conditions(&self) -> String {
        let mut parts = Vec::new();
        let mut part = |what: &str, value: Option<String>| {
            parts.extend(value.map(|value| format!("{what} {value}")));
        };
        part("tenant", self.tenant.as_ref().map(ToString::to_string));
        part("language", self.language.map(|language| language.name().to_owned()));
        part("import", self.import.clone());
        part("size of at least", self.size_bytes_min.map(|bytes| format!("{bytes} bytes")));
        part("size of at most", self.size_bytes_max.map(|bytes| format!("{bytes} bytes")));
        if parts.is_empty() { "every step".to_owned() } else { parts.join(", ") }
    }
}

fn bare(specifier: &str) -> &str {
    specifier.strip_prefix("node:").unwrap_or(specifier)
}

fn names(pattern: &str, specifier: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(front) => specifier.starts_with(front),
        None => pattern == specifier,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Result<RouteRule, (&'static str, &'static str)> {
        toml::from_str::<RawRouteRule>(text).unwrap().check()
    }

    #[test]
    fn every_condition_must_hold() {
        let text = "name = \"r\"\ntenant = \"acme\"\nlanguage = \"ts\"\nimport = \"@acme/*\"\n\
                    size_bytes_min = 10\nsize_bytes_max = 20\nruntime = \"sandbox\"";
        let rule = rule(text).unwrap();
        let mut step = Step::new("acme", Language::Ts, 15);
        step.imports.insert("@acme/build".into());
        assert!(rule.matches(&step));
        assert!(rule.conditions().contains("import @acme/*"));
        for other in [
            Step { tenant: "other".into(), ..step.clone() },
            Step { language: Language::Js, ..step.clone() },
            Step { imports: ["@acm".to_owned()].into(), ..step.clone() },
            Step { size_bytes: 9, ..step.clone() },
            Step { size_bytes: 21, ..step.clone() },
        ] {
            assert!(!rule.matches(&other), "{other:?}");
        }
    }

    #[test]
    fn the_node_prefix_does_not_matter() {
        let rule = rule("name = \"r\"\nimport = \"node:fs\"\nruntime = \"isolate\"").unwrap();
        for specifier in ["fs", "node:fs"] {
            let step = Step { imports: [specifier.to_owned()].into(), ..Step::default() };
            assert!(rule.matches(&step), "{specifier}");
        }
    }

    #[test]
    fn nonsense_is_refused_by_field() {
        for (text, field) in [
            ("name = \"a b\"\nruntime = \"isolate\"", "name"),
            ("name = \"r\"\ntenant = \"A\"\nruntime = \"isolate\"", "tenant"),
            ("name = \"r\"\nimport = \"\"\nruntime = \"isolate\"", "import"),
            ("name = \"r\"\nimport = \"a*b\"\nruntime = \"isolate\"", "import"),
            ("name = \"r\"\nsize_bytes_min = 2\nsize_bytes_max = 1\nruntime = \"isolate\"", "size_bytes_min"),
            ("name = \"r\"\nlanguage = \"python\"\nruntime = \"isolate\"", "runtime"),
        ] {
            assert_eq!(rule(text).unwrap_err().0, field, "{text}");
        }
        for text in
            ["name = \"r\"", "name = \"r\"\nruntime = \"moon\"", "name = \"r\"\nruntime = \"isolate\"\nx = 1"]
        {
            assert!(toml::from_str::<RawRouteRule>(text).is_err(), "{text}");
        }
    }
}
