//! Rows about many clients, slow clients and vanishing clients: 68, 69 and 103 to 106.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Stage, cut};
use crate::support::atoll::{Options, TENANT, TOKEN, host_name};
use crate::support::client;
use crate::support::worker::{Request, Worker};

/// Rows of the table that live here.
pub(super) const ROWS: &[u32] = &[68, 69, 103, 104, 105, 106];

/// Growth of the server's resident memory that a client which does not read may cause, in KiB.
const SLOW_READER_GROWTH_KIB_MAX: u64 = 64 * 1024;
/// Clients at once in the floods.
const CROWD: usize = 200;
/// A bound on waiting for something that must happen, in rounds of 100 ms.
const ROUNDS_MAX: usize = 300;

/// Answers without end, and says how much it has made.
const ENDLESS: &str = r#"
let chunks = 0;
export default {
  fetch(request) {
    if (new URL(request.url).pathname === "/chunks") return new Response(String(chunks));
    return new Response(new ReadableStream({
      async pull(controller) {
        chunks += 1;
        controller.enqueue(new Uint8Array(65536));
        await null;
      },
    }));
  },
};
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_costs_a_bounded_buffer() {
    let mut stage = Stage::open().await;
    stage.atoll.deploy(&Worker::single("endless", ENDLESS)).await;
    let before = tree_resident_kib(stage.atoll.pid());
    let stream = begin_endless(stage.atoll.address()).await;
    wait_until_chunks_stand_still(&stage).await;
    let after = tree_resident_kib(stage.atoll.pid());
    let growth = after.saturating_sub(before);
    let bounded = growth <= SLOW_READER_GROWTH_KIB_MAX;
    stage.require("68", "slow reader", bounded, &format!("memory grew by {growth} KiB"));
    stage.check_others("68", "slow reader", false).await;
    drop(stream);
    stage.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_stops_its_worker() {
    let mut stage = Stage::open().await;
    stage.atoll.deploy(&Worker::single("endless", ENDLESS)).await;
    let mut stream = begin_endless(stage.atoll.address()).await;
    let mut some = vec![0; 1 << 20];
    stream.read_exact(&mut some).await.expect("the answer flows");
    drop(stream);
    wait_until_chunks_stand_still(&stage).await;
    stage.check_others("69", "client abort", false).await;
    stage.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_loads_is_answered_429_and_others_are_served() {
    let tenant = "loads_per_second = 5\nloads_burst = 20".into();
    let mut stage = Stage::open_with(Options { tenant, ..Options::default() }).await;
    let statuses = flood(&stage, "return 1").await;
    let refused = statuses.iter().filter(|status| **status == 429).count();
    let served = statuses.iter().filter(|status| **status == 200).count();
    stage.require("103", "loads per second", refused > 0, "nobody was refused");
    stage.require("103", "loads per second", served > 0, "nobody was served");
    let known = statuses.iter().all(|status| [200, 429, 503].contains(status));
    stage.require("103", "loads per second", known, &format!("{statuses:?}"));
    stage.check_others("103", "loads per second", false).await;
    stage.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_live_isolates_is_bounded_and_others_are_served() {
    let tenant = "executions_max = 10".into();
    let mut stage = Stage::open_with(Options { tenant, ..Options::default() }).await;
    let waiting = "await new Promise((resolve) => setTimeout(resolve, 1000)); return 1";
    let statuses = flood(&stage, waiting).await;
    let refused = statuses.iter().filter(|status| **status == 429).count();
    let served = statuses.iter().filter(|status| **status == 200).count();
    stage.require("104", "live isolates", refused > 0, "nobody was refused");
    stage.require("104", "live isolates", served > 0, "nobody was served");
    stage.check_others("104", "live isolates", false).await;
    stage.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn subrequests_and_loads_of_one_invocation_are_bounded() {
    let mut stage = Stage::open().await;
    let source = r#"
const code = {
  compatibilityDate: "2026-01-01", mainModule: "m.js", globalOutbound: null,
  modules: { "m.js": "export default { fetch: () => new Response('x') }" },
};
export default {
  async fetch(request, env) {
    const fresh = new URL(request.url).pathname === "/loads";
    const one = env.LOADER.load(code);
    let done = 0;
    try {
      for (; done < 5000; done++) {
        const worker = fresh ? env.LOADER.load(code) : one;
        await (await worker.getEntrypoint().fetch("https://x/")).text();
      }
    } catch (error) {
      return new Response(`bounded after ${done}: ${error.message}`);
    }
    return new Response(`no bound in ${done}`);
  },
};
"#;
    stage.atoll.deploy(&Worker::single("caller", source).with_loader("LOADER")).await;
    for path in ["/calls", "/loads"] {
        let answer = stage.atoll.send("caller", &Request::new("GET", path)).await;
        let text = answer.text();
        let bounded = text.starts_with("bounded after") || answer.status == 503;
        stage.require("105", path, bounded, &format!("{} {}", answer.status, cut(&text)));
        stage.check_others("105", path, false).await;
    }
    stage.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn open_streams_and_idle_connections_do_not_stop_others() {
    let mut stage = Stage::open().await;
    let mut idle = vec![];
    for _ in 0..CROWD {
        idle.push(TcpStream::connect(stage.atoll.address()).await.expect("the gateway accepts"));
    }
    let code = "const keep=[];for(let i=0;i<20000;i++){const t=new TransformStream();keep.push(t,t.readable.getReader())}\
                return 'survived'";
    let answer = stage.atoll.execute(json!({ "code": code, "limits": super::limits() })).await;
    let code = super::outcome(&answer);
    let allowed = ["done", "limit_cpu", "limit_heap", "guest_error"].contains(&code.as_str());
    stage.require("106", "streams", allowed, &code);
    stage.check_others("106", "streams and connections", false).await;
    stage.close();
}

/// Many executions at once; their statuses.
async fn flood(stage: &Stage, code: &str) -> Vec<u16> {
    let body = json!({ "code": code }).to_string();
    let request = Request::new("POST", "/v1/execute")
        .header("authorization", &format!("Bearer {TOKEN}"))
        .header("content-type", "application/json")
        .body(body);
    let address = stage.atoll.address();
    let clients: Vec<_> = (0..CROWD)
        .map(|_| {
            let request = request.clone();
            tokio::spawn(async move { client::send(address, "localhost", &request).await })
        })
        .collect();
    let mut statuses = vec![];
    for client in clients {
        let answer = client.await.expect("no panic").expect("every client is answered");
        let limited = [429, 503].contains(&answer.status);
        assert!(!limited || answer.header("retry-after").is_some(), "{} says no retry-after", answer.status);
        statuses.push(answer.status);
    }
    statuses
}

/// Asks for the endless answer and reads nothing of its body.
async fn begin_endless(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("the gateway listens");
    let head = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", host_name(TENANT, "endless"));
    stream.write_all(head.as_bytes()).await.expect("the gateway reads");
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.expect("a status line");
    assert_eq!(&first, b"HTTP/1.1 200");
    stream
}

/// Waits until the endless worker makes no more chunks: backpressure or cancellation reached it.
async fn wait_until_chunks_stand_still(stage: &Stage) {
    let ask = Request::new("GET", "/chunks");
    let mut last = None;
    for _ in 0..ROUNDS_MAX {
        let now = stage.atoll.send("endless", &ask).await.text();
        if last.as_ref() == Some(&now) {
            return;
        }
        last = Some(now);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the worker never stopped: {last:?} chunks");
}

/// Resident memory of a process and its children, in KiB.
fn tree_resident_kib(root: u32) -> u64 {
    crate::support::memory::tree(root).resident_kib
}
