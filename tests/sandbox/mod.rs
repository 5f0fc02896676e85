//! Sandboxes through the real binary: real namespaces, processes, files and sockets. Each test looks at its end that nothing is
//! left of them: no process, mount, control group or file.

mod api;
pub(crate) mod backends;
mod bad;
mod bills;
mod binding;
mod cli;
#[allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    reason = "of the bridge's tests, which use all of it"
)]
#[path = "../../container-bridge/tests/all/cluster/mod.rs"]
mod cluster;
mod egress;
mod kubernetes;
mod preview;
mod steps;
mod tunnel;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::backends::Place;
use crate::support::Kind;
use crate::support::atoll::{Atoll, TOKEN};
use crate::support::client::{self, Answer};
use crate::support::worker::Request;

/// How long the kernel may take to finish what is under way.
const CLEAN: Duration = Duration::from_secs(20);

/// A server that can make sandboxes, and where it makes them.
pub(crate) struct Server {
    atoll: Atoll,
    place: Place,
}

impl std::ops::Deref for Server {
    type Target = Atoll;

    fn deref(&self) -> &Atoll {
        &self.atoll
    }
}

impl std::ops::DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Atoll {
        &mut self.atoll
    }
}

/// Whether a server with `[sandbox]` can make any as this user; said aloud if not.
pub(crate) async fn can_have_sandboxes(atoll: &Atoll) -> bool {
    let answer = atoll.control("PUT", "/v1/sandboxes/probe", None).await;
    if answer.status == 503 && !is_root() {
        eprintln!("SKIPPED: an ordinary user cannot bound sandboxes here: {}", answer.text());
        return false;
    }
    assert_eq!(answer.status, 201, "{}\n{}", answer.text(), atoll.log());
    assert_eq!(atoll.control("DELETE", "/v1/sandboxes/probe", None).await.status, 204);
    true
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
}

impl Server {
    /// A request whose body is bytes.
    pub(crate) async fn bytes(&self, method: &str, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.request(Request::new(method, path).header("content-type", "application/octet-stream").body(body))
            .await
    }

    /// A request as it is, with the token.
    pub(crate) async fn request(&self, request: Request) -> Answer {
        let request = request.header("authorization", &format!("Bearer {TOKEN}"));
        client::send(self.address(), "localhost", &request)
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// The events that a request is answered with, as (name, data).
    pub(crate) async fn events(&self, method: &str, path: &str, body: Option<Value>) -> Vec<(String, Value)> {
        let mut request = Request::new(method, path).header("accept", "text/event-stream");
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = self.request(request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        events(&answer.text())
    }

    /// What a command answers with.
    pub(crate) async fn exec(&self, user: &str, body: Value) -> Value {
        let answer = self.control("POST", &format!("/v1/sandboxes/{user}/exec"), Some(body)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Standard output of a line that must succeed.
    pub(crate) async fn out(&self, user: &str, line: &str) -> String {
        let done = self.exec(user, json!({ "command": line })).await;
        assert_eq!(done["success"], true, "{line}: {done}");
        done["stdout"].as_str().expect("text").to_owned()
    }

    /// Ends the server as an operator does; nothing of its sandboxes is left.
    pub(crate) fn finish(mut self) {
        let ids = self.ids();
        assert!(!ids.is_empty(), "no sandbox was made:\n{}", self.log());
        self.atoll.stop();
        clean(&ids, self.atoll.folder());
        self.place.clean(self.atoll.folder());
    }

    /// Kills the server without a word; nothing of its sandboxes is left either.
    pub(crate) async fn finish_by_a_kill(mut self) {
        let ids = self.ids();
        assert!(!ids.is_empty(), "no sandbox was made:\n{}", self.log());
        self.atoll.kill();
        clean(&ids, self.atoll.folder());
        if self.place.kind == Kind::Kubernetes {
            // Its pods have ended; what the cluster remembers of them, the next gateway removes.
            self.atoll.restart().await;
        }
        self.place.clean(self.atoll.folder());
    }

    /// Names of all sandboxes that it made so far.
    fn ids(&self) -> Vec<String> {
        let log = self.log();
        let id = |line: &str| {
            let rest = line.split("sandbox=\"").nth(1)?;
            let id = rest.split('"').next()?;
            (id.len() == 20 && line.contains("what=\"started\"")).then(|| id.to_owned())
        };
        log.lines().filter_map(id).collect()
    }
}

/// The events in a body.
pub(crate) fn events(text: &str) -> Vec<(String, Value)> {
    let mut found = vec![];
    for block in text.split("\n\n") {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
        if let (Some(name), Some(data)) = (field("event: "), field("data: ")) {
            found.push((name.to_owned(), serde_json::from_str(data).expect("JSON")));
        }
    }
    found
}

/// Waits (for the kernel to finish what is under way), then insists.
pub(crate) fn clean(ids: &[String], folder: &Path) {
    let began = Instant::now();
    loop {
        let left = leftovers(ids, folder);
        if left.is_empty() {
            return;
        }
        assert!(began.elapsed() < CLEAN, "left behind: {left:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn leftovers(ids: &[String], folder: &Path) -> Vec<String> {
    let mut left = vec![];
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let (groups, state) = (read("cgroup"), read("status"));
        if ids.iter().any(|id| groups.contains(&format!("atoll-{id}"))) && !state.contains("State:\tZ") {
            left.push(format!("process {}: {}", entry.path().display(), read("cmdline")));
        }
    }
    for id in ids {
        left.extend(
            groups(Path::new("/sys/fs/cgroup"), &format!("atoll-{id}"), 0)
                .iter()
                .map(|dir| dir.display().to_string()),
        );
        let disk = std::env::temp_dir().join(format!("atoll-disk-{id}"));
        left.extend(disk.exists().then(|| disk.display().to_string()));
    }
    let state = folder.join("data").join("sandboxes");
    for entry in std::fs::read_dir(state).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        left.extend(name.starts_with("slot-").then_some(name));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc");
    left.extend(mounts.lines().filter(|line| line.contains(&*folder.to_string_lossy())).map(str::to_owned));
    left
}

fn groups(dir: &Path, name: &str, depth: u32) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy() == name {
            found.push(entry.path());
        } else if depth < 4 {
            found.extend(groups(&entry.path(), name, depth + 1));
        }
    }
    found
}
