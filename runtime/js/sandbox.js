// env.SANDBOX: Linux sandboxes of the tenant's users, as close to Cloudflare's Sandbox SDK as makes sense.
//
//  env.SANDBOX.get("ann") -> Sandbox -> { exec, startProcess -> Process, createSession -> Session, files, ports, … }
//
// All of it speaks the gateway's own API (`/v1/sandboxes`, src/api/openapi.json) through the binding's capability: JSON one way
// and the other, bytes and events as bodies. A Sandbox, a Process and a Session can be given to other workers as RPC stubs: they
// lead to that one user's sandbox only.
// https://developers.cloudflare.com/sandbox/api/
(function () {
"use strict";
const { core, primordials, internals } = __bootstrap;
const host = internals.atoll;
const {
  ArrayBufferIsView, ArrayIsArray, ArrayPrototypeJoin, ArrayPrototypeMap, ArrayPrototypePush, Date, DatePrototypeToISOString, Error,
  JSONParse, JSONStringify, Number, ObjectKeys, SafeArrayIterator, String, StringPrototypeIndexOf, StringPrototypeSlice,
  StringPrototypeSplit, StringPrototypeStartsWith, TypeError,
} = primordials;
const { RpcTarget } = host.load("ext:atoll/cloudflare_workers.js");

const ROOT = "http://sandbox/v1/sandboxes";
const JSON_TYPE = { "content-type": "application/json" };
const EVENTS_TYPE = { "content-type": "application/json", accept: "text/event-stream" };
const BYTES_TYPE = { "content-type": "application/octet-stream" };

/** What went wrong, with the stable `code` of the API and its HTTP `status`. */
class SandboxError extends Error {
  code;
  status;
  details;
  constructor(problem) {
    super(problem.detail);
    this.name = "SandboxError";
    this.code = problem.code;
    this.status = problem.status;
    this.details = problem;
  }
}

const now = () => DatePrototypeToISOString(new Date());
const time = (ms) => DatePrototypeToISOString(new Date(ms));
const escape = (text) => {
  const { URLSearchParams } = host.load("ext:deno_web/00_url.js");
  return StringPrototypeSlice(new URLSearchParams({ x: text }).toString(), 2);
};
/** A name as one segment of a path: there, '+' is a plus. */
const segment = (text) => ArrayPrototypeJoin(StringPrototypeSplit(escape(`${text}`), "+"), "%20");
function queryOf(parameters) {
  const parts = [];
  for (const name of new SafeArrayIterator(ObjectKeys(parameters))) {
    if (parameters[name] !== undefined) ArrayPrototypePush(parts, `${name}=${escape(`${parameters[name]}`)}`);
  }
  return parts.length === 0 ? "" : "?" + ArrayPrototypeJoin(parts, "&");
}
const pathOf = (path) => {
  if (typeof path !== "string" || path === "") throw new TypeError("A path is a string that is not empty.");
  return path;
};

/** Where requests go: a capability, and a user of it. */
class Target {
  constructor(capability, path) {
    this.capability = capability;
    this.path = path;
  }
  async fetch(method, rest, init = {}) {
    const response = await host.fetchApi.callFetch(this.capability, ROOT + this.path + rest, { method, ...init });
    if (response.ok) return response;
    const text = await response.text();
    let problem;
    try {
      problem = JSONParse(text);
    } catch {
      problem = { code: "BACKEND_FAILED", status: response.status, detail: `The sandbox answered ${response.status}.` };
    }
    throw new SandboxError(problem);
  }
  async json(method, rest, body = undefined, signal = undefined) {
    const init = body === undefined ? {} : { headers: JSON_TYPE, body: JSONStringify(body) };
    if (signal !== undefined) init.signal = signal;
    const response = await this.fetch(method, rest, init);
    return response.status === 204 ? undefined : await response.json();
  }
  async events(method, rest, body = undefined, signal = undefined) {
    const init = { headers: body === undefined ? { accept: "text/event-stream" } : EVENTS_TYPE };
    if (body !== undefined) init.body = JSONStringify(body);
    if (signal !== undefined) init.signal = signal;
    return (await this.fetch(method, rest, init)).body;
  }
}

/** The objects in a stream of server-sent events, as they come. */
async function* parseSSEStream(stream, signal = undefined) {
  const { TextDecoder } = host.load("ext:deno_web/08_text_encoding.js");
  const decoder = new TextDecoder();
  const reader = stream.getReader();
  let rest = "";
  try {
    for (;;) {
      signal?.throwIfAborted();
      const { done, value } = await reader.read();
      if (done) return;
      rest += decoder.decode(value, { stream: true });
      for (let end = StringPrototypeIndexOf(rest, "\n"); end >= 0; end = StringPrototypeIndexOf(rest, "\n")) {
        const line = StringPrototypeSlice(rest, 0, end);
        rest = StringPrototypeSlice(rest, end + 1);
        if (StringPrototypeStartsWith(line, "data: ")) yield JSONParse(StringPrototypeSlice(line, 6));
      }
    }
  } finally {
    await reader.cancel();
  }
}

// ---- Commands -------------------------------------------------------------------------------------------

function commandOf(command, options, session) {
  if (typeof command !== "string" && !ArrayIsArray(command)) {
    throw new TypeError("A command is a string for the shell, or an array of a program and its arguments.");
  }
  const body = { command, cwd: options.cwd, env: options.env, timeoutMs: options.timeout, graceMs: options.grace };
  if (session !== undefined) body.session = session;
  if (options.encoding === "base64") body.encoding = "base64";
  return body;
}
function execResult(result) {
  const out = {
    success: result.success, exitCode: result.exitCode, stdout: result.stdout, stderr: result.stderr, command: result.command,
    duration: result.durationMs, timestamp: time(result.startedMs), timedOut: result.timedOut, outOfMemory: result.outOfMemory,
    droppedBytes: result.droppedBytes, usage: result.usage,
  };
  if (result.signal !== undefined) out.signal = result.signal;
  if (result.session !== undefined) out.sessionId = result.session;
  return out;
}
async function execWith(target, body, options, events) {
  const { stdin, signal } = options;
  if (stdin === undefined || typeof stdin === "string") {
    if (stdin !== undefined) body.stdin = stdin;
    return events ? await target.events("POST", "/exec", body, signal) : await target.json("POST", "/exec", body, signal);
  }
  const init = { headers: { ...BYTES_TYPE, ...(events ? { accept: "text/event-stream" } : {}) }, body: stdin };
  if (signal !== undefined) init.signal = signal;
  const response = await target.fetch("POST", "/exec" + queryOf({ spec: JSONStringify(body) }), init);
  return events ? response.body : await response.json();
}
async function exec(target, command, options, session) {
  const body = commandOf(command, options, session);
  const { onOutput, onComplete, onError } = options;
  if (onOutput === undefined && options.stream !== true) {
    const result = execResult(await execWith(target, body, options, false));
    onComplete?.(result);
    return result;
  }
  let stdout = "", stderr = "";
  for await (const event of parseSSEStream(await execWith(target, body, options, true), options.signal)) {
    if (event.type === "stdout" || event.type === "stderr") {
      if (event.type === "stdout") stdout += event.data;
      else stderr += event.data;
      onOutput?.(event.type, event.data);
    } else if (event.type === "complete") {
      const result = execResult({ ...event, stdout, stderr });
      onComplete?.(result);
      return result;
    } else if (event.type === "error") {
      const error = new SandboxError({ ...event, detail: event.error });
      onError?.(error);
      throw error;
    }
  }
  throw new SandboxError({ code: "OPERATION_INTERRUPTED", status: 409, detail: "The sandbox stopped." });
}

// ---- Processes ------------------------------------------------------------------------------------------

/** A background process, as it was when it was asked for. */
class Process extends RpcTarget {
  #target;
  #info;
  constructor(target, info) {
    super();
    this.#target = target;
    this.#info = info;
  }
  #rest(rest = "") {
    return `/processes/${segment(this.#info.id)}${rest}`;
  }
  async #refresh(asked) {
    this.#info = await asked;
    return this.#info;
  }
  get id() { return this.#info.id; }
  get pid() { return this.#info.pid; }
  get command() { return this.#info.command; }
  get status() { return this.#info.status; }
  get startTime() { return new Date(this.#info.startedMs); }
  get endTime() { return this.#info.endedMs === undefined ? undefined : new Date(this.#info.endedMs); }
  get exitCode() { return this.#info.exitCode; }
  /** Ends the whole tree and waits for that; with a signal's number, sends it and does not wait. */
  async kill(signal = undefined) {
    await this.#refresh(this.#target.json("DELETE", this.#rest(queryOf({ signal }))));
  }
  async getStatus() {
    return (await this.#refresh(this.#target.json("GET", this.#rest()))).status;
  }
  async getLogs() {
    const { stdout, stderr } = await this.#target.json("GET", this.#rest("/logs"));
    return { stdout, stderr };
  }
  async streamLogs() {
    return await this.#target.events("GET", this.#rest("/logs"));
  }
  async #wait(what) {
    return await this.#refresh(this.#target.json("POST", this.#rest("/wait"), what));
  }
  async waitForLog(text, timeout = undefined) {
    if (typeof text !== "string") throw new TypeError("Wait for a string: patterns are not offered.");
    await this.#wait({ log: text, timeoutMs: timeout });
    return { line: text };
  }
  async waitForPort(port, options = {}) {
    const { mode, path, timeout } = options;
    await this.#wait({ port, path: mode === "http" || path !== undefined ? path ?? "/" : undefined, timeoutMs: timeout });
  }
  async waitForExit(timeout = undefined) {
    return { exitCode: (await this.#wait({ exit: true, timeoutMs: timeout })).exitCode };
  }
}

/** A shell that lasts: its directory, variables and functions are there for the next command. */
class Session extends RpcTarget {
  #target;
  #id;
  constructor(target, id) {
    super();
    this.#target = target;
    this.#id = id;
  }
  get id() { return this.#id; }
  async exec(command, options = {}) {
    return await exec(this.#target, command, options, this.#id);
  }
  async execStream(command, options = {}) {
    return await execWith(this.#target, commandOf(command, options, this.#id), options, true);
  }
  async delete() {
    await this.#target.json("DELETE", `/sessions/${segment(this.#id)}`);
    return { success: true, sessionId: this.#id, timestamp: now() };
  }
}

// ---- The sandbox ----------------------------------------------------------------------------------------

const trimmed = (path) => path === "/" ? "" : path;
class Sandbox extends RpcTarget {
  #target;
  #user;
  constructor(capability, user) {
    super();
    this.#target = new Target(capability, `/${segment(user)}`);
    this.#user = user;
  }
  get id() { return this.#user; }

  async exec(command, options = {}) {
    return await exec(this.#target, command, options, options.sessionId);
  }
  /** Server-sent events as bytes; `env.SANDBOX.parseSSEStream()` reads them. */
  async execStream(command, options = {}) {
    return await execWith(this.#target, commandOf(command, options, options.sessionId), options, true);
  }

  async startProcess(command, options = {}) {
    const { processId: id, cwd, env, timeout: timeoutMs } = options;
    const { command: checked } = commandOf(command, {}, undefined);
    const info = await this.#target.json("POST", "/processes", { command: checked, id, cwd, env, timeoutMs });
    return new Process(this.#target, info);
  }
  async listProcesses() {
    const { processes } = await this.#target.json("GET", "/processes");
    return ArrayPrototypeMap(processes, (info) => new Process(this.#target, info));
  }
  /** The process of this name, or null. */
  async getProcess(id) {
    try {
      return new Process(this.#target, await this.#target.json("GET", `/processes/${segment(id)}`));
    } catch (error) {
      if (error.code === "PROCESS_NOT_FOUND" || error.code === "SANDBOX_NOT_FOUND") return null;
      throw error;
    }
  }
  async killProcess(id, signal = undefined) {
    await this.#target.json("DELETE", `/processes/${segment(id)}` + queryOf({ signal }));
  }
  async getProcessLogs(id) {
    const { stdout, stderr } = await this.#target.json("GET", `/processes/${segment(id)}/logs`);
    return { stdout, stderr, processId: id };
  }
  async streamProcessLogs(id) {
    return await this.#target.events("GET", `/processes/${segment(id)}/logs`);
  }

  /** Content is a string (with `encoding: "base64"`, bytes as text), bytes, or a stream. */
  async writeFile(path, content, options = {}) {
    let body = content;
    if (options.encoding === "base64") body = bytesOf(content);
    else if (typeof content !== "string" && !ArrayBufferIsView(content) && !core.isAnyArrayBuffer(content) && typeof content?.getReader !== "function") {
      throw new TypeError("A file's content is a string, bytes or a stream.");
    }
    const query = queryOf({ path: pathOf(path), mode: options.mode });
    await this.#target.fetch("PUT", `/files${query}`, { headers: BYTES_TYPE, body });
    return { success: true, path, timestamp: now() };
  }
  async readFile(path, options = {}) {
    const response = await this.#target.fetch("GET", `/files${queryOf({ path: pathOf(path) })}`);
    const encoding = options.encoding ?? "utf-8";
    if (encoding === "none") return { success: true, path, content: response.body, timestamp: now() };
    const bytes = new primordials.Uint8Array(await response.arrayBuffer());
    const content = encoding === "base64" ? base64Of(bytes) : new (host.load("ext:deno_web/08_text_encoding.js").TextDecoder)().decode(bytes);
    return { success: true, path, content, encoding, size: bytes.byteLength, timestamp: now() };
  }
  async readFileStream(path) {
    return (await this.#target.fetch("GET", `/files${queryOf({ path: pathOf(path) })}`)).body;
  }
  async mkdir(path, options = {}) {
    const recursive = options.recursive === true;
    await this.#target.json("POST", "/files/mkdir", { path: pathOf(path), recursive });
    return { success: true, path, recursive, timestamp: now() };
  }
  async renameFile(path, newPath) {
    await this.#target.json("POST", "/files/rename", { from: pathOf(path), to: pathOf(newPath) });
    return { success: true, path, newPath, timestamp: now() };
  }
  async moveFile(path, newPath) {
    return await this.renameFile(path, newPath);
  }
  async deleteFile(path, options = {}) {
    await this.#target.json("DELETE", `/files${queryOf({ path: pathOf(path), recursive: options.recursive === true })}`);
    return { success: true, path, timestamp: now() };
  }
  async exists(path) {
    try {
      const { exists } = await this.#target.json("GET", `/files/stat${queryOf({ path: pathOf(path) })}`);
      return { success: true, path, exists, timestamp: now() };
    } catch (error) {
      if (error.code !== "SANDBOX_NOT_FOUND") throw error;
      return { success: true, path, exists: false, timestamp: now() };
    }
  }
  async listFiles(path, options = {}) {
    const files = [];
    const directories = [[trimmed(pathOf(path)), ""]];
    while (directories.length > 0) {
      const { 0: absolute, 1: relative } = primordials.ArrayPrototypePop(directories);
      const listed = await this.#target.json("GET", `/files/list${queryOf({ path: absolute || "/" })}`);
      for (const file of new SafeArrayIterator(listed.files)) {
        if (options.includeHidden === false && StringPrototypeStartsWith(file.name, ".")) continue;
        const absolutePath = `${absolute}/${file.name}`, relativePath = relative + file.name;
        ArrayPrototypePush(files, {
          name: file.name, absolutePath, relativePath, type: file.type, size: file.size, mode: file.mode,
          modifiedAt: time(file.modifiedMs),
        });
        if (options.recursive === true && file.type === "directory") ArrayPrototypePush(directories, [absolutePath, relativePath + "/"]);
      }
    }
    return { success: true, path, files, count: files.length, timestamp: now() };
  }
  /** Server-sent events as bytes: watching, create, modify, delete, overflow. */
  async watch(path, options = {}) {
    return await this.#target.events("GET", `/files/watch${queryOf({ path: pathOf(path), recursive: options.recursive !== false })}`);
  }

  async gitCheckout(url, options = {}) {
    const { branch, depth, targetDir, cloneTimeoutMs: timeoutMs } = options;
    const done = await this.#target.json("POST", "/git/checkout", { url: `${url}`, branch, depth, targetDir, timeoutMs });
    return { success: true, repoUrl: done.repoUrl, branch: done.branch, targetDir: done.targetDir, timestamp: now() };
  }

  async createSession(options = {}) {
    const { id } = await this.#target.json("POST", "/sessions", { id: options.id, env: options.env, cwd: options.cwd });
    return new Session(this.#target, id);
  }
  async getSession(id) {
    return new Session(this.#target, `${id}`);
  }
  async deleteSession(id) {
    return await new Session(this.#target, `${id}`).delete();
  }
  /** Variables of every command from now on; undefined or null removes one. */
  async setEnvVars(vars) {
    const given = {};
    for (const name of new SafeArrayIterator(ObjectKeys(vars))) given[name] = vars[name] === undefined || vars[name] === null ? null : String(vars[name]);
    await this.#target.json("PUT", "/env", { vars: given });
  }

  async exposePort(port, options = {}) {
    const { url, name, path, host } = await this.#target.json("PUT", `/ports/${segment(port)}`, { name: options.name });
    return { url, port: Number(port), name, path, host };
  }
  async unexposePort(port) {
    await this.#target.json("DELETE", `/ports/${segment(port)}`);
  }
  async getExposedPorts() {
    const { ports } = await this.#target.json("GET", "/ports");
    return ArrayPrototypeMap(ports, ({ port, url, name }) => ({ port, url, name }));
  }

  /** The workspace as a tar, streamed. Everything inside stands still until it was read. */
  async snapshot() {
    return (await this.#target.fetch("GET", "/snapshot")).body;
  }
  /** Makes the workspace what a tar (a stream or bytes) holds, or changes nothing. */
  async restore(archive) {
    await this.#target.fetch("POST", "/restore", { headers: { "content-type": "application/x-tar" }, body: archive });
  }
  async usage() {
    return await this.#target.json("GET", "/usage");
  }
  /** State, remaining life, ports and usage; null if there is no sandbox. */
  async info() {
    try {
      return await this.#target.json("GET", "");
    } catch (error) {
      if (error.code === "SANDBOX_NOT_FOUND") return null;
      throw error;
    }
  }
  /** Ends it with everything in it. None: nothing to do. */
  async destroy() {
    try {
      await this.#target.json("DELETE", "");
    } catch (error) {
      if (error.code !== "SANDBOX_NOT_FOUND") throw error;
    }
  }
}

function bytesOf(base64) {
  const { atob } = host.load("ext:deno_web/05_base64.js");
  const text = atob(`${base64}`);
  const bytes = new primordials.Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = primordials.StringPrototypeCharCodeAt(text, i);
  return bytes;
}
function base64Of(bytes) {
  const { btoa } = host.load("ext:deno_web/05_base64.js");
  const parts = [];
  for (let i = 0; i < bytes.length; i++) ArrayPrototypePush(parts, primordials.StringFromCharCode(bytes[i]));
  return btoa(ArrayPrototypeJoin(parts, ""));
}

/** All sandboxes of the tenant. */
class Sandboxes {
  #capability;
  constructor(capability) {
    this.#capability = capability;
  }
  /** The sandbox of a user; it is made when it is first used. */
  get(user) {
    if (typeof user !== "string" || user === "") throw new TypeError("A sandbox is named by its user's id, a string.");
    return new Sandbox(this.#capability, user);
  }
  /** What there is, without making any. */
  async list() {
    return (await new Target(this.#capability, "").json("GET", "")).sandboxes;
  }
  parseSSEStream(stream, signal = undefined) {
    return parseSSEStream(stream, signal);
  }
  /** The API itself. */
  fetch(input, init = undefined) {
    return host.fetchApi.callFetch(this.#capability, input, init);
  }
  static capabilityOf(value) {
    return #capability in value ? value.#capability : undefined;
  }
}
// Guests have instances, and through them the class: what can be asked of any object is ours alone.
const { capabilityOf } = Sandboxes;
delete Sandboxes.capabilityOf;

return { makeSandboxes: (capability) => new Sandboxes(capability), capabilityOf };
})();
