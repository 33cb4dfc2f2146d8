/** Tests what this process has cost so far, by its own figures. */
import t from "tap";
import { processUsage } from "../../../../shared/runtime/host/process-usage.ts";

t.test("processUsage tells seconds of CPU time and bytes of memory, and both only grow", async (t) => {
  const before = processUsage();
  t.ok(before.cpuSeconds > 0 && before.cpuSeconds < 3600);
  t.ok(before.peakMemoryBytes > 2 ** 24 && before.peakMemoryBytes < 2 ** 36, "these are the bytes of a Node process");
  Buffer.alloc(2 ** 26, 1);
  const after = processUsage();
  t.ok(after.cpuSeconds >= before.cpuSeconds);
  t.ok(after.peakMemoryBytes >= before.peakMemoryBytes);
});
