// The smallest worker: what warm requests cost.
export default { fetch: () => new Response("hello world") };
