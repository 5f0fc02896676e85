//! What both ends of a stream must agree on about credit.

use crate::limits::{CHUNK_BYTES_MAX, WINDOW_BYTES};

/// What a frame costs at least, in bytes of credit: so a window bounds the count of frames too.
pub(crate) const COST_BYTES_MIN: usize = 256;
/// Most frames of one stream that can be in flight, and one more for its end.
pub(crate) const QUEUED_MAX: usize = WINDOW_BYTES / COST_BYTES_MIN + 1;

const _: () = assert!(CHUNK_BYTES_MAX >= COST_BYTES_MIN);

/// The credit that a frame with this many bytes takes.
pub(crate) fn cost(length: usize) -> u32 {
    length.clamp(COST_BYTES_MIN, CHUNK_BYTES_MAX) as u32
}
