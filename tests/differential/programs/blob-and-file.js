// Shows: Blob and File: parts, slices, types, streams.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const blob = new Blob(["ab", new Uint8Array([0x63]), new Blob(["de"])], { type: "Text/Plain" });
  await show("size and type", [blob.size, blob.type]);
  await show("text", blob.text());
  await show("arrayBuffer", blob.arrayBuffer());
  await show("slice", blob.slice(1, 3).text());
  await show("negative slice", blob.slice(-2).text());
  await show("slice type", blob.slice(0, 1, "x/y").type);
  await show("slice out of range", blob.slice(10, 20).size);
  await show("bad type", new Blob([], { type: "\u00e9" }).type);
  await show("stream", new Response(blob.stream()).text());
  await show("numbers", new Blob([1, null]).text());
  await show("not iterable", () => new Blob("abc"));
  const file = new File(["x"], "dir/name.txt", { type: "t/x", lastModified: 5 });
  await show("file", [file.name, file.type, file.lastModified, file.size, file instanceof Blob]);
  await show("file needs a name", () => new File(["x"]));
  await show("tags", [String(blob), String(file)]);
  await show("bytes", blob.bytes());
});
