// Shows: module state lives from one request to the next.
// > GET /
// > GET /
// > GET /
let count = 0;
export default { fetch: () => new Response(String(++count)) };
