/** Tests that the page for the person on call has every setting, every fault and every reason of a refusal. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import t from "tap";
import { listKeys } from "../../shared/runtime/config/config-keys.ts";
import { destinationSchema, sourceSchema } from "../../shared/runtime/config/config-schema.ts";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import { BESIDE_SETTINGS_MIB } from "../support/promised-memory.ts";

const page = readFileSync(join(packageRoot(), "docs/operations.md"), "utf8");

t.test("every setting of both agents is in docs/operations.md", async (t) => {
  const keys = [...listKeys(sourceSchema()), ...listKeys(destinationSchema())].map(({ path }) => path);
  t.ok(keys.length > 20);
  t.same(
    keys.filter((key) => !page.includes(`\`${key}\``)),
    [],
  );
});

t.test("the memory to which tests hold the agents is the memory that the page promises", async (t) => {
  const promise = /\+ (\d+) MiB while one migration runs, a destination\s+agent (\d+) MiB \+ `receiveWindow`/;
  const [, source, destination] = promise.exec(page) ?? [];
  t.same({ source: Number(source), destination: Number(destination) }, BESIDE_SETTINGS_MIB);
});

t.test("every fault code is in docs/operations.md, and no other", async (t) => {
  const source = readFileSync(join(packageRoot(), "shared/fault.ts"), "utf8");
  const union = /export type FaultCode =([^;]*);/.exec(source)?.[1] ?? "";
  const codes = [...union.matchAll(/"([a-z-]+)"/g)].map((match) => match[1] ?? "").sort();
  const section = page.slice(page.indexOf("## What an error means"), page.indexOf("### Reasons of a refusal"));
  const rows = [...section.matchAll(/^\| `([a-z-]+)` \|/gm)].map((match) => match[1] ?? "").sort();
  t.same(rows, codes);
});

t.test("every reason of a refusal is in docs/operations.md", async (t) => {
  const section = page.slice(page.indexOf("### Reasons of a refusal"), page.indexOf("## Settings"));
  const files = [
    "shared/qemu/inspect/preflight.ts",
    "shared/qemu/inspect/postcopy-ability.ts",
    "shared/protocol/handshake.ts",
    "shared/protocol/strategies.ts",
    "agent-source/migration/phases/negotiate.ts",
    "agent-destination/migration/phases/negotiate.ts",
    "agent-destination/guest/guest-media.ts",
    "agent-destination/migration/first-look.ts",
    "agent-destination/migration/what-is-there.ts",
    "agent-destination/service/places.ts",
    "shared/link/callers/guest-peers.ts",
  ];
  const sources = files.map((file) => readFileSync(join(packageRoot(), file), "utf8")).join("\n");
  const reasons = [...sources.matchAll(/(?:code: |code = |CODE = |refuse\(\s*)"([a-z-]+)"/g)].map(
    (match) => match[1] ?? "",
  );
  t.ok(reasons.length > 15);
  t.same(
    reasons.filter((reason) => !section.includes(`\`${reason}\``)),
    [],
  );
});

t.test("every name of an agreed term is in docs/operations.md", async (t) => {
  const section = page.slice(page.indexOf("## What was agreed"), page.indexOf("## Settings"));
  const view = readFileSync(join(packageRoot(), "agent-source/report/negotiated-view.ts"), "utf8");
  const fields = /return \{(.*?)\n {2}\};/s.exec(view)?.[1] ?? "";
  const names = [...fields.matchAll(/^ {4}(?:"([^"]+)"|(\w+)):? ?/gm)].map((match) => match[1] ?? match[2] ?? "");
  names.push("measured bandwidth", "measured round trip");
  t.ok(names.length > 20, `${names.length} names`);
  t.same(
    names.filter((name) => !section.includes(`\`${name}\``)),
    [],
  );
});
