//! What a class of egress allows: pure rules over the URL that will be dialled.
//!
//! ```text
//!  deny rules ──any covers──▶ Denied(Rule)
//!      │ none
//!  allow rules ──one covers origin, method and path──▶ yes
//!      └── else: the nearest miss: Path, Method, Origin
//! ```
//!
//! Requests only: connections have [`Policy::check_tcp`], and tunnels of sandboxes [`Policy::check_tunnel`]. An empty list of allow rules allows nothing. A deny rule without scheme or port means all of them, an allow rule without
//! them means https on 443: each errs to the safe side.

use http::Method;
use url::Url;

use super::hosts::{HostPattern, Scheme};
use super::path::PathPrefix;
use crate::crossing::Denial;

/// One rule: origins, and optionally the methods and the paths there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which origins.
    pub origin: HostPattern,
    /// Which methods; empty: all.
    pub methods: Vec<Method>,
    /// Which paths; empty: all.
    pub paths: Vec<PathPrefix>,
}

impl From<HostPattern> for Rule {
    fn from(origin: HostPattern) -> Self {
        Self { origin, methods: Vec::new(), paths: Vec::new() }
    }
}

/// A list of rules; the empty one allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What is allowed.
    pub allow: Vec<Rule>,
    /// What is forbidden all the same.
    pub deny: Vec<Rule>,
}

impl Rule {
    fn method(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }

    /// Whether it must see a request to decide.
    fn is_narrow(&self) -> bool {
        !self.methods.is_empty() || !self.paths.is_empty()
    }

    fn path(&self, path: &str) -> bool {
        self.paths.is_empty() || self.paths.iter().any(|prefix| prefix.covers(path))
    }
}

impl Policy {
    /// Allows these origins with every method and path.
    #[must_use]
    pub fn of(hosts: Vec<HostPattern>) -> Self {
        Self { allow: hosts.into_iter().map(Rule::from).collect(), deny: Vec::new() }
    }

    /// Decides about one hop.
    ///
    /// # Errors
    /// The reason for a no.
    pub fn check(&self, method: &Method, url: &Url) -> Result<(), Denial> {
        let scheme = Scheme::of(url.scheme()).ok_or(Denial::Url)?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(Denial::Url)?;
        let host = host.strip_suffix('.').unwrap_or(host);
        let port = url.port().unwrap_or(scheme.port());
        let at = |rule: &&Rule| rule.origin.covers(scheme, host, port);
        // A deny rule with paths also catches paths that servers read in several ways.
        let forbids = |rule: &Rule| {
            rule.method(method) && (rule.path(url.path()) || !super::path::is_plain(url.path()))
        };
        if self.deny.iter().filter(at).any(forbids) {
            return Err(Denial::Rule);
        }
        let mut nearest = Denial::Origin;
        for rule in self.allow.iter().filter(at) {
            match (rule.method(method), rule.path(url.path())) {
                (true, true) => return Ok(()),
                (true, false) => nearest = Denial::Path,
                (false, _) if nearest == Denial::Origin => nearest = Denial::Method,
                (false, _) => {}
            }
        }
        Err(nearest)
    }

    /// Decides about a TCP connection: only rules that say `tcp://` allow one, and a deny rule for the host forbids it whatever
    /// its paths and methods are, as nobody sees what goes through.
    ///
    /// # Errors
    /// The reason for a no.
    pub fn check_tcp(&self, host: &str, port: u16) -> Result<(), Denial> {
        let at = |rule: &&Rule| rule.origin.covers(Scheme::Tcp, host, port);
        if self.deny.iter().any(|rule| at(&rule)) {
            return Err(Denial::Rule);
        }
        match self.allow.iter().find(at) {
            Some(_) => Ok(()),
            None => Err(Denial::Origin),
        }
    }

    /// Decides about a tunnel, in which nobody sees anything but host and port. A rule for `https` there is enough, since TLS is what
    /// tunnels are for, and so is one that says `tcp://`. But where any rule for the host and port needs a method or a path, there
    /// is no tunnel, even if a wider rule allows all of it: whoever wrote the narrow one wants requests there to be seen. Only a
    /// `tcp://` rule says otherwise. A deny rule of any scheme forbids, whatever its paths and methods are.
    ///
    /// # Errors
    /// The reason for a no.
    pub fn check_tunnel(&self, host: &str, port: u16) -> Result<(), Denial> {
        let at = |rule: &Rule, scheme: Scheme| rule.origin.covers(scheme, host, port);
        let web = |rule: &Rule| at(rule, Scheme::Https) || at(rule, Scheme::Http);
        if self.deny.iter().any(|rule| web(rule) || at(rule, Scheme::Tcp)) {
            return Err(Denial::Rule);
        }
        if self.allow.iter().any(|rule| at(rule, Scheme::Tcp) && !rule.is_narrow()) {
            return Ok(());
        }
        if self.allow.iter().any(|rule| web(rule) && rule.is_narrow()) {
            return Err(Denial::Tunnel);
        }
        if self.allow.iter().any(|rule| at(rule, Scheme::Https)) { Ok(()) } else { Err(Denial::Origin) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(origin: &str, methods: &[&str], paths: &[&str]) -> Rule {
        Rule {
            origin: origin.parse().unwrap(),
            methods: methods.iter().map(|m| m.parse().unwrap()).collect(),
            paths: paths.iter().map(|p| p.parse().unwrap()).collect(),
        }
    }

    fn deny(origin: &str, paths: &[&str]) -> Rule {
        Rule { origin: HostPattern::denying(origin).unwrap(), ..rule("x.example", &[], paths) }
    }

    fn check(policy: &Policy, method: &str, url: &str) -> Result<(), &'static str> {
        policy.check(&method.parse().unwrap(), &Url::parse(url).unwrap()).map_err(Denial::code)
    }

    #[test]
    fn the_nearest_miss_is_named() {
        let policy = Policy {
            allow: vec![rule("api.example.com", &["GET"], &["/v1"]), rule("*.example.org:*", &[], &[])],
            deny: vec![deny("bad.example.org", &[]), deny("*.example.org", &["/admin"])],
        };
        for (method, url, expected) in [
            ("GET", "https://api.example.com/v1/x", Ok(())),
            ("GET", "https://API.example.com./v1/x", Ok(())),
            ("POST", "https://api.example.com/v1/x", Err("egress_method")),
            ("GET", "https://api.example.com/v2", Err("egress_path")),
            ("GET", "http://api.example.com/v1", Err("egress_origin")),
            ("GET", "https://api.example.com:8443/v1", Err("egress_origin")),
            ("GET", "https://evil.example/", Err("egress_origin")),
            ("GET", "ftp://api.example.com/v1", Err("egress_url")),
            ("GET", "unix:/run/x", Err("egress_url")),
            ("PUT", "https://a.example.org:99/x", Ok(())),
            ("PUT", "https://bad.example.org/x", Err("egress_rule")),
            ("PUT", "https://bad.example.org.:99/x", Err("egress_rule")),
            ("GET", "https://a.example.org/admin/x", Err("egress_rule")),
            ("GET", "https://a.example.org/x/..%2fadmin/x", Err("egress_rule")),
        ] {
            assert_eq!(check(&policy, method, url), expected, "{method} {url}");
        }
    }

    #[test]
    fn connections_need_rules_of_their_own() {
        let policy = Policy {
            allow: vec![rule("*", &[], &[]), rule("tcp://*.example.com:5432", &[], &[])],
            deny: vec![deny("no.example.com", &["/x"])],
        };
        let check = |host, port| policy.check_tcp(host, port).map_err(Denial::code);
        assert_eq!(check("db.example.com", 5432), Ok(()));
        assert_eq!(check("db.example.com", 443), Err("egress_origin"));
        assert_eq!(check("example.org", 5432), Err("egress_origin"));
        assert_eq!(check("no.example.com", 5432), Err("egress_rule"), "a deny rule with paths too");
        assert_eq!(Policy::default().check_tcp("a", 1), Err(Denial::Origin));
    }

    #[test]
    fn tunnels_go_where_no_rule_must_see_a_request() {
        let policy = Policy {
            allow: vec![
                rule("*", &[], &[]),
                rule("paths.example.com", &[], &["/v1"]),
                rule("methods.example.com", &["GET"], &[]),
                rule("http://plain.example.com:443", &["GET"], &[]),
                rule("both.example.com", &["GET"], &[]),
                rule("tcp://both.example.com:443", &[], &[]),
                rule("tcp://narrow.example.com:443", &["GET"], &[]),
                rule("narrow.example.com", &["GET"], &[]),
                rule("tcp://db.example.com:5432", &[], &[]),
                rule("http://web.example.com:8080", &[], &[]),
            ],
            deny: vec![deny("no.example.com", &["/x"]), deny("http://half.example.com", &[])],
        };
        for (host, port, expected) in [
            ("any.example.com", 443, Ok(())),
            ("any.example.com", 8443, Err("egress_origin")),
            ("paths.example.com", 443, Err("egress_tunnel")),
            ("methods.example.com", 443, Err("egress_tunnel")),
            ("plain.example.com", 443, Err("egress_tunnel")),
            ("both.example.com", 443, Ok(())),
            ("narrow.example.com", 443, Err("egress_tunnel")),
            ("db.example.com", 5432, Ok(())),
            ("web.example.com", 8080, Err("egress_origin")),
            ("no.example.com", 443, Err("egress_rule")),
            ("half.example.com", 443, Err("egress_rule")),
        ] {
            assert_eq!(policy.check_tunnel(host, port).map_err(Denial::code), expected, "{host}:{port}");
        }
        assert_eq!(Policy::default().check_tunnel("a", 443), Err(Denial::Origin));
    }

    #[test]
    fn an_empty_list_allows_nothing() {
        assert_eq!(check(&Policy::default(), "GET", "https://example.com/"), Err("egress_origin"));
    }

    fn hosts() -> impl Strategy<Value = String> {
        prop_oneof![Just("a.example"), Just("b.a.example"), Just("c.example"), Just("*.a.example"), Just("*")]
            .prop_map(str::to_owned)
    }

    fn any_rules() -> impl Strategy<Value = Vec<Rule>> {
        let method = prop_oneof![Just(""), Just("GET"), Just("POST")];
        let path = prop_oneof![Just(""), Just("/v1")];
        let origin = prop_oneof![hosts(), hosts().prop_map(|host| format!("http://{host}:443"))];
        let one = (origin, method, path).prop_map(|(origin, method, path)| {
            let some = |text: &'static str| if text.is_empty() { vec![] } else { vec![text] };
            rule(&origin, &some(method), &some(path))
        });
        prop::collection::vec(one, 0..5)
    }

    proptest! {
        /// Whatever a tunnel could carry over TLS, a request with it would have been allowed as well: without `tcp://` no tunnel is
        /// wider than the rules for requests, and a deny rule never makes it wider.
        #[test]
        fn a_tunnel_is_no_way_around_the_rules(
            allow in any_rules(), deny in any_rules(),
            host in prop_oneof![Just("a.example"), Just("b.a.example"), Just("c.example")],
            method in prop_oneof![Just(Method::GET), Just(Method::POST), Just(Method::DELETE)],
            path in prop_oneof![Just("/"), Just("/v1/x"), Just("/v2")],
        ) {
            let url = Url::parse(&format!("https://{host}{path}")).unwrap();
            let policy = Policy { allow, deny };
            if policy.check_tunnel(host, 443).is_ok() {
                prop_assert_eq!(policy.check(&method, &url), Ok(()));
            }
            let undenied = Policy { deny: Vec::new(), ..policy.clone() };
            prop_assert!(policy.check_tunnel(host, 443).is_err() || undenied.check_tunnel(host, 443).is_ok());
        }

        /// Adding a deny rule never allows more; adding an allow rule never allows less; deny wins.
        #[test]
        fn rules_are_monotone(
            allow in prop::collection::vec(hosts(), 0..4), more in hosts(), no in hosts(),
            host in prop_oneof![Just("a.example"), Just("b.a.example"), Just("c.example"), Just("d.example")],
        ) {
            let url = Url::parse(&format!("https://{host}/x")).unwrap();
            let base = Policy::of(allow.iter().map(|h| h.parse().unwrap()).collect());
            let before = base.check(&Method::GET, &url).is_ok();
            let mut wider = base.clone();
            wider.allow.push(rule(&more, &[], &[]));
            prop_assert!(!before || wider.check(&Method::GET, &url).is_ok());
            let mut narrower = base.clone();
            narrower.deny.push(deny(&no, &[]));
            let covered = HostPattern::denying(&no).unwrap().covers(Scheme::Https, host, 443);
            prop_assert_eq!(narrower.check(&Method::GET, &url).is_ok(), before && !covered);
            prop_assert_eq!(before, base.allow.iter().any(|r| r.origin.covers(Scheme::Https, host, 443)));
        }
    }
}
