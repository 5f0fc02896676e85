//! Checking out a repository that the sandbox can reach.

use std::time::Duration;

use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::{Call, problem};
use crate::api::json;
use crate::problem::Problem;
use crate::server::body::ReplyBody;

/// How long a checkout may take unless the caller says otherwise.
const GIT_DEFAULT: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GitInput {
    url: String,
    branch: Option<String>,
    depth: Option<u32>,
    target_dir: Option<String>,
    timeout_ms: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GitOutput {
    success: bool,
    repo_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<String>,
    target_dir: String,
    duration_ms: u64,
}

pub(super) async fn checkout(mut call: Call) -> Result<Response<ReplyBody>, Problem> {
    call.query(&[])?;
    let GitInput { url, branch, depth, target_dir, timeout_ms } = call.json().await?;
    let target_dir = target_dir.unwrap_or_else(|| directory_of(&url));
    let timeout = timeout_ms.map_or(GIT_DEFAULT, Duration::from_millis);
    let lease = call.lease().await?;
    let done =
        lease.git_checkout(&url, branch.as_deref(), depth, &target_dir, timeout).await.map_err(problem)?;
    if done.exit.code != 0 {
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        let what = if done.exit.timed_out { "git took too long" } else { "git could not check it out" };
        return Err(Problem::unprocessable("GIT_CHECKOUT_FAILED", format!("{what}: {}", said.trim_end()))
            .with("exitCode", done.exit.code)
            .with("timedOut", done.exit.timed_out));
    }
    let duration_ms = done.exit.wall_us / 1_000;
    Ok(json(StatusCode::OK, &GitOutput { success: true, repo_url: url, branch, target_dir, duration_ms }))
}

/// Where git would put it.
fn directory_of(url: &str) -> String {
    let last = url.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default();
    last.strip_suffix(".git").unwrap_or(last).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_go_where_git_would_put_them() {
        for (url, directory) in [
            ("https://x.org/a/b.git", "b"),
            ("git@x.org:b", "b"),
            ("/srv/repo/", "repo"),
            ("file:///a/b.git", "b"),
        ] {
            assert_eq!(directory_of(url), directory);
        }
    }
}
