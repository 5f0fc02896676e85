// Shows: the AI SDK: loops of a model and tools, whole and streamed, with a model of the test, and the loop as an answer.
// > GET /loops
// > GET /agent
// < content-type: text/event-stream
// < "toolName":"weather"
// < {"type":"text-delta","id":"t","delta":"degrees"}
// < data: [DONE]
// > GET /text
// < plain words
import {
  createAgentUIStreamResponse, createTextStreamResponse, generateText, isStepCount, jsonSchema, Output, simulateReadableStream, smoothStream,
  streamText, tool, ToolLoopAgent,
} from "ai";
import { MockLanguageModelV4 } from "ai/test";
import { z } from "zod";
import { reporter } from "./check.js";

const usage = { inputTokens: { total: 3, noCache: 3 }, outputTokens: { total: 5, text: 5 } };
const finish = (unified) => ({ finishReason: { unified, raw: undefined }, usage });
const calls = (...list) => ({
  content: list.map(([toolName, input], at) => ({ type: "tool-call", toolCallId: `call-${toolName}-${at}`, toolName, input: JSON.stringify(input) })),
  ...finish("tool-calls"), warnings: [],
});
const says = (text) => ({ content: [{ type: "text", text }], ...finish("stop"), warnings: [] });
/** The parts of a streamed step of the same content. */
const streamed = ({ content, finishReason }) => ({
  stream: simulateReadableStream({
    initialDelayInMs: null, chunkDelayInMs: 1,
    chunks: [
      { type: "stream-start", warnings: [] },
      ...content.flatMap((part) => (part.type === "text"
        ? [{ type: "text-start", id: "t" }, ...part.text.split(/(?<= )/).map((delta) => ({ type: "text-delta", id: "t", delta })), { type: "text-end", id: "t" }]
        : [{ type: "tool-input-start", id: part.toolCallId, toolName: part.toolName }, { type: "tool-input-delta", id: part.toolCallId, delta: part.input }, { type: "tool-input-end", id: part.toolCallId }, part])),
      { type: "finish", finishReason, usage },
    ],
  }),
});
const generates = (...steps) => new MockLanguageModelV4({ doGenerate: steps });
const streams = (...steps) => new MockLanguageModelV4({ doStream: steps.map(streamed) });

const tools = {
  weather: tool({ description: "Degrees in a city", inputSchema: z.object({ city: z.string() }), execute: async ({ city }) => ({ degrees: city.length }) }),
  add: tool({ inputSchema: z.object({ a: z.number(), b: z.number() }), outputSchema: z.number(), execute: async ({ a, b }) => a + b }),
  fails: tool({ inputSchema: z.object({}), execute: async () => { throw new RangeError("no sensor"); } }),
  plain: tool({ inputSchema: jsonSchema({ type: "object", properties: { q: { type: "string" } } }), execute: async ({ q }, { toolCallId }) => `${toolCallId} ${q}` }),
};
const prompt = "How warm is it?";
const stopWhen = isStepCount(5);

async function loops(is) {
  const model = generates(calls(["weather", { city: "Lisbon" }], ["weather", { city: "Oslo" }]), calls(["add", { a: 6, b: 4 }]), says("10 degrees together"));
  const result = await generateText({ model, tools, stopWhen, prompt, system: "Be short." });
  await is("text", "10 degrees together", result.text);
  await is("steps", [["tool-calls", ["weather", "weather"]], ["tool-calls", ["add"]], ["stop", []]], result.steps.map((step) => [step.finishReason, step.toolCalls.map((call) => call.toolName)]));
  await is("results", [[{ degrees: 6 }, { degrees: 4 }], [10], []], result.steps.map((step) => step.toolResults.map((each) => each.output)));
  await is("usage", [9, 15], [result.totalUsage.inputTokens, result.totalUsage.outputTokens]);
  await is("what the model saw", ["system", "user", "assistant", "tool", "assistant", "tool"], model.doGenerateCalls[2].prompt.map((message) => message.role));
  await is("tools as JSON Schema", { type: "object", properties: { city: { type: "string" } }, required: ["city"] }, () => {
    const { type, properties, required } = model.doGenerateCalls[0].tools.find((each) => each.name === "weather").inputSchema;
    return { type, properties, required };
  });
  await is("stopped", 2, generateText({ model: generates(...Array.from({ length: 4 }, () => calls(["add", { a: 1, b: 1 }]))), tools, stopWhen: isStepCount(2), prompt }).then((r) => r.steps.length));
  const failing = await generateText({ model: generates(calls(["fails", {}]), says("sorry")), tools, stopWhen, prompt });
  await is("a tool fails", ["tool-error", "no sensor", "sorry"], () => { const part = failing.steps[0].content.find((each) => each.type === "tool-error"); return [part.type, part.error.message, failing.text]; });
  const wrong = await generateText({ model: generates(calls(["add", { a: "x" }]), calls(["nothing", {}]), says("gave up")), tools, stopWhen, prompt });
  await is("wrong calls", ["AI_InvalidToolInputError", "AI_NoSuchToolError"], wrong.steps.slice(0, 2).map((step) => step.toolCalls[0].error.name));
  await is("jsonSchema", "call-plain-0 x", generateText({ model: generates(calls(["plain", { q: "x" }]), says("ok")), tools, stopWhen, prompt }).then((r) => r.steps[0].toolResults[0].output));
  await is("object", { city: "Oslo", degrees: 4 }, generateText({ model: generates(says('{"city":"Oslo","degrees":4}')), prompt, output: Output.object({ schema: z.object({ city: z.string(), degrees: z.number() }) }) }).then((r) => r.output));
  await is("no object", "AI_NoObjectGeneratedError", generateText({ model: generates(says("not JSON")), prompt, output: Output.object({ schema: z.object({}) }) }).then((r) => r.output).catch((error) => error.name));
  await is("the model fails", "throws Error: overloaded", generateText({ model: new MockLanguageModelV4({ doGenerate: async () => { throw new Error("overloaded"); } }), prompt, maxRetries: 0 }));
  await is("aborted", "TimeoutError", generateText({ model: new MockLanguageModelV4({ doGenerate: ({ abortSignal }) => new Promise((_, fail) => abortSignal.addEventListener("abort", () => fail(abortSignal.reason))) }), prompt, abortSignal: AbortSignal.timeout(5) }).catch((error) => error.name));
  const stream = streamText({ model: streams(calls(["weather", { city: "Rome" }]), says("4 degrees in Rome")), tools, stopWhen, prompt });
  const kinds = [];
  for await (const part of stream.fullStream) if (kinds.at(-1) !== part.type) kinds.push(part.type);
  await is("parts", ["start", "start-step", "tool-input-start", "tool-input-delta", "tool-input-end", "tool-call", "tool-result", "finish-step", "start-step", "text-start", "text-delta", "text-end", "finish-step", "finish"], kinds);
  await is("text at the end", "4 degrees in Rome", stream.text);
  const partial = [];
  const object = streamText({ model: streams(says('{ "list": [1, 2, 3] }')), prompt, output: Output.object({ schema: z.object({ list: z.array(z.number()) }) }) });
  for await (const part of object.partialOutputStream) partial.push(part);
  await is("growing object", [{}, { list: [] }, { list: [1] }, { list: [1, 2] }, { list: [1, 2, 3] }].at(-1), partial.at(-1));
  const smooth = [];
  for await (const text of streamText({ model: streams(says("one two three")), prompt, experimental_transform: smoothStream({ delayInMs: 1 }) }).textStream) smooth.push(text);
  await is("smoothed", ["one ", "two ", "three"], smooth);
}

export default {
  async fetch(request, env, ctx) {
    const { pathname } = new URL(request.url);
    if (pathname === "/loops") return reporter(loops)(request, env, ctx);
    if (pathname === "/text") return createTextStreamResponse({ stream: streamText({ model: streams(says("plain words")), prompt }).textStream });
    const agent = new ToolLoopAgent({ model: streams(calls(["weather", { city: "Lisbon" }]), says("6 degrees")), tools, stopWhen });
    return createAgentUIStreamResponse({ agent, uiMessages: [{ id: "1", role: "user", parts: [{ type: "text", text: prompt }] }], generateMessageId: () => "m" });
  },
};
