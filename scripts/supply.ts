/**
 * What package-lock.json says of the packages that a set-up installs: is each one pinned by a checksum, does one want
 * to run a script of its own, and under which licence is it? No I/O; what is done about the answers is in
 * docs/supply.md.
 */

/** A package of the lock file, as far as it is looked at. */
export interface LockedPackage {
  readonly version?: string;
  readonly integrity?: string;
  readonly license?: string;
  readonly hasInstallScript?: boolean;
  readonly os?: string | readonly string[];
  readonly cpu?: string | readonly string[];
  readonly libc?: string | readonly string[];
}

/** By the folder that a package is installed in: "node_modules/NAME", and "" for Ferry itself. */
export type LockedPackages = Readonly<Record<string, LockedPackage>>;

/** Licences of which each lets anybody use, change and pass on a package without a word about Ferry's own source. */
export const ALLOWED_LICENCES: readonly string[] = [
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
];

/**
 * Packages whose package.json names no licence, with that of their LICENSE file: "NAME@VERSION", so each is read anew.
 */
export const READ_LICENCES: Readonly<Record<string, string>> = {
  "jsonc-simple-parser@3.0.0": "MIT",
};

const HOST: Readonly<Record<"os" | "cpu" | "libc", string>> = { os: "linux", cpu: "x64", libc: "glibc" };

/** "@bufbuild/buf" of "node_modules/tap/node_modules/@bufbuild/buf". */
export const nameOf = (folder: string): string => folder.slice(folder.lastIndexOf("node_modules/") + 13);

const entries = (packages: LockedPackages): [folder: string, locked: LockedPackage][] =>
  Object.entries(packages).filter(([folder]) => folder !== "");

/** Can npm install this on a host that Ferry runs on? */
function isForThisHost(locked: LockedPackage): boolean {
  return (["os", "cpu", "libc"] as const).every((kind) => {
    const wanted = [locked[kind] ?? []].flat();
    const refused = wanted.filter((one) => one.startsWith("!"));
    return refused.length > 0
      ? !refused.includes(`!${HOST[kind]}`)
      : wanted.length === 0 || wanted.includes(HOST[kind]);
  });
}

/** Packages of a host of ours that npm would take without comparing a checksum, each as one sentence. */
export function unpinned(packages: LockedPackages): string[] {
  return entries(packages)
    .filter(([, locked]) => isForThisHost(locked) && !/^sha512-/.test(locked.integrity ?? ""))
    .map(([folder]) => `${folder} has no sha512 in package-lock.json`);
}

/** Names and versions of the packages that want to run a script when they are installed, sorted. */
export function withInstallScript(packages: LockedPackages): string[] {
  const found = entries(packages).filter(([, locked]) => locked.hasInstallScript === true);
  return found.map(([folder, { version }]) => `${nameOf(folder)}@${version}`).sort();
}

/** Install scripts that docs/supply.md does not name, and names there without such a script, each as one sentence. */
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

/** Rows of the table of install scripts in docs/supply.md: "NAME@VERSION", sorted. */
export function namedIn(page: string): string[] {
  const from = page.indexOf("## Install scripts");
  const section = from < 0 ? "" : page.slice(from, page.indexOf("\n## ", from + 1));
  return [...section.matchAll(/^\| `([^`]+@[^`@]+)` \|/gm)].map((match) => match[1] ?? "").sort();
}

/** An SPDX expression of names, OR, AND and brackets around it all. Anything else is not allowed until it is read. */
function isAllowed(expression: string): boolean {
  const plain = expression.replace(/^\((.*)\)$/, "$1");
  if (/[()]/.test(plain)) return false;
  return plain.split(" OR ").some((one) => one.split(" AND ").every((name) => ALLOWED_LICENCES.includes(name)));
}

/** Packages under a licence that is not on the list, each as one sentence. */
export function unlicensed(packages: LockedPackages): string[] {
  return entries(packages).flatMap(([folder, locked]) => {
    if (!isForThisHost(locked)) return [];
    const known = `${nameOf(folder)}@${locked.version}`;
    const licence = locked.license ?? READ_LICENCES[known];
    if (licence === undefined)
      return [`${known} names no licence: read its LICENSE, then name it in scripts/supply.ts`];
    return isAllowed(licence) ? [] : [`${known} is under ${licence}, which scripts/supply.ts does not list`];
  });
}

/** What `npm audit --json` has said. */
export type Audit =
  | { readonly kind: "none" }
  | { readonly kind: "found"; readonly advice: readonly string[] }
  | { readonly kind: "no answer"; readonly why: string };

const SERIOUS = ["high", "critical"];

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null;

/** @param output of `npm audit --json`: a report (format 2), or what went wrong instead */
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
