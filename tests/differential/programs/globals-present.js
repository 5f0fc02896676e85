// Shows: which globals a worker finds.
import { reporter } from "report.js";

const names = [
  "AbortController", "AbortSignal", "Blob", "ByteLengthQueuingStrategy", "CompressionStream", "CountQueuingStrategy", "Crypto",
  "CryptoKey", "CustomEvent", "DOMException", "DecompressionStream", "ErrorEvent", "Event", "EventTarget", "File", "FormData",
  "Headers", "MessageEvent", "PromiseRejectionEvent", "ReadableByteStreamController", "ReadableStream", "ReadableStreamBYOBReader",
  "ReadableStreamBYOBRequest", "ReadableStreamDefaultController", "ReadableStreamDefaultReader", "Request", "Response", "SubtleCrypto",
  "TextDecoder", "TextDecoderStream", "TextEncoder", "TextEncoderStream", "TransformStream", "TransformStreamDefaultController", "URL",
  "URLPattern", "URLSearchParams", "WebAssembly", "WritableStream", "WritableStreamDefaultController", "WritableStreamDefaultWriter",
  "atob", "btoa", "clearInterval", "clearTimeout", "console", "crypto", "fetch", "globalThis", "navigator", "performance",
  "queueMicrotask", "reportError", "scheduler", "self", "setInterval", "setTimeout", "structuredClone",
];

export default reporter(async (show) => {
  for (const name of names) await show(name, typeof globalThis[name]);
  await show("self", self === globalThis);
  await show("user agent", navigator.userAgent);
  await show("functions of crypto", [typeof crypto.subtle.digest, typeof crypto.getRandomValues, typeof crypto.randomUUID]);
});
