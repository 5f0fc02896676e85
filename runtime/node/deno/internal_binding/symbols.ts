// Copyright 2018-2026 the Deno authors. MIT license.
// Copyright Joyent, Inc. and other Node contributors.
(function() {
  const { primordials } = __bootstrap;
  const { Symbol } = primordials;
  const asyncIdSymbol = Symbol("asyncIdSymbol");
  const ownerSymbol = Symbol("ownerSymbol");
  return {
    asyncIdSymbol,
    ownerSymbol
  };
})();
