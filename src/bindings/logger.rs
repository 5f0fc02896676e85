//! The logger: `env.LOG.info("text", { any: "fields" })`.
//!
//! ```text
//!  env.LOG.warn(text, fields) ──CallMethod──▶ Logger::call ──▶ the invocation's own lines ─┬─▶ ring, /v1/…/logs
//!                                                                                         └─▶ operator's log, OTLP
//! ```
//!
//! Lines join those of `console` in order, under the same budget of bytes (`logBytes`), each call is a subrequest, and a tenant's
//! lines reach the operator's log at a bounded rate. So nothing here needs a rate of its own. Tenant, worker, invocation and trace
//! are attached by the gateway; a guest cannot name any of them.
//!
//! A line is written when its call arrives and not when somebody waits for it: a worker may log and end.

use std::sync::Arc;

use atoll_bindings::body::RequestBody;
use atoll_bindings::channel::{CallContext, CallFuture, Channel, MethodFuture};
use atoll_bindings::link::Grant;
use atoll_bindings::seam::{CallError, LogLevel, MethodError};
use atoll_bindings::value::Value;
use atoll_loader::limits::{JSON_DEPTH_MAX, LOG_LINE_BYTES_MAX};
use serde::{Deserialize, Serialize};

use super::{Bound, Under};
use crate::deploy::DeployError;

/// Its settings: there are none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logger {}

impl Logger {
    pub(super) fn check(&self) -> Result<(), DeployError> {
        Ok(())
    }

    pub(super) fn bind(&self) -> Arc<dyn Bound> {
        Arc::new(Lines)
    }
}

/// The capability. What it writes to comes with each call.
#[derive(Clone, Copy, Debug)]
struct Lines;

impl Bound for Lines {
    fn grant(&self, _under: Under<'_>) -> Grant {
        Grant::Channel(Arc::new(*self))
    }
}

impl Channel for Lines {
    fn fetch(&self, _context: CallContext, _request: http::Request<RequestBody>) -> CallFuture {
        let error = CallError::Invalid("A logger has methods, and no fetch().".to_owned());
        Box::pin(async move { Err(error) })
    }

    fn call(&self, context: CallContext, method: &str, arguments: Vec<Value>) -> MethodFuture {
        let written = line(method, arguments).map(|(level, message, fields)| {
            context.console.line(level, message, fields);
            Value::Undefined
        });
        Box::pin(async move { written })
    }

    fn is_immediate(&self) -> bool {
        true
    }

    fn name(&self) -> &str {
        "logger"
    }
}

/// What a call says: `level(text, fields?)`, or `log({ level?, message, ...fields })`.
fn line(method: &str, arguments: Vec<Value>) -> Result<(LogLevel, String, Option<String>), MethodError> {
    let level = level(method).ok_or_else(|| MethodError::unknown(method))?;
    let mut arguments = arguments.into_iter();
    match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(Value::Text(message)), fields, None) => Ok((level, message, json_fields(fields)?)),
        (Some(Value::Record(mut record)), None, None) => {
            let level = match record.remove("level") {
                None => level,
                Some(Value::Text(name)) => self::level(&name)
                    .ok_or_else(|| MethodError::usage(format!("There is no level {name:?}.")))?,
                Some(_) => return Err(MethodError::usage("`level` must be a string.")),
            };
            let message = match record.remove("message") {
                Some(Value::Text(message)) => message,
                _ => return Err(MethodError::usage("`message` must be a string.")),
            };
            Ok((level, message, json_fields((!record.is_empty()).then_some(Value::Record(record)))?))
        }
        _ => Err(MethodError::usage(format!(
            "{method}() takes a string and, if need be, an object of fields."
        ))),
    }
}

fn level(name: &str) -> Option<LogLevel> {
    Some(match name {
        "debug" => LogLevel::Debug,
        "log" => LogLevel::Log,
        "info" => LogLevel::Info,
        "warn" => LogLevel::Warn,
        "error" => LogLevel::Error,
        _ => return None,
    })
}

/// Fields as JSON text, at most a line's bytes.
fn json_fields(fields: Option<Value>) -> Result<Option<String>, MethodError> {
    let record = match fields {
        None | Some(Value::Undefined) => return Ok(None),
        Some(record @ Value::Record(_)) => record,
        Some(_) => return Err(MethodError::usage("Fields must be an object.")),
    };
    let text = json(record, 0)?.to_string();
    if text.len() > LOG_LINE_BYTES_MAX {
        return Err(MethodError::usage(format!(
            "Fields are larger than {LOG_LINE_BYTES_MAX} bytes of JSON."
        )));
    }
    Ok(Some(text))
}

fn json(value: Value, depth: usize) -> Result<serde_json::Value, MethodError> {
    if depth > JSON_DEPTH_MAX {
        return Err(MethodError::usage("Fields are nested too deeply."));
    }
    Ok(match value {
        Value::Undefined | Value::Null => serde_json::Value::Null,
        Value::Bool(value) => value.into(),
        // What JSON has no number for is null, as JSON.stringify() has it.
        Value::Number(number) => whole(number).map_or_else(|| number.into(), Into::into),
        Value::Text(text) => text.into(),
        Value::Data(bytes) => format!("[{} bytes]", bytes.len()).into(),
        Value::List(list) => {
            list.into_iter().map(|value| json(value, depth + 1)).collect::<Result<Vec<_>, _>>()?.into()
        }
        Value::Record(record) => {
            let pair = |(key, value)| Ok((key, json(value, depth + 1)?));
            record.into_iter().map(pair).collect::<Result<serde_json::Map<_, _>, MethodError>>()?.into()
        }
    })
}

/// A number without a fraction that a double holds exactly.
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() < EXACT).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(pairs: &[(&str, Value)]) -> Value {
        Value::Record(pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
    }

    #[test]
    fn lines_are_text_and_fields() {
        let fields =
            record(&[("n", Value::Number(1.0)), ("x", Value::List(vec![Value::Number(0.5), Value::Null]))]);
        let said = line("warn", vec!["hi".into(), fields.clone()]).unwrap();
        assert_eq!(said, (LogLevel::Warn, "hi".to_owned(), Some(r#"{"n":1,"x":[0.5,null]}"#.to_owned())));
        let Value::Record(mut whole) = fields else { unreachable!() };
        whole.insert("level".into(), "error".into());
        whole.insert("message".into(), "no".into());
        let said = line("log", vec![Value::Record(whole)]).unwrap();
        assert_eq!((said.0, &*said.1), (LogLevel::Error, "no"));
        assert_eq!(line("info", vec!["x".into(), Value::Undefined]).unwrap().2, None);
    }

    #[test]
    fn anything_else_is_refused() {
        let huge = record(&[("x", Value::Text("x".repeat(LOG_LINE_BYTES_MAX)))]);
        for (method, arguments) in [
            ("fatal", vec!["x".into()]),
            ("info", vec![]),
            ("info", vec![Value::Number(1.0)]),
            ("info", vec!["x".into(), "y".into()]),
            ("info", vec!["x".into(), Value::Undefined, Value::Undefined]),
            ("info", vec!["x".into(), huge]),
            ("log", vec![record(&[("message", "x".into()), ("level", "loud".into())])]),
            ("log", vec![record(&[("level", "info".into())])]),
        ] {
            assert!(line(method, arguments.clone()).is_err(), "{method} {arguments:?}");
        }
        let deep = (0..JSON_DEPTH_MAX + 2).fold(Value::Null, |inner, _| record(&[("a", inner)]));
        assert!(line("info", vec!["x".into(), deep]).is_err());
    }
}
