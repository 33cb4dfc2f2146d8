/**
 * Durations, sizes and rates as an operator writes them: "1h30m", "256MiB", "1Gbit". A number always has its unit, so
 * that an operator need not remember whether a rate counts bits or bytes. Only zero may stand without a unit.
 *
 * Figures for people are written by cli/figures.ts.
 */
import { MigrationFault } from "./fault.ts";

type Unit = readonly [name: string, size: number];

const MINUTE_MS = 60_000;
/** The units of a duration, largest first: a duration is written in this order. */
const DURATIONS: readonly Unit[] = [
  ["d", 24 * 60 * MINUTE_MS],
  ["h", 60 * MINUTE_MS],
  ["m", MINUTE_MS],
  ["s", 1000],
  ["ms", 1],
];
/** The units of a size. */
const SIZES: readonly Unit[] = [
  ["TiB", 2 ** 40],
  ["GiB", 2 ** 30],
  ["MiB", 2 ** 20],
  ["KiB", 2 ** 10],
  ["TB", 1e12],
  ["GB", 1e9],
  ["MB", 1e6],
  ["kB", 1e3],
  ["B", 1],
];
/**
 * The units of a rate, in bytes per second. The bit is written out as "bit", since "Mb" is easily read as megabits or
 * as megabytes.
 */
const RATES: readonly Unit[] = [
  ["Tbit", 125e9],
  ["Gbit", 125e6],
  ["Mbit", 125e3],
  ["kbit", 125],
  ...SIZES.map(([name, size]): Unit => [`${name}/s`, size]),
];

const DURATION_FORMS = `"300ms", "2s", "10m", "1h30m"`;
const SIZE_FORMS = `"256MiB", "1GB", "4096B"`;
const RATE_FORMS = `"1Gbit", "10Mbit/s", "100MB/s", "64MiB/s"`;

const NUMBER = /^\d+(?:\.\d+)?/;

/** Reads a duration. @returns whole milliseconds @throws MigrationFault `invalid-argument` */
export function parseDuration(text: string): number {
  const invalid = (): MigrationFault => refusal(text, "a duration", DURATION_FORMS);
  let rest = text.trim();
  if (rest === "0") return 0;
  let total = 0;
  let previous = -1;
  while (rest !== "" || previous < 0) {
    const part = /^(\d+(?:\.\d+)?)(ms|[dhms])/.exec(rest);
    const rank = DURATIONS.findIndex(([name]) => name === part?.[2]);
    const unit = DURATIONS[rank];
    if (part === null || unit === undefined || rank <= previous) throw invalid();
    total += Number(part[1]) * unit[1];
    previous = rank;
    rest = rest.slice(part[0].length);
  }
  return whole(total, invalid);
}

/** Reads a size. @returns bytes @throws MigrationFault `invalid-argument` */
export const parseByteSize = (text: string): number => parseOne(text, SIZES, "a size", SIZE_FORMS);

/** Reads a rate. @returns bytes per second @throws MigrationFault `invalid-argument` */
export const parseByteRate = (text: string): number => {
  const bits = /^(.*(?:bit))\/s$/.exec(text.trim());
  return parseOne(bits?.[1] ?? text, RATES, "a rate", RATE_FORMS, text);
};

function parseOne(text: string, units: readonly Unit[], noun: string, forms: string, given = text): number {
  const invalid = (): MigrationFault => refusal(given, noun, forms);
  const trimmed = text.trim();
  if (trimmed === "0") return 0;
  const digits = NUMBER.exec(trimmed)?.[0];
  if (digits === undefined) throw invalid();
  const name = trimmed.slice(digits.length).trimStart();
  const unit = units.find(([one]) => one === name || (one.startsWith("k") && `K${one.slice(1)}` === name));
  if (unit === undefined) throw invalid();
  return whole(Number(digits) * unit[1], invalid);
}

/**
 * Rounds to a whole number. Throws the fault of `invalid` where a value above 0 would become 0, or where the result is
 * too large to be exact.
 */
function whole(value: number, invalid: () => MigrationFault): number {
  const rounded = Math.round(value);
  if (!Number.isSafeInteger(rounded) || (rounded === 0 && value > 0)) throw invalid();
  return rounded;
}

const refusal = (text: string, noun: string, forms: string): MigrationFault =>
  new MigrationFault("invalid-argument", `${JSON.stringify(text)} is not ${noun}`, {
    advice: `Write a number and its unit, for example ${forms}`,
  });
