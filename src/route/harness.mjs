// Calls a step's default export as an isolate would, and keeps what it gives back.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const here = new URL('./', import.meta.url);
globalThis.require = createRequire(here);
const input = JSON.parse(readFileSync(process.env.ATOLL_INPUT, 'utf8'));
const env = JSON.parse(readFileSync(new URL('env.json', here), 'utf8'));
const ctx = { waitUntil(work) { pending.push(Promise.resolve(work)); }, passThroughOnException() {} };
const pending = [];
const { default: main } = await import(new URL(process.argv[2], here));
const result = typeof main === 'function' ? await main(input, env, ctx) : main;
await Promise.all(pending);
writeFileSync(process.env.ATOLL_RESULT, JSON.stringify(result) ?? 'null');
