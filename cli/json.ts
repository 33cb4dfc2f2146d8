import { withoutSigns } from "../shared/runtime/log/log-text.ts";

/**
 * Writes an object as one line of JSON. Characters on which a terminal acts are escaped. Bytes become lists of numbers,
 * and a number that JSON does not know becomes null.
 */
export const jsonLine = (value: object): string =>
  `${withoutSigns(JSON.stringify(value, (_, one: unknown) => (one instanceof Uint8Array ? Array.from(one) : one)))}\n`;
