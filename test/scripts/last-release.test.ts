/** Tests that this version comes after the last release, and that the package of the last release is whole. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import { packageVersion } from "../../shared/runtime/version.ts";
import { importLast, lastRelease } from "../support/last-release.ts";

const read = (...path: readonly string[]): string => readFileSync(join(packageRoot(), ...path), "utf8");

/** Compares two versions such as `1.10.0`. @returns a positive number if `a` is the later one */
function compareVersions(a: string, b: string): number {
  const [ours, theirs] = [a, b].map((version) => version.split(".").map(Number)) as [number[], number[]];
  const at = ours.findIndex((part, index) => part !== theirs[index]);
  return at === -1 ? 0 : ours[at]! - theirs[at]!;
}

t.test("versions are compared number by number", async (t) => {
  t.ok(compareVersions("0.10.0", "0.9.1") > 0);
  t.ok(compareVersions("0.9.1", "1.0.0") < 0);
  t.equal(compareVersions("1.2.3", "1.2.3"), 0);
});

t.test("the version of this checkout is the same everywhere, and comes after that of the last release", async (t) => {
  const version = packageVersion();
  t.match(version, /^\d+\.\d+\.\d+$/);
  const lock = JSON.parse(read("package-lock.json"));
  t.same([lock.version, lock.packages[""].version], [version, version], "package-lock.json names the version");
  const sections = [...read("CHANGELOG.md").matchAll(/^## (\S+)/gm)].map(([, name]) => name);
  t.same(sections.slice(0, 2), [version, lastRelease().version], "CHANGELOG.md begins with this version");
  t.ok(compareVersions(version, lastRelease().version) > 0);
});

t.test("the package of the last release runs, and has the version that its name says", async (t) => {
  const theirs = await importLast("version");
  t.equal(theirs.packageVersion(), lastRelease().version);
  const about = readFileSync(join(packageRoot(), "test/vectors/last-release/README.md"), "utf8");
  t.match(about, `It is ${lastRelease().version},`, "its README names the version");
});
