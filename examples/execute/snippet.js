// A code-mode snippet: the body of an async function with `input` and `env` in scope.
// It has no network and no files; what it returns comes back as JSON, what it logs comes back beside it.
const words = input.text.toLowerCase().match(/\p{L}+/gu) ?? [];
const counts = new Map();
for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);

const top = [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0])).slice(0, env.TOP);
console.log(`${words.length} words, ${counts.size} different`);

const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(input.text));
const sha256 = [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
return { words: words.length, top: Object.fromEntries(top), sha256 };
