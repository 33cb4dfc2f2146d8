/** How the value of a setting is checked once it can be read: whoever wrote it learns the key and what it may be. */
import { MigrationFault } from "../fault.ts";

/** @throws MigrationFault `configuration`, as the other functions here */
export function oneOf<Word extends string>(key: string, text: string, words: readonly Word[]): Word {
  const found = words.find((word) => word === text);
  if (found !== undefined) return found;
  throw invalid(key, `is ${JSON.stringify(text)}`, `It must be ${words.join(" or ")}`);
}

export const atLeast = (key: string, value: number, least: number): number =>
  between(key, value, least, Number.MAX_VALUE);

export function between(key: string, value: number, least: number, most: number): number {
  if (value >= least && value <= most) return value;
  const range = most === Number.MAX_VALUE ? `${least} or more` : `from ${least} to ${most}`;
  throw invalid(key, `is ${value}`, `It must be ${range}, in its smallest unit`);
}

export const invalid = (key: string, what: string, advice: string): MigrationFault =>
  new MigrationFault("configuration", `${key} ${what}`, { advice });
