/** Tests durations, sizes and rates as an operator writes them. */
import fc from "fast-check";
import t from "tap";
import { MigrationFault } from "../../shared/fault.ts";
import { parseByteRate, parseByteSize, parseDuration } from "../../shared/quantities.ts";

t.test("durations are read as milliseconds", async (t) => {
  const cases: [string, number][] = [
    ["300ms", 300],
    ["2s", 2000],
    ["1.5s", 1500],
    ["10m", 600_000],
    ["1h30m", 5_400_000],
    ["1m500ms", 60_500],
    ["1d", 86_400_000],
    ["0", 0],
    ["0s", 0],
    [" 5s ", 5000],
  ];
  for (const [text, ms] of cases) t.equal(parseDuration(text), ms, text);
});

t.test("sizes are read as bytes", async (t) => {
  const cases: [string, number][] = [
    ["256MiB", 268_435_456],
    ["1GB", 1e9],
    ["1.5KiB", 1536],
    ["4096B", 4096],
    ["64 kB", 64_000],
    ["64KB", 64_000],
    ["0", 0],
  ];
  for (const [text, bytes] of cases) t.equal(parseByteSize(text), bytes, text);
});

t.test("rates are read as bytes per second, bits divided by eight", async (t) => {
  const cases: [string, number][] = [
    ["1Gbit", 125e6],
    ["1Gbit/s", 125e6],
    ["10Mbit/s", 1.25e6],
    ["2.5Gbit", 312.5e6],
    ["100MB/s", 1e8],
    ["64MiB/s", 67_108_864],
    ["800kbit", 1e5],
    ["0", 0],
  ];
  for (const [text, rate] of cases) t.equal(parseByteRate(text), rate, text);
});

t.test("a text without a unit, with an ambiguous one or in a wrong order is refused with examples", async (t) => {
  const refuses = (parse: (text: string) => number, text: string, example: RegExp): void => {
    const fault = t.throws(() => parse(text), { code: "invalid-argument" }, text);
    t.type(fault, MigrationFault);
    t.match((fault as MigrationFault).message, JSON.stringify(text));
    t.match((fault as MigrationFault).advice, example);
  };
  for (const text of ["", "300", "ms", "-1s", "1 s", "30m1h", "1s1s", "1e3s", "0.1ms", "99999999999999d"])
    refuses(parseDuration, text, /"300ms"/);
  for (const text of ["", "256", "1Mb", "1mb", "1MiB/s", "-1B", "0.1B", "9999999TiB"])
    refuses(parseByteSize, text, /"256MiB"/);
  for (const text of ["", "1000", "1Gb", "1Gb/s", "1GB", "1bit", "1Gbit/s/s", "MB/s"])
    refuses(parseByteRate, text, /"1Gbit"/);
});

t.test("every whole number is read as so many of its unit", async () => {
  const reads = (parse: (text: string) => number, units: Readonly<Record<string, number>>): void =>
    fc.assert(
      fc.property(fc.constantFrom(...Object.entries(units)), fc.maxSafeNat(), ([name, size], value) => {
        const count = Math.floor(value / size);
        return parse(`${count}${name}`) === count * size;
      }),
    );
  reads(parseDuration, { d: 86_400_000, h: 3_600_000, m: 60_000, s: 1000, ms: 1 });
  reads(parseByteSize, { GiB: 2 ** 30, GB: 1e9, MiB: 2 ** 20, MB: 1e6, KiB: 1024, kB: 1000, B: 1 });
  reads(parseByteRate, { Gbit: 125e6, Mbit: 125e3, kbit: 125, "MiB/s": 2 ** 20, "MB/s": 1e6, "B/s": 1 });
});

t.test("a text is refused, or read as a number from 0 on", async () => {
  const text = fc.oneof(fc.string(), fc.stringMatching(/^[0-9.]{0,20}(ms|s|m|h|d|B|KiB|GB|Gbit|MB\/s|bit\/s)?$/));
  for (const parse of [parseDuration, parseByteSize, parseByteRate])
    fc.assert(
      fc.property(text, (given) => {
        try {
          const value = parse(given);
          return Number.isSafeInteger(value) && value >= 0;
        } catch (thrown) {
          return thrown instanceof MigrationFault && thrown.code === "invalid-argument";
        }
      }),
    );
});
