/** Tests which files of ended migrations are removed. */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import t from "tap";
import { sweep } from "../../../../shared/runtime/files/sweep.ts";

t.test("a directory that an escaped guest has put in the place of a socket keeps nobody from starting", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "ferry-sweep-"));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const names = ["0123456789ab.stream", "1123456789ab.stream", "2123456789ab.stream"];
  mkdirSync(join(folder, "0123456789ab.stream"));
  mkdirSync(join(folder, "1123456789ab.stream", "full"), { recursive: true });
  writeFileSync(join(folder, "2123456789ab.stream"), "");
  t.same((await sweep(folder, ["stream"])).toSorted(), [names[0], names[2]]);
  t.same(readdirSync(folder), [names[1]], "what cannot be removed stays");
});

t.test("only files of migrations, and only of the kinds that are named, are removed", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "ferry-sweep-"));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const kept = ["web.qmp", "0123456789ab.incoming", "0123456789a.stream", "web.stream", "0123456789ab.stream.old"];
  for (const name of [...kept, "0123456789ab.stream", "ba9876543210.verify"]) writeFileSync(join(folder, name), "");
  t.same((await sweep(folder, ["stream", "verify"])).toSorted(), ["0123456789ab.stream", "ba9876543210.verify"]);
  t.same(readdirSync(folder).sort(), [...kept].sort());
  t.same(await sweep(join(folder, "none"), ["stream"]), [], "a directory that is not there has nothing to sweep");
});
