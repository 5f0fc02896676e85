// Shows: crypto.subtle.digest for every algorithm both runtimes know.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const data = new TextEncoder().encode("atoll");
  for (const name of ["SHA-1", "SHA-256", "SHA-384", "SHA-512"]) await show(name, crypto.subtle.digest(name, data));
  await show("lower case", crypto.subtle.digest("sha-256", data));
  await show("object", crypto.subtle.digest({ name: "SHA-256" }, data));
  await show("empty", crypto.subtle.digest("SHA-256", new Uint8Array()));
  await show("unknown", () => crypto.subtle.digest("SHA-3000", data));
  await show("not bytes", () => crypto.subtle.digest("SHA-256", "text"));
});
