// Copyright 2018-2026 the Deno authors. MIT license.
// Copyright Joyent, Inc. and other Node contributors.
(function() {
  const { core, primordials } = __bootstrap;
  "use strict";
  const {
    ObjectDefineProperty,
    ObjectKeys,
    ReflectApply
  } = primordials;
  const internalUtil = core.loadExtScript("ext:deno_node/internal/util.mjs");
  const {
    promisify: { custom: customPromisify }
  } = internalUtil;
  const {
    promiseReturningOperators,
    streamReturningOperators
  } = core.loadExtScript("ext:deno_node/internal/streams/operators.js");
  const { default: compose } = core.loadExtScript("ext:deno_node/internal/streams/compose.js");
  const {
    getDefaultHighWaterMark,
    setDefaultHighWaterMark
  } = core.loadExtScript("ext:deno_node/internal/streams/state.js");
  const { pipeline } = core.loadExtScript("ext:deno_node/internal/streams/pipeline.js");
  const { destroyer } = core.loadExtScript(
    "ext:deno_node/internal/streams/destroy.js"
  );
  const { eos } = core.loadExtScript(
    "ext:deno_node/internal/streams/end-of-stream.js"
  );
  const { Buffer } = core.loadExtScript("ext:deno_node/internal/buffer.mjs");
  const promises = core.loadExtScript("node:stream/promises");
  const utils = core.loadExtScript("ext:deno_node/internal/streams/utils.js");
  const {
    isArrayBufferView,
    isUint8Array
  } = core.loadExtScript("ext:deno_node/internal/util/types.ts");
  const { Stream } = core.loadExtScript(
    "ext:deno_node/internal/streams/legacy.js"
  );
  const { default: Readable } = core.loadExtScript("node:_stream_readable");
  const { default: Writable } = core.loadExtScript("node:_stream_writable");
  const { default: Duplex } = core.loadExtScript("node:_stream_duplex");
  const { default: Transform } = core.loadExtScript("node:_stream_transform");
  const { default: PassThrough } = core.loadExtScript("node:_stream_passthrough");
  const { default: duplexPair } = core.loadExtScript("ext:deno_node/internal/streams/duplexpair.js");
  const { addAbortSignal } = core.loadExtScript(
    "ext:deno_node/internal/streams/add-abort-signal.js"
  );
  const { ERR_ILLEGAL_CONSTRUCTOR } = core.loadExtScript(
    "ext:deno_node/internal/errors.ts"
  );
  Stream.isDestroyed = utils.isDestroyed;
  Stream.isDisturbed = utils.isDisturbed;
  Stream.isErrored = utils.isErrored;
  Stream.isReadable = utils.isReadable;
  Stream.isWritable = utils.isWritable;
  Stream.Readable = Readable;
  const streamKeys = ObjectKeys(streamReturningOperators);
  for (let i = 0; i < streamKeys.length; i++) {
    let fn2 = function(...args) {
      if (new.target) {
        throw new ERR_ILLEGAL_CONSTRUCTOR();
      }
      return Stream.Readable.from(ReflectApply(op, this, args));
    };
    var fn = fn2;
    const key = streamKeys[i];
    const op = streamReturningOperators[key];
    ObjectDefineProperty(fn2, "name", { __proto__: null, value: op.name });
    ObjectDefineProperty(fn2, "length", { __proto__: null, value: op.length });
    ObjectDefineProperty(Stream.Readable.prototype, key, {
      __proto__: null,
      value: fn2,
      enumerable: false,
      configurable: true,
      writable: true
    });
  }
  const promiseKeys = ObjectKeys(promiseReturningOperators);
  for (let i = 0; i < promiseKeys.length; i++) {
    let fn2 = function(...args) {
      if (new.target) {
        throw new ERR_ILLEGAL_CONSTRUCTOR();
      }
      return ReflectApply(op, this, args);
    };
    var fn = fn2;
    const key = promiseKeys[i];
    const op = promiseReturningOperators[key];
    ObjectDefineProperty(fn2, "name", { __proto__: null, value: op.name });
    ObjectDefineProperty(fn2, "length", { __proto__: null, value: op.length });
    ObjectDefineProperty(Stream.Readable.prototype, key, {
      __proto__: null,
      value: fn2,
      enumerable: false,
      configurable: true,
      writable: true
    });
  }
  Stream.Writable = Writable;
  Stream.Duplex = Duplex;
  Stream.Transform = Transform;
  Stream.PassThrough = PassThrough;
  Stream.duplexPair = duplexPair;
  Stream.pipeline = pipeline;
  Stream.addAbortSignal = addAbortSignal;
  Stream.finished = eos;
  Stream.destroy = destroyer;
  Stream.compose = compose;
  Stream.setDefaultHighWaterMark = setDefaultHighWaterMark;
  Stream.getDefaultHighWaterMark = getDefaultHighWaterMark;
  ObjectDefineProperty(Stream, "promises", {
    __proto__: null,
    configurable: true,
    enumerable: true,
    get() {
      return promises;
    }
  });
  ObjectDefineProperty(pipeline, customPromisify, {
    __proto__: null,
    enumerable: true,
    get() {
      return promises.pipeline;
    }
  });
  ObjectDefineProperty(eos, customPromisify, {
    __proto__: null,
    enumerable: true,
    get() {
      return promises.finished;
    }
  });
  Stream.Stream = Stream;
  Stream._isArrayBufferView = isArrayBufferView;
  Stream._isUint8Array = isUint8Array;
  Stream._uint8ArrayToBuffer = function _uint8ArrayToBuffer2(chunk) {
    return Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  };
  const _isArrayBufferView = isArrayBufferView;
  const _isUint8Array = Stream._isUint8Array;
  const _uint8ArrayToBuffer = Stream._uint8ArrayToBuffer;
  const isDisturbed = Stream.isDisturbed;
  const isErrored = Stream.isErrored;
  const finished = eos;
  const isReadable = Stream.isReadable;
  const isWritable = Stream.isWritable;
  const isDestroyed = Stream.isDestroyed;
  return {
    default: Stream,
    _isArrayBufferView,
    _isUint8Array,
    _uint8ArrayToBuffer,
    isDisturbed,
    isErrored,
    finished,
    isReadable,
    isWritable,
    isDestroyed,
    addAbortSignal,
    compose,
    destroy: destroyer,
    Duplex,
    duplexPair,
    getDefaultHighWaterMark,
    PassThrough,
    pipeline,
    promises,
    Readable,
    setDefaultHighWaterMark,
    Stream,
    Transform,
    Writable
  };
})();
