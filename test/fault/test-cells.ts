/** Runs cells of the fault matrix as the subtests of a test, one after the other on one rig. */
import type { Test } from "tap";
import { FaultRig, type FaultRigOptions } from "./fault-rig.ts";
import { keepLog } from "./keep-log.ts";
import { cellNamed, possible } from "./matrix.ts";
import { runCell } from "./run-cell.ts";

/** @param names the names of cells in the matrix */
export async function testCells(t: Test, names: readonly string[], options: FaultRigOptions = {}): Promise<void> {
  const on = await FaultRig.open(options);
  t.teardown(() => on.close());
  for (const cell of names.map(cellNamed))
    await t.test(
      cell.name,
      {
        skip: !possible(cell, on.rig.network.kind) && "it needs root: a loopback cannot be cut, and disks are mounted",
      },
      async (t) => {
        const { outcome, violations, seconds } = await runCell(on, cell);
        t.same(violations, [], `${outcome} after ${seconds.toFixed(1)} s`);
        if (violations.length === 0) return;
        t.comment(`see ${keepLog(on, cell.name)}`);
        await on.reset();
      },
    );
}
