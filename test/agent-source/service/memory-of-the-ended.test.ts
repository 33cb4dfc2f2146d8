/** Tests with a real agent and a real QEMU that a migration gives its memory back when it has ended. */
import t from "tap";
import type { PageKernels } from "../../../shared/page/kernels.ts";
import { loadKernels } from "../../../shared/runtime/load-kernels.ts";
import { AttackedSource, Raid } from "../../hostile/hostile-destination.ts";
import { eventually } from "../../support/bounded.ts";

t.setTimeout(120_000);

t.test("nothing keeps the memory of a migration that has ended", async (t) => {
  const made: WeakRef<object>[] = [];
  const createKernels = (byteLength: number): PageKernels => {
    const kernels = loadKernels(byteLength);
    made.push(new WeakRef(kernels.memory.buffer));
    return kernels;
  };
  const on = await AttackedSource.open(t, createKernels);
  // the agent asks this once it has collected what the migration left
  let collected = 0;
  const isIdle = (): boolean => {
    collected++;
    return true;
  };
  Reflect.set(Reflect.get(on, "agent"), "isIdle", isIdle);
  for (let times = 0; times < 2; times++) {
    const raid = new Raid();
    raid.instead = ({ kind }) => {
      if (kind === "grant") raid.refuse();
      return kind === "grant";
    };
    await on.begin(raid, "precopy");
    await raid.hears("grant");
    await on.end(raid);
    raid.channel?.close();
    await eventually(() => collected > times || undefined, { timeoutMs: 60_000, what: "the agent's collection" });
    t.equal(made.length, times + 1);
    t.equal(made[times]?.deref(), undefined, `migration ${times + 1}`);
  }
});
