/**
 * Writes an object as one line of JSON. Bytes become lists of numbers, and a number that JSON does not know becomes
 * null.
 */
export const jsonLine = (value: object): string =>
  `${JSON.stringify(value, (_, one: unknown) => (one instanceof Uint8Array ? Array.from(one) : one))}\n`;
