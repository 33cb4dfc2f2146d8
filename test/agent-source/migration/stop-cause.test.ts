/**
 * Tests `stopCause`: whether a guest is granted running or paused, by the run state in which QEMU's migration stopped
 * it.
 */
import t from "tap";
import { stopCause } from "../../../agent-source/migration/stop-cause.ts";
import { MigrationReport } from "../../../agent-source/report/migration-report.ts";
import type { SourcePostcopy } from "../../../shared/protocol/ownership.ts";
import { systemClock } from "../../../shared/runtime/clock.ts";
import { contract, MIGRATE_OPTIONS } from "../../support/frames.ts";

interface Case {
  /** The run state in QEMU's stream; undefined where the machine type does not note it. */
  readonly runState: string | undefined;
  /** True when the guest was found paused before the copy. */
  readonly before?: boolean;
  readonly acknowledge?: boolean;
  readonly protocolVersion?: number;
  /** What the session knew when this agent stopped the guest for post-copy. */
  readonly stoppedWith?: SourcePostcopy;
}

function judge({ runState, before = false, acknowledge = false, protocolVersion = 2, stoppedWith }: Case) {
  const report = new MigrationReport("m", { guest: "web", to: "b:1", options: MIGRATE_OPTIONS }, systemClock);
  const stopped = {
    paused: before,
    contract: { ...contract, protocolVersion },
    capture: { stoppedAs: { runState } },
    stoppedWith,
  };
  const into = acknowledge ? "destination" : "nothing";
  return { ...stopCause(stopped, { reason: acknowledge ? "it fits" : "", into }, { report }), report };
}

t.test("a guest that QEMU's migration stopped goes on at the destination", async (t) => {
  t.match(judge({ runState: "running", acknowledge: true }), { paused: false, reason: "it fits" });
  t.match(
    judge({ runState: undefined, acknowledge: true }),
    { paused: false },
    "the machine type does not note the run state",
  );
});

t.test("a guest that was paused, or was never started, stays so", async (t) => {
  for (const runState of ["paused", "prelaunch", undefined])
    t.match(judge({ runState, before: true }), { paused: true, reason: "the guest is paused: copied once" });
});

t.test("for a guest that is paused while it is copied, the moment of the stop decides", async (t) => {
  t.match(judge({ runState: "paused" }), { paused: true, reason: "the guest was paused while it was copied" });
  t.match(judge({ runState: "paused", acknowledge: true }), {
    paused: true,
    reason: "it fits; the guest was paused while it was copied",
  });
  t.match(judge({ runState: "running" }), { paused: false, reason: /paused for a moment/ });
});

t.test("a guest that this agent stopped for post-copy goes on at the destination", async (t) => {
  const stoppedWith = { frameBytes: 4096, creditWindowBytes: 4096, codecs: [], blocks: [], ramSectionId: 2 };
  t.match(judge({ runState: "paused", acknowledge: true, stoppedWith }), { paused: false, reason: "it fits" });
});

t.test("a guest that is resumed while it is copied is moved as a running one, and the report says so", async (t) => {
  const { paused, reason, report } = judge({ runState: "running", before: true, acknowledge: true });
  t.match({ paused, reason }, { paused: false, reason: "it fits" });
  t.match(report.degradations, [/resumed while it was copied/]);
});

t.test(
  "a guest that stopped for another reason is not given away, nor is one that an older agent would start",
  async (t) => {
    for (const runState of ["io-error", "suspended", "shutdown", "guest-panicked"])
      t.throws(() => judge({ runState }), { code: "guest-not-running", message: new RegExp(`calls it ${runState}`) });
    t.throws(() => judge({ runState: "paused", protocolVersion: 1 }), {
      code: "guest-not-running",
      message: /too old to leave it so \(protocol 1\)/,
    });
  },
);
