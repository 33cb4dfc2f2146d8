/** Tests how much time a guest's virtual processors got on the host's processors. */
import { readdirSync } from "node:fs";
import t from "tap";
import { processorTimes, scheduled, usedIn } from "../../../../shared/runtime/host/guest-processors.ts";

t.test("the figures of Linux for a thread are read in seconds", async (t) => {
  t.same(scheduled("2500000000 500000000 42\n"), { ran: 2.5, waited: 0.5 });
  t.equal(scheduled("nothing"), undefined);
  t.equal(usedIn("12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0"), 2, "the program may have any name");
  t.equal(usedIn("12 (a)"), undefined);
});

t.test("threads are added up, and a thread that cannot be looked at makes the sum unknown", async (t) => {
  const own = readdirSync("/proc/self/task").map(Number).slice(0, 2);
  const found = await processorTimes(own);
  t.ok(found === undefined || (found.ranSeconds > 0 && found.qemuCpuSeconds > 0), "a host may not tell the figures");
  t.equal(await processorTimes([2 ** 22 + 1]), undefined, "there is no such thread");
  t.equal(await processorTimes([]), undefined);
});

t.test("a thread id from QEMU that is no number never becomes a part of a path", async (t) => {
  // self/task/.. exists, and would be read
  const paths = ["self", "self/../self", 1.5, Number.NaN] as unknown as readonly number[];
  for (const one of paths) t.equal(await processorTimes([one]), undefined, String(one));
});
