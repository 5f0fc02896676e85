//! A secret proxy as it is written: `[proxy.NAME]` of the configuration (the operator's), or `PUT /v1/proxies/{name}` (a tenant's).
//!
//! ```toml
//! [proxy.github]
//! tenants = ["acme"]                       # or ["*"]; each uses the secret of its own
//! origin = "api.github.com"                # https only; one origin
//! methods = ["GET", "POST"]                # GET and HEAD if left out
//! paths = ["/repos/acme"]                  # every path if left out
//! secret = "github"
//! inject = { type = "bearer" }
//! requests_per_second = 10
//! ```
//!
//! Parsed once into the rule that decides; what is wrong is told with the field's name and never repeats a value.

use atoll_bindings::egress::{Caps, HostPattern, PathPrefix, Policy, Rule};
use atoll_bindings::proxy::{Injection, ProxyRule, Recipe, SigV4};
use http::header::{self, HeaderName};
use http::{Method, Uri};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::config::Name;

/// Most proxies in a configuration.
pub(crate) const PROXIES_MAX: usize = 1_000;
/// Most methods, paths or tenants of one proxy.
const ENTRIES_MAX: usize = 100;
/// Longest text in a setting, in bytes.
const TEXT_BYTES_MAX: usize = 1_024;

/// A proxy, as written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProxySettings {
    /// Which tenants have it; only in the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<String>,
    /// The one origin: a host, with a port if it is not 443.
    pub origin: String,
    /// Which methods; GET and HEAD if none are named.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Prefixes of paths; all if none are named.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Name of the tenant's secret.
    pub secret: String,
    /// Where the credential goes.
    pub inject: Inject,
    /// The egress class that must allow a request as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<String>,
    /// Requests per second.
    #[serde(default, alias = "requests_per_second", skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
    /// Requests at once.
    #[serde(default, alias = "concurrent_max", skip_serializing_if = "Option::is_none")]
    pub concurrent_max: Option<u32>,
    /// Largest request body, in bytes.
    #[serde(default, alias = "request_bytes_max", skip_serializing_if = "Option::is_none")]
    pub request_bytes_max: Option<u64>,
    /// Largest response body, in bytes.
    #[serde(default, alias = "response_bytes_max", skip_serializing_if = "Option::is_none")]
    pub response_bytes_max: Option<u64>,
}

/// Where the credential goes: see [`Injection`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Inject {
    /// `authorization: Bearer SECRET`.
    Bearer {},
    /// A header of this name.
    Header {
        /// Its name.
        name: String,
        /// What stands before the secret.
        #[serde(default)]
        before: String,
        /// What stands after it.
        #[serde(default)]
        after: String,
    },
    /// Basic authentication; the secret is the password.
    Basic {
        /// The user.
        user: String,
    },
    /// A query parameter of this name.
    Query {
        /// Its name.
        name: String,
    },
    /// A signature with HMAC-SHA256; the secret is the key.
    Hmac {
        /// Header of the signature.
        signature: String,
        /// Header of the time.
        timestamp: String,
    },
    /// AWS Signature Version 4; the secret is the secret access key.
    Sigv4 {
        /// The public half of the key pair.
        #[serde(alias = "access_key_id")]
        access_key_id: String,
        /// Such as `eu-central-1`.
        region: String,
        /// Such as `s3`.
        service: String,
    },
    /// OAuth 2.0 client credentials; the secret is the client's.
    ClientCredentials {
        /// Where tokens are had.
        #[serde(alias = "token_url")]
        token_url: String,
        /// The client.
        #[serde(alias = "client_id")]
        client_id: String,
        /// What to ask for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
    },
    /// An installation of a GitHub App; the secret is the app's private key (PEM).
    GithubApp {
        /// The API; `https://api.github.com/` if left out.
        #[serde(default = "github")]
        api: String,
        /// The app.
        #[serde(alias = "app_id")]
        app_id: u64,
        /// The installation.
        #[serde(alias = "installation_id")]
        installation_id: u64,
    },
}

fn github() -> String {
    "https://api.github.com/".to_owned()
}

/// What is wrong with a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}`: {reason}")]
pub struct BadSetting {
    /// Which.
    pub field: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// A proxy, understood.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    /// `https://host` or `https://host:port`.
    pub(crate) base: String,
    pub(crate) policy: Policy,
    pub(crate) secret: Name,
    pub(crate) injection: Injection,
    pub(crate) caps: Caps,
}

impl Parsed {
    /// The rule under this name.
    pub(crate) fn rule(self, name: &str) -> ProxyRule {
        let secret = self.secret.shared();
        ProxyRule { name: name.into(), policy: self.policy, secret, injection: self.injection }
    }

    /// Where else the secret goes: to the endpoint that makes credentials of it.
    pub(crate) fn minted_at(&self) -> Option<&Url> {
        match &self.injection {
            Injection::Minted(Recipe::ClientCredentials { token_url, .. }) => Some(token_url),
            Injection::Minted(Recipe::GithubApp { api, .. }) => Some(api),
            _ => None,
        }
    }
}

impl ProxySettings {
    /// Whether they make sense.
    pub(crate) fn check(&self) -> Result<(), BadSetting> {
        self.parse().map(|_| ())
    }

    /// What they mean.
    pub(crate) fn parse(&self) -> Result<Parsed, BadSetting> {
        let bad = |field, reason| BadSetting { field, reason };
        let many = [self.tenants.len(), self.methods.len(), self.paths.len()];
        if many.into_iter().any(|count| count > ENTRIES_MAX) {
            return Err(bad("methods", "there are at most 100 methods, paths and tenants"));
        }
        let base = base(&self.origin)?;
        let origin: HostPattern =
            base.parse().map_err(|_| bad("origin", "is not a host, with a port if it is not 443"))?;
        let method = |text: &String| {
            let plain =
                text.bytes().all(|b| b.is_ascii_uppercase()) && !matches!(&**text, "CONNECT" | "TRACE");
            text.parse::<Method>().ok().filter(|_| plain)
        };
        let methods: Option<Vec<Method>> = self.methods.iter().map(method).collect();
        let mut methods = methods.ok_or_else(|| bad("methods", "holds something that is no method"))?;
        if methods.is_empty() {
            methods = vec![Method::GET, Method::HEAD];
        }
        let paths: Result<Vec<PathPrefix>, _> = self.paths.iter().map(|path| path.parse()).collect();
        let paths = paths.map_err(|_| bad("paths", "holds a prefix that cannot be matched"))?;
        let secret = Name::parse(&self.secret).ok_or_else(|| bad("secret", "is no secret's name"))?;
        if [self.requests_per_second, self.concurrent_max].contains(&Some(0)) {
            return Err(bad("requestsPerSecond", "must be at least 1, and `concurrentMax` too"));
        }
        let caps = Caps {
            requests_per_second: self.requests_per_second,
            concurrent_max: self.concurrent_max,
            request_bytes_max: self.request_bytes_max,
            response_bytes_max: self.response_bytes_max,
        };
        let policy = Policy { allow: vec![Rule { origin, methods, paths }], deny: Vec::new() };
        Ok(Parsed { base, policy, secret, injection: self.inject.parse()?, caps })
    }
}

/// `https://host[:port]` and nothing else.
fn base(origin: &str) -> Result<String, BadSetting> {
    let bad = |reason| BadSetting { field: "origin", reason };
    if origin.starts_with("http://") {
        return Err(bad("must be https: a credential is never sent in plain text"));
    }
    let host = origin.strip_prefix("https://").unwrap_or(origin);
    let shape = || bad("is not a host, with a port if it is not 443");
    let uri: Uri = format!("https://{host}/").parse().map_err(|_| shape())?;
    let authority = uri.authority().filter(|authority| authority.as_str() == host).ok_or_else(shape)?;
    if host.len() > TEXT_BYTES_MAX || host.contains(['*', '@']) || authority.host().is_empty() {
        return Err(shape());
    }
    Ok(format!("https://{}", host.to_ascii_lowercase()))
}

impl Inject {
    fn parse(&self) -> Result<Injection, BadSetting> {
        Ok(match self {
            Self::Bearer {} => Injection::Bearer,
            Self::Header { name, before, after } => {
                Injection::Header { name: header(name)?, before: text(before)?, after: text(after)? }
            }
            Self::Basic { user } if user.contains(':') => return Err(bad("the user holds a colon")),
            Self::Basic { user } => Injection::Basic { user: text(user)? },
            Self::Query { name } if name.is_empty() => return Err(bad("the parameter has no name")),
            Self::Query { name } => Injection::Query { name: text(name)? },
            Self::Hmac { signature, timestamp } => {
                Injection::Hmac { signature: header(signature)?, timestamp: header(timestamp)? }
            }
            Self::Sigv4 { access_key_id, region, service } => Injection::SigV4(SigV4 {
                access_key_id: token(access_key_id)?,
                region: token(region)?,
                service: token(service)?,
            }),
            Self::ClientCredentials { token_url, client_id, scope } => {
                Injection::Minted(Recipe::ClientCredentials {
                    token_url: endpoint(token_url)?,
                    client_id: text(client_id)?,
                    scope: scope.as_deref().map(text).transpose()?,
                })
            }
            Self::GithubApp { api, app_id, installation_id } => {
                let api = endpoint(api)?;
                if !api.path().ends_with('/') {
                    return Err(bad("the API's URL ends with `/`"));
                }
                let (app_id, installation_id) = (*app_id, *installation_id);
                Injection::Minted(Recipe::GithubApp { api, app_id, installation_id })
            }
        })
    }
}

fn bad(reason: &'static str) -> BadSetting {
    BadSetting { field: "inject", reason }
}

/// A header that may carry a credential: none that frames or routes a request.
fn header(name: &str) -> Result<HeaderName, BadSetting> {
    const FRAMING: [HeaderName; 9] = [
        header::HOST,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
        header::EXPECT,
        header::ACCEPT_ENCODING,
    ];
    let name: HeaderName = name.parse().map_err(|_| bad("holds something that is no header's name"))?;
    if FRAMING.contains(&name) { Err(bad("names a header that frames the request")) } else { Ok(name) }
}

/// Text that can stand in a header.
fn text(text: &str) -> Result<String, BadSetting> {
    let plain = text.len() <= TEXT_BYTES_MAX && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    if plain { Ok(text.to_owned()) } else { Err(bad("holds text that is too long or not plain ASCII")) }
}

/// A word of letters, digits and a few signs.
fn token(word: &str) -> Result<String, BadSetting> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let good = !word.is_empty() && word.len() <= TEXT_BYTES_MAX && word.bytes().all(plain);
    if good { Ok(word.to_owned()) } else { Err(bad("holds a word with signs that do not belong there")) }
}

fn endpoint(url: &str) -> Result<Url, BadSetting> {
    let url = Url::parse(url).map_err(|_| bad("holds something that is no URL"))?;
    let plain = url.username().is_empty() && url.password().is_none();
    let sound = url.scheme() == "https" && url.has_host() && plain && url.fragment().is_none();
    if sound { Ok(url) } else { Err(bad("holds a URL that is not https, or has credentials in it")) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(change: impl FnOnce(&mut Value)) -> Result<Parsed, String> {
        let mut value =
            json!({ "origin": "api.example.com", "secret": "token", "inject": { "type": "bearer" } });
        change(&mut value);
        let settings: ProxySettings = serde_json::from_value(value).map_err(|error| error.to_string())?;
        settings.parse().map_err(|error| error.to_string())
    }

    #[test]
    fn every_injection_is_understood_in_both_spellings() {
        for inject in [
            json!({ "type": "header", "name": "x-key", "before": "Token " }),
            json!({ "type": "basic", "user": "me" }),
            json!({ "type": "query", "name": "key" }),
            json!({ "type": "hmac", "signature": "x-signature", "timestamp": "x-time" }),
            json!({ "type": "sigv4", "accessKeyId": "AKIA", "region": "eu-central-1", "service": "s3" }),
            json!({ "type": "sigv4", "access_key_id": "AKIA", "region": "eu-central-1", "service": "s3" }),
            json!({ "type": "client_credentials", "tokenUrl": "https://a.example/token", "clientId": "c" }),
            json!({ "type": "github_app", "appId": 1, "installationId": 2 }),
        ] {
            assert!(parse(|value| value["inject"] = inject.clone()).is_ok(), "{inject}");
        }
        let parsed = parse(|_| {}).unwrap();
        assert_eq!(parsed.base, "https://api.example.com");
        assert_eq!(parsed.policy.allow[0].methods, [Method::GET, Method::HEAD]);
    }

    #[test]
    fn nonsense_and_plain_text_are_refused_by_field() {
        for (field, bad) in [
            ("origin", json!("http://api.example.com")),
            ("origin", json!("*.example.com")),
            ("origin", json!("*")),
            ("origin", json!("api.example.com/v1")),
            ("origin", json!("user@api.example.com")),
            ("origin", json!("api.example.com:x")),
            ("origin", json!("")),
            ("methods", json!(["get"])),
            ("methods", json!(["TRACE"])),
            ("methods", json!(["A B"])),
            ("paths", json!(["v1"])),
            ("paths", json!(["/a/../b"])),
            ("secret", json!("../x")),
            ("requestsPerSecond", json!(0)),
            ("inject", json!({ "type": "header", "name": "host" })),
            ("inject", json!({ "type": "header", "name": "a b" })),
            ("inject", json!({ "type": "header", "name": "x", "before": "a\r\nb" })),
            ("inject", json!({ "type": "basic", "user": "a:b" })),
            ("inject", json!({ "type": "client_credentials", "tokenUrl": "http://a/", "clientId": "c" })),
            (
                "inject",
                json!({ "type": "github_app", "api": "https://u:p@a/", "appId": 1, "installationId": 2 }),
            ),
            ("type", json!("x")),
        ] {
            let error = parse(|value| value[field] = bad.clone()).map(|_| ()).unwrap_err();
            assert!(error.contains(field) || field == "type", "{field} {bad}: {error}");
        }
        assert!(parse(|value| value["inject"] = json!({ "type": "moon" })).is_err());
    }
}
