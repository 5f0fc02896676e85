//! What a cluster's refusals mean, and what to do about them.

use std::{future::Future, time::Duration};

use kube::{Error, core::Status};

use crate::error::{Code, Result, SandboxError};

/// How long one call of the cluster's API may take.
const CALL_MAX: Duration = Duration::from_secs(15);

/// A failed call: still with the cluster's own code.
#[derive(Debug)]
pub(super) struct Failure {
    /// The status of HTTP; 0 if there was no answer.
    pub(super) status: u16,
    pub(super) error: SandboxError,
}

impl From<Failure> for SandboxError {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// One call, within its time.
pub(super) async fn call<T>(
    what: &str,
    calling: impl Future<Output = Result<T, Error>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(CALL_MAX, calling).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(explain(what, &error)),
        Err(_) => {
            let text = format!("{what}: the cluster does not answer within {} s", CALL_MAX.as_secs());
            Err(Failure { status: 0, error: SandboxError::new(Code::SandboxUnavailable, text) })
        }
    }
}

/// A failed call in this crate's words.
pub(super) fn explain(what: &str, error: &Error) -> Failure {
    match error {
        Error::Api(status) => refusal(what, status),
        Error::UpgradeConnection(error) => {
            Failure { status: 0, error: SandboxError::new(Code::BackendFailed, format!("{what}: {error}")) }
        }
        // The connection: refused, cut, or not of the cluster that the configuration names.
        Error::HyperError(_) | Error::Service(_) | Error::ReadEvents(_) => Failure {
            status: 0,
            error: SandboxError::new(Code::SandboxUnavailable, format!("{what}: {}", causes(error))),
        },
        _ => Failure {
            status: 0,
            error: SandboxError::new(Code::BackendFailed, format!("{what}: {}", causes(error))),
        },
    }
}

/// An error with what is behind it: the outer words alone are often "client error".
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text += ": ";
            text += &more;
        }
        source = cause.source();
    }
    text
}

fn refusal(what: &str, status: &Status) -> Failure {
    let (code, advice) = match status.code {
        401 => (Code::ClusterForbidden, "the credentials are not valid there (any more)"),
        403 if is_quota(&status.message) => (
            Code::ClusterQuotaExceeded,
            "wait until other sandboxes have ended, or raise the namespace's ResourceQuota",
        ),
        403 if status.message.contains("PodSecurity") => (
            Code::ClusterForbidden,
            "the namespace's pod security standard is stricter than what these pods are; \"restricted\" takes them",
        ),
        403 => (
            Code::ClusterForbidden,
            "give this program's service account the role of the README in the pods' namespace",
        ),
        404 if status.message.contains("namespaces") => {
            (Code::InvalidArgument, "make the namespace, or name another one")
        }
        409 => (Code::SandboxUnavailable, "somebody else was faster"),
        422 => (Code::BackendFailed, "the cluster does not take these pods; is it older than version 1.27?"),
        429 | 503 | 504 => (Code::SandboxUnavailable, "the cluster is busy; try again"),
        _ => (Code::BackendFailed, ""),
    };
    let said = if status.message.is_empty() { &status.reason } else { &status.message };
    let text = if advice.is_empty() {
        format!("{what}: {said} ({})", status.code)
    } else {
        format!("{what}: {said} ({}); {advice}", status.code)
    };
    Failure { status: status.code, error: SandboxError::new(code, text) }
}

/// The admission controller's words (`plugin/pkg/admission/resourcequota`).
pub(super) fn is_quota(text: &str) -> bool {
    text.contains("exceeded quota") || text.contains("must specify limits for")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_to_do() {
        let rows: &[(u16, &str, Code, &str)] = &[
            (401, "Unauthorized", Code::ClusterForbidden, "credentials"),
            (403, "pods is forbidden: User \"x\" cannot create resource", Code::ClusterForbidden, "role"),
            (403, "pods \"a\" is forbidden: exceeded quota: q", Code::ClusterQuotaExceeded, "ResourceQuota"),
            (403, "violates PodSecurity \"restricted:latest\"", Code::ClusterForbidden, "pod security"),
            (404, "namespaces \"x\" not found", Code::InvalidArgument, "make the namespace"),
            (404, "pods \"x\" not found", Code::BackendFailed, "404"),
            (422, "Pod is invalid", Code::BackendFailed, "older"),
            (429, "too many requests", Code::SandboxUnavailable, "try again"),
            (500, "etcd", Code::BackendFailed, "500"),
        ];
        for (status, message, code, advice) in rows {
            let answer = Status::failure(message, "Reason").with_code(*status);
            let failure = explain("create", &Error::Api(answer.boxed()));
            assert_eq!((failure.status, failure.error.code), (*status, *code), "{message}");
            let text = &failure.error.message;
            assert!(
                text.contains(advice) && text.contains(message) && text.starts_with("create: "),
                "{text}"
            );
        }
    }
}
