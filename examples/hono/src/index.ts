import { Hono } from "hono";
import { etag } from "hono/etag";
import { html } from "hono/html";
import { HTTPException } from "hono/http-exception";

interface Note {
  id: number;
  text: string;
}

// Kept in this isolate's memory only: it is gone when the isolate is.
const notes = new Map<number, Note>();
let nextId = 1;

const app = new Hono();

app.get("/", (c) => c.text("hono on Atoll: try /notes\n"));

// `html` escapes what it interpolates.
app.get("/greet/:name", etag(), (c) => c.html(html`<h1>Hello, ${c.req.param("name")}!</h1>`));

app.get("/notes", (c) => c.json([...notes.values()]));

app.post("/notes", async (c) => {
  const { text } = await c.req.json<{ text?: unknown }>();
  if (typeof text !== "string" || text.length === 0) {
    throw new HTTPException(400, { message: "text must be a non-empty string" });
  }
  const note: Note = { id: nextId++, text };
  notes.set(note.id, note);
  return c.json(note, 201);
});

app.get("/notes/:id{[0-9]+}", (c) => {
  const note = notes.get(Number(c.req.param("id")));
  return note ? c.json(note) : c.notFound();
});

app.delete("/notes/:id{[0-9]+}", (c) => {
  return notes.delete(Number(c.req.param("id"))) ? c.body(null, 204) : c.notFound();
});

app.notFound((c) => c.json({ error: "not found" }, 404));
app.onError((error, c) => {
  const status = error instanceof HTTPException ? error.status : 500;
  return c.json({ error: error.message }, status);
});

export default app;
