import primes from "./primes.wasm";

// Importing a .wasm file gives a compiled WebAssembly.Module; instances are cheap.
const { count_primes: countPrimes, max } = new WebAssembly.Instance(primes).exports;

export default {
  fetch(request) {
    const limit = Number(new URL(request.url).searchParams.get("n") ?? 1000);
    if (!Number.isInteger(limit) || limit < 0 || limit > max.value) {
      return Response.json({ error: `n must be a whole number from 0 to ${max.value}` }, { status: 400 });
    }
    return Response.json({ n: limit, primes: countPrimes(limit) });
  },
};
