//! Landlock: a set of rules without any rule that allows something.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetStatus, Scope,
};

use super::{Refused, Step as _};

/// Kernels that know less deny less; opening a path is denied by all that have Landlock.
pub(super) fn deny_all() -> Result<(), Refused> {
    const NEWEST: ABI = ABI::V7;
    let other = |error: landlock::RulesetError| std::io::Error::other(error.to_string());
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(other)
        .step("Landlock")?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(std::io::Error::from(std::io::ErrorKind::Unsupported)).step("Landlock");
    }
    Ok(())
}
