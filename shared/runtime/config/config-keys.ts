/** The names of configuration keys: in the file, in the environment, on the command line and in the help. */
import { MigrationFault } from "../../fault.ts";
import type { Key, SchemaTree } from "./config-schema.ts";

export interface NamedKey {
  /** The key's name in the file, such as "memory.baseCache". */
  readonly path: string;
  readonly key: Key<unknown>;
}

/**
 * Names in the environment that begin with FERRY_ and are no keys: those of Ferry's other programs, scripts and tests,
 * and FERRY_CONFIG, which names the file.
 */
const NOT_OURS = [
  "FERRY_AGENT",
  "FERRY_SOURCE_STATE",
  "FERRY_DESTINATION_STATE",
  "FERRY_CONFIG",
  "FERRY_ACCEL",
  "FERRY_FUZZ_SECONDS",
  "FERRY_QEMU_A",
  "FERRY_QEMU_B",
];

const isKey = (node: SchemaTree | Key<unknown>): node is Key<unknown> => "default" in node;

/** Lists the keys of a schema. @param prefix begins each path; for the recursion */
export function listKeys(schema: SchemaTree, prefix = ""): readonly NamedKey[] {
  return Object.entries(schema).flatMap(([name, node]) =>
    isKey(node) ? [{ path: prefix + name, key: node }] : listKeys(node, `${prefix}${name}.`),
  );
}

const words = (path: string): string[] => path.split(/\.|(?=[A-Z])/).map((word) => word.toLowerCase());

/** Makes the name of a key in the environment: FERRY_MEMORY_BASE_CACHE. */
export const environmentName = (path: string): string => `FERRY_${words(path).join("_").toUpperCase()}`;

/** Makes the name of a key on the command line: --memory-base-cache. */
export const flagName = (path: string): string => `--${words(path).join("-")}`;

/**
 * Checks the names of the keys in a file.
 * @returns the given value
 * @throws MigrationFault `configuration` for the first name that is no key, and for a value that should be an object
 */
export function checkFileKeys(given: unknown, schema: SchemaTree, file: string, prefix = ""): object {
  if (typeof given !== "object" || given === null || Array.isArray(given))
    throw new MigrationFault(
      "configuration",
      prefix === "" ? `${file} is not a JSON object` : `"${prefix.slice(0, -1)}" in ${file} is not an object`,
    );
  for (const [name, value] of Object.entries(given)) {
    const node = Object.hasOwn(schema, name) ? schema[name] : undefined;
    if (node === undefined)
      throw unknownKey(
        `"${prefix}${name}" in ${file}`,
        prefix + name,
        listKeys(schema, prefix).map((one) => one.path),
      );
    if (!isKey(node)) checkFileKeys(value, node, file, `${prefix}${name}.`);
  }
  return given;
}

/**
 * Finds what the environment sets.
 * @returns the texts, by path
 * @throws MigrationFault `configuration` for a name that begins with FERRY_ and is no key
 */
export function fromEnvironment(keys: readonly NamedKey[], env: NodeJS.ProcessEnv): Map<string, string> {
  const paths = new Map(keys.map(({ path }) => [environmentName(path), path]));
  const values = new Map<string, string>();
  for (const [name, value] of Object.entries(env)) {
    if (value === undefined || !name.startsWith("FERRY_") || NOT_OURS.includes(name)) continue;
    const path = paths.get(name);
    if (path === undefined) throw unknownKey(`${name} in the environment`, name, [...paths.keys()]);
    values.set(path, value);
  }
  return values;
}

export interface GivenFlags {
  /** The value of --config. */
  readonly file: string | undefined;
  /** The texts of the keys, by path. */
  readonly values: ReadonlyMap<string, string>;
}

/**
 * Reads the command line: `--key value`, `--key=value`, or `--key` alone where a boolean key is to be true.
 * @throws MigrationFault `configuration` for what is no key, and for a key without a value
 */
export function fromArguments(keys: readonly NamedKey[], argv: readonly string[]): GivenFlags {
  const byFlag = new Map(keys.map((named) => [flagName(named.path), named]));
  const values = new Map<string, string>();
  let file: string | undefined;
  for (let index = 0; index < argv.length; index++) {
    const argument = argv[index] ?? "";
    const equals = argument.indexOf("=");
    const flag = equals < 0 ? argument : argument.slice(0, equals);
    const named = byFlag.get(flag);
    if (named === undefined && flag !== "--config")
      throw unknownKey(`"${argument}" on the command line`, flag, ["--config", ...byFlag.keys()]);
    let value = equals < 0 ? undefined : argument.slice(equals + 1);
    if (value === undefined && named?.key.format === "ferry-boolean" && !/^(true|false)$/.test(argv[index + 1] ?? ""))
      value = "true";
    if (value === undefined) value = argv[++index];
    if (value === undefined) throw new MigrationFault("configuration", `${flag} on the command line has no value`);
    if (named === undefined) file = value;
    else values.set(named.path, value);
  }
  return { file, values };
}

/** Makes the help: every key with its meaning, unit, default and names. */
export function helpText(program: string, summary: string, schema: SchemaTree): string {
  const lines = [
    `Usage: ${program} [--config FILE] [--KEY VALUE ...]`,
    "",
    summary,
    "",
    "The configuration is read from FILE (JSON), then the environment, then the command line; the last one counts.",
    "  --config FILE  (FERRY_CONFIG)",
    "  --help, --version",
    "",
    "Keys: on the command line, (in FILE, in the environment)",
  ];
  for (const { path, key } of listKeys(schema)) {
    const standard = Array.isArray(key.default) ? key.default.join(",") : String(key.default);
    lines.push(
      "",
      `  ${flagName(path)}  (${path}, ${environmentName(path)})`,
      `      ${key.doc}`,
      `      unit: ${key.unit}; default: ${standard === "" ? "none" : standard}`,
    );
  }
  return `${lines.join("\n")}\n`;
}

function unknownKey(where: string, name: string, known: readonly string[]): MigrationFault {
  const near = nearest(name, known);
  return new MigrationFault("configuration", `${where} is not a configuration key`, {
    advice: near === undefined ? "See --help for all keys" : `Did you mean ${near}? See --help for all keys`,
  });
}

/**
 * Finds the known name that differs from `name` by the fewest characters. Exported for its tests.
 * @returns undefined when every known name differs by too many
 */
export function nearest(name: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let fewest = Math.max(3, Math.floor(name.length / 2));
  for (const one of known) {
    const changes = distance(name.toLowerCase(), one.toLowerCase());
    if (changes < fewest) {
      best = one;
      fewest = changes;
    }
  }
  return best;
}

/** Computes Levenshtein's distance: how many characters are inserted, removed or replaced. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
