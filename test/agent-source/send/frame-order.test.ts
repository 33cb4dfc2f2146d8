/** Tests in which order `FrameSender` gives frames of precopy to the channel, however long their compression takes. */
import t from "tap";
import { FakeClock } from "../../support/fake-clock.ts";
import { pagesOf, type SendingOptions, sending, turn } from "../../support/sending.ts";

/** Makes a sender whose frames have four pages, and captures the pages from 0 on. */
function withPages(count: number, options: SendingOptions = {}) {
  const clock = new FakeClock();
  const rig = sending({ compressed: true, clock, ...options });
  for (let page = 0; page < count; page++) rig.capture(page, 1 + page);
  rig.sender.pump();
  /** Ends the compression of the frame that was made as number `frame`, from 0 on. */
  const compressed = async (frame: number): Promise<void> => {
    rig.compressing[frame]?.resolve(-1);
    await turn();
  };
  /** What was sent, in order: the pages of each frame, or the text of other bytes. */
  const sent = () => rig.frames.map((frame) => (frame.kind === "pages" ? pagesOf(frame) : frame.body.toString()));
  return { ...rig, clock, compressed, sent };
}

t.test(
  "frames go in the order in which they were made, although their compression ends in another order",
  async (t) => {
    const { compressing, compressed, frames, sent } = withPages(12);
    t.equal(compressing.length, 3);
    await compressed(2);
    await compressed(1);
    t.same(sent(), [], "both wait for the first frame");
    await compressed(0);
    t.same(sent(), [
      [0, 1, 2, 3],
      [4, 5, 6, 7],
      [8, 9, 10, 11],
    ]);
    t.same(
      frames.map(({ sequence }) => sequence),
      [1, 2, 3],
      "a frame gets its number when it goes",
    );
  },
);

t.test("a later version of a page goes behind the earlier one, whichever is compressed first", async (t) => {
  const { capture, sender, compressed, compressing, sent } = withPages(4);
  for (let page = 0; page < 4; page++) capture(page, 101 + page);
  sender.pump();
  await compressed(1);
  t.same(sent(), []);
  await compressed(0);
  t.equal(compressing.length, 1, "deltas are too short to be compressed");
  t.same(sent(), [
    [0, 1, 2, 3],
    [0, 1, 2, 3],
  ]);
});

t.test("what follows RAM goes after all pages, also those that are compressed or not yet in a frame", async (t) => {
  const { sender, compressing, compressed, sent, acknowledge } = withPages(12, { creditWindowBytes: 4 * 4096 });
  const flushed = sender.flushed().then(() => "flushed");
  sender.sendVerbatim(Buffer.from("devices, "), "device");
  sender.sendVerbatim(Buffer.from("and the end"), "device");
  for (let frame = 0; frame < 3; frame++) {
    t.same(compressing.length, frame + 1, "there is credit for one frame at a time");
    t.equal(sent().length, frame);
    await compressed(frame);
    acknowledge();
  }
  t.same(sent().slice(0, 3).flat(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  t.same(sent().slice(3), ["devices, and the end"]);
  t.equal(await flushed, "flushed");
});

t.test("what follows RAM also waits for pages that are held since they are hot", async (t) => {
  const { scheduler, sender, capture, sent } = withPages(0, { compressed: false });
  for (let version = 0; version < 9; version++) for (let page = 0; page < 3; page++) capture(page, 10 * version + page);
  scheduler.holdPages = 3;
  sender.sendVerbatim(Buffer.from("devices"), "device");
  t.same(sent(), []);
  scheduler.holdPages = 0;
  sender.pump();
  t.same(sent(), [[0, 1, 2], "devices"]);
});

t.test("other bytes than those go before the pages that are pending", async (t) => {
  const { sender, acknowledge, sent } = withPages(8, { compressed: false, creditWindowBytes: 4 * 4096 });
  sender.sendVerbatim(Buffer.from("head"), "head");
  t.same(sent(), [[0, 1, 2, 3]], "there is no credit");
  for (let frame = 0; frame < 2; frame++) {
    acknowledge();
    await turn();
  }
  t.same(sent(), [[0, 1, 2, 3], "head", [4, 5, 6, 7]]);
});

t.test("a sender that was stopped sends nothing more when a compression ends", async (t) => {
  const { sender, clock, compressed, sent } = withPages(40);
  sender.stop();
  await compressed(0);
  await clock.advance(1000);
  t.same(sent(), []);
  t.equal(clock.pending, 0);
});
