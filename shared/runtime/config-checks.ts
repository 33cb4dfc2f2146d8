/** Checks the value of a setting whose text could be read. The fault names the key and says what its value may be. */
import { MigrationFault } from "../fault.ts";

/** The unit of a value that was read from a setting; empty for a number that has none. */
type Unit = "" | "ms" | "bytes";

/** @returns the one of `words` that equals the text; @throws MigrationFault `configuration` when none does */
export function oneOf<Word extends string>(key: string, text: string, words: readonly Word[]): Word {
  const found = words.find((word) => word === text);
  if (found !== undefined) return found;
  throw invalid(key, `is ${JSON.stringify(text)}`, `It must be ${words.join(" or ")}`);
}

/** @returns the value; @throws MigrationFault `configuration` when it is less than `least` */
export const atLeast = (key: string, value: number, least: number, unit: Unit): number =>
  between(key, value, least, Number.MAX_VALUE, unit);

/**
 * Checks that a number is in a range.
 * @param most `Number.MAX_VALUE` stands for no upper limit
 * @returns the value
 * @throws MigrationFault `configuration` when it is not in [least, most]
 */
export function between(key: string, value: number, least: number, most: number, unit: Unit = ""): number {
  if (value >= least && value <= most) return value;
  const range = most === Number.MAX_VALUE ? `at least ${least}` : `from ${least} to ${most}`;
  const inUnit = unit === "" ? "" : ` ${unit}`;
  throw invalid(key, `is ${value}${inUnit}`, `It must be ${range}${inUnit}`);
}

/** Makes the fault of a setting. @param what says what is wrong, as the end of a sentence that begins with the key */
export const invalid = (key: string, what: string, advice: string): MigrationFault =>
  new MigrationFault("configuration", `${key} ${what}`, { advice });
