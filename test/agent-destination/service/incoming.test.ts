/**
 * Tests one incoming migration as its agent sees it: which signals a word of the source gives, what the source is told
 * of the guest, and when the source counts as in contact.
 */
import t, { type Test } from "tap";
import type { DestinationState } from "../../../agent-destination/migration/destination-state.ts";
import { Incoming } from "../../../agent-destination/service/incoming.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import type { Running } from "../../../shared/protocol/stream-messages.ts";
import { systemClock } from "../../../shared/runtime/clock.ts";
import { bounded } from "../../support/bounded.ts";
import { type Came, destinationPhase, GRANT, type Phase, POSTCOPY } from "../../support/destination-cx.ts";
import { FakeClock } from "../../support/fake-clock.ts";

const FAULT = new MigrationFault("peer-failed", "The source withdrew the migration");
const SILENT_AFTER_MS = 10_000;
const RUNNING: Running = { epoch: 1, resumedAtUs: 1, grantedAtUs: 1, agentCpuSeconds: 0, agentPeakMemoryBytes: 0 };

const ofAgent = ({ stopping, leaving }: Phase["signals"]) => {
  const promisedBytes = async (): Promise<number> => 0;
  return { stopping: stopping.signal, leaving: leaving.signal, promisedBytes };
};

/** Makes such a migration. Its driver has nothing to do, since it begins with a state that is final. */
async function incoming(t: Test, came: Came = {}) {
  const clock = new FakeClock();
  const phase = await destinationPhase(t, { clock, ...came });
  const entry = new Incoming(phase.cx, phase.cx, ofAgent(phase.signals), { kind: "lost" });
  await entry.ended;
  return { ...phase, clock, entry };
}

/** Makes a migration whose guest waits for its grant, without a stream, by the system's clock. */
const waiting = (cx: Phase["cx"], guest: Phase["guest"], signals: Phase["signals"]): Incoming => {
  const parts = { ...cx, clock: systemClock };
  return new Incoming(parts, parts, ofAgent(signals), { kind: "loaded", guest, loadedAtUs: 1 });
};

/** Makes a state that holds what its kind needs of a QEMU and a stream. */
function stateOf(kind: DestinationState["kind"], { guest, stream }: Phase, isCut = false): DestinationState {
  const { receiver } = stream({ isCut });
  const [fault, undo] = [FAULT, { guest, receiver }];
  return {
    ...{ kind, guest, receiver, fault, undo, grant: GRANT, isWhole: true, mayBeRunning: false, refused: true },
  } as unknown as DestinationState;
}

const aborted = ({ cx }: Incoming) =>
  (["cancelled", "withdrawn", "unneeded"] as const).filter((signal) => cx[signal].aborted);

t.test(
  "a withdrawal tells the phases that the guest stays at the source, and not that no copy is needed",
  async (t) => {
    const { entry } = await incoming(t);
    entry.withdraw(FAULT);
    t.same(aborted(entry), ["cancelled", "withdrawn"]);
    t.equal(entry.cx.withdrawn.reason, FAULT);
    const earlier = await incoming(t, { saysKept: false });
    earlier.entry.withdraw(FAULT);
    t.same(aborted(earlier.entry), ["cancelled", "withdrawn", "unneeded"], "an earlier version says nothing more");
  },
);

t.test("a source that has kept its guest needs no copy here, and a cancel ends only what is not whole", async (t) => {
  const kept = await incoming(t);
  kept.entry.drop(FAULT);
  t.same(aborted(kept.entry), ["cancelled", "withdrawn", "unneeded"]);
  const cancelled = await incoming(t);
  cancelled.entry.cancel(FAULT);
  t.same(aborted(cancelled.entry), ["cancelled"]);
  const stopped = await incoming(t);
  stopped.signals.stopping.abort(FAULT);
  t.same(aborted(stopped.entry), ["cancelled"], "the agent stops");
});

t.test("the source is told that the guest runs only once it was seen to run", async (t) => {
  const { entry, guest, ...phase } = await incoming(t);
  entry.state = stateOf("starting", { ...phase, guest });
  t.equal(entry.standing("grant"), "starting");
  entry.cx.onRunning(RUNNING);
  t.equal(entry.standing("grant"), "running");
  entry.state = { kind: "starting", guest, postcopy: POSTCOPY, grant: GRANT, grantedAtUs: 1 };
  t.equal(entry.standing("grant"), "pulling", "in post-copy its pages are still at the source");
});

t.test("a migration of the journal is undecided, and by its record waits or starts", async (t) => {
  const { entry, write, record } = await incoming(t);
  for (const [kind, standing] of [
    ["waiting", "waiting"],
    ["refused", "waiting"],
    ["running", "starting"],
  ] as const) {
    await write(kind);
    const found = await record();
    if (found !== undefined) entry.state = { kind: "adopting", record: found };
    t.equal(entry.standing("grant"), standing, kind);
  }
});

t.test("a question waits for a decision, and no longer than it may", async (t) => {
  const { guest, write, cx, signals } = await incoming(t);
  await write("waiting");
  const entry = waiting(cx, guest, signals);
  await entry.decided("grant", 1);
  t.equal(entry.standing("grant"), "waiting", "time is up, and nothing was decided");
  const decided = entry.decided("grant", 60_000);
  entry.cx.claims.say("end");
  await bounded(decided, 20_000, "the decision");
  t.equal(entry.standing("grant"), "refused");
  await bounded(entry.ended, 20_000, "the end");
});

t.test("a question about a migration that is left to the next agent is answered at once", async (t) => {
  const { guest, write, cx, signals } = await incoming(t);
  await write("waiting");
  const entry = waiting(cx, guest, signals);
  signals.stopping.abort(FAULT);
  await bounded(entry.ended, 20_000, "the end");
  await bounded(entry.decided("grant", 60_000), 10_000, "the answer");
  t.equal(entry.standing("grant"), "waiting", "the next agent decides");
});

t.test("a source counts as in contact while its stream is up, and for ten seconds after each call", async (t) => {
  const { entry, clock, ...phase } = await incoming(t);
  entry.heard();
  await clock.advance(SILENT_AFTER_MS - 1);
  t.ok(entry.sourceIsThere);
  await clock.advance(1);
  t.notOk(entry.sourceIsThere);
  entry.state = stateOf("loaded", phase, true);
  t.notOk(entry.sourceIsThere, "its stream is cut");
  entry.state = stateOf("loaded", phase);
  t.ok(entry.sourceIsThere, "its stream is up");
});

t.test("a source that offers the guest again has given up what it cannot finish, and nothing else", async (t) => {
  const { entry, ...phase } = await incoming(t);
  const givenUp = (kind: DestinationState["kind"], isCut: boolean): boolean => {
    entry.state = stateOf(kind, phase, isCut);
    return entry.isGivenUpBy("alpha", "alpha:7411");
  };
  for (const kind of ["receiving", "loading", "loaded"] as const)
    t.same([givenUp(kind, true), givenUp(kind, false)], [true, false], kind);
  for (const kind of ["refusing", "withheld", "discarding"] as const) t.ok(givenUp(kind, false), kind);
  for (const kind of ["negotiating", "staging", "owning", "starting", "pulling", "arrived"] as const)
    t.notOk(givenUp(kind, true), kind);
  entry.state = stateOf("discarding", phase);
  t.notOk(entry.isGivenUpBy("beta", "alpha:7411"), "another caller");
  t.notOk(entry.isGivenUpBy("alpha", "beta:7411"), "another source");
});

t.test(
  "a QEMU that has not answered for ten seconds may be ended by a word, and only while it is looked for",
  async (t) => {
    const { entry, clock, write, record, ...phase } = await incoming(t);
    await write("waiting");
    const found = await record();
    if (found === undefined) throw new Error("it was written");
    entry.state = { kind: "adopting", record: found };
    t.notOk(entry.isUnseen, "nobody has looked yet");
    entry.cx.onNews("its QEMU cannot be looked at yet");
    await clock.advance(SILENT_AFTER_MS - 1);
    t.notOk(entry.isUnseen);
    entry.cx.onNews("its QEMU cannot be looked at yet");
    await clock.advance(1);
    t.ok(entry.isUnseen, "the time counts from the first look that failed");
    entry.state = stateOf("loaded", { ...phase, write, record });
    t.notOk(entry.isUnseen);
  },
);
