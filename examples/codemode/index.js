// A model that writes code needs one round trip where one that calls tools needs many: loops, filters and joins are code.
//
//   POST code ──▶ this worker ──▶ a new isolate with the code: no network, no variables, only `tools`
//                    ▲                      │
//                    └── a method of Tools ─┘   a call over RPC; what a tool needs to know never leaves this worker
import { RpcTarget } from "cloudflare:workers";

const NOTES = [
  { id: 1, text: "A reef grows about a centimetre a year" },
  { id: 2, text: "A lagoon is the water inside an atoll" },
  { id: 3, text: "Atolls begin as a reef around a volcano" },
];
const TYPES = `declare const tools: {
  /** Notes that contain a word. */
  search(input: { word: string }): Promise<{ id: number; text: string }[]>;
  /** One note; throws if there is none. */
  get(input: { id: number }): Promise<{ id: number; text: string }>;
};
`;

/** Each public method is a tool; nothing else of this worker can be reached. */
class Tools extends RpcTarget {
  search({ word }) {
    return NOTES.filter(({ text }) => text.toLowerCase().includes(String(word).toLowerCase()));
  }
  get({ id }) {
    const note = NOTES.find((each) => each.id === id);
    if (!note) throw new RangeError(`no note ${id}`);
    return note;
  }
}

const RUNNER = `import { WorkerEntrypoint } from "cloudflare:workers";
import run from "code.js";
export default class extends WorkerEntrypoint {
  async run(tools) {
    const logs = [];
    console.log = (...parts) => logs.push(parts.map(String).join(" "));
    globalThis.tools = tools;
    try {
      return { result: await run(), logs };
    } catch (error) {
      return { error: String(error), logs };
    }
  }
}`;

export default {
  async fetch(request, env) {
    if (request.method !== "POST") return new Response(TYPES);
    const code = await request.text();
    try {
      const worker = env.LOADER.load({
        compatibilityDate: "2026-11-01",
        mainModule: "runner.js",
        modules: { "runner.js": RUNNER, "code.js": `export default ${code}` },
        globalOutbound: null,
        limits: { cpuMs: 200 },
      });
      return Response.json(await worker.getEntrypoint().run(new Tools()));
    } catch (error) {
      // Code that is no JavaScript, or that a limit stopped.
      return Response.json({ error: String(error) }, { status: 422 });
    }
  },
};
