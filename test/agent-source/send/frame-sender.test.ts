/** Tests `FrameSender` in post-copy: which frames go first, and how many bytes are on their way. */
import t from "tap";
import { PostcopyScheduler } from "../../../agent-source/postcopy/postcopy-scheduler.ts";
import { PAGE_SIZE } from "../../../shared/units.ts";
import { eventually } from "../../support/bounded.ts";
import { pagesOf, type SendingOptions, sending, turn } from "../../support/sending.ts";

/** Makes a sender in post-copy whose destination misses all pages. Its frames have four pages. */
function inPostcopy(options: SendingOptions) {
  const rig = sending(options);
  const { kernels, scheduler } = rig;
  const { pages, total } = scheduler;
  const postcopy = new PostcopyScheduler({ kernels, pages, total, pageCount: 400 });
  postcopy.missing.addRange(0, 400);
  postcopy.frameBytes = 4 * PAGE_SIZE;
  pages.dropBases();
  rig.sender.takeFrom(postcopy);
  const request = (page: number): void => {
    postcopy.request(page);
    rig.sender.pump();
  };
  return { ...rig, postcopy, request };
}

t.test("pages for which the guest waits do not wait for credit", async (t) => {
  const { capture, sender, frames, request, acknowledge } = inPostcopy({ creditWindowBytes: 4 * PAGE_SIZE });
  for (let page = 0; page < 30; page++) capture(page, 7);
  sender.pump();
  await turn();
  t.equal(frames.length, 1, "there is no credit for another frame");
  request(20);
  t.same(pagesOf(frames[1]), [20]);
  sender.pump();
  t.equal(frames.length, 2);
  acknowledge();
  await eventually(() => frames[2], { timeoutMs: 20_000, what: "the frame for which there is credit again" });
  t.equal(frames.length, 3);
});

t.test("one frame buffer is left for requested pages, however many frames are being compressed", async (t) => {
  const { capture, sender, frames, request, compressing } = inPostcopy({ compressed: true });
  for (let page = 0; page < 100; page++) capture(page, 7);
  sender.pump();
  const before = compressing.length;
  sender.pump();
  t.equal(compressing.length, before, "no more frame buffers are taken");
  for (const page of [90, 91]) {
    request(page);
    await turn();
  }
  t.same(
    frames.map((frame) => pagesOf(frame)),
    [[90], [91]],
  );
});

t.test("beShallow resolves when only little is on its way", async (t) => {
  const { capture, sender, acknowledge } = sending({ frameBytes: 64 * PAGE_SIZE });
  for (let page = 0; page < 300; page++) capture(page, 7);
  sender.pump();
  await turn();
  t.ok(sender.inFlightBytes > 1e6, `${sender.inFlightBytes} bytes`);
  let shallow = false;
  const told = sender.beShallow(16 << 10).then(() => {
    shallow = true;
  });
  await turn();
  t.notOk(shallow);
  acknowledge();
  await told;
  t.equal(sender.inFlightBytes < 400_000, true);
  await sender.beShallow(16 << 10);
});

t.test("waits for little on the way, or for an empty line, end when the sender stops", async (t) => {
  const { capture, sender } = sending({ compressed: true });
  for (let page = 0; page < 300; page++) capture(page, 7);
  sender.pump();
  const waiting = Promise.all([sender.flushed(), sender.beShallow(1)]);
  sender.stop();
  await waiting;
  t.pass();
});
