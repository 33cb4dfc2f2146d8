/**
 * Tests the driver of an incoming migration: which states follow each other when phases succeed and when they fail, and
 * when a migration is left to the next agent.
 */
import t, { type Test } from "tap";
import { runDestinationMigration } from "../../../agent-destination/migration/destination-migration.ts";
import type { DestinationState } from "../../../agent-destination/migration/destination-state.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import { bounded, eventually } from "../../support/bounded.ts";
import { type Came, destinationPhase, GRANT, type Phase, POSTCOPY, WITHDRAWN } from "../../support/destination-cx.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { contract } from "../../support/frames.ts";
import { offer } from "../../support/handshake-fixtures.ts";

const WITHIN = { timeoutMs: 20_000 };
const STOPPING = new MigrationFault("stopping", "The agent stops");
const DAMAGED = new MigrationFault("checksum-mismatch", "A frame was damaged");

interface Driven extends Phase {
  /** The states that were entered so far, in order. */
  readonly states: DestinationState[];
  readonly kinds: () => readonly DestinationState["kind"][];
  /** Drives the migration from a state until it is over, or is left to the next agent. */
  drive(from: DestinationState): Promise<void>;
  /** Waits until a state was entered so many times. */
  until(kind: DestinationState["kind"], times?: number): Promise<unknown>;
}

async function driven(t: Test, came: Came = {}): Promise<Driven> {
  const phase = await destinationPhase(t, came);
  const states: DestinationState[] = [];
  const kinds = () => states.map(({ kind }) => kind);
  return {
    ...{ ...phase, states, kinds },
    drive: (from) =>
      bounded(
        runDestinationMigration(phase.cx, from, (state) => void states.push(state)),
        30_000,
        "the end of the migration",
      ),
    until: (wanted, times = 1) => {
      const isThere = () => (kinds().filter((kind) => kind === wanted).length >= times ? true : undefined);
      return eventually(isThere, { ...WITHIN, what: `${wanted}, ${times} times` });
    },
  };
}

t.test("a granted guest is owned by the journal, started, and has arrived", async (t) => {
  const { drive, kinds, guest, stream, write, cx, steps } = await driven(t);
  await write("waiting");
  const done = drive({ kind: "loaded", guest, receiver: stream().receiver, loadedAtUs: 5 });
  cx.granted.resolve(GRANT);
  await done;
  t.same(kinds(), ["loaded", "owning", "starting", "arrived"]);
  t.same(steps.slice(0, 4), ["source: loaded", "journal: running", "cont", "source: running"]);
});

t.test("a fault before the guest is loaded discards the migration, and the source is told the fault", async (t) => {
  const { drive, states, kinds, guest, stream, qemu } = await driven(t, { status: "inmigrate" });
  const { receiver, said } = stream();
  const done = drive({ kind: "receiving", guest, receiver });
  receiver.fail(DAMAGED);
  await done;
  t.same(kinds(), ["receiving", "discarding", "discarded"]);
  t.match(states[1], { fault: DAMAGED, undo: { guest, receiver }, refused: false });
  t.match(said, [{ kind: "failure", code: "checksum-mismatch" }]);
  t.notOk(qemu.isAlive);
});

t.test("a fault that the end of QEMU has caused says so", async (t) => {
  const { drive, states, guest, qemu } = await driven(t, { status: "inmigrate" });
  await qemu.end();
  const source = { dial: () => Promise.reject(), close: () => undefined } as never;
  await drive({ kind: "staging", guest, contract, disks: undefined, source, offer });
  t.match(states.at(-1), {
    kind: "discarded",
    fault: { code: "qemu-failed", message: /; the destination's QEMU has ended: it said nothing/ },
  });
});

t.test("after a fault while QEMU loads, QEMU is asked whether its copy is whole and to be kept", async (t) => {
  const partial = await driven(t, { migration: "active" });
  await partial.write("waiting");
  const { receiver } = partial.stream();
  receiver.fail(DAMAGED);
  await partial.drive({ kind: "loading", guest: partial.guest, receiver });
  t.same(partial.kinds(), ["loading", "refusing", "discarding", "discarded"]);
  t.match(partial.states[1], { fault: DAMAGED, isWhole: undefined, mayBeRunning: false });
  const whole = await driven(t, { migration: "completed" });
  await whole.write("waiting");
  whole.qemu.whim = ({ execute }) => (execute === "query-named-block-nodes" ? "no images today" : undefined);
  const kept = whole.drive({ kind: "loading", guest: whole.guest, receiver: whole.stream().receiver });
  await whole.until("withheld");
  whole.signals.unneeded.abort(WITHDRAWN);
  await kept;
  t.same(whole.kinds(), ["loading", "refusing", "withheld", "discarding", "discarded"]);
});

t.test("a copy that misses pages is not kept after a fault, since nobody could start it", async (t) => {
  const { drive, states, kinds, guest, stream, write } = await driven(t, { status: "inmigrate" });
  await write("waiting");
  const { receiver } = stream({ postcopy: true });
  receiver.fail(DAMAGED);
  await drive({ kind: "loading", guest, receiver });
  t.same(kinds(), ["loading", "refusing", "discarding", "discarded"]);
  t.match(states[1], { isWhole: false });
});

t.test("a grant that the disk does not take is refused, and the journal may say that the guest runs", async (t) => {
  for (const postcopy of [undefined, POSTCOPY]) {
    const { drive, states, until, guest, write, failWrites, signals } = await driven(t);
    await write("waiting");
    failWrites(true);
    const done = drive({ kind: "owning", guest, ...(postcopy && { postcopy }), grant: GRANT, isMarked: false });
    await until("refusing");
    t.match(states[1], { isWhole: postcopy === undefined, mayBeRunning: true, fault: { code: "state-directory" } });
    signals.unneeded.abort(WITHDRAWN);
    await done;
    t.equal(states.at(-1)?.kind, "discarded");
  }
});

t.test("a start that fails is tried again: the guest may have run, so it is not refused", async (t) => {
  const { drive, kinds, guest, write, until, qemu, steps } = await driven(t, { status: "inmigrate" });
  await write("running");
  const done = drive({ kind: "starting", guest, grant: GRANT, grantedAtUs: 5 });
  await until("starting", 2);
  t.same(steps, []);
  qemu.state.status = "paused";
  await done;
  t.equal(kinds().at(-1), "arrived");
  t.same(new Set(kinds()), new Set(["starting", "arrived"]));
});

t.test(
  "an agent that stops leaves a guest that waits to the next agent, and one that starts only when it leaves",
  async (t) => {
    const waits = await driven(t);
    await waits.write("waiting");
    waits.signals.stopping.abort(STOPPING);
    await waits.drive({ kind: "loaded", guest: waits.guest, loadedAtUs: 5 });
    t.same(waits.kinds(), ["loaded"]);
    const starts = await driven(t, { status: "inmigrate" });
    await starts.write("running");
    starts.signals.stopping.abort(STOPPING);
    const done = starts.drive({ kind: "starting", guest: starts.guest, grant: GRANT, grantedAtUs: 5 });
    await starts.until("starting", 2);
    starts.signals.leaving.abort(STOPPING);
    await done;
    t.equal(starts.kinds().at(-1), "starting");
    t.match((await starts.record())?.kind, "running");
  },
);

t.test(
  "a state that fails at once is tried again after half a second, and does not occupy the processor",
  async (t) => {
    const clock = new FakeClock();
    const { drive, kinds, guest, write, until, signals } = await driven(t, { status: "inmigrate", clock });
    await write("running");
    const done = drive({ kind: "starting", guest, grant: GRANT, grantedAtUs: 5 });
    await clock.untilWaitedFor();
    await clock.advance(499);
    t.same(kinds(), ["starting"]);
    await clock.advance(1);
    await until("starting", 2);
    signals.leaving.abort(STOPPING);
    await clock.walkUntil(done);
    t.same(new Set(kinds()), new Set(["starting"]));
  },
);

t.test("a fault before the guest is loaded is never left to the next agent, which could not go on", async (t) => {
  const { drive, kinds, guest, stream, signals } = await driven(t, { status: "inmigrate" });
  const { receiver } = stream();
  signals.stopping.abort(STOPPING);
  signals.leaving.abort(STOPPING);
  receiver.fail(DAMAGED);
  await drive({ kind: "receiving", guest, receiver });
  t.same(kinds(), ["receiving", "discarding", "discarded"]);
});

t.test("a QEMU that the kernel does not let end is reported, and keeps no migration alive", async (t) => {
  const { drive, states, guest } = await driven(t);
  const held = new MigrationFault("qemu-failed", "Process 77, a QEMU of web, does not end");
  guest.discard = async () => Promise.reject(held);
  await drive({ kind: "discarding", fault: DAMAGED, undo: { guest }, refused: false });
  t.match(states, [{ kind: "discarding" }, { kind: "discarded", fault: held }]);
});
