/**
 * A part of `npm run check`. It checks that every installed package is pinned by a checksum, that somebody has read
 * every install script, and that every licence is allowed (docs/supply.md). It also asks npm whether a production
 * package has a known hole of severity high or critical. When the registry does not answer that question, the check
 * says so and does not fail, since mirrors and hosts without a network have no answer.
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../shared/runtime/package-root.ts";
import { type LockedPackages, namedIn, readAudit, unaudited, unlicensed, unpinned } from "./supply.ts";

/** How long npm waits for each answer of the registry, milliseconds. It asks once. */
const ANSWER_MS = 30_000;
/** How long `npm audit` may take, milliseconds. */
const AUDIT_MS = 120_000;

const root = packageRoot();
const read = (path: string): string => readFileSync(join(root, path), "utf8");
const { packages } = JSON.parse(read("package-lock.json")) as { packages: LockedPackages };
const wrong = [...unpinned(packages), ...unaudited(packages, namedIn(read("docs/supply.md"))), ...unlicensed(packages)];

const command = ["audit", "--omit=dev", "--json", "--fetch-retries=0", `--fetch-timeout=${ANSWER_MS}`];
const { stdout, error } = spawnSync("npm", command, { cwd: root, encoding: "utf8", timeout: AUDIT_MS });
const audit = error === undefined ? readAudit(stdout) : ({ kind: "no answer", why: error.message } as const);
if (audit.kind === "found") wrong.push(...audit.advice.map((one) => `npm audit has found a hole in ${one}`));
if (audit.kind === "no answer")
  process.stdout.write(`  npm audit was skipped, since nobody answered it: ${audit.why}\n`);

for (const one of wrong) process.stdout.write(`  ${one}\n`);
if (wrong.length > 0) process.exitCode = 1;
