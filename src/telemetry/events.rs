//! What happens, declared once: each event's fields, its level, and the numbers it moves.
//!
//! From one declaration come the struct that callers fill, the `tracing` event (and with it the log line and
//! the OTLP log record), the attributes of the OTLP span that the event ends, and the metrics.

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};

use super::metrics::Metrics;

/// A value that an event can carry.
pub trait Field {
    /// As an OTLP attribute; `None` leaves it out.
    fn attribute(&self) -> Option<any_value::Value>;
}

impl Field for &str {
    fn attribute(&self) -> Option<any_value::Value> {
        Some(any_value::Value::StringValue((*self).to_owned()))
    }
}

impl Field for u64 {
    fn attribute(&self) -> Option<any_value::Value> {
        Some(any_value::Value::IntValue(i64::try_from(*self).unwrap_or(i64::MAX)))
    }
}

impl Field for u32 {
    fn attribute(&self) -> Option<any_value::Value> {
        Some(any_value::Value::IntValue((*self).into()))
    }
}

/// Something that happened.
pub trait Event {
    /// Name of the span that the event ends.
    const SPAN: &'static str;

    /// Adds the event to the numbers.
    fn measure(&self, metrics: &Metrics);

    /// Emits the `tracing` event. `trace` and `span` tie it to the span it ends or belongs to.
    fn log(&self, trace: Option<&str>, span: Option<&str>);

    /// Its fields as OTLP attributes.
    fn attributes(&self) -> Vec<KeyValue>;

    /// The code, if it says that something went wrong: the span's error status.
    fn failure(&self) -> Option<&str>;
}

/// One OTLP attribute.
pub(super) fn key_value(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

macro_rules! events {
    ($(
        $(#[$about:meta])*
        $name:ident $(<$life:lifetime>)? $text:literal at $level:ident
        { $( $(#[$field_about:meta])* $field:ident: $kind:ty as $otel:literal, )+ }
        failure($failed:ident) $failure:expr;
        measure($measured:ident, $metrics:ident) $measure:block
    )+) => { $(
        $(#[$about])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name $(<$life>)? { $( $(#[$field_about])* pub $field: $kind, )+ }

        impl $(<$life>)? Event for $name $(<$life>)? {
            const SPAN: &'static str = $text;

            fn measure(&self, $metrics: &Metrics) {
                let $measured = self;
                $measure
            }

            fn log(&self, trace: Option<&str>, span: Option<&str>) {
                tracing::event!(
                    target: "atoll::event",
                    tracing::Level::$level,
                    $( $field = self.$field, )+
                    trace_id = trace,
                    span_id = span,
                    $text
                );
            }

            fn attributes(&self) -> Vec<KeyValue> {
                let mut out = Vec::new();
                $( if let Some(value) = self.$field.attribute() { out.push(key_value($otel, value)); } )+
                out
            }

            fn failure(&self) -> Option<&str> {
                let $failed = self;
                $failure
            }
        }
    )+ };
}

events! {
    /// An invocation in an isolate ended: a worker's request, an execution or a scheduled event.
    InvocationFinished<'a> "invocation" at DEBUG {
        /// Who pays.
        tenant: &'a str as "atoll.tenant",
        /// Worker's name or execution's id.
        worker: &'a str as "atoll.worker",
        /// `fetch`, `scheduled` or `execute`.
        event: &'static str as "atoll.event",
        /// How it ended: `Outcome::code`.
        code: &'static str as "atoll.code",
        /// From admission to the end of everything under it.
        elapsed_us: u64 as "atoll.elapsed_us",
        /// CPU time.
        cpu_us: u64 as "atoll.cpu_us",
        /// Time in the isolate host.
        wall_us: u64 as "atoll.wall_us",
        /// Part of it spent waiting for an isolate.
        isolate_wait_us: u64 as "atoll.isolate_wait_us",
        /// Largest heap.
        heap_bytes_peak: u64 as "atoll.heap_bytes_peak",
        /// Calls on channels.
        subrequests: u32 as "atoll.subrequests",
        /// Dynamic workers loaded.
        loads: u32 as "atoll.loads",
    }
    failure(event) (!matches!(event.code, "done" | "canceled")).then_some(event.code);
    measure(event, metrics) {
        metrics.invocations.add(event.code, 1);
        if event.event == "fetch" {
            metrics.requests.add(event.code, 1);
            metrics.request_seconds.observe_us(event.elapsed_us);
        }
        metrics.subrequests.add("", event.subrequests.into());
        metrics.cpu_seconds.observe_us(event.cpu_us);
        metrics.isolate_wait_seconds.observe_us(event.isolate_wait_us);
        if event.loads > 0 {
            metrics.loads.add("", event.loads.into());
        }
    }

    /// A request or an execution was turned away before it ran.
    AdmissionRefused<'a> "admission refused" at DEBUG {
        /// Whose.
        tenant: &'a str as "atoll.tenant",
        /// Which bound.
        reason: &'static str as "atoll.reason",
    }
    failure(event) Some(event.reason);
    measure(event, metrics) { metrics.refused.add(event.reason, 1); }

    /// A capability was used, or its use was denied. No path, query or header: they may hold secrets.
    CapabilityUsed<'a> "capability used" at DEBUG {
        /// Who pays.
        tenant: &'a str as "atoll.tenant",
        /// Whose code.
        worker: &'a str as "atoll.worker",
        /// Which capability.
        capability: &'a str as "atoll.capability",
        /// The policy class or proxy that ruled it.
        policy: &'a str as "atoll.policy",
        /// The method that was asked for.
        method: &'a str as "http.request.method",
        /// Scheme, host and port of the last hop.
        origin: &'a str as "atoll.origin",
        /// `answered`, `failed`, `abandoned`, or the code of the denial.
        verdict: &'static str as "atoll.verdict",
        /// Body bytes sent.
        request_bytes: u64 as "http.request.body.size",
        /// Body bytes that came back.
        response_bytes: u64 as "http.response.body.size",
        /// From the call to the end of the answer.
        elapsed_us: u64 as "atoll.elapsed_us",
    }
    failure(event) (!matches!(event.verdict, "answered" | "abandoned")).then_some(event.verdict);
    measure(event, metrics) { metrics.crossings.add(event.verdict, 1); }

    /// A secret, a proxy, a token or an identity was made, changed, taken away or refused. Names and ids only.
    AccessChanged<'a> "access changed" at DEBUG {
        /// Whose.
        tenant: &'a str as "atoll.tenant",
        /// By whom.
        actor: &'a str as "atoll.actor",
        /// What kind of thing.
        what: &'static str as "atoll.what",
        /// Which.
        name: &'a str as "atoll.name",
        /// What was done.
        action: &'static str as "atoll.action",
        /// For whom, which version, or why not.
        detail: &'a str as "atoll.detail",
    }
    failure(event) (event.action == "refuse").then_some(event.detail);
    measure(event, metrics) { metrics.access.add(event.action, 1); }

    /// A checkpoint of the audit log: keep it where who can change the log cannot reach.
    CheckpointMade<'a> "audit checkpoint" at INFO {
        /// The log's id.
        log: &'a str as "atoll.audit_log",
        /// Records under it.
        size: u64 as "atoll.audit_records",
        /// The hash of the last of them.
        hash: &'a str as "atoll.audit_hash",
        /// The signed note.
        note: &'a str as "atoll.audit_checkpoint",
    }
    failure(_event) None;
    measure(event, metrics) { metrics.audit_covered.set(event.size); }

    /// A step was given a runtime: an isolate or a sandbox.
    StepRouted<'a> "step routed" at DEBUG {
        /// Who asked.
        tenant: &'a str as "atoll.tenant",
        /// The execution's id.
        worker: &'a str as "atoll.worker",
        /// `isolate` or `sandbox`.
        runtime: &'static str as "atoll.runtime",
        /// Which rule decided.
        rule: &'static str as "atoll.rule",
        /// Which of the operator's rules, if it was one.
        named: &'a str as "atoll.rule_named",
        /// Why.
        reasons: &'a str as "atoll.reasons",
        /// Estimate of its start.
        start_ms: u32 as "atoll.start_ms_estimate",
        /// Estimate of the runtime's own memory.
        memory_mib: u32 as "atoll.memory_mib_estimate",
    }
    failure(_event) None;
    measure(event, metrics) {
        metrics.steps_routed.add(event.runtime, 1);
        metrics.route_rules.add(event.rule, 1);
    }

    /// A container sandbox was made, refused, or is over, after using this much.
    SandboxChanged<'a> "sandbox" at INFO {
        /// Who pays.
        tenant: &'a str as "atoll.tenant",
        /// The tenant's user.
        user: &'a str as "atoll.user",
        /// Its name on this machine.
        sandbox: &'a str as "atoll.sandbox",
        /// `started`, why it ended, or the code with which it was refused.
        what: &'static str as "atoll.sandbox_event",
        /// CPU time.
        cpu_us: u64 as "atoll.cpu_us",
        /// Memory held over time.
        memory_byte_seconds: u64 as "atoll.memory_byte_seconds",
        /// Most memory at once.
        memory_bytes_peak: u64 as "atoll.memory_bytes_peak",
        /// Its life.
        wall_us: u64 as "atoll.wall_us",
        /// Bytes sent into it.
        bytes_in: u64 as "atoll.bytes_in",
        /// Bytes received from it.
        bytes_out: u64 as "atoll.bytes_out",
        /// How often it was used.
        uses: u64 as "atoll.uses",
    }
    failure(event) (!matches!(event.what, "started" | "idle" | "lifetime" | "destroyed")).then_some(event.what);
    measure(event, metrics) {
        metrics.sandboxes.add(event.what, 1);
        metrics.sandbox_cpu_us.add("", event.cpu_us);
        metrics.sandbox_memory_byte_seconds.add("", event.memory_byte_seconds);
        metrics.sandbox_bytes.add("in", event.bytes_in);
        metrics.sandbox_bytes.add("out", event.bytes_out);
    }

    /// An isolate host's process is ready for work.
    HostStarted<'a> "isolate host started" at INFO {
        /// Its process.
        pid: u32 as "process.pid",
        /// From spawn to its first heartbeat.
        start_ms: u64 as "atoll.start_ms",
        /// Layers of its confinement that could not be applied, separated by spaces.
        unconfined: &'a str as "atoll.unconfined",
    }
    failure(_event) None;
    measure(event, metrics) {
        metrics.hosts_started.add("", 1);
        metrics.host_layers_missing.set(event.unconfined.split_whitespace().count() as u64);
    }

    /// An isolate host's process died, fell silent or broke the protocol.
    HostLost<'a> "isolate host lost" at ERROR {
        /// Its process.
        pid: u32 as "process.pid",
        /// What happened to it.
        reason: &'a str as "atoll.reason",
        /// Invocations that were inside.
        inside: u64 as "atoll.inside",
        /// Tenants that were inside, separated by spaces.
        tenants: &'a str as "atoll.tenants",
    }
    failure(event) Some(event.reason);
    measure(_event, metrics) { metrics.hosts_lost.add("", 1); }

    /// What a tenant is made to do for ending isolate hosts has changed.
    TenantPenalised<'a> "tenant penalised" at WARN {
        /// Who.
        tenant: &'a str as "atoll.tenant",
        /// `quarantined`, `suspended` or `released`.
        penalty: &'static str as "atoll.penalty",
        /// For how long it is suspended.
        seconds: u64 as "atoll.suspended_s",
    }
    failure(event) Some(event.penalty);
    measure(event, metrics) { metrics.penalties.add(event.penalty, 1); }

    /// An isolate host's process was replaced in a rolling restart, or nobody needs it any more.
    HostRetired<'a> "isolate host retired" at INFO {
        /// Its process.
        pid: u32 as "process.pid",
        /// Why.
        reason: &'a str as "atoll.reason",
        /// Invocations that may end there.
        inside: u64 as "atoll.inside",
    }
    failure(_event) None;
    measure(_event, metrics) { metrics.hosts_retired.add("", 1); }

    /// An isolate host's process was replaced because isolates in it would not stop.
    HostCondemned<'a> "isolate host condemned" at ERROR {
        /// Its process.
        pid: u32 as "process.pid",
        /// Why.
        reason: &'a str as "atoll.reason",
        /// Invocations that were inside.
        inside: u64 as "atoll.inside",
        /// Tenants whose isolates would not stop, separated by spaces.
        tenants: &'a str as "atoll.tenants",
    }
    failure(event) Some(event.reason);
    measure(_event, metrics) {
        metrics.hosts_lost.add("", 1);
        metrics.hosts_condemned.add("", 1);
    }
}
