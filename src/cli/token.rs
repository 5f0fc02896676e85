//! `atoll token`: a random token and its hash.

use atoll::access::tokens::NewToken;
use serde_json::json;

use super::args::access::Token;
use super::exit::{Failure, Kind, Result};
use super::output;

/// A token with its hash.
pub(crate) struct Made {
    /// What the client sends.
    pub(crate) token: String,
    /// What the configuration holds.
    pub sha256: String,
}

/// Makes a token.
pub(crate) fn make() -> Result<Made> {
    let made = NewToken::make()
        .ok_or_else(|| Failure::new(Kind::Internal, "the system gives no randomness".to_owned()))?;
    let sha256 = made.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Made { token: made.token.to_string(), sha256 })
}

/// `atoll token`.
pub(crate) fn token(args: &Token) -> Result<()> {
    let Made { token, sha256 } = make()?;
    if args.json {
        output::json_line(&json!({ "token": token, "sha256": sha256 }));
        return Ok(());
    }
    output::line(&format!("token   {token}\nsha256  {sha256}"));
    output::note(
        "Give the token to the client (ATOLL_TOKEN), put the hash into the configuration, keep neither here.",
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    #[test]
    fn a_token_is_new_each_time_and_its_hash_is_what_the_configuration_takes() {
        let (a, b) = (make().unwrap(), make().unwrap());
        assert_ne!(a.token, b.token);
        assert!(a.token.len() > 40 && !a.token.contains(['+', '/', '=']));
        let text = format!("[tenants.a]\ntokens = [\"{}\"]", a.sha256);
        let config = atoll::config::Config::parse(&text, Default::default()).unwrap();
        let tenant = config.tenants.values().next().unwrap();
        assert_eq!(tenant.tokens[0].sha256[..], Sha256::digest(a.token.as_bytes())[..]);
    }
}
