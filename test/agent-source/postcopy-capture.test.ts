import fc from "fast-check";
import t from "tap";
import { PostcopyPages } from "../../agent-destination/postcopy-pages.ts";
import { PostcopyCapture } from "../../agent-source/postcopy-capture.ts";
import { readDiscards } from "../../shared/codec/discard-frame.ts";
import { PageSet } from "../../shared/page/page-set.ts";
import { ReturnPathReader } from "../../shared/qemu/return-path-reader.ts";
import { systemClock } from "../../shared/runtime/clock.ts";
import { PAGE_SIZE, pageIndex } from "../../shared/units.ts";
import { pagesOf, readPages, type SendingOptions, sending, turn } from "../support/sending.ts";

const PAGES = 400;
const BLOCKS = [
  { name: "pc.ram", byteLength: 390 * PAGE_SIZE, pageSize: PAGE_SIZE },
  { name: "pc.bios", byteLength: 10 * PAGE_SIZE, pageSize: PAGE_SIZE },
];
const SECTION = 2;

function setUp(options: SendingOptions = {}, aheadPages = 0) {
  const rig = sending({ pageCount: PAGES, ...options });
  const { kernels, scheduler, sender, frames, put, window } = rig;
  /** What QEMU was told on its return path. */
  const asked: number[] = [];
  const pongs: number[] = [];
  const none = (): void => undefined;
  const qemu = new ReturnPathReader(BLOCKS, {
    requestPages: (first, count) => {
      for (let page = first; page < first + count; page++) asked.push(page);
    },
    pong: (value) => pongs.push(value),
    shut: none,
    switchoverAck: none,
    resumeAck: none,
    receivedPages: none,
  });
  const calls = { packaged: 0, wanted: 0 };
  const capture = new PostcopyCapture({
    memory: kernels.memory,
    scheduler,
    sender,
    pageCount: PAGES,
    aheadPages,
    byHeat: true,
    answer: (bytes) => qemu.push(bytes),
    onPackaged: () => calls.packaged++,
    onWanted: () => calls.wanted++,
  });
  capture.layout({ blocks: BLOCKS });
  /** As QEMU sends its package; then the guest runs at the destination, unless told otherwise. */
  const sendPackage = (bytes: Uint8Array, runs = true): void => {
    kernels.memory.set(bytes, window);
    capture.packageStart(bytes.length);
    capture.packageBytes(window, window + 1);
    capture.packageBytes(window + 1, window + bytes.length);
    capture.packageEnd();
    if (runs) capture.flow();
  };
  const offer = (page: number, value = 1): boolean =>
    value === 0 ? capture.zeroPage(page) : capture.page(page, put(value));
  const discarded = (): number[] =>
    frames.flatMap(({ kind, body }) => {
      const pages: number[] = [];
      if (kind === "discards")
        readDiscards(body, PAGES, (first, count) => {
          for (let page = first; page < first + count; page++) pages.push(page);
        });
      return pages;
    });
  return { ...rig, postcopy: capture, asked, pongs, calls, sendPackage, offer, discarded };
}

const PACKAGE = Buffer.from("what the devices are");

t.test("what is pending and named comes again, what is pending and not named is added to the discards", async (t) => {
  const { postcopy, scheduler, capture, sendPackage, frames, discarded, calls } = setUp();
  for (const page of [5, 6, 7]) capture(page, page);
  scheduler.captureZero(pageIndex(20));
  scheduler.captureZero(pageIndex(30));
  postcopy.discard(6, 1);
  postcopy.discard(30, 2);
  await turn();
  t.same(frames, [], "nothing is sent while QEMU discards");
  sendPackage(PACKAGE);
  await turn();
  t.same(discarded(), [5, 6, 7, 20, 30, 31]);
  t.same(
    frames.map(({ kind }) => kind),
    ["discards", "package", "pages"],
  );
  const [, made, pages] = frames;
  t.equal(made?.body.readUInt32LE(), PACKAGE.length);
  t.ok(made?.body.subarray(4).equals(PACKAGE));
  t.same(pagesOf(pages), [20, 5, 7], "what QEMU does not send again");
  t.equal(postcopy.awaitedPages, 3);
  t.equal(calls.packaged, 1);
});

t.test("when all that QEMU discards is there it is asked for the rest, the hottest first", async (t) => {
  const { postcopy, scheduler, capture, sendPackage, asked } = setUp();
  for (let i = 0; i < 4; i++) capture(100, 7);
  scheduler.pages.drop(pageIndex(100));
  for (const page of [395, 100, 10]) postcopy.discard(page, 1);
  t.same(asked, []);
  sendPackage(PACKAGE);
  t.same(asked, [100, 10, 395]);
});

t.test("until the guest runs at the destination nothing flows but what is waited for", async (t) => {
  const { postcopy, capture, sendPackage, frames, asked, offer } = setUp();
  for (const page of [5, 7]) capture(page, page);
  postcopy.discard(10, 20);
  sendPackage(PACKAGE, false);
  t.same(asked, []);
  t.notOk(offer(10), "nothing is read");
  postcopy.request(12, 1);
  postcopy.request(7, 1);
  t.same(asked, [12]);
  t.ok(offer(12), "but what comes with it");
  await turn();
  const pages = (): number[][] => frames.map((frame) => pagesOf(frame)).filter(({ length }) => length > 0);
  t.same(pages(), [[7], [12]]);
  postcopy.flow();
  await turn();
  t.same(pages(), [[7], [12], [5]]);
  t.equal(asked.length, 20);
});

t.test("no more is asked of QEMU than the link takes soon", async (t) => {
  const { postcopy, sendPackage, asked, offer } = setUp();
  postcopy.discard(0, PAGES);
  sendPackage(PACKAGE);
  t.equal(asked.length, 256);
  postcopy.askOn();
  t.equal(asked.length, 256);
  for (let page = 0; page < 63; page++) offer(page);
  postcopy.askOn();
  t.equal(asked.length, 256, "so few are not worth it");
});

t.test("a page that comes a second time is left out", async (t) => {
  const { postcopy, sendPackage, offer, sender, frames } = setUp();
  postcopy.discard(6, 2);
  sendPackage(PACKAGE);
  t.ok(offer(6));
  t.ok(offer(6));
  t.ok(offer(9), "one that was not discarded");
  t.ok(offer(7, 0));
  t.ok(offer(7, 0));
  sender.pump();
  await turn();
  t.same(frames.flatMap((frame) => pagesOf(frame)).sort(), [6, 7]);
  t.equal(postcopy.repeated, 3);
  t.equal(postcopy.awaitedPages, 0);
});

t.test("a page that the guest waits for is asked of QEMU once, and goes as soon as it comes", async (t) => {
  const { postcopy, sendPackage, asked, calls, offer, sender, frames } = setUp();
  postcopy.discard(0, PAGES);
  sendPackage(PACKAGE);
  t.notOk(asked.includes(395));
  const before = calls.wanted;
  postcopy.request(395, 1);
  postcopy.request(395, 1);
  t.same(asked.slice(256), [395]);
  postcopy.request(3, 1);
  t.equal(asked.length, 257, "this one was asked for");
  t.equal(calls.wanted - before, 3);
  for (let page = 100; page < 110; page++) offer(page);
  offer(395);
  sender.pump();
  await turn();
  const [first] = frames.filter(({ kind }) => kind === "pages");
  t.same(pagesOf(first), [395], "ahead of others that came before");
});

t.test("while the link takes nothing no more is read, but for a page that the guest waits for", async (t) => {
  const { postcopy, sendPackage, offer } = setUp({ creditWindowBytes: 1 });
  postcopy.discard(0, PAGES);
  sendPackage(PACKAGE);
  let page = 0;
  while (page < PAGES && offer(page)) page++;
  t.equal(page, 256);
  postcopy.request(300, 1);
  for (; page < 300; page++) t.ok(offer(page));
  t.ok(offer(300));
  t.notOk(offer(301), "it is here");
});

t.test("requests for pages that there are not are refused", async (t) => {
  const { postcopy, sendPackage, asked } = setUp();
  const refused = (first: number, count: number): void =>
    void t.throws(() => postcopy.request(first, count), { code: "peer-invalid", message: /of 400/ });
  refused(0, 0);
  refused(400, 1);
  refused(0, 401);
  refused(2 ** 32 - 1, 2 ** 32 - 1);
  postcopy.request(0, 400);
  t.same(asked, [], "before the package nothing is missing");
  sendPackage(PACKAGE);
  postcopy.request(0, 400);
  t.same(asked, [], "nor here");
});

t.test("a guest that goes on here is sent no more of", async (t) => {
  const { postcopy, sendPackage, offer, sender, frames, asked } = setUp();
  postcopy.discard(0, 10);
  sendPackage(PACKAGE);
  await turn();
  const before = frames.length;
  const told = asked.length;
  postcopy.giveBack();
  t.ok(postcopy.isGivenBack);
  for (let page = 0; page < 10; page++) t.ok(offer(page, page));
  postcopy.request(3, 1);
  postcopy.askOn();
  postcopy.ramEnd(SECTION);
  sender.pump();
  await turn();
  t.equal(frames.length, before);
  t.equal(asked.length, told);
  t.equal(postcopy.repeated, 0);
});

t.test("pings are answered, and what the destination's QEMU answers is passed on", async (t) => {
  const { postcopy, pongs } = setUp();
  postcopy.ping(2);
  postcopy.pong(3);
  t.same(pongs, [2, 3]);
});

t.test("a post-copy that is taken up asks for what is missing, and leaves out what is not", async (t) => {
  const { postcopy, offer, sender, frames, asked } = setUp();
  const missing = new PageSet(PAGES);
  missing.addRange(40, 3);
  missing.add(395);
  postcopy.takeUp(missing, { blocks: BLOCKS }, false);
  postcopy.askOn();
  postcopy.request(41, 1);
  t.same(asked, [], "one that takes no requests sends what it has");
  for (let page = 38; page < 44; page++) offer(page);
  offer(395, 0);
  sender.pump();
  await turn();
  t.same(frames.flatMap((frame) => pagesOf(frame)).sort(), [395, 40, 41, 42]);
  t.equal(postcopy.awaitedPages, 0);
  t.equal(postcopy.repeated, 0);
});

t.test(
  "whatever the guest wrote, waits for and QEMU sends when, the destination has it all, each page once",
  async () => {
    const page = fc.nat(PAGES - 1);
    const range = fc.tuple(page, fc.integer({ min: 1, max: 60 }));
    const given = {
      written: fc.array(fc.tuple(page, fc.nat(3)), { maxLength: 300 }),
      later: fc.array(range, { maxLength: 12 }),
      moves: fc.array(fc.tuple(fc.constantFrom("send", "request", "ack", "ack", "compress"), page), { maxLength: 250 }),
      aheadPages: fc.nat(20),
      compressed: fc.boolean(),
      creditWindowBytes: fc.constantFrom(8 * PAGE_SIZE, 1 << 24),
    };
    await fc.assert(
      fc.asyncProperty(fc.record(given), async ({ written, later, moves, aheadPages, ...options }) => {
        const rig = setUp(options, aheadPages);
        const { postcopy, sender, frames, acknowledge, sendPackage, offer } = rig;
        const guest = new Uint8Array(PAGES);
        const put = (which: number, value: number): boolean =>
          value === 0 ? rig.scheduler.captureZero(pageIndex(which)) : rig.capture(which, value);
        for (let which = 0; which < PAGES; which++) put(which, 0);
        for (const [index, [which, value]] of written.entries()) {
          guest[which] = value;
          if (!put(which, value)) throw new Error("no room");
          if (index % 50 === 0) sender.pump();
        }
        const awaited: number[] = [];
        for (const [first, count] of later.sort(([a], [b]) => a - b)) {
          const start = Math.max(first, (awaited.at(-1) ?? -1) + 1);
          const end = Math.min(PAGES, first + count);
          if (start >= end) continue;
          postcopy.discard(start, end - start);
          for (let which = start; which < end; which++) {
            awaited.push(which);
            guest[which] = (which & 3) + 4;
          }
        }
        sendPackage(PACKAGE);
        const sendOne = (near: number): void => {
          const at = awaited.findIndex((which) => which >= near);
          if (at < 0) return;
          const [which] = awaited.slice(at, at + 1);
          if (offer(which!, guest[which!])) awaited.splice(at, 1);
        };
        for (const [what, which] of moves) {
          if (what === "send") sendOne(which);
          else if (what === "request") postcopy.request(which, 1);
          else if (what === "ack") acknowledge();
          else rig.compressOne();
          if (which % 4 === 0) await turn();
        }
        for (let left = 20_000; awaited.length > 0 && left > 0; left--) {
          sendOne(0);
          if (left % 8 > 0) continue;
          rig.compressOne();
          acknowledge();
          await turn();
        }
        postcopy.ramEnd(SECTION);
        let flushed = false;
        void sender.flushed().then(() => {
          flushed = true;
        });
        for (let left = 2000; !flushed && left > 0; left--) {
          rig.compressOne();
          acknowledge();
          await turn();
        }
        if (awaited.length > 0 || !flushed) throw new Error(`${awaited.length} pages, flushed: ${flushed}`);
        sender.stop();
        checkAtDestination(guest, frames);
      }),
      { numRuns: 60 },
    );
  },
);

/** Takes the frames as a destination does, which refuses what comes twice or not at all. */
function checkAtDestination(guest: Uint8Array, frames: ReturnType<typeof setUp>["frames"]): void {
  const there = new Uint8Array(PAGES).fill(255);
  const pages = new PostcopyPages({
    blocks: BLOCKS,
    pageCount: PAGES,
    clock: systemClock,
    send: () => undefined,
  });
  for (const [index, { sequence, kind, body }] of frames.entries()) {
    if (sequence !== index + 1) throw new Error(`frame ${sequence} at ${index}`);
    if (kind === "discards") pages.discards(body);
    else if (kind === "package") pages.package(body);
    else if (kind === "verbatim") pages.checkEnd();
    else {
      const sink = {
        zeroPage: (page: number) => {
          pages.placed(page, false);
          there[page] = 0;
        },
        page: (page: number, at: number, memory: Uint8Array) => {
          pages.placed(page, false);
          there[page] = memory[at]!;
        },
        delta: (page: number, at: number, length: number, memory: Uint8Array) => {
          pages.placed(page, true);
          there[page] = memory[at + length - 1]!;
        },
      };
      readPages(body, PAGES, sink, !pages.isActive);
    }
  }
  if (frames.at(-1)?.kind !== "verbatim") throw new Error("without its end");
  if (Buffer.compare(guest, there) !== 0) throw new Error("another memory");
}
