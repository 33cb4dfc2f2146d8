/**
 * Finds what is wrong with the packages that a set-up installs: packages that no checksum pins, install scripts that
 * nobody has read, and licences that are not allowed. It also reads the report of `npm audit`. No I/O: the contents of
 * package-lock.json and of docs/supply.md are passed in. docs/supply.md says what is done about each finding.
 */

/** The fields of a package in package-lock.json that are looked at. */
interface LockedPackage {
  readonly version?: string;
  readonly integrity?: string;
  readonly license?: string;
  readonly hasInstallScript?: boolean;
  readonly dev?: boolean;
  readonly os?: string | readonly string[];
  readonly cpu?: string | readonly string[];
  readonly libc?: string | readonly string[];
}

/** Packages by the folder in which each is installed: "node_modules/NAME", and "" for Ferry itself. */
export type LockedPackages = Readonly<Record<string, LockedPackage>>;

/** Licences that let anybody use, change and pass on a package, and that demand nothing of Ferry's own source. */
const ALLOWED_LICENCES: readonly string[] = [
  "0BSD",
  "Apache-2.0",
  "BSD-2-Clause",
  "BSD-3-Clause",
  "BlueOak-1.0.0",
  "CC-BY-3.0",
  "CC0-1.0",
  "ISC",
  "MIT",
  "Unlicense",
  "WTFPL",
];

/**
 * Licences that demand something of whoever passes the package on, such as the same licence for a changed word list.
 * They are allowed for packages that only development needs, which Ferry never passes on.
 */
const ALLOWED_FOR_DEVELOPMENT: readonly string[] = ["CC BY-SA 4.0"];

/**
 * Packages whose package.json names no licence, as "NAME@VERSION", with the licence in their LICENSE file. The version
 * is in the key, so that somebody reads the file of each version.
 */
const READ_LICENCES: Readonly<Record<string, string>> = {
  "jsonc-simple-parser@3.0.0": "MIT",
};

/** What npm calls the hosts that Ferry runs on. */
const HOST: Readonly<Record<"os" | "cpu" | "libc", string>> = { os: "linux", cpu: "x64", libc: "glibc" };

/** The name of the package in a folder: "@bufbuild/buf" for "node_modules/tap/node_modules/@bufbuild/buf". */
export const nameOf = (folder: string): string => folder.slice(folder.lastIndexOf("node_modules/") + 13);

const entries = (packages: LockedPackages): [folder: string, locked: LockedPackage][] =>
  Object.entries(packages).filter(([folder]) => folder !== "");

/** True if npm may install the package on a host that Ferry runs on. */
function isForThisHost(locked: LockedPackage): boolean {
  return (["os", "cpu", "libc"] as const).every((kind) => {
    const wanted = [locked[kind] ?? []].flat();
    const refused = wanted.filter((one) => one.startsWith("!"));
    return refused.length > 0
      ? !refused.includes(`!${HOST[kind]}`)
      : wanted.length === 0 || wanted.includes(HOST[kind]);
  });
}

/** Finds packages that npm would take without comparing a checksum. @returns one sentence for each */
export function unpinned(packages: LockedPackages): string[] {
  return entries(packages)
    .filter(([, locked]) => isForThisHost(locked) && !/^sha512-/.test(locked.integrity ?? ""))
    .map(([folder]) => `${folder} has no sha512 in package-lock.json`);
}

/** The packages that want to run a script when they are installed, as "NAME@VERSION", sorted. */
export function withInstallScript(packages: LockedPackages): string[] {
  const found = entries(packages).filter(([, locked]) => locked.hasInstallScript === true);
  return found.map(([folder, { version }]) => `${nameOf(folder)}@${version}`).sort();
}

/**
 * Finds install scripts that docs/supply.md does not name, and names in docs/supply.md that have no such script.
 * @param named what namedIn() has read from docs/supply.md
 * @returns one sentence for each
 */
export function unaudited(packages: LockedPackages, named: readonly string[]): string[] {
  const found = withInstallScript(packages);
  return [
    ...found
      .filter((one) => !named.includes(one))
      .map((one) => `${one} has an install script that nobody has read: read it, then name it in docs/supply.md`),
    ...named
      .filter((one) => !found.includes(one))
      .map((one) => `docs/supply.md names ${one}, and package-lock.json has no such package with an install script`),
  ];
}

/** Reads the table of install scripts in docs/supply.md. @returns "NAME@VERSION" of each row, sorted */
export function namedIn(page: string): string[] {
  const from = page.indexOf("## Install scripts");
  const section = from < 0 ? "" : page.slice(from, page.indexOf("\n## ", from + 1));
  return [...section.matchAll(/^\| `([^`]+@[^`@]+)` \|/gm)].map((match) => match[1] ?? "").sort();
}

/**
 * True if a licence is allowed. It may be an SPDX expression of names, OR and AND, with brackets around the whole. Any
 * other expression counts as not allowed, so that somebody reads it.
 */
function isAllowed(expression: string): boolean {
  const plain = expression.replace(/^\((.*)\)$/, "$1");
  if (/[()]/.test(plain)) return false;
  return plain.split(" OR ").some((one) => one.split(" AND ").every((name) => ALLOWED_LICENCES.includes(name)));
}

/** Finds packages whose licence is unknown or not on the list. @returns one sentence for each */
export function unlicensed(packages: LockedPackages): string[] {
  return entries(packages).flatMap(([folder, locked]) => {
    if (!isForThisHost(locked)) return [];
    const known = `${nameOf(folder)}@${locked.version}`;
    const licence = locked.license ?? READ_LICENCES[known];
    if (licence === undefined)
      return [`${known} names no licence: read its LICENSE, then name it in scripts/supply.ts`];
    if (locked.dev === true && ALLOWED_FOR_DEVELOPMENT.includes(licence)) return [];
    return isAllowed(licence) ? [] : [`${known} is under ${licence}, which scripts/supply.ts does not list`];
  });
}

/** What is known after `npm audit --json`: no serious hole, these holes, or no answer. */
export type Audit =
  | { readonly kind: "none" }
  | { readonly kind: "found"; readonly advice: readonly string[] }
  | { readonly kind: "no answer"; readonly why: string };

/** The severities that fail the check. A hole whose severity is not a text counts as serious too. */
const SERIOUS = ["high", "critical"];

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null;

/** Reads what npm has printed. @param output of `npm audit --json`: a report (format 2), or what went wrong instead */
export function readAudit(output: string): Audit {
  let told: unknown;
  try {
    told = JSON.parse(output);
  } catch {
    return { kind: "no answer", why: "npm audit printed no JSON" };
  }
  if (!isObject(told) || !isObject(told.vulnerabilities)) {
    const message = isObject(told) && typeof told.message === "string" ? told.message : "npm audit printed no report";
    return { kind: "no answer", why: message };
  }
  const advice = Object.entries(told.vulnerabilities).flatMap(([name, found]) => {
    const severity = isObject(found) ? found.severity : undefined;
    return typeof severity === "string" && !SERIOUS.includes(severity) ? [] : [`${name}: ${severity ?? "unknown"}`];
  });
  return advice.length === 0 ? { kind: "none" } : { kind: "found", advice };
}
