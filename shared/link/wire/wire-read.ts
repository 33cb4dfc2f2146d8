/**
 * Reads the fields of what a peer sent, by name (docs/design/wire.md). A field that is not of its type is the peer's
 * fault: every reader throws MigrationFault `peer-invalid`, which names the field.
 */
import { MigrationFault } from "../../fault.ts";

export type WireObject = Readonly<Record<string, unknown>>;

export const object = (value: unknown, field: string): WireObject => {
  if (typeof value !== "object" || value === null) throw malformed(field, "is missing");
  return Object.fromEntries(Object.entries(value));
};

/** @throws MigrationFault `peer-invalid` for a value that is no list, and for a list of more than `most` entries */
const entriesOf = (value: unknown, field: string, most = Number.POSITIVE_INFINITY): readonly unknown[] => {
  if (!Array.isArray(value)) throw malformed(field, "is no list");
  if (value.length > most) throw malformed(field, `are ${value.length}; at most ${most} are allowed`);
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
  if (given.length > charactersMax)
    throw malformed(field, `has ${given.length} characters; at most ${charactersMax} are allowed`);
  return given;
};

export const number = (value: unknown, field: string): number => {
  if (typeof value !== "number" || !Number.isFinite(value)) throw malformed(field, "is no number");
  return value;
};

/** Reads a whole number that is not negative and that JavaScript holds exactly. */
export const whole = (value: unknown, field: string): number => {
  const found = number(value, field);
  if (!Number.isSafeInteger(found) || found < 0) throw malformed(field, `is ${found}`);
  return found;
};

/**
 * How much of a wrong text a fault shows, characters. The fault is logged, and told to the sender of the text.
 */
const SHOWN_CHARACTERS = 40;

/** Returns the beginning of a text that another program sent, for a fault. */
export const beginningOf = (given: string): string =>
  given.length > SHOWN_CHARACTERS ? `${given.slice(0, SHOWN_CHARACTERS)}…` : given;

/** Reads a text that must be one of `words`. */
export function word<W extends string>(value: unknown, words: readonly W[], field: string): W {
  const found = words.find((one) => one === value);
  if (found === undefined) throw malformed(field, `is ${beginningOf(text(value, field))}`);
  return found;
}

/** Reads a list of words. @returns those of `words` that it has, in the order of `words`: a later build may say more */
export function knownWords<W extends string>(value: unknown, words: readonly W[], field: string): readonly W[] {
  const given = new Set<string>(strings(value, field));
  return words.filter((one) => given.has(one));
}

/** Reads a flag; every value but true is false. */
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

/** Makes the fault of a field. @param what the words after the name of the field */
export const malformed = (field: string, what: string): MigrationFault =>
  new MigrationFault("peer-invalid", `The peer's message is not valid: ${field} ${what}`);
