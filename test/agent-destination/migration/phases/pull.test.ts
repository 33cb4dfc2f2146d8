/**
 * Tests a guest that runs here in post-copy while its last pages come: when it has arrived, when it is lost, and that
 * whatever breaks meanwhile is taken up again.
 */
import { existsSync, writeFileSync } from "node:fs";
import t, { type Test } from "tap";
import { keeperPlaces } from "../../../../agent-destination/migration/destination-context.ts";
import { pull } from "../../../../agent-destination/migration/phases/pull.ts";
import { MigrationFault } from "../../../../shared/fault.ts";
import { encodeShut } from "../../../../shared/qemu/return-path/return-path.ts";
import { bounded, eventually } from "../../../support/bounded.ts";
import { type Came, destinationPhase, POSTCOPY } from "../../../support/destination-cx.ts";
import { FakeClock } from "../../../support/fake-clock.ts";

const WITHIN = { timeoutMs: 15_000 };
const LEAVING = new MigrationFault("stopping", "The agent stops");
/** QEMU's answer to `migrate-recover` while it does not know that its stream is over, or has every page. */
const NOT_PAUSED = "Migrate recover can only be run when postcopy is paused";

/** Lets the pages of a guest be pulled that runs here. */
async function pulling(t: Test, came: Came & { readonly hasStream?: boolean } = {}) {
  const phase = await destinationPhase(t, { status: "running", migration: "postcopy-active", ...came });
  await phase.write("running", { postcopy: POSTCOPY, ran: true });
  const link = came.hasStream === false ? undefined : phase.stream({ postcopy: true });
  const { guest, cx } = phase;
  const state = { kind: "pulling", guest, postcopy: POSTCOPY, ...(link && { receiver: link.receiver }) } as const;
  return { ...phase, link, pulled: () => bounded(pull(state, cx), 30_000, "the end of post-copy") };
}

t.test("a guest with every page has arrived: the source hears it, and QEMU is left as by precopy", async (t) => {
  const { pulled, link, steps, record, qemu, guest, told } = await pulling(t);
  const settings: unknown[] = [];
  qemu.whim = ({ execute, arguments: given }) => {
    if (execute === "migrate-set-capabilities") settings.push(given);
    return undefined;
  };
  const done = pulled();
  t.same(told.streams, [link?.receiver.channel], "a source that calls hears of this stream");
  link?.socket.write(encodeShut(0));
  t.same(await done, { kind: "arrived" });
  t.same(steps, ["source: complete", "migrate-set-capabilities", "journal: arrived"]);
  t.match(link?.said, [{ kind: "complete", service: { requests: 0 } }]);
  t.same(settings, [{ capabilities: [{ capability: "postcopy-ram", state: false }] }]);
  t.match(await record(), { kind: "arrived" });
  t.notOk(guest.qmp.isOpen, "the monitor is left to others");
});

t.test("a QEMU that keeps its capability, and a disk that takes no record, hold up no guest", async (t) => {
  const { pulled, link, qemu, failWrites, signals } = await pulling(t);
  qemu.whim = ({ execute }) => (execute === "migrate-set-capabilities" ? "not now" : undefined);
  failWrites(true);
  const done = pulled();
  link?.socket.write(encodeShut(0));
  t.same(await done, { kind: "arrived" });
  signals.leaving.abort(LEAVING);
});

t.test("a guest whose QEMU ends is lost: the source hears why, and no socket is left", async (t) => {
  const { pulled, link, qemu, cx, record } = await pulling(t);
  const { path } = keeperPlaces(cx);
  writeFileSync(path, "");
  const done = pulled();
  await qemu.end();
  link?.receiver.fail(new MigrationFault("qemu-failed", "The destination's QEMU ended"));
  t.same(await done, { kind: "lost" });
  t.match(link?.said, [{ kind: "failure", message: /ran at the destination, and its QEMU has ended/ }]);
  t.notOk(existsSync(path));
  t.match(await record(), { kind: "running" }, "the guest may have run, whatever becomes of its pages");
});

t.test("a stream that fails is given up for a new one, until QEMU has every page", async (t) => {
  for (const fails of [
    (link: { receiver: { fail(fault: MigrationFault): void } }) =>
      link.receiver.fail(new MigrationFault("checksum-mismatch", "A frame was damaged")),
    (link: { socket: { write(bytes: Uint8Array): unknown } }) => link.socket.write(encodeShut(1)),
  ]) {
    const { pulled, link, qemu, steps } = await pulling(t);
    if (link === undefined) throw new Error("there is a stream");
    let tries = 0;
    qemu.whim = ({ execute }) => {
      if (execute !== "migrate-recover") return undefined;
      if (++tries === 3) qemu.state.migration = "completed";
      return NOT_PAUSED;
    };
    const done = pulled();
    fails(link);
    t.same(await done, { kind: "arrived" });
    t.equal(steps[0], "source: failure", "the source is told before it is dialled again");
    t.same(steps.slice(1, 3), ["migrate-recover", "migrate-pause"]);
    t.notOk(steps.includes("source: complete"), "there is no stream to say it by");
  }
});

t.test("an agent that has started again resumes post-copy, or finds that it is complete", async (t) => {
  const { pulled, qemu, record, told } = await pulling(t, { hasStream: false, migration: "completed" });
  qemu.whim = ({ execute }) => (execute === "migrate-recover" ? NOT_PAUSED : undefined);
  t.same(await pulled(), { kind: "arrived" });
  t.match(await record(), { kind: "arrived" });
  t.same(told.streams, []);
});

t.test("post-copy is resumed again and again, after pauses of 250 ms to 2 s", async (t) => {
  const clock = new FakeClock();
  const { pulled, guest, signals } = await pulling(t, { hasStream: false, clock });
  let tries = 0;
  guest.monitor = async () => {
    tries++;
    throw new MigrationFault("qmp-timeout", "QEMU does not answer");
  };
  const done = pulled();
  done.catch(() => undefined);
  for (const pauseMs of [250, 500, 1000, 2000, 2000]) {
    await clock.untilWaitedFor();
    const before = tries;
    await clock.advance(pauseMs - 1);
    t.equal(tries, before);
    await clock.advance(1);
    await eventually(() => (tries > before ? true : undefined), { ...WITHIN, what: `a try after ${pauseMs} ms` });
  }
  signals.leaving.abort(LEAVING);
  await t.rejects(done, { code: "stopping" });
});

t.test("an agent that leaves leaves the pages to the next agent, and writes nothing", async (t) => {
  const { pulled, signals, steps, qemu } = await pulling(t);
  const done = pulled();
  done.catch(() => undefined);
  signals.leaving.abort(LEAVING);
  await t.rejects(done, { code: "stopping" });
  t.same(steps, []);
  t.ok(qemu.isAlive);
});

t.test("an operator may end a guest whose missing pages are lost, and it is lost then", async (t) => {
  const { pulled, say, qemu, link } = await pulling(t);
  const done = pulled();
  say("end");
  await eventually(() => (qemu.isAlive ? undefined : true), { ...WITHIN, what: "the end of QEMU" });
  link?.receiver.fail(new MigrationFault("qemu-failed", "The destination's QEMU ended"));
  t.same(await done, { kind: "lost" });
  t.ok(qemu.said.includes("quit"));
});
