// The service behind the oracle's KV binding, as far as the programs need it: workerd has the object in `env` and none of the
// store. Its texts are those that the documentation of Workers KV and its simulator in npm's miniflare give.
const entries = new Map();
const refuse = (status, statusText) => new Response(statusText, { status, statusText });
const now = () => Math.floor(Date.now() / 1000);

async function one(request, url) {
  const key = decodeURIComponent(url.pathname.slice(1));
  const { searchParams: query } = url;
  if (request.method === "DELETE") {
    entries.delete(key);
    return new Response();
  }
  if (request.method === "GET") {
    const ttl = query.get("cache_ttl");
    if (ttl !== null && +ttl < 30) return refuse(400, `Invalid cache_ttl of ${ttl}. Cache TTL must be at least 30.`);
    const entry = entries.get(key);
    if (entry === undefined) return refuse(404, "Not Found");
    const headers = new Headers();
    if (entry.metadata !== null) headers.set("CF-KV-Metadata", entry.metadata);
    return new Response(entry.value, { headers });
  }
  // Refusing without reading would leave the caller waiting for its body to go.
  const value = await request.arrayBuffer();
  const ttl = query.get("expiration_ttl"), at = query.get("expiration");
  let expiration;
  if (ttl !== null) {
    if (!(+ttl > 0)) return refuse(400, `Invalid expiration_ttl of ${ttl}. Please specify integer greater than 0.`);
    if (+ttl < 60) return refuse(400, `Invalid expiration_ttl of ${ttl}. Expiration TTL must be at least 60.`);
    expiration = now() + +ttl;
  } else if (at !== null) {
    if (!(+at > now())) {
      return refuse(400, `Invalid expiration of ${at}. Please specify integer greater than the current number of seconds since the UNIX epoch.`);
    }
    if (+at < now() + 60) {
      return refuse(400, `Invalid expiration of ${at}. Expiration times must be at least 60 seconds in the future.`);
    }
    expiration = +at;
  }
  const metadata = request.headers.get("CF-KV-Metadata");
  const length = metadata === null ? 0 : new TextEncoder().encode(metadata).length;
  if (length > 1024) return refuse(413, `Metadata length of ${length} exceeds limit of 1024.`);
  if (value.byteLength > 26214400) return refuse(413, `Value length of ${value.byteLength} exceeds limit of 26214400.`);
  entries.set(key, { value, metadata, expiration });
  return new Response();
}
async function bulk(request) {
  const { keys, type, withMetadata } = await request.json();
  if (type !== undefined && type !== "text" && type !== "json") {
    return refuse(400, `"${type}" is not a valid type. Use "json" or "text"`);
  }
  if (keys.length > 100) return refuse(400, "You can request a maximum of 100 keys");
  if (keys.length < 1) return refuse(400, "You must request a minimum of 1 key");
  const found = {};
  for (const key of keys) {
    const entry = entries.get(key);
    found[key] = null;
    if (entry === undefined) continue;
    let value = new TextDecoder().decode(entry.value);
    try {
      if (type === "json") value = JSON.parse(value);
    } catch {
      return refuse(400, "At least one of the requested keys corresponds to a non-json value");
    }
    found[key] = withMetadata ? { value, metadata: JSON.parse(entry.metadata) } : value;
  }
  return Response.json(found);
}
function list({ searchParams: query }) {
  const limit = +(query.get("key_count_limit") ?? 1000);
  if (limit > 1000) return refuse(400, `Invalid key_count_limit of ${limit}. Please specify an integer less than 1000.`);
  const prefix = query.get("prefix") ?? "", after = query.get("cursor") ? atob(query.get("cursor")) : "";
  const names = [...entries.keys()].filter((name) => name.startsWith(prefix) && name > after).sort();
  const keys = names.slice(0, limit).map((name) => ({
    name, expiration: entries.get(name).expiration, metadata: entries.get(name).metadata ?? undefined,
  }));
  if (names.length <= limit) return Response.json({ keys, list_complete: true });
  return Response.json({ keys, list_complete: false, cursor: btoa(names[limit - 1]) });
}
export default {
  fetch(request) {
    const url = new URL(request.url);
    if (url.pathname === "/bulk/get") return bulk(request);
    return url.pathname === "/" ? list(url) : one(request, url);
  },
};
