//! How a command ends: one exit code per kind of failure, and an error that says what to do next.

use std::fmt;
use std::process::ExitCode;

/// Shown in `--help`.
pub(crate) const EXIT_CODES_HELP: &str = "\
Exit codes:
  0  it worked
  1  the guest's code threw, or did not answer; `audit verify`: the log was changed
  2  wrong usage, or a file or setting that cannot be used
  3  a limit was reached (CPU, wall time, memory, response size)
  4  refused: the code, the token or the request was not accepted; `audit verify`: a checkpoint cannot be trusted
  5  the server could not be reached
  6  Atoll itself failed";

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The guest's code threw.
    Guest = 1,
    /// The caller's mistake.
    Usage = 2,
    /// A limit of the guest was reached.
    Limit = 3,
    /// Not accepted.
    Refused = 4,
    /// No answer from the server.
    Unreachable = 5,
    /// Atoll's own fault.
    Internal = 6,
}

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Decides the exit code.
    pub(crate) kind: Kind,
    /// What happened, first line first.
    pub(crate) message: String,
    /// What to do next.
    pub(crate) hint: Option<String>,
    /// The message was printed already, with the rest of the output.
    pub(crate) silent: bool,
    /// The exit code of a command that ran elsewhere, in place of the kind's.
    passed: Option<u8>,
}

impl Failure {
    /// A failure with a message.
    pub(crate) fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string(), hint: None, silent: false, passed: None }
    }

    /// The caller's mistake.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Adds what to do next.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Only the exit code is left to say.
    pub(crate) fn silent(kind: Kind) -> Self {
        Self { kind, message: String::new(), hint: None, silent: true, passed: None }
    }

    /// A command that ran elsewhere ended so; it said itself why.
    pub(crate) fn exit(code: u8) -> Self {
        Self { passed: Some(code), ..Self::silent(Kind::Guest) }
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        self.passed.unwrap_or(self.kind as u8)
    }

    /// The kind of failure that an outcome's code stands for; `None` if it is no failure.
    pub(crate) fn kind_of_code(code: &str) -> Option<Kind> {
        match code {
            "done" => None,
            "guest_error" | "hung" | "canceled" => Some(Kind::Guest),
            "host_fault" => Some(Kind::Internal),
            code if code.starts_with("limit_") => Some(Kind::Limit),
            _ => Some(Kind::Refused),
        }
    }

    /// Says it on standard error; the exit code for the process.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.silent {
            super::output::error(&self.message, self.hint.as_deref());
        }
        ExitCode::from(self.code())
    }
}

/// What commands give back.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_bindings::seam::{GuestError, LimitKind, Outcome};

    #[test]
    fn every_outcome_has_its_exit_code_and_the_help_names_it() {
        let thrown = GuestError { name: "Error".into(), message: "x".into(), stack: None };
        for (outcome, code) in [
            (Outcome::Done, 0),
            (Outcome::GuestError(thrown), 1),
            (Outcome::Hung, 1),
            (Outcome::Canceled, 1),
            (Outcome::Limit(LimitKind::Cpu), 3),
            (Outcome::Limit(LimitKind::ResponseBytes), 3),
            (Outcome::Refused("no".into()), 4),
            (Outcome::HostFault("lost".into()), 6),
        ] {
            let actual = Failure::kind_of_code(outcome.code()).map_or(0, |kind| kind as u8);
            assert_eq!(actual, code, "{outcome:?}");
            assert!(EXIT_CODES_HELP.contains(&format!("\n  {code}  ")), "{code} is documented");
        }
    }
}
