/**
 * Tests how a post-copy is resumed whose stream to QEMU is lost: QEMU is made to listen, says which pages it has, and
 * the source is dialled for the others.
 */
import { writeFileSync } from "node:fs";
import t, { type Test } from "tap";
import { recoverPostcopy } from "../../../agent-destination/migration/recover-postcopy.ts";
import { encodeReceivedPages, encodeResumeAck } from "../../../shared/qemu/return-path/return-path.ts";
import { encodeRecvBitmap, encodeResume } from "../../../shared/qemu/stream/command-encoder.ts";
import { type Clock, systemClock } from "../../../shared/runtime/clock.ts";
import { PAGE_SIZE } from "../../../shared/units.ts";
import { bounded } from "../../support/bounded.ts";
import { destinationPhase, ID, POSTCOPY, TOKEN } from "../../support/destination-cx.ts";
import { DialledSource } from "../../support/dialled-source.ts";
import { FakeClock } from "../../support/fake-clock.ts";
import { IncomingStream } from "../../support/incoming-stream.ts";

const BLOCKS = [
  { name: "pc.ram", byteLength: 16 * PAGE_SIZE },
  { name: "pc.bios", byteLength: 8 * PAGE_SIZE },
];
/** What QEMU is asked on the new stream. */
const ASKED = Buffer.concat([...BLOCKS.map(({ name }) => encodeRecvBitmap(name)), encodeResume()]);
/** QEMU has the first 8 pages of 16, and 2 pages of 8. */
const HAS = [Uint8Array.of(255, 0), Uint8Array.of(0b101)];
const MISSING = 14;
const NOT_PAUSED = "Migrate recover can only be run when postcopy is paused.";

/**
 * Lets a post-copy be resumed. @param answers whether QEMU says which pages it has, once it was asked for all of them
 */
async function broken(t: Test, { answers = true, clock = systemClock }: { answers?: boolean; clock?: Clock } = {}) {
  const phase = await destinationPhase(t, { status: "running", migration: "postcopy-paused", clock });
  const { guest, cx, qemu } = phase;
  const incoming = IncomingStream.of(t, qemu, (bytes) => {
    if (!answers || bytes.length < ASKED.length) return undefined;
    const bitmaps = BLOCKS.map((block, at) => encodeReceivedPages(block, HAS[at]!));
    return Buffer.concat([...bitmaps, encodeResumeAck()]);
  });
  const source = await DialledSource.serve(t);
  const postcopy = { ...POSTCOPY, blocks: BLOCKS, sourceAddress: source.address };
  const recovered = async () => {
    const receiver = await bounded(recoverPostcopy(guest, postcopy, cx), 60_000, "post-copy to be resumed");
    t.teardown(() => receiver?.close());
    return receiver;
  };
  return { ...phase, incoming, source, recovered };
}

t.test("QEMU is asked for the pages of every block, and the source is dialled for those that it misses", async (t) => {
  const { recovered, incoming, source, steps } = await broken(t);
  const receiver = await recovered();
  t.same(steps, ["migrate-recover"]);
  t.same(await incoming.untilCame(ASKED.length), ASKED, "the bitmaps come first, since RESUME makes QEMU go on");
  t.equal(receiver?.postcopy?.missingPages, MISSING);
  t.equal(receiver?.postcopy?.isActive, true);
  t.match(await source.untilDialled(), { migrationId: ID, token: TOKEN, attempt: 1, restarted: true });
});

t.test("a socket that an earlier stream has left is no hindrance", async (t) => {
  const { recovered, cx } = await broken(t);
  writeFileSync(`${cx.config.runtimeDirectory}/${ID}.incoming`, "");
  t.ok(await recovered());
});

t.test("a QEMU that does not know yet that its stream is over is told so, and asked again", async (t) => {
  const { recovered, qemu, steps } = await broken(t);
  qemu.state.migration = "postcopy-active";
  let tries = 0;
  qemu.whim = ({ execute }) => {
    if (execute === "migrate-recover") return ++tries < 3 ? NOT_PAUSED : undefined;
    // QEMU takes no second command that says the same
    return execute === "migrate-pause" && tries === 2 ? "it is about to pause" : undefined;
  };
  t.ok(await recovered());
  t.same(steps, ["migrate-recover", "migrate-pause", "migrate-recover", "migrate-pause", "migrate-recover"]);
});

t.test(
  "a QEMU whose main loop waits for a page is asked again, without waiting for what it does not tell",
  async (t) => {
    const { recovered, qemu } = await broken(t);
    let tries = 0;
    qemu.whim = ({ execute }) => {
      if (execute === "query-migrate") return "silence";
      return execute === "migrate-recover" && ++tries < 2 ? NOT_PAUSED : undefined;
    };
    t.ok(await recovered());
  },
);

t.test("a QEMU that has every page needs no stream, and the source is not dialled", async (t) => {
  const { recovered, qemu, source, steps } = await broken(t);
  qemu.state.migration = "completed";
  qemu.whim = ({ execute }) => (execute === "migrate-recover" ? NOT_PAUSED : undefined);
  t.equal(await recovered(), undefined);
  t.same(steps, ["migrate-recover", "migrate-pause"]);
  t.same(source.hellos, []);
});

t.test("a QEMU that does not listen within five seconds has failed, in its own words", async (t) => {
  const clock = new FakeClock();
  const { recovered, qemu, source } = await broken(t, { clock });
  let tries = 0;
  qemu.whim = ({ execute }) => {
    if (execute !== "migrate-recover") return undefined;
    if (++tries === 2) clock.jump(5001);
    return NOT_PAUSED;
  };
  const done = recovered();
  await clock.walkUntil(done);
  await t.rejects(done, { code: "qmp-command", message: new RegExp(NOT_PAUSED) });
  t.equal(tries, 2);
  t.same(source.hellos, []);
});

t.test("a QEMU that does not say within twenty seconds which pages it has has failed", async (t) => {
  const clock = new FakeClock();
  const { recovered, incoming, source } = await broken(t, { answers: false, clock });
  const done = recovered();
  done.catch(() => undefined);
  await incoming.untilCame(ASKED.length);
  const closed = new Promise((resolve) => void incoming.connected().then((socket) => socket.once("close", resolve)));
  await clock.advance(20_000);
  await t.rejects(done, { code: "qemu-failed", message: "The destination's QEMU does not say which pages it has" });
  await bounded(closed, 20_000, "the end of the stream to QEMU");
  t.same(source.hellos, [], "nothing is asked of the source");
});

t.test("a QEMU that has ended is not asked", async (t) => {
  const { recovered, qemu, steps } = await broken(t);
  await qemu.end();
  await t.rejects(recovered(), { code: "qemu-failed", message: /The destination's QEMU ended/ });
  t.same(steps, []);
});

t.test("the end of QEMU is a fault of the new stream", async (t) => {
  const { recovered, qemu } = await broken(t);
  const receiver = await recovered();
  const failed = new Promise((resolve) => receiver?.signal.addEventListener("abort", resolve));
  await qemu.end();
  await bounded(failed, 20_000, "the fault of the stream");
  t.match(receiver?.signal.reason, { code: "qemu-failed" });
});
