//! `env.SANDBOX`: what a worker does with its tenant's sandboxes.

use serde_json::{Value, json};

use super::Server;
use super::backends::{Place, on_each_backend};
use crate::support::atoll::{NEIGHBOUR_TOKEN, TOKEN, deployment, host_name};
use crate::support::client;
use crate::support::worker::{Request, Worker};

/// One worker with a path for each test.
const WORKER: &str = r#"
import { WorkerEntrypoint } from "cloudflare:workers";
const words = async (f) => { try { return await f(); } catch (e) { return [e.name, e.code, e.status]; } };
const text = async (stream) => await new Response(stream).text();
const tests = {
  async exec({ SANDBOX }) {
    const box = SANDBOX.get("ann");
    const seen = [];
    const plain = await box.exec("echo $A; cat; exit 3", { env: { A: "x" }, stdin: "in\n" });
    const live = await box.exec("echo 1; echo 2 >&2", { onOutput: (stream, data) => seen.push([stream, data]) });
    const bytes = new Uint8Array(200_000).fill(7);
    const { readable, writable } = new TransformStream();
    const writer = writable.getWriter();
    writer.write(bytes).then(() => writer.close());
    const piped = await box.exec(["wc", "-c"], { stdin: readable });
    const late = await box.exec("sleep 1000", { timeout: 100, grace: 50 });
    return {
      plain: [plain.success, plain.exitCode, plain.stdout, plain.command, typeof plain.duration, Number.isNaN(Date.parse(plain.timestamp))],
      live: [live.stdout, live.stderr, seen.flat().length], piped: piped.stdout.trim(), late: late.timedOut,
      missing: await words(() => box.exec(["no-such-program"])), type: await words(() => box.exec(7)),
    };
  },
  async stream({ SANDBOX }) {
    const types = [];
    for await (const event of SANDBOX.parseSSEStream(await SANDBOX.get("ann").execStream("echo hi"))) types.push(event.type);
    return types;
  },
  async processes({ SANDBOX }) {
    const box = SANDBOX.get("ann");
    const process = await box.startProcess("echo ready; exec python3 -m http.server 8123 --bind 127.0.0.1", { processId: "web" });
    await process.waitForLog("ready", 20_000);
    await process.waitForPort(8123, { mode: "http", path: "/", timeout: 20_000 });
    const exposed = await box.exposePort(8123, { name: "web" });
    const all = (await box.listProcesses()).map((one) => [one.id, one.status]);
    const logs = await process.getLogs();
    await process.kill();
    return {
      all, logs: logs.stdout, status: process.status, again: await process.getStatus(), none: await box.getProcess("none"),
      url: exposed.url.includes("preview-"), ports: (await box.getExposedPorts()).length, started: process.startTime instanceof Date,
      exit: await (await box.startProcess(["sh", "-c", "exit 4"])).waitForExit(20_000),
    };
  },
  async files({ SANDBOX }) {
    const box = SANDBOX.get("ann");
    await box.mkdir("d/e", { recursive: true });
    await box.writeFile("d/text", "grüße");
    await box.writeFile("d/bytes", "AP8B", { encoding: "base64" });
    await box.writeFile("d/e/stream", new Response("streamed").body);
    const list = await box.listFiles("d", { recursive: true });
    const out = {
      text: (await box.readFile("d/text")).content, bytes: (await box.readFile("d/bytes", { encoding: "base64" })).content,
      stream: await text(await box.readFileStream("d/e/stream")), list: list.files.map((file) => file.relativePath).sort(),
      exists: [(await box.exists("d/text")).exists, (await box.exists("nope")).exists],
    };
    await box.renameFile("d/text", "d/moved");
    await box.deleteFile("d", { recursive: true });
    return { ...out, gone: (await box.exists("d")).exists, bad: await words(() => box.readFile("../../etc/shadow")), empty: await words(() => box.readFile("")) };
  },
  async sessions({ SANDBOX }) {
    const box = SANDBOX.get("ann");
    await box.setEnvVars({ K: "v" });
    const session = await box.createSession({ id: "s", cwd: "/tmp" });
    await session.exec("X=5; cd /usr");
    const kept = await session.exec("pwd; echo $X $K");
    await box.exec("git init -q -b main r && cd r && git -c user.email=a@b -c user.name=a commit -q --allow-empty -m one");
    const git = await box.gitCheckout("/workspace/r", { targetDir: "copy" });
    const failed = await words(() => box.gitCheckout("/nowhere"));
    await box.writeFile("kept", "yes");
    const tar = await new Response(await box.snapshot()).arrayBuffer();
    const other = SANDBOX.get("bob");
    await other.restore(tar);
    return { kept: kept.stdout, session: kept.sessionId, git: git.targetDir, failed, restored: (await other.readFile("kept")).content, deleted: await session.delete().then((r) => r.success) };
  },
  async life({ SANDBOX }) {
    const box = SANDBOX.get("carl");
    const before = await box.info();
    await box.exec("true");
    const users = (await SANDBOX.list()).map((one) => one.user);
    const usage = await box.usage();
    await box.destroy();
    await box.destroy();
    return { before, users, uses: usage.total.uses > 0, after: await box.info(), bad: [await words(() => SANDBOX.get("")), await words(() => SANDBOX.get("a b").exec("true")), await words(() => SANDBOX.get("..").exec("true"))] };
  },
  async others({ SANDBOX }) {
    const seen = (await SANDBOX.list()).map((one) => one.user);
    const api = await SANDBOX.fetch("http://sandbox/v1/workers");
    const put = await SANDBOX.fetch("http://sandbox/v1/sandboxes/ann", { method: "PUT", headers: { "content-type": "application/json" }, body: '{"egress":"x"}' });
    return { seen, file: (await SANDBOX.get("ann").exec("ls -A")).stdout, api: api.status, put: (await put.json()).code };
  },
  async loaded({ SANDBOX, LOADER }, ctx) {
    const code = `
      export default { async fetch(request, env) { return Response.json([(await env.SANDBOX.get("ann").exec("echo child")).stdout, (await env.SANDBOX.list()).length > 0]); } };`;
    const worker = LOADER.load({ compatibilityDate: "2026-11-01", mainModule: "m.js", modules: { "m.js": code }, env: { SANDBOX }, globalOutbound: null });
    const given = await (await worker.getEntrypoint().fetch("http://x/")).json();
    const one = `
      import { WorkerEntrypoint } from "cloudflare:workers";
      export default class extends WorkerEntrypoint { async use(box) { const { stdout } = await box.exec("echo over rpc"); return [stdout, await new Response(await box.readFileStream("f")).text()]; } }`;
    const user = LOADER.load({ compatibilityDate: "2026-11-01", mainModule: "m.js", modules: { "m.js": one }, globalOutbound: null });
    const box = SANDBOX.get("ann");
    await box.writeFile("f", "one user only");
    return { given, rpc: await user.getEntrypoint().use(box) };
  },
  async limits({ SANDBOX }) {
    const box = SANDBOX.get("ann");
    let made = 0;
    const end = await words(async () => { for (;;) { await box.exists("x"); made++; } });
    return [made, end[0]];
  },
};
export default {
  async fetch(request, env, ctx) {
    const name = new URL(request.url).pathname.slice(1);
    if (name === "abandon") return new Response(await env.SANDBOX.get("ann").execStream("echo begun; sleep 7777"));
    return Response.json(await tests[name](env, ctx));
  },
};"#;

async fn deploy(server: &Server, token: &str) {
    let mut body = deployment(&Worker::single("agent", WORKER).with_loader("LOADER"));
    body["bindings"] = json!({ "SANDBOX": { "type": "sandbox" } });
    let answer = server.control_as(token, "PUT", "/v1/workers/agent", Some(body)).await;
    assert!(answer.status < 300, "{}", answer.text());
}

async fn ask(server: &Server, tenant: &str, path: &str) -> Value {
    let answer = server.send_to(tenant, "agent", &Request::new("GET", path)).await;
    assert_eq!(answer.status, 200, "{path}: {}\n{}", answer.text(), server.log());
    answer.json()
}

async fn a_worker_does_everything_that_a_client_does(place: Place) {
    let Some(server) = place.plain().await else { return };
    deploy(&server, TOKEN).await;
    let ask = async |path: &str| ask(&server, "acme", path).await;
    let exec = ask("/exec").await;
    assert_eq!(
        exec["plain"],
        json!([false, 3, "x\nin\n", "echo $A; cat; exit 3", "number", false]),
        "{exec}"
    );
    assert_eq!(
        (&exec["live"], &exec["piped"], &exec["late"]),
        (&json!(["1\n", "2\n", 4]), &json!("200000"), &json!(true)),
        "{exec}"
    );
    assert_eq!(exec["missing"], json!(["SandboxError", "COMMAND_NOT_FOUND", 404]));
    assert_eq!(exec["type"][0], "TypeError");
    assert_eq!(ask("/stream").await, json!(["start", "stdout", "complete"]));
    let processes = ask("/processes").await;
    assert_eq!(processes["all"], json!([["web", "running"]]), "{processes}");
    assert_eq!(
        (&processes["logs"], &processes["status"], &processes["again"], &processes["none"]),
        (&json!("ready\n"), &json!("killed"), &json!("killed"), &Value::Null),
        "{processes}"
    );
    assert_eq!(
        (&processes["url"], &processes["ports"], &processes["started"]),
        (&json!(true), &json!(1), &json!(true))
    );
    assert_eq!(processes["exit"], json!({ "exitCode": 4 }));
    let files = ask("/files").await;
    assert_eq!(
        (&files["text"], &files["bytes"], &files["stream"]),
        (&json!("grüße"), &json!("AP8B"), &json!("streamed")),
        "{files}"
    );
    assert_eq!(files["list"], json!(["bytes", "e", "e/stream", "text"]));
    assert_eq!((&files["exists"], &files["gone"]), (&json!([true, false]), &json!(false)));
    assert_eq!(
        (&files["bad"], &files["empty"][0]),
        (&json!(["SandboxError", "FILE_NOT_FOUND", 404]), &json!("TypeError"))
    );
    let sessions = ask("/sessions").await;
    assert_eq!(
        (&sessions["kept"], &sessions["session"], &sessions["git"]),
        (&json!("/usr\n5 v\n"), &json!("s"), &json!("copy")),
        "{sessions}"
    );
    assert_eq!(
        (&sessions["failed"][1], &sessions["restored"], &sessions["deleted"]),
        (&json!("GIT_CHECKOUT_FAILED"), &json!("yes"), &json!(true))
    );
    let life = ask("/life").await;
    assert_eq!(
        (&life["before"], &life["after"], &life["uses"]),
        (&Value::Null, &Value::Null, &json!(true)),
        "{life}"
    );
    assert_eq!(life["users"], json!(["ann", "bob", "carl"]));
    assert_eq!((&life["bad"][0][0], &life["bad"][1][1]), (&json!("TypeError"), &json!("user")), "{life}");
    server.finish();
}

async fn a_workers_sandboxes_are_its_tenants_and_end_with_what_asked(place: Place) {
    let Some(server) = place.plain().await else { return };
    deploy(&server, TOKEN).await;
    deploy(&server, NEIGHBOUR_TOKEN).await;
    server.out("ann", "echo mine > f").await;
    let theirs = ask(&server, "neighbour", "/others").await;
    assert_eq!((&theirs["seen"], &theirs["file"]), (&json!([]), &json!("")), "{theirs}");
    assert_eq!((&theirs["api"], &theirs["put"]), (&json!(404), &json!("forbidden_setting")), "{theirs}");
    let loaded = ask(&server, "acme", "/loaded").await;
    assert_eq!(loaded["given"], json!(["child\n", true]), "{loaded}");
    assert_eq!(loaded["rpc"], json!(["over rpc\n", "one user only"]), "{loaded}");
    let limits = ask(&server, "acme", "/limits").await;
    assert_eq!(limits, json!([50, "Error"]), "uses are subrequests");
    // A client that goes away takes the worker's command with it.
    let mut socket = tokio::net::TcpStream::connect(server.address()).await.expect("the server listens");
    let head = format!("GET /abandon HTTP/1.1\r\nhost: {}\r\n\r\n", host_name("acme", "agent"));
    tokio::io::AsyncWriteExt::write_all(&mut socket, head.as_bytes()).await.expect("the server reads");
    let count = "ps -A -o args= | grep -c '[s]leep 7777' || true";
    while server.out("ann", count).await == "0\n" {}
    drop(socket);
    while server.out("ann", count).await != "0\n" {}
    // Nobody who was not given the binding has it.
    let bare = deployment(&Worker::single(
        "bare",
        "export default { fetch: (r, env) => Response.json(Object.keys(env)) }",
    ));
    server.control("PUT", "/v1/workers/bare", Some(bare)).await;
    let answer = client::send(server.address(), &host_name("acme", "bare"), &Request::new("GET", "/"))
        .await
        .expect("an answer");
    assert_eq!(answer.json(), json!([]));
    server.finish();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_sandboxes_the_binding_is_refused() {
    let server = crate::support::atoll::Atoll::start(crate::support::atoll::Options::default()).await;
    let mut body = deployment(&Worker::single("agent", "export default {}"));
    body["bindings"] = json!({ "SANDBOX": { "type": "sandbox" } });
    let answer = server.control("PUT", "/v1/workers/agent", Some(body)).await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (422, &json!("invalid_setting")),
        "{}",
        answer.text()
    );
}

on_each_backend!(
    a_worker_does_everything_that_a_client_does,
    a_workers_sandboxes_are_its_tenants_and_end_with_what_asked,
);
