/**
 * Tests `PrecopyCapture`: when the first pass is done, when the stream is left unread, when the policy is asked, and
 * what follows the pages.
 */
import t from "tap";
import { encodeRamEnd } from "../../../shared/qemu/stream/stream-writer.ts";
import { PAGE_SIZE } from "../../../shared/units.ts";
import { BLOCKS, PAGES, SECTION } from "../../support/capturing.ts";
import { FAKE_START_US } from "../../support/fake-clock.ts";
import { precopyCapturing } from "../../support/precopy-capturing.ts";
import { pagesOf, turn } from "../../support/sending.ts";

/** A downtime that no switchover can have, so that the policy does not decide to switch. */
const UNDECIDED = { plan: { downtimeTargetMs: 1 } };

/** Makes a capture whose first pass is done, and whose pages were sent and acknowledged. */
async function afterFirstPass(options: Parameters<typeof precopyCapturing>[0] = {}) {
  const rig = precopyCapturing(options);
  rig.capture.layout(rig.setup);
  rig.offer(0, PAGES);
  rig.capture.partEnd();
  await turn();
  rig.acknowledge();
  return rig;
}

t.test("the first pass is done at the end of the section with which every page has come", async (t) => {
  const { capture, setup, offer, calls, scheduler } = precopyCapturing();
  capture.layout(setup);
  t.equal(calls.layout, 1);
  t.equal(capture.firstPassFraction, 0);
  offer(0, 200);
  t.ok(capture.partEnd());
  t.equal(capture.firstPassFraction, 0.5);
  t.notOk(capture.firstPassDone);
  offer(200, PAGES - 1);
  capture.zeroPage(PAGES - 1);
  t.notOk(capture.firstPassDone, "the section goes on");
  capture.partEnd();
  t.ok(capture.firstPassDone);
  t.equal(calls.firstPassDone, 1);
  t.equal(capture.firstPassPages, scheduler.pages.captured);
  t.equal(capture.firstPassFraction, 1);
});

t.test("pages that never come are not waited for once QEMU has synced and drained its bitmap", async (t) => {
  const { capture, setup, offer, calls } = precopyCapturing();
  capture.layout(setup);
  capture.passBegins(1);
  offer(0, 300);
  capture.partEnd();
  t.notOk(capture.firstPassDone, "QEMU has not synced yet");
  capture.passBegins(2);
  offer(300, 365);
  capture.partEnd();
  t.notOk(capture.firstPassDone, "a section of 65 pages ends because its time is up, and more pages follow");
  offer(365, 370);
  capture.partEnd();
  t.ok(capture.firstPassDone, "the balloon calls the other pages free");
  t.equal(calls.firstPassDone, 1);
  t.equal(capture.firstPassFraction, 1);
});

t.test("the first pass of stop-and-copy is done when QEMU's RAM is at its end", async (t) => {
  const { capture, setup, offer, clock, decisions, calls } = precopyCapturing({ plan: { strategy: "stop-and-copy" } });
  capture.layout(setup);
  await clock.advance(50);
  t.match(decisions, [{ kind: "switch", into: "destination" }], "the switch waits for no section");
  capture.beginFinal();
  capture.stopped();
  offer(0, 300);
  t.ok(capture.partEnd());
  t.notOk(capture.firstPassDone);
  t.equal(capture.firstPassFraction, 0.75);
  capture.ramEnd();
  t.ok(capture.firstPassDone);
  t.equal(capture.firstPassPages, 300, "pages that the balloon calls free never come");
  t.match(calls, { firstPassDone: 1, stopped: 1, ended: 0 });
  capture.end();
  t.equal(calls.ended, 1);
  t.equal(decisions.length, 1);
});

t.test("the end of RAM and the devices follow the last pages, and the moment of these is noted once", async (t) => {
  const { capture, setup, offer, clock, frames, acknowledge } = precopyCapturing({ creditWindowBytes: 4 * PAGE_SIZE });
  capture.prologue(0, 4);
  capture.layout(setup);
  clock.jump(100);
  offer(0, 12);
  capture.partEnd();
  capture.stopped();
  capture.ramEnd();
  capture.device(0, 3);
  capture.end();
  t.equal(capture.lastPagesSentUs, 0, "pages wait for credit");
  while (frames.length < 5) {
    acknowledge();
    await turn();
  }
  t.same(
    frames.map(({ kind }) => kind),
    ["verbatim", "pages", "pages", "pages", "verbatim"],
  );
  t.same(
    frames.flatMap((frame) => pagesOf(frame)),
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
  );
  t.equal(frames.at(-1)?.body.length, encodeRamEnd(SECTION).length + 3);
  t.equal(capture.lastPagesSentUs, FAKE_START_US + 100_000);
  clock.jump(100);
  capture.lastPagesSent();
  t.equal(capture.lastPagesSentUs, FAKE_START_US + 100_000);
});

t.test("a page that finds the arena full is left unread until pages have left the arena", async (t) => {
  const { capture, setup, offer, calls, acknowledge } = precopyCapturing({
    ...{ pendingSlots: 8, creditWindowBytes: 4 * PAGE_SIZE },
  });
  capture.layout(setup);
  const taken = offer(0, 100);
  t.ok(taken < 100, `${taken} pages are taken`);
  t.equal(calls.resumed, 0);
  t.notOk(capture.zeroPage(200) && offer(taken, 100) > 0, "the arena stays full");
  acknowledge();
  await turn();
  t.equal(calls.resumed, 1);
  t.ok(offer(taken, 100) > 0);
});

t.test("the first pass is left unread, piece by piece, while the link has enough to do", async (t) => {
  const { capture, setup, offer, calls, meter, acknowledge, clock } = precopyCapturing({
    creditWindowBytes: 4 * PAGE_SIZE,
  });
  meter.probed(4 << 20);
  capture.layout(setup);
  let taken = 0;
  while (capture.mayRead()) taken += offer(taken, taken + 10);
  t.ok(taken > 50 && taken < 250, `${taken} pages, which take the link more than 100 ms`);
  for (let round = 0; calls.resumed === 0 && round < 100; round++) {
    await clock.advance(10);
    acknowledge();
    await turn();
  }
  t.equal(calls.resumed, 1, "the link is not to run idle");
  t.ok(capture.mayRead());
});

t.test("after the first pass QEMU syncs no more often than the agent reads a drained section", async (t) => {
  const { capture, offer, calls, clock } = await afterFirstPass({ ...UNDECIDED, syncsPerSecond: 10 });
  t.ok(capture.firstPassDone);
  await clock.advance(100);
  offer(0, 20);
  t.notOk(capture.partEnd(), "a sync follows");
  calls.resumed = 0;
  await clock.advance(99);
  t.equal(calls.resumed, 0);
  await clock.advance(1);
  t.equal(calls.resumed, 1);
  offer(0, 65);
  t.ok(capture.partEnd(), "no sync follows a section that has only run out of time");
});

t.test("a guest that stands still is read at full speed", async (t) => {
  const { capture, offer, now } = await afterFirstPass(UNDECIDED);
  now.standsStill = true;
  offer(0, 20);
  t.ok(capture.partEnd());
});

t.test("the last pages are read at full speed, and the policy is asked no more", async (t) => {
  const { capture, offer, calls, clock, decisions } = await afterFirstPass({
    plan: { ...UNDECIDED.plan, deadlineMs: 2000 },
  });
  await clock.advance(100);
  offer(0, 20);
  t.notOk(capture.partEnd());
  calls.resumed = 0;
  capture.beginFinal();
  t.equal(calls.resumed, 1, "a stream that was left unread is read on");
  offer(0, 20);
  t.ok(capture.partEnd());
  await clock.advance(5000);
  t.same(decisions, []);
});

t.test("a deadline is noticed at a tick, without the end of a section, and only once", async (t) => {
  const { capture, setup, clock, decisions } = precopyCapturing({ plan: { deadlineMs: 1000 } });
  capture.layout(setup);
  await clock.advance(999);
  t.same(decisions, []);
  await clock.advance(51);
  t.match(decisions, [{ kind: "cancel", reason: /deadline of 1000 ms/ }]);
  await clock.advance(5000);
  t.equal(decisions.length, 1);
});

t.test("a copy that converges is switched when the residual fits", async (t) => {
  const { capture, offer, clock, decisions, acknowledge } = await afterFirstPass();
  for (let sweep = 0; decisions.length === 0 && sweep < 20; sweep++) {
    await clock.advance(200);
    offer(0, 3);
    capture.partEnd();
    await turn();
    acknowledge();
  }
  t.match(decisions, [{ kind: "switch", into: "destination", reason: /the residual fits/ }]);
});

t.test("the heat fades each 250 ms, also for a time in which the agent had no processor", async (t) => {
  const { capture, scheduler, clock } = precopyCapturing();
  let faded = 0;
  scheduler.fade = () => void faded++;
  await clock.advance(249);
  t.equal(faded, 0);
  await clock.advance(251);
  t.equal(faded, 2);
  clock.jump(1000);
  await clock.advance(50);
  t.equal(faded, 6);
  capture.stop();
  t.equal(clock.pending, 0);
});

t.test("a block that QEMU's monitor did not name so is refused", async (t) => {
  const { capture, setup, calls } = precopyCapturing();
  const blocks = [...BLOCKS, { name: "vga.vram", byteLength: PAGE_SIZE, pageSize: PAGE_SIZE }];
  t.throws(() => capture.layout({ ...setup, blocks }), { code: "stream-unsupported", message: /vga\.vram of 4096/ });
  t.equal(calls.layout, 0);
  t.throws(() => capture.streamLayout, TypeError);
  capture.layout(setup);
  t.same(capture.streamLayout, {
    ramSectionId: SECTION,
    blocks: BLOCKS.map(({ name, byteLength }) => ({ name, byteLength })),
  });
});

t.test("a post-copy that goes on after a break is read at full speed, and nothing is decided", async (t) => {
  const { capture, setup, clock, decisions } = precopyCapturing({ plan: { deadlineMs: 1000 } });
  capture.resume(setup);
  t.ok(capture.firstPassDone);
  t.equal(capture.firstPassFraction, 1);
  await clock.advance(5000);
  t.same(decisions, []);
});
