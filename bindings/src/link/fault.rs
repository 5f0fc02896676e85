//! Why a link is down, and what counts as breaking the seam's protocol.

use std::io;

/// What a correct host never does. One of these closes the link: a host that breaks the protocol is compromised or broken, and
/// either way its state cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Violation {
    /// Bytes that are no message.
    #[error("a frame that does not decode")]
    BadFrame,
    /// More body bytes than the gateway granted.
    #[error("body bytes beyond the credit")]
    BeyondCredit,
    /// A body chunk beyond its bound.
    #[error("a body chunk beyond the bound")]
    ChunkTooLong,
    /// An inline body beyond its bound.
    #[error("an inline body beyond the bound")]
    InlineTooLong,
    /// Credit for bytes that were never sent.
    #[error("credit for bytes that were not sent")]
    CreditNotSpent,
    /// A second answer to one invocation.
    #[error("a second answer")]
    SecondAnswer,
    /// A response to an event that wants a value, or the reverse.
    #[error("an answer of the wrong kind")]
    WrongAnswer,
    /// A stream number that is taken, or that only the gateway may choose.
    #[error("a stream number out of turn")]
    StreamNumber,
    /// A call number that is still in use.
    #[error("a call number in use")]
    CallNumber,
    /// Calls far beyond the limit of subrequests.
    #[error("far too many calls")]
    TooManyCalls,
    /// Flow control in the wrong direction of a stream.
    #[error("a body step in the wrong direction")]
    Direction,
}

/// Why a link closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The host process ended, or closed its end.
    #[error("the process ended")]
    HostGone,
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Socket(io::ErrorKind),
    /// The host broke the protocol.
    #[error("it broke the protocol: {0}")]
    Violation(#[from] Violation),
    /// There is no host: the last one is gone and the next one is not up yet.
    #[error("none is ready")]
    NotReady,
    /// The gateway closed the link.
    #[error("it was shut down")]
    Closed,
}

/// The isolate host behind a link cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("isolate host lost: {reason}")]
pub struct LinkDown {
    /// Why.
    pub reason: CloseReason,
}
