/** Tests `TransferSession`: the way of a whole stream, and which faults end the session at which moment. */
import t from "tap";
import { MigrationFault } from "../../../shared/fault.ts";
import { bounded, eventually } from "../../support/bounded.ts";
import { fakeStream } from "../../support/fake-stream.ts";
import { turn } from "../../support/sending.ts";
import { simulatedSession } from "../../support/simulated-session.ts";

const STREAM = fakeStream({ seed: 5 });
const FAULT = new MigrationFault("peer-lost", "the first");
const OTHER = new MigrationFault("internal", "the second");

const soon = <Value>(what: string, ask: () => Value | undefined): Promise<Value> =>
  eventually(ask, { timeoutMs: 20_000, everyMs: 1, what });
const isSo = (what: string, ask: () => boolean): Promise<true> => soon(what, () => (ask() ? true : undefined));
/** Waits until a signal is aborted. @returns its reason */
const reasonOf = (signal: AbortSignal): Promise<MigrationFault> =>
  soon("the end of the session", () => (signal.aborted ? MigrationFault.from(signal.reason) : undefined));

t.test("a stream that QEMU writes reaches the destination, and QEMU then waits for SHUT", async (t) => {
  const { session, stream, sent, kinds, qemu } = await simulatedSession(t);
  t.equal(session.awaitsShut, false);
  const socket = await stream();
  const ended = session.endWhenRead();
  session.letStop();
  socket.write(STREAM.bytes);
  await bounded(session.completing.promise, 20_000, "a stream that shows that the guest is stopped");
  await bounded(ended, 20_000, "the end of the stream");
  await isSo("the last message", () => kinds().includes("endOfStream"));
  t.match(
    sent.find(({ kind }) => kind === "layout"),
    { blocks: [{ name: "pc.ram" }, { name: "pc.bios" }, { name: "/rom@etc/acpi/tables" }], ramSectionId: 2 },
  );
  t.match(sent.at(-1), { kind: "endOfStream", lastSequence: session.sender.sequence });
  const frames = sent.flatMap((message) => (message.kind === "frame" ? [message.frameKind] : []));
  t.same([...new Set(frames)], ["verbatim", "pages"]);
  t.equal(frames.at(-1), "verbatim", "the devices go last");
  t.ok(session.capture.firstPassDone);
  await isSo("the acknowledgement", () => qemu.said.includes("ack"));
  await isSo("QEMU's new limits", () => qemu.limits.length > 0);
  t.match(qemu.limits, [{ "downtime-limit": 2_000_000 }]);
  t.ok(session.awaitsShut);
  session.shut();
  t.notOk(session.awaitsShut);
  await isSo("SHUT", () => qemu.said.includes("shut"));
});

t.test("a QEMU whose guest was paused waits for no SHUT, since it does not run the guest by itself", async (t) => {
  const { session, stream } = await simulatedSession(t, { status: "paused" });
  const socket = await stream();
  socket.write(STREAM.bytes);
  await bounded(session.ended.promise, 20_000, "the end of the stream");
  t.notOk(session.awaitsShut);
});

t.test("once its stream was read, QEMU has given everything, and its end is no fault", async (t) => {
  const { session, stream, qemu } = await simulatedSession(t);
  const socket = await stream();
  socket.write(STREAM.bytes);
  await bounded(session.ended.promise, 20_000, "the end of the stream");
  qemu.hangUp();
  socket.destroy();
  await isSo("the end of the monitor", () => session.qemuLost);
  for (let turns = 0; turns < 20; turns++) await turn();
  t.notOk(session.signal.aborted);
});

t.test("a stream that ends early ends the session with what QEMU says of it", async (t) => {
  const { session, stream, qemu } = await simulatedSession(t);
  const socket = await stream();
  socket.write(STREAM.bytes.subarray(0, 4000));
  qemu.migration = "cancelled";
  socket.end();
  t.match(await reasonOf(session.signal), { code: "qemu-failed", message: /Somebody else has cancelled/ });
});

t.test("a monitor that is closed before the stream has ended ends the session", async (t) => {
  const { session, qemu } = await simulatedSession(t);
  qemu.hangUp();
  t.match(await reasonOf(session.signal), { code: "qmp-disconnected" });
  t.ok(session.qemuLost);
});

t.test("the first fault is the one that counts, and a session that was stopped has none", async (t) => {
  const { session } = await simulatedSession(t);
  session.fail(FAULT);
  session.fail(OTHER);
  t.equal(session.signal.reason, FAULT);
  const stopped = await simulatedSession(t);
  await stopped.session.stop();
  stopped.session.fail(FAULT);
  t.notOk(stopped.session.signal.aborted);
  t.equal(stopped.clock.pending, 0, "nothing waits any more");
});

t.test("an operator's cancel ends the session before the grant is recorded, and not after that", async (t) => {
  const before = await simulatedSession(t);
  before.cancel(FAULT);
  t.equal(before.session.signal.reason, FAULT);
  const after = await simulatedSession(t);
  after.session.commit();
  after.cancel(FAULT);
  t.notOk(after.session.signal.aborted);
});

t.test("the destination is asked for its time, and counts as silent when it does not answer", async (t) => {
  const { session, clock, sent, link, kinds } = await simulatedSession(t);
  const isDown = (): boolean => session.capture.observer.observe(false).linkIsDown;
  await clock.advance(749);
  t.notOk(isDown());
  await clock.advance(2);
  t.ok(isDown());
  await isSo("the questions", () => kinds().filter((kind) => kind === "clockPing").length === 3);
  const question = sent.findLast(({ kind }) => kind === "clockPing");
  if (question?.kind !== "clockPing") throw new TypeError("no question");
  link.destination.send({ kind: "clockReply", nonce: question.nonce, destinationTimeUs: clock.nowUs() + 5000 });
  await isSo("the answer", () => !isDown());
  t.ok(session.meter.toLocal(clock.nowUs()) < clock.nowUs(), "the destination's clock is ahead");
});

t.test("a cut ends no migration, and what the destination is asked meanwhile counts until the grant", async (t) => {
  const { session, link, cuts, dialIn, channel } = await simulatedSession(t);
  link.cut();
  await isSo("the cut", () => cuts.length === 1);
  t.ok(channel.isCut);
  t.notOk(session.signal.aborted);
  const connected = session.inbox.nextConnection;
  dialIn();
  await bounded(connected, 20_000, "the next connection");
  t.notOk(channel.isCut);
  session.commit();
  cuts[0]?.(FAULT);
  t.notOk(session.signal.aborted, "in precopy the destination is asked by calls after the grant");
  const uncommitted = await simulatedSession(t);
  uncommitted.link.cut();
  (await soon("the cut", () => uncommitted.cuts[0]))(FAULT);
  t.equal(uncommitted.session.signal.reason, FAULT);
});

t.test("a link that stays down for longer than the patience of the stream ends the session", async (t) => {
  const { session, link, clock, channel } = await simulatedSession(t);
  link.cut();
  await isSo("the cut", () => channel.isCut);
  await clock.advance(60_000);
  t.match(await reasonOf(session.signal), { code: "peer-lost" });
});
