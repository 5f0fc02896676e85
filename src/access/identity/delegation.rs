//! Delegations: what a tenant hands to containers and sub-agents, which may narrow it themselves, offline (Biscuit,
//! <https://doc.biscuitsec.org>).
//!
//! ```text
//!  authority block, signed here:   tenant("acme"); sub("…"); proxy("github"); method("GET");  check if time($t), $t < end
//!  blocks that holders append:     check if request_method("GET");  check if request_path($p), $p.starts_with("/repos/")
//!  a request, told by us:          time(…); request_proxy("github"); request_method("GET"); request_path("/repos/x")
//!  allowed if                      tenant, proxy and method of the authority block fit the request, and every check holds
//! ```
//!
//! Rights come from the authority block alone: facts of other blocks are not looked at, so a block can only take away. Blocks
//! of third parties are refused. A token is foreign code (Datalog): its size, facts, rounds and time are bounded. When the time
//! runs out nothing is known of its rights, so that is our failure ([`Answer::Busy`]) and never called a lack of rights.

use std::time::{Duration, SystemTime};

use biscuit_auth::builder::{Fact, Term, string};
use biscuit_auth::error::{Format, RunLimit, Token};
use biscuit_auth::{
    AuthorizerBuilder, AuthorizerLimits, Biscuit, BiscuitBuilder, PublicKey, RootKeyProvider,
};

use super::jwt::TOKEN_BYTES_MAX;
use super::ring::Ring;

/// Longest life of a delegation, in seconds. Below the time for which a key stays published.
pub(crate) const DELEGATION_SECONDS_MAX: u64 = 24 * 3_600;
/// Most blocks: each is a signature to check.
const BLOCKS_MAX: usize = 16;
/// Most facts that a token may make.
const FACTS_MAX: u64 = 1_000;
/// Most rounds of its rules.
const ROUNDS_MAX: u64 = 100;
/// Longest time for its rules and checks, in milliseconds. The library's own default, 1 ms, is less than a busy machine may need
/// to give the thread a turn.
const CHECK_MS_MAX: u64 = 500;

const _: () = assert!(DELEGATION_SECONDS_MAX * 1_000 < super::ring::KEPT_MS);

/// What is handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) tenant: String,
    /// For whom: shown in the audit trail.
    pub(crate) sub: String,
    pub(crate) proxies: Vec<String>,
    pub(crate) methods: Vec<String>,
    /// Seconds since 1970.
    pub(crate) until_s: u64,
}

/// What a holder wants to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) proxy: &'a str,
    pub(crate) method: &'a str,
    /// As the upstream will read it; `None` if that is not sure, so that no check about paths can hold.
    pub(crate) path: Option<&'a str>,
    pub(crate) now: SystemTime,
}

/// Whether.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Yes, if none of these was revoked.
    Allowed {
        tenant: String,
        sub: String,
        /// Of every block, as hexadecimal digits.
        ids: Vec<String>,
    },
    /// It is no token of ours.
    Forged,
    /// It is one, and does not allow this.
    Refused,
    /// There was no time to find out.
    Busy,
}

struct Roots<'a>(&'a Ring);

impl RootKeyProvider for Roots<'_> {
    fn choose(&self, key_id: Option<u32>) -> Result<PublicKey, Format> {
        let key = self.0.all().iter().find(|key| Some(key.root_id()) == key_id);
        key.map(|key| key.root.public()).ok_or(Format::UnknownPublicKey)
    }
}

fn fact(name: &str, term: Term) -> Fact {
    Fact::new(name.to_owned(), vec![term])
}

/// Signs a delegation; gives it and the id by which it is revoked.
pub(crate) fn delegate(ring: &Ring, rights: &Rights) -> Option<(String, String)> {
    let key = ring.signing();
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(rights.until_s);
    let mut builder = BiscuitBuilder::new()
        .root_key_id(key.root_id())
        .fact(fact("tenant", string(&rights.tenant)))
        .and_then(|builder| builder.fact(fact("sub", string(&rights.sub))))
        .ok()?;
    for proxy in &rights.proxies {
        builder = builder.fact(fact("proxy", string(proxy))).ok()?;
    }
    for method in &rights.methods {
        builder = builder.fact(fact("method", string(method))).ok()?;
    }
    let params = [("until".to_owned(), Term::from(until))].into();
    let check = "check if time($time), $time < {until}";
    let builder = builder.code_with_params(check, params, Default::default()).ok()?;
    let token = builder.build(&key.root).ok()?;
    let id = token.revocation_identifiers().first().map(|id| hex(id))?;
    Some((token.to_base64().ok()?, id))
}

/// Whether a token allows this. Computes for up to [`CHECK_MS_MAX`].
pub(crate) fn check(ring: &Ring, token: &str, wish: Wish<'_>) -> Answer {
    check_within(ring, token, wish, Duration::from_millis(CHECK_MS_MAX))
}

fn check_within(ring: &Ring, token: &str, wish: Wish<'_>, time_max: Duration) -> Answer {
    if token.len() > TOKEN_BYTES_MAX {
        return Answer::Forged;
    }
    let Ok(token) = Biscuit::from_base64(token, Roots(ring)) else { return Answer::Forged };
    let foreign = token.external_public_keys().iter().any(Option::is_some);
    if foreign || token.block_count() > BLOCKS_MAX {
        return Answer::Refused;
    }
    match decide(&token, wish, time_max) {
        Ok((tenant, sub)) => {
            let ids = token.revocation_identifiers().iter().map(|id| hex(id)).collect();
            Answer::Allowed { tenant, sub, ids }
        }
        // Under load the clock runs out before the rules do; see biscuit's fiber#1559 for what comes of saying "unauthorized".
        Err(Token::RunLimit(RunLimit::Timeout)) => Answer::Busy,
        Err(_) => Answer::Refused,
    }
}

fn decide(token: &Biscuit, wish: Wish<'_>, time_max: Duration) -> Result<(String, String), Token> {
    let limits = AuthorizerLimits { max_facts: FACTS_MAX, max_iterations: ROUNDS_MAX, max_time: time_max };
    let mut authorizer = AuthorizerBuilder::new()
        .set_limits(limits)
        .fact(fact("time", Term::from(wish.now)))?
        .fact(fact("request_proxy", string(wish.proxy)))?
        .fact(fact("request_method", string(wish.method)))?
        .policy("allow if tenant($t), proxy($p), request_proxy($p), method($m), request_method($m)")?;
    if let Some(path) = wish.path {
        authorizer = authorizer.fact(fact("request_path", string(path)))?;
    }
    let mut authorizer = authorizer.build(token)?;
    authorizer.authorize()?;
    authorizer.query_exactly_one("data($t, $s) <- tenant($t), sub($s)")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use biscuit_auth::{BlockBuilder, KeyPair};
    use proptest::prelude::*;

    use super::*;

    fn ring() -> (tempfile::TempDir, Ring) {
        let folder = tempfile::tempdir().unwrap();
        let ring = Ring::refresh(folder.path(), 1_000_000, u64::MAX).unwrap();
        (folder, ring)
    }

    fn rights() -> Rights {
        Rights {
            tenant: "acme".into(),
            sub: "acme/agent".into(),
            proxies: vec!["github".into(), "mail".into()],
            methods: vec!["GET".into(), "POST".into()],
            until_s: 2_000,
        }
    }

    fn wish<'a>(proxy: &'a str, method: &'a str, path: &'a str, now_s: u64) -> Wish<'a> {
        Wish {
            proxy,
            method,
            path: (path != "?").then_some(path),
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(now_s),
        }
    }

    /// The token with another block, as its holder makes it, who has no key of ours.
    fn narrowed(token: &str, code: &str) -> String {
        let token = biscuit_auth::UnverifiedBiscuit::from_base64(token).unwrap();
        let block = BlockBuilder::new().code(code).unwrap();
        token.append(block).unwrap().to_base64().unwrap()
    }

    fn is_allowed(answer: &Answer) -> bool {
        matches!(answer, Answer::Allowed { .. })
    }

    #[test]
    fn a_holder_can_take_away_and_never_add() {
        let (_folder, ring) = ring();
        let (token, id) = delegate(&ring, &rights()).unwrap();
        let Answer::Allowed { tenant, sub, ids } = check(&ring, &token, wish("github", "GET", "/x", 1_999))
        else {
            panic!("not allowed")
        };
        assert_eq!((&*tenant, &*sub, ids), ("acme", "acme/agent", vec![id.clone()]));
        let cases = [
            ("", "github", "POST", "/x", 1_000, true),
            ("", "github", "DELETE", "/x", 1_000, false),
            ("", "bank", "GET", "/x", 1_000, false),
            ("", "github", "GET", "/x", 2_000, false),
            ("check if request_method(\"GET\")", "github", "GET", "/x", 1_000, true),
            ("check if request_method(\"GET\")", "github", "POST", "/x", 1_000, false),
            ("check if request_path($p), $p.starts_with(\"/a/\")", "github", "GET", "/a/b", 1_000, true),
            ("check if request_path($p), $p.starts_with(\"/a/\")", "github", "GET", "/b", 1_000, false),
            ("check if time($t), $t < 1970-01-01T00:20:00Z", "github", "GET", "/x", 1_199, true),
            ("check if time($t), $t < 1970-01-01T00:20:00Z", "github", "GET", "/x", 1_200, false),
            ("check if request_path($p), $p.starts_with(\"/a/\")", "github", "GET", "?", 1_000, false),
            ("", "github", "GET", "?", 1_000, true),
            // Facts of a holder's own count for nothing.
            ("proxy(\"bank\")", "bank", "GET", "/x", 1_000, false),
            ("method(\"DELETE\")", "github", "DELETE", "/x", 1_000, false),
            ("tenant(\"evil\"); sub(\"evil\")", "github", "GET", "/x", 1_000, true),
            ("time(1970-01-01T00:00:01Z)", "github", "GET", "/x", 2_000, false),
            ("request_proxy(\"github\")", "bank", "GET", "/x", 1_000, false),
        ];
        for (code, proxy, method, path, now_s, expected) in cases {
            let token = narrowed(&token, code);
            let answer = check(&ring, &token, wish(proxy, method, path, now_s));
            assert_eq!(is_allowed(&answer), expected, "{code} {proxy} {method} {path} {now_s}: {answer:?}");
            if let Answer::Allowed { tenant, ids, .. } = answer {
                assert_eq!((&*tenant, &ids[0]), ("acme", &id), "{code}");
            }
        }
    }

    #[test]
    fn what_others_signed_is_forged_and_third_parties_are_refused() {
        let (_folder, ring) = ring();
        let now = wish("github", "GET", "/", 1_000);
        let code = "tenant(\"acme\"); sub(\"x\"); proxy(\"github\"); method(\"GET\")";
        for id in [None, Some(ring.signing().root_id()), Some(1)] {
            let mut builder = BiscuitBuilder::new().code(code).unwrap();
            if let Some(id) = id {
                builder = builder.root_key_id(id);
            }
            let forged = builder.build(&KeyPair::new()).unwrap().to_base64().unwrap();
            assert_eq!(check(&ring, &forged, now), Answer::Forged);
        }
        let (token, _) = delegate(&ring, &rights()).unwrap();
        let biscuit = Biscuit::from_base64(&token, Roots(&ring)).unwrap();
        let third = KeyPair::new();
        let block = BlockBuilder::new().code("proxy(\"bank\")").unwrap();
        let block = biscuit.third_party_request().unwrap().create_block(&third.private(), block).unwrap();
        let with = biscuit.append_third_party(third.public(), block).unwrap().to_base64().unwrap();
        assert_eq!(check(&ring, &with, now), Answer::Refused);
        for noise in ["", "x", "....", &token[1..], &token[..token.len() - 4]] {
            assert_eq!(check(&ring, noise, now), Answer::Forged, "{noise}");
        }
    }

    #[test]
    fn too_little_time_is_not_too_few_rights() {
        let (_folder, ring) = ring();
        let (token, _) = delegate(&ring, &rights()).unwrap();
        let answer = check_within(&ring, &token, wish("github", "GET", "/", 1_000), Duration::ZERO);
        assert_eq!(answer, Answer::Busy);
        // A token that computes without end is its holder's doing.
        let bomb: String = (0..40).map(|n| format!("n({n}); ")).collect();
        let bomb = format!("{bomb} m($a, $b, $c) <- n($a), n($b), n($c); check if m(1, 2, 99)");
        let answer = check(&ring, &narrowed(&token, &bomb), wish("github", "GET", "/", 1_000));
        assert!(matches!(answer, Answer::Refused | Answer::Busy), "{answer:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// However a holder narrows a token, and whatever is asked: it allows nothing that the one before it did not.
        #[test]
        fn rights_only_shrink(
            checks in prop::collection::vec(prop_oneof![
                Just("check if request_method(\"GET\")"),
                Just("check if request_proxy(\"github\")"),
                Just("check if request_path($p), $p.starts_with(\"/a\")"),
                Just("proxy(\"bank\"); method(\"DELETE\")"),
                Just("check if time($t), $t < 1970-01-01T00:20:00Z"),
            ], 0..4),
            proxy in prop_oneof![Just("github"), Just("mail"), Just("bank")],
            method in prop_oneof![Just("GET"), Just("POST"), Just("DELETE")],
            path in prop_oneof![Just("/a"), Just("/b")],
            now_s in 900u64..2_100,
        ) {
            let (_folder, ring) = ring();
            let (mut token, _) = delegate(&ring, &rights()).unwrap();
            let mut before = is_allowed(&check(&ring, &token, wish(proxy, method, path, now_s)));
            prop_assert_eq!(before, proxy != "bank" && method != "DELETE" && now_s < 2_000);
            for code in checks {
                token = narrowed(&token, code);
                let after = is_allowed(&check(&ring, &token, wish(proxy, method, path, now_s)));
                prop_assert!(before || !after, "{}", code);
                before = after;
            }
        }
    }
}
