//! Trace context: W3C `traceparent`/`tracestate` in and out, and the span of work being timed.
//!
//! Spec: <https://www.w3.org/TR/trace-context/>. What a client sends is a hint: a malformed header starts a
//! new trace, and a client's `sampled` bit is taken only if the operator trusts it (see `Sampling`).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderMap;

use crate::dispatch::trace::Trace;

/// Longest `tracestate` kept, in bytes (the specification asks for at least 512).
pub const TRACESTATE_BYTES_MAX: usize = 512;

/// Names a trace; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// Names a span within a trace; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceId({self})")
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpanId({self})")
    }
}

/// One span's place in a trace, as it travels between processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// Whether somebody records this trace.
    pub sampled: bool,
    /// Vendors' `tracestate`, passed on as it came.
    pub state: Option<Arc<str>>,
}

impl TraceContext {
    /// Reads `traceparent` and `tracestate`. `None` if absent, repeated or malformed.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all("traceparent").iter();
        let (parent, more) = (parents.next()?, parents.next());
        if more.is_some() {
            return None;
        }
        let mut context = Self::parse(parent.to_str().ok()?)?;
        context.state = join_state(headers);
        Some(context)
    }

    /// Parses one `traceparent` value.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split('-');
        let version = hex::<1>(parts.next()?)?[0];
        let trace = hex::<16>(parts.next()?)?;
        let span = hex::<8>(parts.next()?)?;
        let flags = hex::<1>(parts.next()?)?[0];
        // Version 00 ends here; later versions may append fields; ff is forbidden.
        let complete = if version == 0 { parts.next().is_none() } else { version != 0xff };
        let real = trace != [0; 16] && span != [0; 8];
        (complete && real).then_some(Self {
            trace: TraceId(trace),
            span: SpanId(span),
            sampled: flags & 1 == 1,
            state: None,
        })
    }

    /// The `traceparent` value to send on.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

impl From<TraceContext> for Trace {
    fn from(context: TraceContext) -> Self {
        Self { parent: Some(context.traceparent().into()), state: context.state, execution: None }
    }
}

fn join_state(headers: &HeaderMap) -> Option<Arc<str>> {
    let mut joined = String::new();
    for value in headers.get_all("tracestate") {
        let value = value.to_str().ok()?;
        if joined.len() + value.len() + 1 > TRACESTATE_BYTES_MAX {
            return None; // the specification allows dropping it; cutting it could split a member
        }
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(value);
    }
    (!joined.is_empty()).then(|| joined.into())
}

/// Exactly `2 * N` lower-case hexadecimal digits.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (nibble(pair[0])? << 4) | nibble(pair[1])?;
    }
    Some(out)
}

/// What a span stands for, in OpenTelemetry's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Work for a remote caller.
    Server,
    /// A call to somewhere else.
    Client,
    /// Work within.
    Internal,
}

/// A unit of work from its start; an event ends it (`Telemetry::end`).
#[derive(Clone, Debug)]
pub struct Span {
    pub(super) context: TraceContext,
    pub(super) parent: Option<SpanId>,
    pub(super) kind: SpanKind,
    pub(super) start_unix_ns: u64,
    started: Instant,
}

impl Span {
    pub(super) fn begin(kind: SpanKind, parent: Option<&TraceContext>, sampled: bool) -> Self {
        let (trace, state) = match parent {
            Some(parent) => (parent.trace, parent.state.clone()),
            None => (TraceId((fresh_u64() as u128 | (fresh_u64() as u128) << 64).to_be_bytes()), None),
        };
        Self {
            context: TraceContext { trace, span: SpanId(fresh_u64().to_be_bytes()), sampled, state },
            parent: parent.map(|parent| parent.span),
            kind,
            start_unix_ns: unix_ns(),
            started: Instant::now(),
        }
    }

    /// A span under this one.
    #[must_use]
    pub fn child(&self, kind: SpanKind) -> Self {
        Self::begin(kind, Some(&self.context), self.context.sampled)
    }

    /// Its place in the trace.
    #[must_use]
    pub fn context(&self) -> &TraceContext {
        &self.context
    }

    /// The `traceparent` value for whoever works under this span.
    #[must_use]
    pub fn traceparent(&self) -> String {
        self.context.traceparent()
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Nanoseconds since the Unix epoch.
pub(super) fn unix_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// A non-zero number that is unlikely to repeat. Trace ids need uniqueness, not secrecy: a SplitMix64 step
/// per thread, seeded by the standard library's random hasher keys, costs nanoseconds.
fn fresh_u64() -> u64 {
    use std::cell::Cell;
    use std::hash::{BuildHasher, RandomState};
    thread_local!(static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(unix_ns())));
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mut z = next;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).max(1)
    })
}

/// A number in `0..1` made from a trace id, the same for every process that sees the trace.
pub(super) fn ratio_of(trace: TraceId) -> f64 {
    let [.., a, b, c, d, e, f, g] = trace.0; // the last 7 bytes are random in every version
    let low = u64::from_be_bytes([0, a, b, c, d, e, f, g]);
    #[expect(clippy::cast_precision_loss, reason = "a sampling ratio needs no 56 bits")]
    {
        low as f64 / (1u64 << 56) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn traceparent_round_trips() {
        let context = TraceContext::parse(GOOD).unwrap();
        assert!(context.sampled);
        assert_eq!(context.traceparent(), GOOD);
    }

    #[test]
    fn malformed_traceparents_are_ignored() {
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-extra",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-é0f7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
        let later = format!("01{}-future", &GOOD[2..]);
        assert!(TraceContext::parse(&later).is_some(), "a later version may append fields");
    }

    #[test]
    fn headers_must_name_one_parent_and_state_is_bounded() {
        let mut headers = HeaderMap::new();
        headers.append("traceparent", GOOD.parse().unwrap());
        headers.append("tracestate", "a=1".parse().unwrap());
        headers.append("tracestate", "b=2".parse().unwrap());
        let context = TraceContext::from_headers(&headers).unwrap();
        assert_eq!(context.state.as_deref(), Some("a=1,b=2"));
        headers.append("tracestate", "x".repeat(TRACESTATE_BYTES_MAX).parse().unwrap());
        assert_eq!(TraceContext::from_headers(&headers).unwrap().state, None);
        headers.append("traceparent", GOOD.parse().unwrap());
        assert_eq!(TraceContext::from_headers(&headers), None);
    }

    #[test]
    fn children_stay_in_the_trace() {
        let parent = TraceContext::parse(GOOD).unwrap();
        let span = Span::begin(SpanKind::Server, Some(&parent), true);
        let child = span.child(SpanKind::Client);
        assert_eq!(child.context.trace, parent.trace);
        assert_eq!(child.parent, Some(span.context.span));
        assert_ne!(child.context.span, span.context.span);
        assert!(TraceContext::parse(&child.traceparent()).is_some());
        let root = Span::begin(SpanKind::Server, None, false);
        assert_ne!(root.context.trace, parent.trace);
        assert!((0.0..1.0).contains(&ratio_of(root.context.trace)));
    }
}
