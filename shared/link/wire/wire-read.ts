/** Reads fields of what a peer sent, by name; what is not of its type is the peer's fault. */
import { MigrationFault } from "../../fault.ts";

export type WireObject = Readonly<Record<string, unknown>>;

export const object = (value: unknown, field: string): WireObject => {
  if (typeof value !== "object" || value === null) throw malformed(field, "is missing");
  return Object.fromEntries(Object.entries(value));
};

/** @throws MigrationFault `peer-invalid` for what is no list, and for a list of more than `most` entries */
const entriesOf = (value: unknown, field: string, most = Number.POSITIVE_INFINITY): readonly unknown[] => {
  if (!Array.isArray(value)) throw malformed(field, "is no list");
  if (value.length > most) throw malformed(field, `are ${value.length}, at most ${most}`);
  return value;
};

export const list = (value: unknown, field: string, most?: number): readonly WireObject[] =>
  entriesOf(value, field, most).map((one, index) => object(one, `${field}[${index}]`));

export const strings = (value: unknown, field: string, most?: number): readonly string[] =>
  entriesOf(value, field, most).map((one) => text(one, field));

export const numbers = (value: unknown, field: string, most?: number): readonly number[] =>
  entriesOf(value, field, most).map((one) => number(one, field));

export const text = (value: unknown, field: string): string => {
  if (typeof value !== "string") throw malformed(field, "is no text");
  return value;
};

/** Reads a text whose length is bounded, since it is logged with a migration or kept for as long as the agent lives. */
export const shortText = (value: unknown, field: string, charactersMax = 256): string => {
  const given = text(value, field);
  if (given.length > charactersMax) throw malformed(field, `has ${given.length} characters, at most ${charactersMax}`);
  return given;
};

export const number = (value: unknown, field: string): number => {
  if (typeof value !== "number" || !Number.isFinite(value)) throw malformed(field, "is no number");
  return value;
};

/** A whole number that JavaScript holds exactly, not negative. */
export const whole = (value: unknown, field: string): number => {
  const found = number(value, field);
  if (!Number.isSafeInteger(found) || found < 0) throw malformed(field, `is ${found}`);
  return found;
};

/**
 * A fault shows so much of a text that is wrong, characters: the fault is logged, and told to whoever sent the text.
 */
const SHOWN_CHARACTERS = 40;

/** The beginning of a text of somebody else's, for a fault. */
export const beginningOf = (given: string): string =>
  given.length > SHOWN_CHARACTERS ? `${given.slice(0, SHOWN_CHARACTERS)}…` : given;

/** One of the words that there are. */
export function word<W extends string>(value: unknown, words: readonly W[], field: string): W {
  const found = words.find((one) => one === value);
  if (found === undefined) throw malformed(field, `is ${beginningOf(text(value, field))}`);
  return found;
}

/** Of a list of words, those that this build knows, in the order of its own: a later one may say more. */
export function knownWords<W extends string>(value: unknown, words: readonly W[], field: string): readonly W[] {
  const given = new Set<string>(strings(value, field));
  return words.filter((one) => given.has(one));
}

export const flag = (value: unknown): boolean => value === true;

export const bytes = (value: unknown, field: string): Uint8Array => {
  if (!(value instanceof Uint8Array)) throw malformed(field, "are no bytes");
  return value;
};

/** The form of a code. A peer's code is shown to operators unchanged, so other text must not pass for a code. */
const CODE = /^[a-z0-9-]{1,64}$/;

/** Reads the code of a fault or of a refusal. @returns "unknown" for a text that does not have the form of a code */
export const codeText = (value: unknown): string => {
  const given = text(value, "code");
  return CODE.test(given) ? given : "unknown";
};

export const textMap = (value: unknown): Readonly<Record<string, string>> =>
  Object.fromEntries(Object.entries(object(value ?? {}, "map")).map(([key, one]) => [key, text(one, key)]));

export const malformed = (field: string, what: string): MigrationFault =>
  new MigrationFault("peer-invalid", `The peer's message is not valid: ${field} ${what}`);
