// Shows: header values beyond ASCII arrive as text and leave as UTF-8.
// > GET /
// + x-name: Zoë – €
// + user-agent: test/1
export default {
  fetch(request) {
    const name = request.headers.get("x-name");
    return new Response(JSON.stringify([name, name.length]), {
      headers: { "x-back": name, "content-type": "application/json", "x-made": "\u00e9\u20ac\u{1f600}" },
    });
  },
};
