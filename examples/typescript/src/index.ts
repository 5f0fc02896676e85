import { convert, type Unit } from "./convert.ts";

interface Env {
  UNIT: Unit;
}

interface Reading {
  value: number;
  unit: Unit;
}

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    const query = new URL(request.url).searchParams;
    const value = Number(query.get("value") ?? "20");
    if (!Number.isFinite(value)) {
      return Response.json({ error: "value must be a number" }, { status: 400 });
    }
    const from = (query.get("unit") ?? env.UNIT) as Unit;
    const readings: Reading[] = (["celsius", "fahrenheit", "kelvin"] as const).map((unit) => ({
      value: convert(value, from, unit),
      unit,
    }));
    return Response.json({ from: { value, unit: from } satisfies Reading, readings });
  },
};
