// `node:util`: Deno's, with what Node.js 22 still has and newer versions dropped: old packages ask for it.
(function () {
"use strict";
const { core, primordials } = __bootstrap;
const { ArrayPrototypeSlice, ObjectAssign } = primordials;
const util = core.loadExtScript("ext:deno_node/util.ts");
const types = core.loadExtScript("ext:deno_node/internal/util/types.ts");
const { isError } = core.loadExtScript("ext:deno_node/internal/util.mjs");
const { Buffer } = core.loadExtScript("ext:deno_node/internal/buffer.mjs");
const errors = core.loadExtScript("ext:deno_node/internal/errors.ts");

const { queryObjects: _engineInternals, default: _default, ...names } = util;
return ObjectAssign({}, names, {
  _errnoException: errors.errnoException,
  _exceptionWithHostPort: errors.exceptionWithHostPort,
  getCallSite: (...args) => util.getCallSites(...new primordials.SafeArrayIterator(ArrayPrototypeSlice(args))),
  isBoolean: (value) => typeof value === "boolean",
  isBuffer: Buffer.isBuffer,
  isDate: types.isDate,
  isError,
  isFunction: (value) => typeof value === "function",
  isNull: (value) => value === null,
  isNullOrUndefined: (value) => value === null || value === undefined,
  isNumber: (value) => typeof value === "number",
  isObject: (value) => value !== null && typeof value === "object",
  isPrimitive: (value) => value === null || (typeof value !== "object" && typeof value !== "function"),
  isRegExp: types.isRegExp,
  isString: (value) => typeof value === "string",
  isSymbol: (value) => typeof value === "symbol",
  isUndefined: (value) => value === undefined,
});
})();
