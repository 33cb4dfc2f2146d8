/**
 * Tests that what is installed is pinned, read and licensed: with the lock file as it is, and with lock files as it
 * must not become.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chmodSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import {
  type LockedPackages,
  namedIn,
  nameOf,
  readAudit,
  unaudited,
  unlicensed,
  unpinned,
  withInstallScript,
} from "../../scripts/supply.ts";
import { packageRoot } from "../../shared/runtime/package-root.ts";

const root = packageRoot();
const read = (path: string): string => readFileSync(join(root, path), "utf8");
const packages: LockedPackages = JSON.parse(read("package-lock.json")).packages;
const named = namedIn(read("docs/supply.md"));
const CHECK_MS = 60_000;

t.test("every package is pinned by a checksum, its install script was read, and its licence is allowed", async (t) => {
  t.ok(Object.keys(packages).length > 300, `${Object.keys(packages).length} packages`);
  t.same(unpinned(packages), []);
  t.ok(withInstallScript(packages).length > 0);
  t.same(unaudited(packages, named), []);
  t.same(unlicensed(packages), []);
});

t.test("a package that gains an install script is refused until docs/supply.md names it", async (t) => {
  const folder = "node_modules/tap/node_modules/@evil/steal";
  const gained = { ...packages, [folder]: { version: "1.0.1", hasInstallScript: true } };
  t.match(unaudited(gained, named), [/^@evil\/steal@1\.0\.1 has an install script that nobody has read/]);
  t.same(unaudited(gained, [...named, "@evil/steal@1.0.1"]), []);
  t.match(unaudited(gained, [...named, "@evil/steal@1.0.0"]), [
    /^@evil\/steal@1\.0\.1 has/,
    /names @evil\/steal@1\.0\.0/,
  ]);
  t.same(namedIn("## Install scripts\n\n| `a@1` | x |\n| `@b/c@2.0.0` | y |\n\n## Later\n| `d@1` | z |\n"), [
    "@b/c@2.0.0",
    "a@1",
  ]);
  t.equal(nameOf("node_modules/tap/node_modules/@evil/steal"), "@evil/steal");
});

t.test("a package without a sha512 is refused, unless npm installs it on other hosts only", async (t) => {
  const sound = { integrity: "sha512-x", version: "1.0.0" };
  const sentences = (locked: LockedPackages[string]) => unpinned({ "": {}, "node_modules/a": locked });
  t.same(sentences(sound), []);
  t.same(sentences({ version: "1.0.0" }), ["node_modules/a has no sha512 in package-lock.json"]);
  t.equal(sentences({ ...sound, integrity: "sha1-x" }).length, 1, "sha1 can be forged");
  for (const here of [
    { os: ["linux"], cpu: ["x64"] },
    { os: "!win32" },
    { os: ["darwin", "linux"] },
    { libc: ["glibc"] },
  ])
    t.equal(sentences({ version: "1.0.0", ...here }).length, 1, JSON.stringify(here));
  for (const elsewhere of [{ os: ["darwin"] }, { cpu: "arm64" }, { libc: ["musl"] }, { os: ["!linux"] }])
    t.same(sentences({ version: "1.0.0", ...elsewhere }), [], JSON.stringify(elsewhere));
});

t.test("a licence counts by its whole expression", async (t) => {
  const sentences = (license?: string) =>
    unlicensed({ "": {}, "node_modules/a": { version: "1.0.0", ...(license === undefined ? {} : { license }) } });
  for (const good of ["MIT", "(MIT OR GPL-3.0-only)", "MIT AND ISC", "(BSD-2-Clause OR MIT OR Apache-2.0)"])
    t.same(sentences(good), [], good);
  for (const bad of [
    "GPL-3.0-only",
    "MIT AND GPL-2.0-only",
    "SEE LICENSE IN x",
    "UNLICENSED",
    "",
    "mit",
    "(MIT) OR (X)",
  ])
    t.same(sentences(bad), [`a@1.0.0 is under ${bad}, which scripts/supply.ts does not list`], bad);
  t.match(sentences(), [/^a@1\.0\.0 names no licence/]);
  const shareAlike = { version: "1.0.0", license: "CC BY-SA 4.0" };
  t.same(unlicensed({ "node_modules/a": { ...shareAlike, dev: true } }), []);
  t.equal(unlicensed({ "node_modules/a": shareAlike }).length, 1, "a package that Ferry needs to run");
});

const report = (vulnerabilities: object): string => JSON.stringify({ auditReportVersion: 2, vulnerabilities });

t.test("an audit that found holes, one that found none and one without an answer are told apart", async (t) => {
  t.same(readAudit(report({})), { kind: "none" });
  t.same(readAudit(report({ a: { severity: "moderate" }, b: { severity: "low" } })), { kind: "none" });
  t.same(readAudit(report({ a: { severity: "high" }, b: { severity: "low" }, c: { severity: "critical" } })), {
    kind: "found",
    advice: ["a: high", "c: critical"],
  });
  t.match(readAudit(report({ a: {} })), { kind: "found" }, "a severity that is not told does not count as a low one");
  t.same(readAudit('{"message": "405 Method Not Allowed"}'), { kind: "no answer", why: "405 Method Not Allowed" });
  for (const nothing of ["", "<html>", "null", "[]", "{}", '{"vulnerabilities": 1}'])
    t.equal(readAudit(nothing).kind, "no answer", nothing);
});

t.test("npm run check fails for a known hole, and says so when no registry answers", async (t) => {
  const check = (output: string, code: number) => {
    const folder = t.testdir({ npm: `#!/bin/sh\necho '${output}'\necho "$@" >"$0.called"\nexit ${code}\n` });
    chmodSync(join(folder, "npm"), 0o755);
    const env = { ...process.env, PATH: `${folder}:${process.env.PATH}` };
    const ran = spawnSync(process.execPath, [join(root, "dist/scripts/check-supply.js")], {
      encoding: "utf8",
      env,
      timeout: CHECK_MS,
    });
    t.match(readFileSync(join(folder, "npm.called"), "utf8"), /^audit --omit=dev --json /);
    return ran;
  };
  t.match(check(report({}), 0), { status: 0, stdout: "" });
  t.match(check(report({ tar: { severity: "high" } }), 1), { status: 1, stdout: /has found a hole in tar: high/ });
  t.match(check('{"message": "405 Method Not Allowed"}', 1), {
    status: 0,
    stdout: /skipped, since nobody .*: 405 Method/,
  });
});

t.test("no program of a package's install script has run: zstd-napi was compiled here", async (t) => {
  const binding = readFileSync(join(root, "node_modules/zstd-napi/build/Release/binding.node"));
  const kept = readdirSync(join(root, ".cache/zstd-napi"));
  t.equal(kept.length, 1);
  const digest = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
  t.equal(digest(readFileSync(join(root, ".cache/zstd-napi", kept[0] ?? "", "binding.node"))), digest(binding));
  const fetched = readdirSync(join(root, "node_modules/@bufbuild/buf"), { recursive: true, encoding: "utf8" });
  t.same(
    fetched.filter((name) => /(?:^|\/)downloaded-/.test(name)),
    [],
  );
});

t.test("npm runs no install script here, whoever calls it", async (t) => {
  const said = execFileSync("npm", ["config", "get", "ignore-scripts"], { cwd: root, encoding: "utf8" });
  t.equal(said.trim(), "true");
  t.match(read("scripts/setup.sh"), /npm ci --ignore-scripts/);
});

t.test("npx is told a package of this project by its whole name: another name would be fetched and run", async (t) => {
  const { dependencies, devDependencies } = JSON.parse(read("package.json"));
  const own = Object.keys({ ...dependencies, ...devDependencies });
  const folders = ["docs", "proto", "scripts", "shared", "agent-source", "agent-destination", "cli", "systemd", "test"];
  const files = folders.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).map((name) => `${folder}/${name}`),
  );
  const text = [
    "README.md",
    ...files.filter((name) => /\.(?:md|ts|sh|proto|service)$/.test(name) && !name.endsWith("supply.test.ts")),
  ]
    .map(read)
    .join("\n");
  const called = [...text.matchAll(/\bnpx (?:--?[\w-]+ )*(@?[\w./-]*\w)/g)].map((match) => match[1] ?? "");
  t.ok(called.includes("@bufbuild/buf"), "the README calls buf");
  t.same(
    called.filter((name) => !own.includes(name)),
    [],
  );
});
