/** How a benchmark is called: its options, and what it says when they are wrong. Nothing is measured then. */

/** Ends the program with what is wrong and how it is called; exit status 2. */
export function refuse(usage: string, why: string): never {
  process.stderr.write(`${why}\n\n${usage}`);
  process.exit(2);
}

/** What `parse` (node:util's parseArgs) reads; with --help, how it is called, and the end. */
export function readOptions<Values extends { readonly help?: boolean }>(
  usage: string,
  parse: () => { readonly values: Values },
): Values {
  let values: Values;
  try {
    ({ values } = parse());
  } catch (thrown) {
    return refuse(usage, thrown instanceof Error ? thrown.message : String(thrown));
  }
  if (values.help === true) {
    process.stdout.write(usage);
    process.exit(0);
  }
  return values;
}

/** One of `all`, which the option names. */
export function oneOf<Name extends string>(usage: string, option: string, given: string, all: readonly Name[]): Name {
  return all.find((name) => name === given) ?? refuse(usage, `${option} is one of ${all.join(", ")}, not "${given}"`);
}

export function wholeNumber(usage: string, option: string, given: string): number {
  const value = Number(given);
  if (!Number.isInteger(value) || value < 1) refuse(usage, `${option} is a whole number from 1, not "${given}"`);
  return value;
}
