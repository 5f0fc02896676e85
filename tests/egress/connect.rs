//! TCP connections of guests (`connect()` of `cloudflare:sockets`) through the real binary, to a server of lines.

use serde_json::{Value, json};

use crate::outside::{Lines, NameServer, Outside};
use crate::support::atoll::{Atoll, Options};

/// Says each line and collects what comes back; the word `!tls` begins TLS.
const TALK: &str = "import { connect } from 'cloudflare:sockets';
export default async (input) => {
  const read = async (reader, until) => {
    let text = '';
    while (!text.endsWith(until)) {
      const { done, value } = await reader.read();
      if (done) return text + '<end>';
      text += new TextDecoder().decode(value);
    }
    return text;
  };
  const out = [];
  try {
    let socket = connect(input.address, input.options);
    const opened = await socket.opened;
    out.push(opened.remoteAddress === (input.opened ?? input.address));
    for (const line of input.lines) {
      if (line === '!tls') {
        const plain = socket;
        socket = plain.startTls(input.tls);
        await plain.closed;
        out.push([plain.upgraded, plain.secureTransport, socket.upgraded, socket.secureTransport].join());
        continue;
      }
      const writer = socket.writable.getWriter();
      await writer.write(new TextEncoder().encode(line + '\\n'));
      writer.releaseLock();
      const reader = socket.readable.getReader();
      out.push(await read(reader, '\\n'));
      reader.releaseLock();
    }
    await socket.close();
    await socket.closed;
    out.push('closed');
  } catch (error) { out.push(String(error.message ?? error)); }
  return out;
}";

struct World {
    server: Atoll,
    port: u16,
    _outside: Outside,
}

async fn world() -> World {
    let lines = Lines::new(&["lines.test"]).await;
    let names = NameServer::new(&[
        ("lines.test", &[&["127.0.0.1"]]),
        ("other.test", &[&["127.0.0.1"]]),
        ("inside.test", &[&["10.0.0.1"]]),
    ])
    .await;
    let port = lines.port;
    let outside = Outside::at(port, &lines.root, &names);
    let config = format!(
        "{}[egress.tcp]\nallow = [\"tcp://lines.test:{port}\", \"tcp://other.test:{port}\", \"tcp://inside.test:{port}\", \
         \"tcp://127.0.0.1:{port}\"]\ndeny = [{{ origin = \"other.test\", paths = [\"/x\"] }}]\n\
         [egress.web]\nallow = [\"*\", \"http://*:*\", \"lines.test:{port}\"]\n\
         [egress.small]\nallow = [\"tcp://lines.test:{port}\"]\nresponse_bytes_max = 8\n",
        outside.config
    );
    let tenant = "egress = [\"tcp\", \"web\", \"small\"]".to_owned();
    let server = Atoll::start(Options { config, tenant, ..Options::default() }).await;
    World { server, port, _outside: outside }
}

impl World {
    async fn talk(&self, class: Option<&str>, input: Value) -> Value {
        let mut body = json!({ "code": TALK, "input": input });
        if let Some(class) = class {
            body["egress"] = class.into();
        }
        let answer = self.server.execute(body).await.json();
        assert_eq!(answer["ok"], true, "{answer}");
        answer["result"].clone()
    }
}

#[tokio::test]
async fn guests_talk_over_tcp_and_tls() {
    let world = world().await;
    let at = |host: &str| format!("{host}:{}", world.port);
    let lines = at("lines.test");
    let plain = json!({ "address": lines, "lines": ["hello", "again"] });
    assert_eq!(world.talk(Some("tcp"), plain).await, json!([true, "HELLO\n", "AGAIN\n", "closed"]));
    let ended = json!({ "address": lines, "lines": ["bye"] });
    assert_eq!(world.talk(Some("tcp"), ended).await, json!([true, "<end>", "closed"]));
    let tls = json!({ "address": lines, "options": { "secureTransport": "on" }, "lines": ["secret"] });
    assert_eq!(world.talk(Some("tcp"), tls).await, json!([true, "SECRET\n", "closed"]));
    let later = json!({
        "address": lines, "options": { "secureTransport": "starttls" }, "lines": ["ehlo", "starttls", "!tls", "quiet", "bye"]
    });
    assert_eq!(
        world.talk(Some("tcp"), later).await,
        json!([true, "EHLO\n", "STARTTLS\n", "true,starttls,false,on", "QUIET\n", "<end>", "closed"])
    );
    let named = json!({
        "address": { "hostname": "127.0.0.1", "port": world.port }, "opened": at("127.0.0.1"),
        "options": { "secureTransport": "starttls" }, "tls": { "expectedServerHostname": "lines.test" },
        "lines": ["starttls", "!tls", "named"]
    });
    let answer = world.talk(Some("tcp"), named).await;
    assert_eq!(answer, json!([true, "STARTTLS\n", "true,starttls,false,on", "NAMED\n", "closed"]));
}

#[tokio::test]
async fn connections_are_under_the_policy() {
    let world = world().await;
    let at = |host: &str| format!("{host}:{}", world.port);
    let denied = |host: &str, code: &str| format!("Not allowed to reach tcp://{}. ({code})", at(host));
    let none = "This worker is not permitted to access the internet via global functions like fetch(). It must use \
                capabilities (such as bindings in 'env') to talk to the outside world.";
    for (class, host, expected) in [
        (None, "lines.test", none.to_owned()),
        // Rules for the web open no connection, however wide they are.
        (Some("web"), "lines.test", denied("lines.test", "egress_origin")),
        (Some("tcp"), "third.test", denied("third.test", "egress_origin")),
        // A host with a rule that denies a path of it: nobody sees what goes through a connection.
        (Some("tcp"), "other.test", denied("other.test", "egress_rule")),
        (Some("tcp"), "inside.test", denied("inside.test", "egress_address")),
        // A spelling of an address is that address.
        (Some("web"), "0x7f.1", denied("127.0.0.1", "egress_origin")),
    ] {
        let answer = world.talk(class, json!({ "address": at(host), "lines": [] })).await;
        assert_eq!(answer, json!([expected]), "{class:?} {host}");
    }
    let port_denied = world.talk(Some("tcp"), json!({ "address": "lines.test:1", "lines": [] })).await;
    assert_eq!(port_denied, json!(["Not allowed to reach tcp://lines.test:1. (egress_origin)"]));
    // The certificate is the host's that was dialled, unless the guest names another.
    let wrong = json!({ "address": at("127.0.0.1"), "options": { "secureTransport": "on" }, "lines": ["x"] });
    let answer = world.talk(Some("tcp"), wrong).await[0].to_string();
    assert!(answer.contains("TLS: ") && answer.contains("certificate"), "{answer}");
    // Bytes are counted against the class.
    let small = json!({ "address": at("lines.test"), "lines": ["1234567", "1"] });
    let answer = world.talk(Some("small"), small).await;
    assert_eq!((&answer[0], &answer[1]), (&json!(true), &json!("1234567\n")));
    assert!(answer[2].as_str().is_some_and(|text| text.contains("egress_response_bytes")), "{answer}");
}

#[tokio::test]
async fn connections_do_not_outlive_their_invocation_and_large_ones_flow() {
    let world = world().await;
    let code = "import { connect } from 'cloudflare:sockets';
    export default async (address) => {
      const socket = connect(address);
      const line = 'x'.repeat(1023) + '\\n', bytes = new TextEncoder().encode(line);
      const writing = (async () => {
        const writer = socket.writable.getWriter();
        for (let i = 0; i < 2000; i++) { await writer.ready; await writer.write(bytes); }
        await writer.close();
      })();
      let count = 0;
      for await (const piece of socket.readable) count += piece.byteLength;
      await writing;
      globalThis.kept = socket;
      return count;
    }";
    let address = format!("lines.test:{}", world.port);
    let answer =
        world.server.execute(json!({ "code": code, "input": address, "egress": "tcp" })).await.json();
    assert_eq!(answer["result"], 2_000 * 1_024, "{answer}");
    // An opened socket may be handed to another isolate, which talks through this one.
    let handing = "import { connect } from 'cloudflare:sockets';
    import { WorkerEntrypoint } from 'cloudflare:workers';
    export class Line extends WorkerEntrypoint {
      async talk(socket, line) {
        const writer = socket.writable.getWriter();
        await writer.write(new TextEncoder().encode(line));
        writer.releaseLock();
        const { value } = await socket.readable.getReader().read();
        const { remoteAddress } = await socket.opened;
        return [String(socket), remoteAddress === this.ctx.props.address, new TextDecoder().decode(value)];
      }
    }
    export default async (address, env, ctx) => {
      const socket = connect(address);
      await socket.opened;
      return await ctx.exports.Line({ props: { address } }).talk(socket, 'over there\\n');
    }";
    let answer =
        world.server.execute(json!({ "code": handing, "input": address, "egress": "tcp" })).await.json();
    assert_eq!(answer["result"], json!(["[object Socket]", true, "OVER THERE\n"]), "{answer}");
    // A guest that leaves with its connection open ends at once all the same.
    let leaving = "import { connect } from 'cloudflare:sockets';
    export default async (address) => { const s = connect(address); await s.opened; return 'left' }";
    let answer =
        world.server.execute(json!({ "code": leaving, "input": address, "egress": "tcp" })).await.json();
    assert_eq!(answer["result"], "left", "{answer}");
}
