// `node:module`: `createRequire` for modules of the runtime; an isolate has no files to require.
(function () {
"use strict";
const { core, primordials } = __bootstrap;
const { Error, ObjectPrototypeIsPrototypeOf, StringPrototypeSlice, StringPrototypeStartsWith } = primordials;
const modules = () => core.loadExtScript("ext:atoll/node/modules.js");
const errors = () => core.loadExtScript("ext:deno_node/internal/errors.ts");

function isPlace(path) {
  if (typeof path === "string") return StringPrototypeStartsWith(path, "/") || StringPrototypeStartsWith(path, "file:");
  const { URL } = core.loadExtScript("ext:deno_web/00_url.js");
  return ObjectPrototypeIsPrototypeOf(URL.prototype, path) && path.protocol === "file:";
}
function createRequire(path) {
  if (!isPlace(path)) {
    throw new (errors().ERR_INVALID_ARG_VALUE)("path", path,
      "The argument must be a file URL object, a file URL string, or an absolute path string.");
  }
  return (specifier) => {
    core.loadExtScript("ext:deno_node/internal/validators.mjs").validateString(specifier, "id");
    const found = modules().load(specifier);
    if (found === undefined) throw new Error(`No such module "${specifier}".`);
    return found.default;
  };
}

const builtinModules = modules().names();
function isBuiltin(name) {
  if (typeof name !== "string") return false;
  return modules().has(StringPrototypeStartsWith(name, "node:") ? StringPrototypeSlice(name, 5) : name);
}

function absent(name) {
  const method = {
    [name]() {
      throw new (errors().ERR_METHOD_NOT_IMPLEMENTED)(`module.${name}`);
    },
  };
  return method[name];
}
function Module() {
  throw new (errors().ERR_METHOD_NOT_IMPLEMENTED)("module.Module");
}
for (const name of [
  "enableCompileCache", "findPackageJSON", "findSourceMap", "register", "registerHooks", "runMain",
  "stripTypeScriptTypes", "wrap",
]) {
  Module[name] = absent(name);
}
Module.Module = Module;
Module.builtinModules = builtinModules;
Module.createRequire = createRequire;
Module.isBuiltin = isBuiltin;
Module.syncBuiltinESMExports = function syncBuiltinESMExports() {};
Module.globalPaths = [];
return Module;
})();
