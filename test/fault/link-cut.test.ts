/** Tests that a link that is cut while pages are copied is no failure, and that the guest does not notice the cut. */
import t from "tap";
import { canMakeNamespaces } from "../support/network.ts";
import { FaultRig } from "./fault-rig.ts";
import { faultName } from "./faults.ts";
import { keepLog } from "./keep-log.ts";
import { runCell } from "./run-cell.ts";

t.setTimeout(300_000);
/** How long the link is down: longer than gRPC's keep-alive takes to notice that. */
const SECONDS = 20;

t.test(
  "a cut while pages are copied is waited for, and the guest stands still only for the switchover",
  {
    skip: !canMakeNamespaces() && "a loopback cannot be cut",
  },
  async (t) => {
    const on = await FaultRig.open();
    t.teardown(() => on.close());
    const fault = { kind: "cut", seconds: SECONDS } as const;
    const { violations, outcome, longestPauseMs, downtimeMs } = await runCell(
      on,
      {
        name: faultName(fault),
        fault,
        moment: { kind: "first pass" },
        limits: "default",
        mayLose: false,
        mayDoubt: false,
        mustMove: true,
      },
      { secondAttempt: false },
    );
    t.same(violations, []);
    t.equal(outcome, "moved");
    t.ok(
      // a guest that waited for the link would wait for all of the cut; a busy machine makes any guest wait for moments
      downtimeMs !== undefined && longestPauseMs < downtimeMs + 500 * SECONDS,
      `the longest pause was ${longestPauseMs.toFixed(0)} ms, the switchover took ${downtimeMs?.toFixed(0)} ms`,
    );
    if (violations.length > 0) t.comment(`see ${keepLog(on, faultName(fault))}`);
  },
);
