/** Checks the value of a setting whose text could be read. The fault names the key and says what its value may be. */
import { MigrationFault } from "../fault.ts";

/** @returns the one of `words` that equals the text; @throws MigrationFault `configuration` when none does */
export function oneOf<Word extends string>(key: string, text: string, words: readonly Word[]): Word {
  const found = words.find((word) => word === text);
  if (found !== undefined) return found;
  throw invalid(key, `is ${JSON.stringify(text)}`, `It must be ${words.join(" or ")}`);
}

/** @returns the value; @throws MigrationFault `configuration` when it is less than `least` */
export const atLeast = (key: string, value: number, least: number): number =>
  between(key, value, least, Number.MAX_VALUE);

/**
 * Checks that a number is in a range.
 * @param most `Number.MAX_VALUE` stands for no upper limit
 * @returns the value
 * @throws MigrationFault `configuration` when it is not in [least, most]
 */
export function between(key: string, value: number, least: number, most: number): number {
  if (value >= least && value <= most) return value;
  const range = most === Number.MAX_VALUE ? `${least} or more` : `from ${least} to ${most}`;
  throw invalid(key, `is ${value}`, `It must be ${range}, in its smallest unit`);
}

/** Makes the fault of a setting. @param what says what is wrong, as the end of a sentence that begins with the key */
export const invalid = (key: string, what: string, advice: string): MigrationFault =>
  new MigrationFault("configuration", `${key} ${what}`, { advice });
