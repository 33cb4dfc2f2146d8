/** Tests how many of this host's processors had nothing to do lately. */
import { writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import t from "tap";
import { IdleProcessors } from "../../../../shared/runtime/host/idle-processors.ts";

t.test("the figure is the idle time of the last whole window, in processors", async (t) => {
  const path = join(t.testdir(), "stat");
  const write = (line: string): void => writeFileSync(path, `${line}\ncpu0 1 2 3\n`);
  write("cpu  100 10 50 1000 20 0 5 15 0 0");
  const idle = new IdleProcessors(4, path);
  write("cpu  110 10 50 1029 20 0 5 15 0 0");
  t.equal(idle.lately(), 0, "39 ticks say nothing, and a processor of which nothing is known does not count as idle");
  write("cpu  160 10 70 1100 30 0 5 25 40 0");
  t.equal(idle.lately(), 2, "100 of 200 ticks were idle since the beginning, on four processors");
  write("cpu  190 10 70 1100 30 0 5 25 40 0");
  t.equal(idle.lately(), 2, "the next window has just begun");
  write("cpu  260 10 70 1100 30 0 5 25 40 0");
  t.equal(idle.lately(), 0);
});

t.test("counters that cannot be read give no figure", async (t) => {
  const folder = t.testdir({ odd: "intr 1 2 3 4 5 6 7 8 9\n", empty: "", words: "cpu a b c d e f g h\n" });
  for (const name of ["odd", "empty", "words", "missing"])
    t.equal(new IdleProcessors(2, join(folder, name)).lately(), undefined, name);
});

t.test("the figure for this host is at most the number of its processors", async (t) => {
  const idle = new IdleProcessors(cpus().length);
  const from = performance.now();
  while (performance.now() - from < 500);
  const seen = idle.lately();
  t.ok(seen !== undefined && seen >= 0 && seen <= cpus().length, `${seen} of ${cpus().length}`);
});
