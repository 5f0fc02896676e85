// Shows: how a failing handler reaches the client: the status is compared, the body is each server's own.
// > GET /throw
// > GET /reject
// > GET /later
// > GET /string
// > GET /ok
export default {
  async fetch(request) {
    switch (new URL(request.url).pathname) {
      case "/throw": throw new Error("thrown");
      case "/reject": return Promise.reject(new TypeError("rejected"));
      case "/later": await new Promise((resolve) => setTimeout(resolve, 1)); throw new RangeError("late");
      case "/string": throw "a string";
      default: return new Response("still here");
    }
  },
};
