import { files } from "./project.js";

// Code that somebody else wrote: it runs in an isolate of its own, without network or sandbox.
const UNTRUSTED = `
export default {
  async fetch(request) {
    const n = Number(await request.text());
    let [a, b] = [0, 1];
    for (let i = 0; i < n; i++) [a, b] = [b, a + b];
    return Response.json(a);
  },
};`;

/** Cheap and quick: a fresh isolate per question. */
async function think(loader, n) {
  const worker = loader.load({
    compatibilityDate: "2026-11-01",
    mainModule: "think.js",
    modules: { "think.js": UNTRUSTED },
    globalOutbound: null,
  });
  const answer = await worker.getEntrypoint().fetch("http://think/", { method: "POST", body: `${n}` });
  return await answer.json();
}

/** A command that must succeed; what it said if not. */
async function must(sandbox, command, options) {
  const done = await sandbox.exec(command, { env: { HOME: "/workspace" }, timeout: 60_000, ...options });
  if (!done.success) throw new Error(`${command}: ${done.stderr || done.stdout}`);
  return done;
}

/** Makes the repository that the agent is to work on; a real one would be there already. */
async function seed(sandbox, expected) {
  for (const [path, text] of Object.entries(files(expected))) {
    await sandbox.mkdir(`origin/${path}`.replace(/\/[^/]*$/, ""), { recursive: true });
    await sandbox.writeFile(`origin/${path}`, text);
  }
  const identity = "-c user.email=agent@example.com -c user.name=agent";
  await must(sandbox, `(cd shout && npm pack --silent --offline --pack-destination ..) && rm -r shout && git init -q -b main . && git add . && git ${identity} commit -qm 'A project'`, { cwd: "origin" });
}

export default {
  async fetch(request, env) {
    const user = new URL(request.url).searchParams.get("user") ?? "agent";
    const fibonacci = await think(env.LOADER, 30);
    const sandbox = env.SANDBOX.get(user);
    try {
      await seed(sandbox, fibonacci);
      const { targetDir } = await sandbox.gitCheckout("/workspace/origin", { targetDir: "project" });
      await must(sandbox, "npm install --offline --no-audit --no-fund", { cwd: targetDir });
      const tests = await sandbox.exec("node --test --test-reporter=tap", { cwd: targetDir, timeout: 60_000 });
      const count = (what) => Number(tests.stdout.match(new RegExp(`^# ${what} (\\d+)`, "m"))?.[1]);
      const { total } = await sandbox.usage();
      return Response.json({
        fibonacci,
        tests: { success: tests.success, pass: count("pass"), fail: count("fail") },
        usage: { cpuMs: Math.round(total.cpuUs / 1000), wallMs: Math.round(total.wallUs / 1000) },
      });
    } catch (error) {
      return Response.json({ error: error.message, code: error.code }, { status: 502 });
    } finally {
      await sandbox.destroy();
    }
  },
};
