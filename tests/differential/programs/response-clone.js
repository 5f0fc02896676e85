// Shows: cloning a response shares its bytes, keeps its head, and is refused once the body was used.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const original = new Response("hello", { status: 201, headers: { a: "1" } });
  const copy = original.clone();
  copy.headers.set("a", "2");
  await show("head of both", [original.status, copy.status, original.headers.get("a"), copy.headers.get("a")]);
  await show("copy", copy.text());
  await show("original", original.text());
  await show("clone after use", () => original.clone());
  const locked = new Response("x");
  locked.body.getReader();
  await show("clone while locked", () => locked.clone());
  const empty = new Response(null).clone();
  await show("empty clone", [empty.body, await empty.text()]);
  const streamed = new Response(new Blob(["abc"]).stream());
  const twin = streamed.clone();
  await show("stream clone", Promise.all([streamed.text(), twin.text()]));
});
