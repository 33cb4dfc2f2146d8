/** Tests how `TransferSession` begins post-copy, and of which parts `buildSession` makes a session. */
import t, { type Test } from "tap";
import type { SourcePostcopy } from "../../../shared/protocol/ownership.ts";
import { eventually } from "../../support/bounded.ts";
import { fakeStream } from "../../support/fake-stream.ts";
import { turn } from "../../support/sending.ts";
import { simulatedSession } from "../../support/simulated-session.ts";

const { prologue } = fakeStream({ seed: 5 });
const POSTCOPY = { contract: { strategy: "hybrid", postcopy: true } } as const;
const LAYOUT = {
  ramSectionId: 2,
  blocks: [
    { name: "pc.ram", byteLength: 40 * 4096 },
    { name: "pc.bios", byteLength: 4 * 4096 },
    { name: "/rom@etc/acpi/tables", byteLength: 2 * 4096 },
  ],
};

/** Makes a session that has read the list of RAM blocks, and notes what becomes of the journal's record. */
async function withLayout(t: Test) {
  const rig = await simulatedSession(t, POSTCOPY);
  const { session, qemu, clock, stream } = rig;
  const socket = await stream();
  socket.write(prologue);
  await eventually(() => session.capture.layoutSeen, { timeoutMs: 20_000, everyMs: 1, what: "the layout" });
  /** The records that were noted, each with what QEMU had been told until then. */
  const noted: { readonly record: SourcePostcopy | undefined; readonly said: readonly string[] }[] = [];
  const begin = (): Promise<void> =>
    session.letPostcopy(async (record) => {
      noted.push({ record, said: [...qemu.said] });
    });
  const advance = async (ms: number): Promise<void> => {
    await clock.untilWaitedFor();
    await clock.advance(ms);
  };
  return { ...rig, socket, noted, begin, advance };
}

t.test("the journal knows of post-copy before the agent stops the guest, which is after a turn of QEMU", async (t) => {
  const { session, qemu, begin, advance, noted } = await withLayout(t);
  const begun = begin();
  await advance(54);
  for (let turns = 0; turns < 20; turns++) await turn();
  t.same(qemu.said, [], "QEMU has not ended its turn");
  t.equal(session.stoppedWith, undefined);
  await advance(1);
  await begun;
  t.match(noted, [{ record: { ...LAYOUT, codecs: [], creditWindowBytes: 1 << 20 }, said: [] }]);
  t.match(session.stoppedWith, LAYOUT);
  t.same(session.kept.postcopy, session.stoppedWith);
  const isAcked = (): true | undefined => (qemu.said.includes("ack") ? true : undefined);
  await eventually(isAcked, { timeoutMs: 20_000, everyMs: 1, what: "the acknowledgement" });
  t.same(qemu.said, ["migrate-start-postcopy", "stop", "ack"]);
  t.notOk(session.isPostcopy, "its package has not come");
});

t.test("a guest that somebody pauses just before is not stopped, and the journal's note is taken back", async (t) => {
  const { session, qemu, begin, advance, noted } = await withLayout(t);
  const refused = t.rejects(begin(), { code: "guest-not-running", advice: /Migrate again/ });
  qemu.event("STOP");
  const isStill = (): true | undefined => (session.runs.standsStill ? true : undefined);
  await eventually(isStill, { timeoutMs: 20_000, everyMs: 1, what: "QEMU's event" });
  await advance(55);
  await refused;
  t.match(noted, [{ record: LAYOUT }, { record: undefined }]);
  t.ok(session.paused);
  t.equal(session.stoppedWith, undefined);
  t.same(qemu.said, []);
});

t.test("a stream that is held for post-copy is read again once the guest is about to stop", async (t) => {
  const { session, socket, begin, advance } = await withLayout(t);
  const begun = begin();
  const before = session.intake.bytesRead;
  const part = fakeStream({ seed: 5, commands: false }).bytes.subarray(prologue.length, prologue.length + 500);
  await new Promise<void>((resolve) => socket.write(part, () => resolve()));
  for (let turns = 0; turns < 20; turns++) await turn();
  t.equal(session.intake.bytesRead, before);
  await advance(55);
  await begun;
  const isRead = (): true | undefined => (session.intake.bytesRead === before + part.length ? true : undefined);
  await eventually(isRead, { timeoutMs: 20_000, everyMs: 1, what: "the bytes behind the hold" });
});

t.test("a session has post-copy's parts only where post-copy was agreed on", async (t) => {
  const { session } = await simulatedSession(t);
  t.equal(session.postcopy, undefined);
  await t.rejects(
    session.letPostcopy(async () => undefined),
    TypeError,
  );
  const agreed = await simulatedSession(t, POSTCOPY);
  t.ok(agreed.session.postcopy);
  t.equal(agreed.session.inbox.postcopy, agreed.session.postcopy);
});

t.test("a broken post-copy goes on from the layout that the journal has", async (t) => {
  for (const from of ["break", "start"] as const) {
    const { session } = await simulatedSession(t, { ...POSTCOPY, resumed: { ...LAYOUT, from } });
    t.ok(session.postcopy, from);
  }
  await t.rejects(simulatedSession(t, { resumed: { ...LAYOUT, from: "break" } }), TypeError);
});
