// Shows: the shape of random values: lengths, types, version bits, and that buffers are not left zero.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const bytes = new Uint8Array(32);
  await show("same object", crypto.getRandomValues(bytes) === bytes);
  await show("not zero", bytes.some((byte) => byte !== 0));
  await show("words", crypto.getRandomValues(new Uint32Array(4)).length);
  await show("big words", crypto.getRandomValues(new BigUint64Array(2)).length);
  await show("empty", crypto.getRandomValues(new Uint8Array(0)).length);
  await show("floats", () => crypto.getRandomValues(new Float32Array(1)));
  await show("too many", () => crypto.getRandomValues(new Uint8Array(65537)));
  await show("most", crypto.getRandomValues(new Uint8Array(65536)).length);
  const id = crypto.randomUUID();
  await show("uuid", /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(id));
  await show("distinct", crypto.randomUUID() !== id);
});
