/**
 * Tests the whole of post-copy's page path in memory: from the guest's writes to what the destination takes. The
 * destination refuses a page that comes twice or not at all.
 */
import fc from "fast-check";
import t from "tap";
import { PostcopyPages } from "../../agent-destination/replay/postcopy-pages.ts";
import type { PostcopyCapture } from "../../agent-source/postcopy/postcopy-capture.ts";
import { systemClock } from "../../shared/runtime/clock.ts";
import { PAGE_SIZE, pageIndex } from "../../shared/units.ts";
import { BLOCKS, capturing, PACKAGE, PAGES } from "../support/capturing.ts";
import { readPages, turn } from "../support/sending.ts";

const FLUSHED_WITHIN_MS = 10_000;

const PAGE = fc.nat(PAGES - 1);
const RANGE = fc.tuple(PAGE, fc.integer({ min: 1, max: 60 }));
const GIVEN = {
  written: fc.array(fc.tuple(PAGE, fc.nat(3)), { maxLength: 300 }),
  later: fc.array(RANGE, { maxLength: 12 }),
  moves: fc.array(fc.tuple(fc.constantFrom("send", "request", "ack", "ack", "compress"), PAGE), { maxLength: 250 }),
  aheadPages: fc.nat(20),
  compressed: fc.boolean(),
  creditWindowBytes: fc.constantFrom(8 * PAGE_SIZE, 1 << 24),
};

/**
 * Discards these ranges as QEMU does, and lets the guest write to them.
 * @returns the pages that QEMU is to send anew
 */
function discardAndWrite(
  later: [first: number, count: number][],
  guest: Uint8Array,
  postcopy: Pick<PostcopyCapture, "discard">,
): number[] {
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
  return awaited;
}

t.test(
  "in whatever order the guest writes, pages are requested and QEMU sends, the destination gets each page once",
  async () => {
    await fc.assert(
      fc.asyncProperty(fc.record(GIVEN), async ({ written, later, moves, aheadPages, ...options }) => {
        const rig = capturing(options, aheadPages);
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
        const awaited = discardAndWrite(later, guest, postcopy);
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
        postcopy.ramEnd();
        let flushed = false;
        void sender.flushed().then(() => {
          flushed = true;
        });
        // the quiet time after a request is measured by the clock, not in turns of this loop, and has many turns
        for (const endMs = performance.now() + FLUSHED_WITHIN_MS; !flushed && performance.now() < endMs; ) {
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

/** Takes the frames as a destination does. @throws when a page comes twice or not at all, or has another content */
function checkAtDestination(guest: Uint8Array, frames: ReturnType<typeof capturing>["frames"]): void {
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
