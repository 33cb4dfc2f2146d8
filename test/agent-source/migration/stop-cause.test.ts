import t from "tap";
import { stopCause } from "../../../agent-source/migration/stop-cause.ts";
import { MigrationReport } from "../../../agent-source/report/migration-report.ts";
import type { SourcePostcopy } from "../../../shared/protocol/ownership.ts";
import { systemClock } from "../../../shared/runtime/clock.ts";
import { contract, MIGRATE_OPTIONS } from "../../support/frames.ts";

interface Case {
  /** As QEMU's stream has it. */
  readonly runState: string | undefined;
  /** As it was found before the copy. */
  readonly before?: boolean;
  readonly acknowledge?: boolean;
  readonly protocolVersion?: number;
  /** Of post-copy. */
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

t.test("a guest that QEMU stopped itself goes on at the destination", async (t) => {
  t.match(judge({ runState: "running", acknowledge: true }), { paused: false, reason: "it fits" });
  t.match(judge({ runState: undefined, acknowledge: true }), { paused: false }, "of a machine that does not say it");
});

t.test("one that was paused stays so, and one that was never started", async (t) => {
  for (const runState of ["paused", "prelaunch", undefined])
    t.match(judge({ runState, before: true }), { paused: true, reason: "the guest is paused: copied once" });
});

t.test("paused in mid-copy: the moment of the stop decides, not who asked first", async (t) => {
  t.match(judge({ runState: "paused" }), { paused: true, reason: "the guest was paused while it was copied" });
  t.match(judge({ runState: "paused", acknowledge: true }), {
    paused: true,
    reason: "it fits; the guest was paused while it was copied",
  });
  t.match(judge({ runState: "running" }), { paused: false, reason: /paused for a moment/ });
});

t.test("stopped by this agent, for post-copy: it goes on at the destination", async (t) => {
  const stoppedWith = { frameBytes: 4096, creditWindowBytes: 4096, codecs: [], blocks: [], ramSectionId: 2 };
  t.match(judge({ runState: "paused", acknowledge: true, stoppedWith }), { paused: false, reason: "it fits" });
});

t.test("resumed in mid-copy: it is moved as a running guest, and that is said", async (t) => {
  const { paused, reason, report } = judge({ runState: "running", before: true, acknowledge: true });
  t.match({ paused, reason }, { paused: false, reason: "it fits" });
  t.match(report.degradations, [/resumed while it was copied/]);
});

t.test(
  "a guest that stopped for another reason is not given away, nor one that an older agent would start",
  async (t) => {
    for (const runState of ["io-error", "suspended", "shutdown", "guest-panicked"])
      t.throws(() => judge({ runState }), { code: "guest-not-running", message: new RegExp(`calls it ${runState}`) });
    t.throws(() => judge({ runState: "paused", protocolVersion: 1 }), {
      code: "guest-not-running",
      message: /too old to leave it so \(protocol 1\)/,
    });
  },
);
