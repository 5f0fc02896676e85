//! Identities that workers and sandboxes ask for: signed, and told as the use of a capability.
//!
//! ```text
//!  env.ME.token() ─────────────┐                        ┌─▶ event
//!  http://identity.atoll/token ┴▶ mint ─▶ room? ─▶ sign ┴─▶ crossing `identity`: who, for whom, its id, how long; never the token
//!                               └▶ refuse ────────────────▶ crossing `identity`: who
//! ```
//!
//! What is asked for through the control API has a record of its own there (`api/deed.rs`).

use std::sync::Arc;
use std::time::Duration;

use atoll_bindings::crossing::{Crossing, Denial, Minted, OfSandbox, Verdict};
use http::Method;

use super::jwt::Claims;
use crate::access::Access;
use crate::observe::AccessEvent;

/// The capability's name.
const CAPABILITY: &str = "identity";
/// The status of a token that was made, as the control API has it.
const MADE: u16 = 201;

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotMinted {
    /// The audit log takes no records.
    Audit,
    /// No key signs.
    Unsigned,
}

/// Signs these claims for so many seconds.
pub(crate) fn mint(access: &Access, claims: Claims, seconds: u64) -> Result<(String, Claims), NotMinted> {
    let tell = |claims: &Claims, verdict, minted| {
        let crossing = Crossing { origin: claims.aud.clone(), minted, ..crossing(claims, verdict) };
        access.witness.crossing(crossing);
    };
    if !access.witness.ready() {
        tell(&claims, Verdict::Denied(Denial::Audit), None);
        return Err(NotMinted::Audit);
    }
    let Some((token, signed)) = access.issuer.sign(claims.clone(), seconds, None) else {
        tell(&claims, Verdict::Failed, None);
        return Err(NotMinted::Unsigned);
    };
    let minted = Minted { id: signed.jti.as_str().into(), seconds: signed.exp.saturating_sub(signed.iat) };
    tell(&signed, Verdict::Answered(MADE), Some(minted));
    access.tell(&AccessEvent {
        tenant: &signed.tenant,
        actor: &signed.sub,
        what: "identity",
        name: &signed.jti,
        action: "mint",
        detail: &signed.aud,
    });
    Ok((token, signed))
}

/// Tells that one was asked for whom it may not be for. Whom is a guest's text, and not told.
pub(crate) fn refuse(access: &Access, claims: &Claims) {
    access.witness.crossing(crossing(claims, Verdict::Denied(Denial::Origin)));
}

/// Who asks, as the claims have it.
fn crossing(claims: &Claims, verdict: Verdict) -> Crossing {
    let sandbox = claims.user.as_deref().zip(claims.sandbox.as_deref());
    Crossing {
        tenant: claims.tenant.as_str().into(),
        worker: claims.worker.as_str().into(),
        // A sandbox's are of no invocation: it is the sandbox that they can be revoked with.
        execution: claims.inv.as_deref().filter(|_| sandbox.is_none()).map(Arc::from),
        sandbox: sandbox.map(|(user, id)| OfSandbox { user: user.into(), id: id.into() }),
        token: None,
        capability: CAPABILITY.into(),
        policy: claims.egress.as_deref().map(Arc::from),
        method: Method::POST,
        origin: String::new(),
        minted: None,
        redirects: 0,
        verdict,
        request_bytes: 0,
        response_bytes: 0,
        elapsed: Duration::ZERO,
    }
}
