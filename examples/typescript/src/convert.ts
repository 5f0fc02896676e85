export type Unit = "celsius" | "fahrenheit" | "kelvin";

const toCelsius: Record<Unit, (value: number) => number> = {
  celsius: (value) => value,
  fahrenheit: (value) => ((value - 32) * 5) / 9,
  kelvin: (value) => value - 273.15,
};

const fromCelsius: Record<Unit, (value: number) => number> = {
  celsius: (value) => value,
  fahrenheit: (value) => (value * 9) / 5 + 32,
  kelvin: (value) => value + 273.15,
};

/** Converts a temperature, rounded to two decimals. */
export function convert(value: number, from: Unit, to: Unit): number {
  const celsius = (toCelsius[from] ?? toCelsius.celsius)(value);
  return Math.round(fromCelsius[to](celsius) * 100) / 100;
}
