//! A request's place in its trace, and how it reaches the guest and whatever the guest calls.
//!
//! ```text
//!  client ──headers──▶ Observer::begin ──▶ Trace ─┬─▶ the guest's own request
//!                                                 ├─▶ identity on the seam ──▶ nested isolates
//!                                                 └─▶ every call on the outbound channel
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use atoll_bindings::body::RequestBody;
use atoll_bindings::channel::{CallContext, CallFuture, Channel, MethodFuture};
use atoll_bindings::crossing::ExecutionId;
use atoll_bindings::value::Value;
use http::{HeaderMap, HeaderName, HeaderValue, Request};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Digits of a trace's id within a `traceparent`.
pub(super) const ID: std::ops::Range<usize> = 3..35;

/// Capabilities of one execution whose uses are counted apart; uses of further ones are only told one by one.
const USED_MAX: usize = 64;

/// One execution: its unique name, and what it used of what it was given.
#[derive(Debug)]
pub struct Execution {
    /// Its unique name.
    pub id: Arc<str>,
    used: Mutex<BTreeMap<String, u32>>,
}

impl Execution {
    /// Under this name.
    #[must_use]
    pub fn new(id: Arc<str>) -> Arc<Self> {
        Arc::new(Self { id, used: Mutex::default() })
    }

    fn uses(&self, capability: &str) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = used.get_mut(capability) {
            *count = count.saturating_add(1);
        } else if used.len() < USED_MAX {
            used.insert(capability.to_owned(), 1);
        }
    }

    /// Calls so far, by the capability's name.
    pub(crate) fn used(&self) -> BTreeMap<String, u32> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl PartialEq for Execution {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Execution {}

/// W3C trace context of one invocation, empty if nobody traces it; and which execution it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// `traceparent` of the gateway's span, or the client's own if nothing is recorded here.
    pub parent: Option<Arc<str>>,
    /// The client's `tracestate`, passed on as it came; only with a parent.
    pub state: Option<Arc<str>>,
    /// The execution that this is about; `None` for what is none.
    pub execution: Option<Arc<Execution>>,
}

impl Trace {
    /// The trace's id: 32 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.parent.as_deref()?.get(ID)
    }

    /// Makes these headers say this place and no other.
    pub fn replace(&self, headers: &mut HeaderMap) {
        headers.remove(TRACEPARENT);
        headers.remove(TRACESTATE);
        self.add(headers);
    }

    /// Says this place, unless the headers say one already: a guest may trace its calls itself.
    fn add(&self, headers: &mut HeaderMap) {
        let value = |text: &Option<Arc<str>>| HeaderValue::try_from(text.as_deref()?).ok();
        if headers.contains_key(TRACEPARENT) {
            return;
        }
        let Some(parent) = value(&self.parent) else { return };
        headers.insert(TRACEPARENT, parent);
        if let Some(state) = value(&self.state) {
            headers.insert(TRACESTATE, state);
        }
    }

    /// The same capability, with this place on every call.
    #[must_use]
    pub fn channel(&self, channel: &Arc<dyn Channel>) -> Arc<dyn Channel> {
        match self.parent.is_some() || self.execution.is_some() {
            true => Arc::new(Traced { trace: self.clone(), channel: Arc::clone(channel) }),
            false => Arc::clone(channel),
        }
    }
}

/// A capability that says where its calls belong, and counts them.
struct Traced {
    trace: Trace,
    channel: Arc<dyn Channel>,
}

impl Channel for Traced {
    fn fetch(&self, context: CallContext, mut request: Request<RequestBody>) -> CallFuture {
        self.trace.add(request.headers_mut());
        if let Some(execution) = &self.trace.execution {
            execution.uses(self.channel.name());
            request.extensions_mut().insert(ExecutionId(Arc::clone(&execution.id)));
        }
        self.channel.fetch(context, request)
    }

    fn call(&self, context: CallContext, method: &str, arguments: Vec<Value>) -> MethodFuture {
        if let Some(execution) = &self.trace.execution {
            execution.uses(self.channel.name());
        }
        self.channel.call(context, method, arguments)
    }

    fn takes_sockets(&self) -> bool {
        self.channel.takes_sockets()
    }

    fn takes_connections(&self) -> bool {
        self.channel.takes_connections()
    }

    fn name(&self) -> &str {
        self.channel.name()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use atoll_bindings::seam::{CallError, Identity, InvocationId};

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const GUESTS: &str = "00-0af7651916cd43dd8448eb211c80319c-1111111111111111-01";

    fn trace() -> Trace {
        Trace { parent: Some(PARENT.into()), state: Some("a=1".into()), execution: None }
    }

    #[derive(Default)]
    struct Far(Mutex<Vec<HeaderMap>>);

    impl Channel for Far {
        fn fetch(&self, _context: CallContext, request: Request<RequestBody>) -> CallFuture {
            self.0.lock().unwrap().push(request.headers().clone());
            Box::pin(async { Err(CallError::Denied(String::new())) })
        }

        fn name(&self) -> &str {
            "far"
        }
    }

    async fn headers_at_the_far_end(trace: &Trace, sent: &[(&'static str, &'static str)]) -> HeaderMap {
        let far = Arc::new(Far::default());
        let channel: Arc<dyn Channel> = far.clone();
        let identity = Identity { tenant: "t".into(), worker: "w".into(), traceparent: None };
        let context = CallContext::new(identity, InvocationId(1));
        let mut request = Request::new(RequestBody::Empty);
        for (name, value) in sent {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        let _refused = trace.channel(&channel).fetch(context, request).await;
        far.0.lock().unwrap().pop().unwrap()
    }

    #[tokio::test]
    async fn calls_carry_the_trace_unless_the_guest_says_its_own() {
        let plain = headers_at_the_far_end(&trace(), &[("tracestate", "forged=1")]).await;
        assert_eq!(plain["traceparent"], PARENT);
        assert_eq!(plain["tracestate"], "a=1");
        let own = headers_at_the_far_end(&trace(), &[("traceparent", GUESTS)]).await;
        assert_eq!(own["traceparent"], GUESTS);
        assert!(!own.contains_key("tracestate"));
        assert!(headers_at_the_far_end(&Trace::default(), &[]).await.is_empty());
    }

    #[test]
    fn the_guest_sees_the_gateways_place_and_never_a_malformed_one() {
        let mut headers = HeaderMap::new();
        headers.append("traceparent", HeaderValue::from_static("nonsense"));
        Trace::default().replace(&mut headers);
        assert!(headers.is_empty());
        headers.append("traceparent", HeaderValue::from_static(GUESTS));
        trace().replace(&mut headers);
        assert_eq!(
            (&headers["traceparent"], &headers["tracestate"]),
            (&PARENT.parse().unwrap(), &"a=1".parse().unwrap())
        );
        assert_eq!(trace().id(), Some("0af7651916cd43dd8448eb211c80319c"));
    }
}
