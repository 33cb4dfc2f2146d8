/**
 * Tests the start of a guest that is this host's: what is said to QEMU, the source and the journal, in which order, and
 * what an answer of QEMU proves.
 */
import { existsSync, writeFileSync } from "node:fs";
import t, { type Test } from "tap";
import { keeperPlaces } from "../../../../agent-destination/migration/destination-context.ts";
import { start } from "../../../../agent-destination/migration/phases/start.ts";
import type { DestinationPostcopy, DestinationRecord } from "../../../../shared/protocol/ownership.ts";
import { bounded, eventually } from "../../../support/bounded.ts";
import {
  type Came,
  destinationPhase,
  GRANT,
  POSTCOPY,
  refusedGrant,
  type StreamOptions,
} from "../../../support/destination-cx.ts";
import { FakeClock } from "../../../support/fake-clock.ts";

const WITHIN = { timeoutMs: 15_000 };
const LOCKED = 'Failed to get "write" lock';

interface Starting extends Came {
  readonly paused?: boolean;
  readonly stream?: StreamOptions | "no stream";
  readonly record?: Partial<DestinationRecord>;
}

/** Lets a guest be started that the journal has as this host's. */
async function starting(t: Test, { paused = false, stream = {}, record = {}, ...came }: Starting = {}) {
  const phase = await destinationPhase(t, came);
  const grant = { ...GRANT, paused };
  const isPostcopy = stream !== "no stream" && stream.postcopy === true;
  const postcopy: { postcopy?: DestinationPostcopy } = isPostcopy ? { postcopy: POSTCOPY } : {};
  await phase.write("running", { grant, ...postcopy, ...record });
  const link = stream === "no stream" ? undefined : phase.stream(stream);
  const { guest, cx } = phase;
  const state = { kind: "starting", guest, ...(link && { receiver: link.receiver }), ...postcopy } as const;
  const started = () => bounded(start({ ...state, grant, grantedAtUs: 77 }, cx), 20_000, "the start");
  return { ...phase, link, started };
}

t.test("QEMU is told to run the guest, then the source hears it, and then the journal has it as arrived", async (t) => {
  const { started, steps, record, told, link, guest } = await starting(t);
  t.same(await started(), { kind: "arrived" });
  t.same(steps.slice(0, 2), ["cont", "source: running"]);
  // the announcement on the networks and the record are made at once
  t.same(steps.slice(2).toSorted(), ["announce-self", "journal: arrived"]);
  t.match(await record(), { kind: "arrived", grant: GRANT });
  t.match(link?.said, [{ kind: "running", epoch: 1, grantedAtUs: 77, ...told.running[0] }]);
  t.notOk(guest.qmp.isOpen, "the monitor is left to others");
});

t.test("the guest counts as resumed from the time that QEMU's event says", async (t) => {
  const beforeUs = Date.now() * 1000;
  const { started, told, qemu } = await starting(t);
  let saidUs = 0;
  qemu.whim = ({ execute }) => {
    if (execute === "cont") saidUs = Date.now() * 1000;
    return undefined;
  };
  await started();
  const { resumedAtUs = 0 } = told.running[0] ?? {};
  t.ok(resumedAtUs >= saidUs && saidUs >= beforeUs, `${resumedAtUs} is not before ${saidUs}`);
  t.equal(resumedAtUs % 1000, 0, "this QEMU's clock has no finer times, and this host's clock has");
});

t.test("a guest that was granted paused has arrived as it is, and cont is not said", async (t) => {
  for (const status of ["paused", "prelaunch", "running"]) {
    const { started, steps, told, record } = await starting(t, { status, paused: true });
    t.same(await started(), { kind: "arrived" }, status);
    t.notOk(steps.includes("cont"));
    t.match(told.running, [{ resumedAtUs: 0 }]);
    t.match(await record(), { kind: "arrived", grant: { paused: true } });
  }
});

t.test("a guest that was granted paused and is in a third state is not reported as arrived", async (t) => {
  const { started, told } = await starting(t, { status: "inmigrate", paused: true });
  await t.rejects(started(), { code: "qemu-failed", message: "The destination's QEMU is inmigrate, not paused" });
  t.same(told.running, []);
});

t.test("cont is said only to the QEMU that the journal names, and only by the record `running`", async (t) => {
  const other = { pid: 1, identity: "another process" };
  for (const [record, message] of [
    [{ kind: "waiting" }, /The journal says waiting/],
    [{ kind: "refused" }, /The journal says refused/],
    [{ qemu: other }, /The journal says running, but not for this QEMU, so/],
  ] as const) {
    const { started, steps } = await starting(t, { record });
    await t.rejects(started(), { code: "internal", message });
    t.same(steps, []);
  }
});

t.test(
  "a QEMU that refuses cont has not run the guest: the guest is refused, and its locks are released",
  async (t) => {
    for (const postcopy of [false, true]) {
      const { started, qemu, steps, guest, told } = await starting(t, { stream: { postcopy } });
      qemu.whim = ({ execute }) => (execute === "cont" ? LOCKED : undefined);
      t.match(await started(), {
        kind: "refusing",
        fault: {
          code: "qemu-failed",
          message: /did not start the guest: .*"write" lock/,
          advice: /Mend what QEMU says/,
        },
        undo: { guest },
        isWhole: !postcopy,
        mayBeRunning: true,
      });
      t.same(steps, ["cont", "blockdev-set-active"]);
      t.same(told.running, []);
    }
  },
);

t.test(
  "a QEMU that does not run the guest within ten seconds of cont has failed, and may be asked again",
  async (t) => {
    const clock = new FakeClock();
    const { started, qemu, steps } = await starting(t, { clock });
    // QEMU takes cont, and does nothing
    let looks = 0;
    qemu.whim = ({ execute }) => {
      if (execute !== "query-status" || !qemu.said.includes("cont")) return undefined;
      qemu.state.status = "paused";
      if (++looks === 2) clock.jump(10_001);
      return undefined;
    };
    qemu.mutes("RESUME");
    const done = started();
    await clock.walkUntil(done);
    await t.rejects(done, { code: "qemu-failed", message: "The destination's QEMU is paused after cont, not running" });
    t.same(steps, ["cont"], "the source is not told that the guest runs");
  },
);

t.test("a guest whose QEMU ends at the start may have run: it is lost, and never refused", async (t) => {
  const { started, qemu, link, cx } = await starting(t);
  const { path } = keeperPlaces(cx);
  writeFileSync(path, "");
  qemu.whim = ({ execute }) => {
    if (execute !== "cont") return undefined;
    void qemu.end();
    return "silence";
  };
  t.same(await started(), { kind: "lost" });
  t.match(link?.said, [{ kind: "failure", code: "qemu-failed", message: /was started, and its QEMU has ended/ }]);
  t.equal(refusedGrant(link?.said[0]), "", "this is no refusal");
  t.notOk(existsSync(path), "the sockets that it leaves are removed");
});

t.test("in post-copy the stream stays, however long the link is down, and the record tells that it ran", async (t) => {
  const { started, steps, link, guest, told, record } = await starting(t, { stream: { postcopy: true } });
  t.match(await started(), { kind: "pulling", guest, postcopy: POSTCOPY, receiver: link?.receiver });
  const isNoted = () => (steps.includes("journal: running") && steps.includes("announce-self") ? true : undefined);
  await eventually(isNoted, { ...WITHIN, what: "the record and the announcement" });
  t.same(steps.slice(0, 2), ["cont", "source: running"]);
  t.match(await record(), { kind: "running", ran: true, postcopy: POSTCOPY });
  t.equal(link?.link.patienceMs, Number.POSITIVE_INFINITY);
  t.same(told.streams, [link?.receiver.channel]);
  t.ok(guest.qmp.isOpen);
});

t.test("an operator may end a guest that cannot be started since its pages are lost", async (t) => {
  const { started, qemu, say } = await starting(t, { stream: { postcopy: true } });
  // QEMU takes cont, and its main loop waits for a page
  qemu.whim = ({ execute }) => (execute === "cont" ? "silence" : undefined);
  const done = started();
  await eventually(() => (qemu.said.includes("cont") ? true : undefined), { ...WITHIN, what: "cont" });
  say("end");
  t.same(await done, { kind: "lost" });
  t.notOk(qemu.isAlive);
});

t.test("a QEMU that does not announce the guest on its networks has started it all the same", async (t) => {
  const { started, qemu } = await starting(t);
  qemu.whim = ({ execute }) => (execute === "announce-self" ? "no such command" : undefined);
  t.same(await started(), { kind: "arrived" });
});
