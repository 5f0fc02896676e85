// Shows: what a FormData body becomes, and that it reads back as it was.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const form = new FormData();
  form.append("text", "a\r\nb");
  form.append("quoted \"name\"", "v");
  form.append("file", new File(["content"], "name.txt", { type: "text/plain" }));
  form.append("blob", new Blob(["blob"]));
  const response = new Response(form);
  const type = response.headers.get("content-type");
  await show("type", type.replace(/boundary=.*/, "boundary=…"));
  const boundary = /boundary="?([^";]+)/.exec(type)[1];
  const copy = await response.clone().text();
  await show("parts", copy.split(`--${boundary}`).length);
  const back = await response.formData();
  const list = [];
  for (const [name, value] of back) {
    list.push(typeof value === "string" ? [name, value] : [name, value.name, value.type, await value.text()]);
  }
  await show("read back", list);
});
