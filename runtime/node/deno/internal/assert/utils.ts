// Copyright 2018-2026 the Deno authors. MIT license.
// Copyright Node.js contributors. All rights reserved. MIT License.
(function() {
  const { core, primordials } = __bootstrap;
  const { AssertionError } = core.loadExtScript(
    "ext:deno_node/internal/assert/assertion_error.js"
  );
  const { isError } = core.loadExtScript("ext:deno_node/internal/util.mjs");
  const {
    ERR_AMBIGUOUS_ARGUMENT,
    ERR_INVALID_ARG_TYPE,
    isErrorStackTraceLimitWritable
  } = core.loadExtScript(
    "ext:deno_node/internal/errors.ts"
  );
  const { format } = core.loadExtScript(
    "ext:deno_node/internal/util/inspect.mjs"
  );
  const {
    getErrorSourceExpression
  } = core.loadExtScript(
    "ext:deno_node/internal/errors/error_source.ts"
  );
  const {
    ArrayPrototypeSlice,
    Error,
    ErrorCaptureStackTrace,
    ErrorPrototypeToString,
    SafeArrayIterator,
    SafeRegExp,
    StringPrototypeCharCodeAt,
    StringPrototypeReplace
  } = primordials;
  const escapeSequencesRegExp = new SafeRegExp(/[\x00-\x08\x0b\x0c\x0e-\x1f]/g);
  const meta = [
    "\\u0000",
    "\\u0001",
    "\\u0002",
    "\\u0003",
    "\\u0004",
    "\\u0005",
    "\\u0006",
    "\\u0007",
    "\\b",
    "",
    "",
    "\\u000b",
    "\\f",
    "",
    "\\u000e",
    "\\u000f",
    "\\u0010",
    "\\u0011",
    "\\u0012",
    "\\u0013",
    "\\u0014",
    "\\u0015",
    "\\u0016",
    "\\u0017",
    "\\u0018",
    "\\u0019",
    "\\u001a",
    "\\u001b",
    "\\u001c",
    "\\u001d",
    "\\u001e",
    "\\u001f"
  ];
  const escapeFn = (str) => meta[StringPrototypeCharCodeAt(str, 0)];
  function getErrMessage(fn) {
    const tmpLimit = Error.stackTraceLimit;
    const errorStackTraceLimitIsWritable = isErrorStackTraceLimitWritable();
    if (errorStackTraceLimitIsWritable) Error.stackTraceLimit = 1;
    const err = {};
    ErrorCaptureStackTrace(err, fn);
    if (errorStackTraceLimitIsWritable) Error.stackTraceLimit = tmpLimit;
    let source = getErrorSourceExpression(err);
    if (source) {
      source = StringPrototypeReplace(source, escapeSequencesRegExp, escapeFn);
      return `The expression evaluated to a falsy value:

  ${source}
`;
    }
  }
  function innerFail(obj) {
    const { message } = obj;
    let resolved;
    if (message.length === 0) {
      resolved = void 0;
    } else if (typeof message[0] === "string") {
      resolved = message.length > 1 ? format(...new SafeArrayIterator(message)) : message[0];
    } else if (isError(message[0])) {
      if (message.length > 1) {
        throw new ERR_AMBIGUOUS_ARGUMENT(
          "message",
          `The error message was passed as error object "${ErrorPrototypeToString(message[0])}" has trailing arguments that would be ignored.`
        );
      }
      throw message[0];
    } else if (typeof message[0] === "function") {
      if (message.length > 1) {
        throw new ERR_AMBIGUOUS_ARGUMENT(
          "message",
          `The error message with function "${message[0].name || "anonymous"}" has trailing arguments that would be ignored.`
        );
      }
      try {
        const result = message[0](obj.actual, obj.expected);
        resolved = typeof result === "string" ? result : void 0;
      } catch {
        resolved = void 0;
      }
    } else {
      throw new ERR_INVALID_ARG_TYPE(
        "message",
        ["string", "function"],
        message[0]
      );
    }
    const error = new AssertionError({
      actual: obj.actual,
      expected: obj.expected,
      message: resolved,
      operator: obj.operator,
      stackStartFn: obj.stackStartFn,
      diff: obj.diff
    });
    if (obj.generatedMessage !== void 0) {
      error.generatedMessage = obj.generatedMessage;
    }
    throw error;
  }
  function innerOk(fn, ...args) {
    if (!args[0]) {
      let generatedMessage = false;
      let messageArgs;
      if (args.length === 0) {
        generatedMessage = true;
        messageArgs = ["No value argument passed to `assert.ok()`"];
      } else if (args.length === 1 || args[1] == null) {
        generatedMessage = true;
        const source = getErrMessage(fn);
        messageArgs = source === void 0 ? [] : [source];
      } else {
        messageArgs = ArrayPrototypeSlice(args, 1);
      }
      innerFail({
        actual: args[0],
        expected: true,
        message: messageArgs,
        operator: "==",
        stackStartFn: fn,
        generatedMessage
      });
    }
  }
  return {
    innerFail,
    innerOk
  };
})();
