// Shows: client libraries in a worker, against servers elsewhere: openai, Anthropic's SDK, stripe, jose, tRPC, MCP, capnweb.
// > GET /openai
// > GET /anthropic
// > GET /stripe
// > GET /others
// > GET /capnweb
import Anthropic from "@anthropic-ai/sdk";
import { betaZodTool } from "@anthropic-ai/sdk/helpers/beta/zod";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { createTRPCClient, httpBatchLink, httpBatchStreamLink, httpSubscriptionLink } from "@trpc/client";
import { newHttpBatchRpcSession, newWebSocketRpcSession } from "capnweb";
import { createRemoteJWKSet, jwtVerify } from "jose";
import OpenAI, { toFile } from "openai";
import { zodFunction } from "openai/helpers/zod";
import Stripe from "stripe";
import { z } from "zod";
import { batchCases, sessionCases } from "./api.js";
import { trpcClientCases, trpcSubscriptionCase } from "./cases.js";
import { reporter } from "./check.js";

const messages = [{ role: "user", content: "hi" }];
const weather = { name: "weather", description: "Degrees in a city" };

async function openai(is, env) {
  const made = (more = {}) => new OpenAI({ apiKey: "right", baseURL: `http://${env.FAR}/openai/v1`, maxRetries: 0, ...more });
  const client = made();
  const create = (more = {}, on = client) => on.chat.completions.create({ model: "fake", messages, ...more });
  await is("completion", ["you said hi", 3], create().then((r) => [r.choices[0].message.content, r.usage.total_tokens]));
  await is("stream", ["", "sea ", "and ", "sand ✓", "stop"], async () => {
    const parts = [];
    for await (const { choices: [{ delta, finish_reason }] } of await create({ stream: true })) parts.push(delta.content ?? finish_reason);
    return parts;
  });
  await is("stream helper", ["sea and sand ✓", 3], async () => {
    let deltas = 0;
    const stream = client.chat.completions.stream({ model: "fake", messages }).on("content", () => deltas++);
    return [await stream.finalContent(), deltas];
  });
  await is("stream left early", "sea ", async () => {
    for await (const { choices: [{ delta }] } of await create({ stream: true })) if (delta.content) return delta.content;
  });
  await is("tools", ["you said 4 degrees", 1], async () => {
    let ran = 0;
    const tool = zodFunction({ ...weather, parameters: z.object({ city: z.string() }), function: ({ city }) => { ran++; return `${city.length} degrees`; } });
    return [await client.chat.completions.runTools({ model: "fake", messages, tools: [tool] }).finalContent(), ran];
  });
  await is("models", ["fake"], async () => { const ids = []; for await (const model of client.models.list()) ids.push(model.id); return ids; });
  await is("embedding", [0.5, -1], client.embeddings.create({ model: "fake", input: "x" }).then((r) => [...r.data[0].embedding]));
  await is("upload", ["a.txt", "assistants"], async () => {
    const file = await client.files.create({ file: await toFile(new Uint8Array(50), "a.txt"), purpose: "assistants" });
    return [file.filename, file.purpose];
  });
  const failing = (error) => [error.constructor === OpenAI.AuthenticationError || error.name, error.status, error.code, error.requestID, error.message];
  await is("wrong key", [true, 401, "invalid_api_key", "req_1", "401 no such key"], create({}, made({ apiKey: "wrong" })).catch(failing));
  await is("busy", ["RateLimitError", 429], create({ model: "busy" }).catch((error) => [error.constructor === OpenAI.RateLimitError && "RateLimitError", error.status]));
  await is("broken", [true, 500], create({ model: "broken" }).catch((error) => [error instanceof OpenAI.InternalServerError, error.status]));
  await is("no server", true, create({}, made({ baseURL: "http://127.0.0.1:1/" })).catch((error) => error instanceof OpenAI.APIError));
  await is("aborted", true, create({}, made({ fetch: (url, init) => new Promise((_, fail) => init.signal.addEventListener("abort", () => fail(init.signal.reason))), timeout: 10 })).catch((error) => error instanceof OpenAI.APIConnectionTimeoutError));
  await is("raw", ["application/json", "fake"], async () => { const raw = await client.models.list().asResponse(); return [raw.headers.get("content-type"), (await raw.json()).data[0].id]; });
}

async function anthropic(is, env) {
  const made = (more = {}) => new Anthropic({ apiKey: "right", baseURL: `http://${env.FAR}/anthropic`, maxRetries: 0, ...more });
  const client = made();
  const body = { model: "fake", max_tokens: 10, messages };
  const create = (more = {}, on = client) => on.messages.create({ ...body, ...more });
  await is("message", ["you said hi", "end_turn"], create().then((r) => [r.content[0].text, r.stop_reason]));
  await is("events", ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop"], async () => {
    const kinds = new Set();
    for await (const event of await create({ stream: true })) kinds.add(event.type);
    return [...kinds];
  });
  await is("stream helper", ["sea and sand ✓", { city: "Oslo" }, 9, "sea and sand ✓"], async () => {
    let seen = "";
    const stream = client.messages.stream(body).on("text", (text) => { seen += text; });
    const final = await stream.finalMessage();
    return [final.content[0].text, final.content[1].input, final.usage.output_tokens, seen];
  });
  await is("error within a stream", [true, "overloaded_error"], async () => {
    try {
      for await (const _ of await create({ stream: true, model: "fails" }));
    } catch (error) {
      return [error instanceof Anthropic.APIError, error.error?.error?.type];
    }
  });
  await is("tool runner", ["it is 4 degrees", 1], async () => {
    let ran = 0;
    const tool = betaZodTool({ ...weather, inputSchema: z.object({ city: z.string() }), run: ({ city }) => { ran++; return `${city.length} degrees`; } });
    const final = await client.beta.messages.toolRunner({ ...body, tools: [tool] });
    return [final.content[0].text, ran];
  });
  await is("wrong key", [true, 401, "authentication_error", "req_2"], create({}, made({ apiKey: "wrong" })).catch((error) => [error instanceof Anthropic.AuthenticationError, error.status, error.error.error.type, error.requestID]));
  await is("busy", [true, 529], create({ model: "busy" }).catch((error) => [error instanceof Anthropic.InternalServerError, error.status]));
}

async function stripe(is, env) {
  const [host, port] = env.FAR.split(":");
  const made = (key = "sk_test_right") => new Stripe(key, { httpClient: Stripe.createFetchHttpClient(), host, port, protocol: "http", maxNetworkRetries: 0, telemetry: false });
  const client = made();
  await is("create", ["ada@example.com", "pro", "once"], client.customers.create({ email: "ada@example.com", metadata: { plan: "pro" } }, { idempotencyKey: "once" }).then((r) => [r.email, r.metadata.plan, r.key]));
  await is("list", ["cus_1", "cus_2", "cus_3", "cus_4", "cus_5", "cus_6"], async () => { const ids = []; for await (const { id } of client.customers.list({ limit: 2 })) ids.push(id); return ids; });
  await is("declined", ["StripeCardError", "card_declined", "insufficient_funds", "req_3"], client.charges.create({ amount: 1, currency: "eur" }).catch((error) => [error.type, error.code, error.decline_code, error.requestId]));
  await is("wrong key", ["StripeAuthenticationError", 401], made("sk_test_wrong").customers.retrieve("cus_1").catch((error) => [error.type, error.statusCode]));
  await is("missing", ["StripeInvalidRequestError", "resource_missing"], client.customers.retrieve("cus_9").catch((error) => [error.type, error.code]));
  const payload = JSON.stringify({ id: "evt_1", object: "event", type: "charge.succeeded", data: { object: { amount: 5 } } });
  const provider = Stripe.createSubtleCryptoProvider();
  const secret = "whsec_test";
  const header = await client.webhooks.generateTestHeaderStringAsync({ payload, secret, cryptoProvider: provider });
  const event = (body, given = header, with_ = secret) => client.webhooks.constructEventAsync(body, given, with_, undefined, provider);
  await is("webhook", ["charge.succeeded", 5], event(payload).then((r) => [r.type, r.data.object.amount]));
  await is("another secret", "StripeSignatureVerificationError", event(payload, header, "whsec_other").catch((error) => error.type));
  await is("another body", "StripeSignatureVerificationError", event(payload.replace("5", "6")).catch((error) => error.type));
  await is("an old one", true, async () => {
    const old = await client.webhooks.generateTestHeaderStringAsync({ payload, secret, timestamp: 1000, cryptoProvider: provider });
    return event(payload, old).catch((error) => error.message.includes("Timestamp outside the tolerance zone"));
  });
  await is("without the provider", true, async () => { try { client.webhooks.constructEvent(payload, header, secret); return false; } catch (error) { return error.message.includes("SubtleCryptoProvider cannot be used in a synchronous context"); } });
}

async function others(is, env) {
  const far = `http://${env.FAR}`;
  const keys = createRemoteJWKSet(new URL(`${far}/jwks`));
  const token = await (await fetch(`${far}/token`)).text();
  await is("remote key set", "far", jwtVerify(token, keys).then((r) => r.payload.sub));
  await is("remote key set, again", "throws JWSSignatureVerificationFailed: signature verification failed", jwtVerify(token.slice(0, -8) + "AAAAAAAA", keys));
  await trpcClientCases(is, `${far}/trpc`, { createTRPCClient, httpBatchLink, httpBatchStreamLink });
  const client = new Client({ name: "worker", version: "1.0.0" });
  await client.connect(new StreamableHTTPClientTransport(new URL(`${far}/mcp`)));
  await is("MCP tools", ["shout"], client.listTools().then((r) => r.tools.map((tool) => tool.name)));
  await is("MCP call", "HI", client.callTool({ name: "shout", arguments: { text: "hi" } }).then((r) => r.content[0].text));
  await client.close();
}

async function capnweb(is, env) {
  await batchCases((label, ...rest) => is(`batch: ${label}`, ...rest), () => newHttpBatchRpcSession(`http://${env.FAR}/capnweb`));
  using api = newWebSocketRpcSession(`ws://${env.FAR}/`);
  await sessionCases((label, ...rest) => is(`socket: ${label}`, ...rest), api);
}

const subscription = (is, env) =>
  trpcSubscriptionCase(is, `http://${env.FAR}/trpc`, { createTRPCClient, httpSubscriptionLink, EventSource });

const routes = { "/subscription": subscription, "/openai": openai, "/anthropic": anthropic, "/stripe": stripe, "/others": others, "/capnweb": capnweb };
export default {
  fetch: (request, env, ctx) => reporter(routes[new URL(request.url).pathname])(request, env, ctx),
};
