/** Stores worlds as short strings, with one character for each value. */
import { startOf, type World } from "./world.ts";

const FIELDS = Object.keys(startOf("precopy", { faults: 0, acts: 0, wrongWords: 0 })) as readonly (keyof World)[];
const PLACES = Object.fromEntries(FIELDS.map((field, place) => [field, place])) as Record<keyof World, number>;
const codes = new Map<unknown, number>();
const values: unknown[] = [];

function codeOf(value: unknown): number {
  const known = codes.get(value);
  if (known !== undefined) return known;
  const code = 33 + values.length;
  codes.set(value, code);
  values.push(value);
  return code;
}

export const keyOf = (world: World): string => String.fromCharCode(...FIELDS.map((field) => codeOf(world[field])));

/** Makes the keys of the worlds that differ by a change from the world of `key`. */
export function keysAfter(key: string): (change: Partial<World>) => string {
  const here = Array.from(FIELDS, (_, place) => key.charCodeAt(place));
  return (change) => {
    const codes = here.slice();
    for (const field in change) codes[PLACES[field as keyof World]] = codeOf(change[field as keyof World]);
    return String.fromCharCode.apply(undefined, codes);
  };
}

export function worldOf(key: string): World {
  const world: Record<string, unknown> = {};
  for (let place = 0; place < FIELDS.length; place++) world[FIELDS[place] ?? ""] = values[key.charCodeAt(place) - 33];
  return world as unknown as World;
}
