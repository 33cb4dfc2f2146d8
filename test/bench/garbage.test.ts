/** Tests that the per-page path of the source makes no garbage. garbage-run.ts measures it in a process of its own. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import t from "tap";
import type { GarbageFound } from "./garbage-run.ts";

/** The bound for a page, bytes. An object for a page would take at least 12 bytes, and a view of it more than 100. */
const HEAP_BYTES_A_PAGE_MAX = 8;

t.test("capture, classification and encoding make no objects for pages and cause no collection", async (t) => {
  const program = fileURLToPath(new URL("./garbage-run.js", import.meta.url));
  const output = execFileSync(process.execPath, ["--expose-gc", program], { encoding: "utf8", timeout: 60_000 });
  const all = output.trim().split("\n");
  t.equal(all.length, 4, "zero, same, sparse and random pages were measured");
  for (const text of all) {
    const found = JSON.parse(text) as GarbageFound;
    const { kind, pages, heapBytes, scavenges, markCompacts } = found;
    t.ok(pages >= 200_000, `${pages} pages`);
    // the growth of the heap means something only if nothing was collected meanwhile
    t.equal(scavenges, 0, `no scavenge, ${kind} pages`);
    t.equal(markCompacts, 0, `no mark-compact, ${kind} pages`);
    t.ok(heapBytes < HEAP_BYTES_A_PAGE_MAX * pages, `${(heapBytes / pages).toFixed(2)} bytes a page, ${kind} pages`);
  }
});
