//! What a worker may touch: the message seam between gateway and isolate host, and the capabilities behind it.
//!
//! [`seam`] is the vocabulary, [`wire`] its bytes on a socket, [`link`] the gateway's end of one isolate host,
//! [`channel`] what a capability is and how to add one, [`value`] what crosses as data, [`egress`] the one that reaches
//! the outside, [`proxy`] the one that does so with a credential, [`socket`] WebSockets on both sides of the seam, [`crossing`]
//! how each use is told.
#![forbid(unsafe_code)]

pub mod body;
pub mod channel;
pub mod crossing;
pub mod egress;
pub mod link;
pub mod proxy;
pub mod seam;
pub mod socket;
pub mod value;
pub mod wire;
