// Shows: text, data and json modules, and nested folders with relative imports.
import { reporter } from "report.js";
import text from "./data/note.txt";
import bytes from "./data/raw.bin";
import json from "./data/config.json";
import { deep, up } from "./lib/deep/module.js";
import * as space from "./lib/shared.js";
import bare from "lib/bare.js";

export default reporter(async (show) => {
  await show("text", text);
  await show("data", bytes);
  await show("json", json);
  await show("deep", [deep, up]);
  await show("namespace", [Object.keys(space), space[Symbol.toStringTag]]);
  await show("bare", bare);
});
//# module data/note.txt text
A note with "quotes" and é.
//# module data/raw.bin data
AAEC/w==
//# module data/config.json json
{ "list": [1, 2, { "three": null }], "text": "é" }
//# module lib/deep/module.js js
import { shared } from "../shared.js";
export const deep = `deep ${shared}`;
export { shared as up } from "../shared.js";
//# module lib/shared.js js
export const shared = "shared";
export default class Shared {}
//# module lib/bare.js js
import { shared } from "./shared.js";
export default `bare ${shared}`;
