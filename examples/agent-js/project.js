/** A project with a dependency of its own and tests, one of which wants the number that the agent found. */
export const files = (expected) => ({
  "package.json": JSON.stringify({
    name: "project",
    version: "1.0.0",
    type: "module",
    dependencies: { shout: "file:shout-1.0.0.tgz" },
  }),
  "shout/package.json": JSON.stringify({ name: "shout", version: "1.0.0", type: "module", exports: "./index.js" }),
  "shout/index.js": "export const shout = (text) => text.toUpperCase() + '!';\n",
  "fibonacci.js": `export function fibonacci(n) {
  let [a, b] = [0, 1];
  for (let i = 0; i < n; i++) [a, b] = [b, a + b];
  return a;
}
`,
  "project.test.js": `import assert from "node:assert/strict";
import test from "node:test";
import { shout } from "shout";
import { fibonacci } from "./fibonacci.js";

test("the package is installed", () => assert.equal(shout("hi"), "HI!"));
test("both worlds agree", () => assert.equal(fibonacci(30), ${expected}));
`,
});
