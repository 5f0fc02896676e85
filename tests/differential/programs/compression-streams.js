// Shows: compression and decompression streams: round trips, fixed inputs, broken inputs.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const through = (bytes, stream) => new Response(new Blob([bytes]).stream().pipeThrough(stream)).bytes();
  const data = new TextEncoder().encode("abc".repeat(1000));
  for (const format of ["gzip", "deflate", "deflate-raw"]) {
    const packed = await through(data, new CompressionStream(format));
    await show(`${format} is smaller`, packed.length < data.length);
    const back = await through(packed, new DecompressionStream(format));
    await show(`${format} round trip`, new TextDecoder().decode(back) === "abc".repeat(1000));
    await show(`${format} cut`, () => through(packed.slice(0, packed.length >> 1), new DecompressionStream(format)));
  }
  const gzip = Uint8Array.from(atob("H4sIAAAAAAAAA8tIzcnJBwCGphA2BQAAAA=="), (c) => c.charCodeAt(0));
  await show("fixed gzip", through(gzip, new DecompressionStream("gzip")));
  await show("broken", () => through(new Uint8Array([1, 2, 3, 4]), new DecompressionStream("gzip")));
  await show("unknown format", () => new CompressionStream("zip"));
});
