// Shows: FormData's own methods.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const form = new FormData();
  form.append("a", "1");
  form.append("a", 2);
  form.append("b", "3");
  await show("entries", [...form]);
  await show("get", [form.get("a"), form.get("zz")]);
  await show("getAll", form.getAll("a"));
  form.set("a", "new");
  await show("set", [...form.entries()]);
  form.delete("b");
  await show("has", [form.has("a"), form.has("b")]);
  await show("keys", [...form.keys()]);
  await show("values", [...form.values()]);
  form.set("f", new Blob(["x"], { type: "a/b" }), "given.bin");
  const file = form.get("f");
  await show("file", [file instanceof File, file.name, file.type, file.size]);
  await show("one argument", () => form.append("a"));
  await show("file name for text", () => form.append("a", "b", "c"));
});
