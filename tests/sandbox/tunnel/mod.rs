//! Tunnels out of a sandbox (`CONNECT`): real programs over TLS in `programs.rs`; here, everything that a program may try with them.

mod names;
mod programs;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Server;
use super::backends::{Place, on_each_backend};
use crate::outside::{Lines, NameServer, Outside};
use crate::support::atoll::Options;

/// How long what is cut may take to be told.
const TOLD: Duration = Duration::from_secs(20);

/// For each text: a connection of its own to the proxy, the text, and what came back, as a status and a problem's code.
const SEND: &str = r#"
import json, socket
for text in json.load(open("rows.json")):
    connection = socket.create_connection(("127.0.0.1", 3128), 20)
    try:
        connection.sendall(text.encode("latin-1"))
        answer = b""
        while b"\r\n\r\n" not in answer or b" 200 " not in answer.split(b"\r\n")[0]:
            piece = connection.recv(65536)
            if not piece: break
            answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        status = head.split(b" ")[1].decode() if b" " in head else "none"
        print(status, json.loads(body)["code"] if body.startswith(b"{") else body.decode())
    except OSError as error:
        print("no", type(error).__name__)
    connection.close()
"#;

/// The same with tunnels that stay open: a connection, and how its CONNECT was answered.
const OPEN: &str = r#"
import socket, sys, time
def connect(target, more=b""):
    connection = socket.create_connection(("127.0.0.1", 3128), 20)
    connection.sendall(b"CONNECT " + target.encode() + b" HTTP/1.1\r\nhost: x\r\n\r\n" + more)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte: break
        head += byte
    return connection, head.split(b" ")[1].decode()
def rest(connection):
    said = b""
    try:
        while piece := connection.recv(65536): said += piece
    except OSError: pass
    return said.decode()
target = sys.argv[1]
"#;

/// A server whose class `wide` lets tunnels to `port` through, with `more` in it, and a sandbox of ann's that has it.
async fn with(place: Place, outside: &Outside, port: u16, more: &str) -> Option<Server> {
    let allow = format!(
        "\"*\", \"*:*\", \"tcp://plain.test:{port}\", {{ origin = \"narrow.test:{port}\", methods = [\"GET\"] }}, \
         {{ origin = \"paths.test:{port}\", paths = [\"/v1\"] }}"
    );
    let classes = format!(
        "[egress.wide]\nallow = [{allow}]\ndeny = [{{ origin = \"denied.test\", paths = [\"/x\"] }}]\n\
         tunnels = {{ ports = [443, {port}] }}\n[egress.usual]\nallow = [\"*\", \"*:*\"]\n\
         [egress.brief]\nallow = [\"*:*\"]\nresponse_bytes_max = 200000\nrequest_bytes_max = 200000\n\
         tunnels = {{ ports = [{port}], idle_s = 2, life_s = 6 }}\n{more}"
    );
    let config = format!("{}\n{}{classes}", place.config(), outside.config);
    let tenant = "egress = [\"wide\", \"usual\", \"brief\"]".to_owned();
    let server = place.start(Options { config, tenant, ..Options::default() }).await?;
    for (user, class) in [("ann", "wide"), ("usual", "usual"), ("brief", "brief")] {
        let path = format!("/v1/sandboxes/{user}");
        let made = server.control("PUT", &path, Some(json!({ "egress": class }))).await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
    Some(server)
}

impl Server {
    /// What a program in a sandbox is answered with for each text.
    async fn answers(&self, user: &str, texts: &[String]) -> Vec<String> {
        // Too much for a command line.
        let path = format!("/v1/sandboxes/{user}/files?path=rows.json");
        let put = self.bytes("PUT", &path, json!(texts).to_string()).await;
        assert!(put.status < 300, "{}", put.text());
        let done = self.exec(user, json!({ "command": ["python3", "-c", SEND] })).await;
        assert_eq!(done["success"], true, "{done}");
        done["stdout"].as_str().expect("text").lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// What a program prints that opens tunnels.
    async fn tunnels(&self, user: &str, target: &str, program: &str) -> String {
        let body = json!({ "command": ["python3", "-c", format!("{OPEN}{program}"), target] });
        let done = self.exec(user, body).await;
        assert_eq!(done["success"], true, "{done}");
        done["stdout"].as_str().expect("text").to_owned()
    }

    /// Records of tunnels to a target, once there are so many.
    async fn told(&self, target: &str, count: usize) -> Vec<Value> {
        let began = Instant::now();
        loop {
            let page = self.control("GET", "/v1/audit?kind=crossing&limit=1000", None).await.json();
            let all = page["records"].as_array().cloned().unwrap_or_default();
            let origin = format!("tcp://{target}");
            let told: Vec<Value> = all
                .into_iter()
                .filter(|record| record["method"] == "CONNECT" && record["origin"] == *origin)
                .collect();
            if told.len() >= count || began.elapsed() > TOLD {
                assert_eq!(told.len(), count, "{told:#?}");
                return told;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn tunnels_lead_only_where_the_class_and_the_address_allow(place: Place) {
    let lines = Lines::new(&["plain.test"]).await;
    let here: &[&[&str]] = &[&["127.0.0.1"]];
    let names = NameServer::new(&[
        ("plain.test", here),
        ("open.test", here),
        ("narrow.test", here),
        ("paths.test", here),
        ("denied.test", here),
        ("inside.test", &[&["10.0.0.1"]]),
        ("metadata.test", &[&["169.254.169.254"]]),
        ("six.test", &[&["fd00:ec2::254"]]),
        ("mixed.test", &[&["192.168.1.1", "127.0.0.1"]]),
    ])
    .await;
    let outside = Outside::at(lines.port, &lines.root, &names);
    let Some(server) = with(place, &outside, lines.port, "").await else { return };
    let port = lines.port;
    let connect = |target: &str| format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n");
    let gateway = server.address().port();
    let mut rows: Vec<(String, &str)> = vec![
        (connect(&format!("open.test:{port}")), "200"),
        (connect(&format!("OPEN.test.:{port}")), "200"),
        (connect(&format!("plain.test:{port}")), "200"),
        (format!("CONNECT open.test:{port} HTTP/1.0\r\n\r\n"), "200"),
        (connect(&format!("narrow.test:{port}")), "403 egress_tunnel"),
        (connect(&format!("paths.test:{port}")), "403 egress_tunnel"),
        (connect(&format!("denied.test:{port}")), "403 egress_rule"),
        (connect("open.test:22"), "403 egress_port"),
        (connect("open.test:25"), "403 egress_port"),
        (connect(&format!("127.0.0.1:{gateway}")), "403 egress_port"),
    ];
    // Every spelling of what is not the public internet, by number and by name.
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.0.0.1.",
        "0.0.0.0",
        "0",
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "inside.test",
        "INSIDE.test.",
        "metadata.test",
        "six.test",
        "mixed.test",
    ] {
        rows.push((connect(&format!("{host}:443")), "403 egress_address"));
    }
    // What is no target.
    for target in
        ["open.test", "open.test:0", ":443", "user:word@open.test:443", "http://open.test:443/", "/", "*"]
    {
        rows.push((connect(target), "400"));
    }
    rows.push((
        format!("CONNECT open.test:{port} HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello"),
        "400 bad_request",
    ));
    rows.push((
        format!("CONNECT open.test:{port} HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        "400 bad_request",
    ));
    // Heads that are none, or too large.
    rows.push((format!("CONNECT open.test:{port}\r\n\r\n"), "400"));
    rows.push((
        "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03".to_owned() + &"\0".repeat(600) + "\r\n\r\n",
        "400",
    ));
    rows.push((connect(&format!("{}:443", "a".repeat(100_000))), "closed"));
    rows.push((format!("CONNECT open.test:443 HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(20_000)), "closed"));
    rows.push((format!("CONNECT open.test:443 HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(300_000)), "closed"));
    let texts: Vec<String> = rows.iter().map(|(text, _)| text.clone()).collect();
    let told = server.answers("ann", &texts).await;
    assert_eq!(told.len(), rows.len());
    for ((text, expected), got) in rows.iter().zip(&told) {
        // Who is closed while it still sends may miss the answer.
        let right = match *expected {
            "closed" => got.starts_with('4') || got.starts_with("no"),
            expected => got.starts_with(expected),
        };
        assert!(right, "{:?}: {got}", &text[..text.len().min(80)]);
    }
    // Without a word of the class there is one port, and without a way out there is nothing.
    let usual = [connect(&format!("open.test:{port}")), connect("127.0.0.1:443")];
    assert_eq!(server.answers("usual", &usual).await, ["403 egress_port", "403 egress_address"]);
    let nothing =
        "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 3128))' 2>&1 | tail -1";
    assert!(server.out("none", nothing).await.contains("ConnectionRefused"));
    // A refused tunnel is told as well, with its code.
    let denied = server.told("inside.test:443", 2).await;
    assert!(denied.iter().all(|record| record["outcome"] == "egress_address"), "{denied:?}");
    server.finish();
}

async fn tunnels_carry_bytes_both_ways_and_nothing_else(place: Place) {
    let lines = Lines::new(&["plain.test"]).await;
    let names =
        NameServer::new(&[("plain.test", &[&["127.0.0.1"]]), ("narrow.test", &[&["127.0.0.1"]])]).await;
    let outside = Outside::at(lines.port, &lines.root, &names);
    let Some(server) = with(place, &outside, lines.port, "").await else { return };
    let target = format!("plain.test:{}", lines.port);
    // What comes with the CONNECT is the tunnel's; the end of what a program says is not the end of what it hears.
    let program = "c, status = connect(target, b'early\\n')\nc.sendall(b'late\\n')\nc.shutdown(socket.SHUT_WR)\nprint(status, rest(c), end='')";
    assert_eq!(server.tunnels("ann", &target, program).await, "200 EARLY\nLATE\n");
    // The peer's end reaches the program.
    let program = "c, status = connect(target, b'one\\nbye\\n')\nprint(status, rest(c), end='')";
    assert_eq!(server.tunnels("ann", &target, program).await, "200 ONE\n");
    // Much of it flows, with a reader that takes its time.
    let program = "import threading\nc, status = connect(target)\nline = b'x' * 1023 + b'\\n'\n\
                   def talk():\n    for _ in range(4000): c.sendall(line)\n    c.shutdown(socket.SHUT_WR)\n\
                   threading.Thread(target=talk).start()\ntime.sleep(1)\nprint(status, len(rest(c)))";
    assert_eq!(server.tunnels("ann", &target, program).await, "200 4096000\n");
    let told = server.told(&target, 3).await;
    let bytes = |record: &Value| (record["requestBytes"].as_u64(), record["responseBytes"].as_u64());
    let mut all: Vec<_> = told.iter().map(bytes).collect();
    all.sort_unstable();
    assert_eq!(all, [(Some(8), Some(4)), (Some(11), Some(11)), (Some(4_096_000), Some(4_096_000))]);
    // Behind a refused CONNECT nothing is read: no request is smuggled in with it.
    let refused = format!("narrow.test:{}", lines.port);
    let program = "c, status = connect(target, b'CONNECT ' + target.replace('narrow', 'plain').encode() + b' HTTP/1.1\\r\\n\\r\\nsmuggled\\n')\n\
                   said = rest(c)\nprint(status, 'HTTP/1.1' in said, 'SMUGGLED' in said)";
    assert_eq!(server.tunnels("ann", &refused, program).await, "403 False False\n");
    server.told(&target, 3).await;
    server.finish();
}

async fn tunnels_are_bounded_in_number_time_and_bytes(place: Place) {
    let lines = Lines::new(&["plain.test"]).await;
    let names = NameServer::new(&[("plain.test", &[&["127.0.0.1"]])]).await;
    let outside = Outside::at(lines.port, &lines.root, &names);
    let Some(server) = with(place, &outside, lines.port, "").await else { return };
    let target = format!("plain.test:{}", lines.port);
    // Slow heads beside it all: nobody waits for them, and they are closed.
    let slow = "held = [socket.create_connection(('127.0.0.1', 3128)) for _ in range(40)]\n\
                for c in held: c.sendall(b'CONNECT plain.test:1 HTTP/1.1\\r\\nx')\n";
    let flood = format!(
        "{slow}opened = [connect(target) for _ in range(50)]\nprint([s for _, s in opened].count('200'), [s for _, s in opened].count('403'))\n\
         for c, s in opened: c.close()\ntime.sleep(0.5)\nc, s = connect(target, b'again\\nbye\\n')\nprint(s, rest(c), end='')\n\
         for c in held: c.settimeout(60)\nprint(all(b' 200 ' not in (c.recv(4096) or b'') for c in held))"
    );
    assert_eq!(server.tunnels("ann", &target, &flood).await, "32 18\n200 AGAIN\nTrue\n");
    let told = server.told(&target, 51).await;
    let many = told.iter().filter(|record| record["outcome"] == "egress_concurrency").count();
    assert_eq!(many, 18);
    // Another sandbox's silent, old and large tunnels.
    let program = "c, s = connect(target)\nprint(s, rest(c), end='|')\n\
                   c, s = connect(target)\nheard = 0\ntry:\n    for _ in range(100):\n        c.sendall(b'x\\n')\n        heard += len(c.recv(2))\n        time.sleep(0.2)\nexcept OSError: pass\nprint(s, heard > 10)\n\
                   c, s = connect(target, b'y' * 100000 + b'\\n')\nrest_of = 0\ntry:\n    for _ in range(20):\n        c.sendall(b'y' * 100000 + b'\\n')\nexcept OSError: pass\nprint(s, len(rest(c)) < 300000)";
    assert_eq!(server.tunnels("brief", &target, program).await, "200 |200 True\n200 True\n");
    let told = server.told(&target, 54).await;
    let brief = told.iter().filter(|record| record["user"] == "brief");
    let mut ends: Vec<_> = brief.map(|record| record["outcome"].as_str().unwrap_or_default()).collect();
    ends.sort_unstable();
    assert!(ends == ["egress_request_bytes", "egress_time", "egress_time"], "{ends:?}");
    server.finish();
}

async fn tunnels_end_with_what_they_were_given_for(place: Place) {
    let lines = Lines::new(&["plain.test"]).await;
    let names = NameServer::new(&[("plain.test", &[&["127.0.0.1"]])]).await;
    let outside = Outside::at(lines.port, &lines.root, &names);
    let Some(server) = with(place, &outside, lines.port, "").await else { return };
    let target = format!("plain.test:{}", lines.port);
    // A step leaves a program behind that holds its tunnel: the tunnel is the step's.
    let behind = "import os\nc, s = connect(target, b'mine\\n')\nfirst = c.recv(5)\nprint(s, first.decode(), end='', flush=True)\n\
                  if os.fork() == 0:\n    os.setsid()\n    for fd in (0, 1, 2): os.close(fd)\n    said = rest(c)\n    open('/workspace/cut', 'w').write('cut ' + said)\n    os._exit(0)\n";
    let python = format!("import sys\nsys.argv = ['x', '{target}']\n{OPEN}{behind}");
    let step = json!({ "language": "python", "user": "stepper", "code": python, "egress": "wide" });
    let answer = server.execute(step).await.json();
    assert_eq!(answer["process"]["stdout"], "200 MINE\n", "{answer}");
    let step = server.told(&target, 1).await;
    assert_eq!((&step[0]["user"], &step[0]["worker"]), (&json!("stepper"), &answer["id"]), "{step:?}");
    // Whoever asks with what the step left is answered that there is nothing.
    let left = server.answers("stepper", &[format!("CONNECT {target} HTTP/1.1\r\n\r\n")]).await;
    assert_eq!(left, ["403 egress_none"]);
    // A class that is taken for another one takes its tunnels along.
    let holding = "c, s = connect(target, b'mine\\n')\nprint(s, flush=True)\nprint('end', rest(c))";
    let command = json!({ "command": ["python3", "-c", format!("{OPEN}{holding}"), target], "id": "hold" });
    let started = server.control("POST", "/v1/sandboxes/ann/processes", Some(command.clone())).await;
    assert!(started.status < 300, "{}", started.text());
    let open = json!({ "log": "200", "timeoutMs": 20_000 });
    let waited = server.control("POST", "/v1/sandboxes/ann/processes/hold/wait", Some(open.clone())).await;
    assert_eq!(waited.status, 200, "{}", waited.text());
    let other = server.control("PUT", "/v1/sandboxes/ann", Some(json!({ "egress": "usual" }))).await;
    assert_eq!(other.status, 200, "{}", other.text());
    server.told(&target, 2).await;
    // And so does the end of the sandbox.
    let again = server.control("PUT", "/v1/sandboxes/ann", Some(json!({ "egress": "wide" }))).await;
    assert_eq!(again.status, 200, "{}", again.text());
    let mut command = command;
    command["id"] = json!("last");
    let started = server.control("POST", "/v1/sandboxes/ann/processes", Some(command)).await;
    assert!(started.status < 300, "{}", started.text());
    let waited = server.control("POST", "/v1/sandboxes/ann/processes/last/wait", Some(open)).await;
    assert_eq!(waited.status, 200, "{}", waited.text());
    assert_eq!(server.control("DELETE", "/v1/sandboxes/ann", None).await.status, 204);
    let told = server.told(&target, 3).await;
    assert!(told.iter().all(|record| record["outcome"] == "answered"), "{told:?}");
    assert_eq!(told[2]["requestBytes"], 5, "{told:?}");
    server.finish();
}

on_each_backend!(
    tunnels_lead_only_where_the_class_and_the_address_allow,
    tunnels_carry_bytes_both_ways_and_nothing_else,
    tunnels_are_bounded_in_number_time_and_bytes,
    tunnels_end_with_what_they_were_given_for,
);
