//! `atoll token`: a random token and its hash.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::args;
use super::exit::{Failure, Kind, Result};
use super::output;

/// Randomness in a token, in bytes.
const TOKEN_BYTES: usize = 32;

/// A token with its hash.
pub(crate) struct Made {
    /// What the client sends.
    pub(crate) token: String,
    /// What the configuration holds.
    pub sha256: String,
}

/// Makes a token.
pub(crate) fn make() -> Result<Made> {
    let mut random = [0; TOKEN_BYTES];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::new(Kind::Internal, format!("the system gives no randomness: {error}")))?;
    let token = format!("atoll_{}", URL_SAFE_NO_PAD.encode(random));
    let sha256 = Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Made { token, sha256 })
}

/// `atoll token`.
pub(crate) fn token(args: &args::Token) -> Result<()> {
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
