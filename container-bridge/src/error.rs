//! Everything that can go wrong with a sandbox, as one typed error with a stable code.
//!
//! Codes are close to those of Cloudflare's Sandbox SDK, so that its users meet words they know. The agent inside a
//! sandbox sends the same codes; what it sends is text for a person plus one of these, never a type of its own.

use std::io;

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal;)*) => {
        /// What went wrong, stable across versions.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code, for tables and tests.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name that clients see.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status that carries this code.
            #[must_use]
            pub fn http_status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
        }
    };
}

codes! {
    /// An argument is not acceptable, whatever the state of the sandbox.
    InvalidArgument = "INVALID_ARGUMENT", 400;
    /// A path is empty, too long, or holds a NUL byte.
    InvalidPath = "INVALID_PATH", 400;
    /// The path leads to a directory where a file is needed.
    IsDirectory = "IS_DIRECTORY", 400;
    /// The path leads through something that is not a directory.
    NotDirectory = "NOT_DIRECTORY", 400;
    /// The path leads to a device, pipe, socket or kernel file, which the file API does not serve.
    NotAFile = "NOT_A_FILE", 400;
    /// The directory still has entries.
    NotEmpty = "NOT_EMPTY", 409;
    /// The sandbox's own user may not do this.
    PermissionDenied = "PERMISSION_DENIED", 403;
    /// No such file or directory.
    FileNotFound = "FILE_NOT_FOUND", 404;
    /// The command does not exist in the sandbox.
    CommandNotFound = "COMMAND_NOT_FOUND", 404;
    /// No process of that name.
    ProcessNotFound = "PROCESS_NOT_FOUND", 404;
    /// No session of that name.
    SessionNotFound = "SESSION_NOT_FOUND", 404;
    /// This tenant and user have no sandbox.
    SandboxNotFound = "SANDBOX_NOT_FOUND", 404;
    /// A wait ended before the condition came true.
    ProcessReadyTimeout = "PROCESS_READY_TIMEOUT", 408;
    /// A file of that name exists.
    FileExists = "FILE_EXISTS", 409;
    /// A process of that name runs.
    ProcessExists = "PROCESS_EXISTS", 409;
    /// A session of that name exists.
    SessionAlreadyExists = "SESSION_ALREADY_EXISTS", 409;
    /// The sandbox stopped while this ran; it may or may not have had an effect.
    OperationInterrupted = "OPERATION_INTERRUPTED", 409;
    /// The session ended and took this with it.
    SessionDestroyed = "SESSION_DESTROYED", 410;
    /// This sandbox is over; ask for a new one.
    SandboxGone = "SANDBOX_GONE", 410;
    /// A file or body is larger than its bound.
    FileTooLarge = "FILE_TOO_LARGE", 413;
    /// An archive holds what may not be unpacked: a traversal, device, outside link, or too much.
    ArchiveRefused = "ARCHIVE_REFUSED", 422;
    /// Too many of something inside one sandbox: processes, sessions, watches, streams.
    TooMany = "TOO_MANY", 429;
    /// This tenant has as many sandboxes as it may have.
    TenantSandboxesExhausted = "TENANT_SANDBOXES_EXHAUSTED", 429;
    /// Nothing listens on that port inside.
    PortRefused = "PORT_REFUSED", 502;
    /// The backend could not make or keep a sandbox.
    BackendFailed = "BACKEND_FAILED", 502;
    /// The cluster does not let this program do what a sandbox needs; the message names what.
    ClusterForbidden = "CLUSTER_FORBIDDEN", 502;
    /// The agent sent what the protocol does not allow; the sandbox is destroyed.
    AgentMisbehaved = "AGENT_MISBEHAVED", 502;
    /// The machine has as many sandboxes as it may have, or a start did not come about in time.
    SandboxUnavailable = "SANDBOX_UNAVAILABLE", 503;
    /// The cluster's quota for these sandboxes is used up.
    ClusterQuotaExceeded = "CLUSTER_QUOTA_EXCEEDED", 503;
    /// No node of the cluster can take another sandbox.
    Unschedulable = "UNSCHEDULABLE", 503;
    /// The kernel does not let this process set the limits asked for, so nothing was started.
    LimitsUnavailable = "LIMITS_UNAVAILABLE", 503;
    /// This backend or kernel cannot do this.
    Unsupported = "UNSUPPORTED", 501;
    /// The sandbox's disk is full.
    NoSpace = "NO_SPACE", 507;
    /// Any other failed system call; the message names it.
    System = "SYSTEM", 500;
}

/// A failed operation on a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{}: {message}", code.as_str())]
pub struct SandboxError {
    /// The stable code.
    pub code: Code,
    /// What happened, for a person.
    pub message: String,
}

/// The result of everything in this crate.
pub type Result<T, E = SandboxError> = std::result::Result<T, E>;

impl SandboxError {
    /// An error with this code and text.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A failed system call on a file, told apart by its cause.
    #[must_use]
    pub fn from_io(what: &str, error: &io::Error) -> Self {
        use io::ErrorKind as K;
        let code = match error.kind() {
            K::NotFound => Code::FileNotFound,
            K::PermissionDenied | K::ReadOnlyFilesystem => Code::PermissionDenied,
            K::AlreadyExists => Code::FileExists,
            K::IsADirectory => Code::IsDirectory,
            K::NotADirectory => Code::NotDirectory,
            K::DirectoryNotEmpty => Code::NotEmpty,
            K::StorageFull | K::QuotaExceeded | K::FileTooLarge => Code::NoSpace,
            K::InvalidFilename => Code::InvalidPath,
            K::InvalidInput => Code::InvalidArgument,
            // Too many symbolic links, or a link the resolution may not follow (ELOOP); a resolution that would leave
            // its root (EXDEV).
            _ if error.raw_os_error() == Some(libc::ELOOP) => Code::InvalidPath,
            _ => Code::System,
        };
        Self::new(code, format!("{what}: {error}"))
    }

    /// Whether the same call may be sent again without thinking: nothing was started.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.code,
            Code::SandboxUnavailable
                | Code::TenantSandboxesExhausted
                | Code::SandboxGone
                | Code::ClusterQuotaExceeded
                | Code::Unschedulable
        )
    }
}

/// Adds what was tried to an `io::Error` or `Errno`.
pub(crate) trait Context<T> {
    /// Names the operation that failed.
    fn context(self, what: &str) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: &str) -> Result<T> {
        self.map_err(|error| SandboxError::from_io(what, &error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_have_an_error_status() {
        let names: std::collections::HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|code| (400..600).contains(&code.http_status())));
    }

    #[test]
    fn causes_of_failed_calls_are_told_apart() {
        for (errno, code) in [
            (libc::ENOENT, Code::FileNotFound),
            (libc::EACCES, Code::PermissionDenied),
            (libc::EROFS, Code::PermissionDenied),
            (libc::ENOSPC, Code::NoSpace),
            (libc::ELOOP, Code::InvalidPath),
            (libc::ENOTDIR, Code::NotDirectory),
        ] {
            assert_eq!(
                SandboxError::from_io("x", &io::Error::from_raw_os_error(errno)).code,
                code,
                "{errno}"
            );
        }
    }
}
