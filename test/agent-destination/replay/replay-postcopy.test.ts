/**
 * Tests how frames of post-copy become QEMU's stream: only in their order, and counted from zero when the source begins
 * again.
 */
import type { Socket } from "node:net";
import { Writable } from "node:stream";
import t from "tap";
import { Replay } from "../../../agent-destination/replay/replay.ts";
import { encodeDiscards } from "../../../shared/codec/discard-frame.ts";
import type { MigrationFault } from "../../../shared/fault.ts";
import { KERNEL_RESERVED_BYTES } from "../../../shared/page/kernel-memory.ts";
import { PageSet } from "../../../shared/page/page-set.ts";
import type { Frame } from "../../../shared/protocol/stream-messages.ts";
import { encodePackageHead } from "../../../shared/qemu/stream/command-encoder.ts";
import { systemClock } from "../../../shared/runtime/clock.ts";
import { loadKernels } from "../../../shared/runtime/load-kernels.ts";
import { address } from "../../../shared/units.ts";
import { eventually } from "../../support/bounded.ts";
import { BLOCKS, contract, delta, frame, PAGES, pages, SECTION } from "../../support/frames.ts";
import { memoryTransfer } from "../../support/memory-link.ts";
import { turn } from "../../support/sending.ts";

/** @param held true when QEMU takes nothing until the test says so */
function setUp({ postcopy = true, held = false } = {}) {
  const written: Buffer[] = [];
  const taken: (() => void)[] = [];
  const qemu = new Writable({
    highWaterMark: 1 << 30,
    write: (piece: Buffer, _, done) => {
      written.push(Buffer.from(piece));
      if (held) taken.push(done);
      else done();
    },
  });
  const { source, destination } = memoryTransfer();
  const acks: (readonly [sequence: number, bytes: number])[] = [];
  source.receive((message) => {
    if (message.kind === "ack") acks.push([message.sequence, message.appliedBytes]);
  });
  const faults: MigrationFault[] = [];
  const replay = new Replay({
    createKernels: loadKernels,
    contract: { ...contract, postcopy },
    channel: destination,
    // the replay only writes to the socket
    socket: qemu as unknown as Socket,
    clock: systemClock,
    onFault: (fault) => faults.push(fault),
    corruptPage: false,
  });
  let sequence = 0;
  const take = (body: Uint8Array, frameKind: Frame["frameKind"]): void =>
    replay.take(frame(++sequence, body, { frameKind }));
  /** Lets QEMU take everything that it was given. */
  const takeAll = async (): Promise<void> => {
    while (taken.length > 0) {
      taken.shift()?.();
      await turn();
    }
  };
  const restart = (): void => {
    replay.restart();
    sequence = 0;
  };
  return { replay, faults, written, acks, take, takeAll, restart };
}

const HEAD = Buffer.from("head");
const TAIL = Buffer.from("tail");
const ALL = pages((w) => w.zeroRun(0, PAGES));
const TWO = pages((w) => w.zeroRun(5, 2));
const PACKAGE = Buffer.concat([Buffer.of(3, 0, 0, 0), Buffer.from("abc")]);

function discardsOf(first: number, count: number): Uint8Array {
  const set = new PageSet(PAGES);
  set.addRange(first, count);
  return encodeDiscards(set)[0]!;
}

type Step = readonly [body: Uint8Array, kind: Frame["frameKind"]];
const head: Step = [HEAD, "verbatim"];
const tail: Step = [TAIL, "verbatim"];
const all: Step = [ALL, "pages"];
const two: Step = [TWO, "pages"];
const discards: Step = [discardsOf(5, 2), "discards"];
const made: Step = [PACKAGE, "package"];

t.test(
  "discards, package, the last pages and the end become QEMU's stream, and all of it is acknowledged",
  async (t) => {
    const { replay, take, written, acks, faults } = setUp();
    take(...head);
    replay.layout(BLOCKS, SECTION);
    for (const step of [all, discards]) take(...step);
    take(PACKAGE.subarray(0, 5), "package");
    t.notOk(replay.postcopy?.isActive);
    take(PACKAGE.subarray(5), "package");
    for (const step of [two, tail]) take(...step);
    await replay.postcopy?.packaged.promise;
    await replay.drained();
    await turn();
    t.same(faults, []);
    t.equal(replay.postcopy?.missingPages, 0);
    const stream = Buffer.concat(written);
    const after = (part: Uint8Array, from = 0): number => {
      const at = stream.indexOf(part, from);
      if (at < 0) throw new Error(`no ${Buffer.from(part).toString("hex")} behind ${from}`);
      return at + part.length;
    };
    const command = Buffer.concat([encodePackageHead(3), Buffer.from("abc")]);
    t.ok(after(TAIL, after(command, after(Buffer.from("pc.ram", "latin1"), after(HEAD)))) === stream.length);
    t.same(
      acks.map(([sequence]) => sequence),
      [1, 3, 4, 5, 7],
      "pages are acknowledged with what comes after them",
    );
  },
);

const wrong: readonly (readonly [title: string, steps: readonly Step[], message: RegExp])[] = [
  ["pages between discards and package", [all, discards, two], /kind pages between discards and package/],
  ["other bytes between discards and package", [all, discards, tail], /kind verbatim between discards and package/],
  ["other bytes in the middle of a package", [all, [PACKAGE.subarray(0, 5), "package"], tail], /kind verbatim between/],
  ["discards after the package", [all, discards, made, discards], /kind discards in post-copy/],
  ["a second package", [all, discards, made, made], /kind package in post-copy/],
  ["discards after the end", [all, tail, discards], /kind discards after the end/],
  ["a page twice", [all, discards, made, two, two], /page 5 for the second time/],
  ["a page that was not discarded", [all, discards, made, all], /page 0 for the second time/],
  ["the end with pages missing", [all, discards, made, tail], /the end of post-copy with 2 pages missing/],
  ["pages after the end", [all, discards, made, two, tail, two], /after the end of QEMU's RAM/],
  ["a delta in post-copy", [all, discards, made, [pages((w) => delta(w, 5, [0, 1, 7])), "pages"]], /a delta/],
  [
    "a delta of a page that was discarded",
    [all, [discardsOf(0, 1), "discards"], made, [pages((w) => delta(w, 0, [0, 1, 7])), "pages"]],
    /a delta/,
  ],
  ["discards outside of memory", [all, [Uint8Array.of(60, 5), "discards"]], /of 64/],
  ["a package longer than it says", [all, [Buffer.concat([PACKAGE, TAIL]), "package"]], /4 bytes after the package/],
];
for (const [title, steps, message] of wrong)
  t.test(`the replay refuses ${title}`, async (t) => {
    const { replay, take, faults } = setUp();
    take(...head);
    replay.layout(BLOCKS, SECTION);
    const last = steps.at(-1)!;
    for (const step of steps.slice(0, -1)) {
      take(...step);
      await replay.drained();
    }
    t.same(faults, []);
    t.throws(() => take(...last), { code: "peer-invalid", message });
  });

t.test("a delta of a page that never came is refused where post-copy may follow, and taken elsewhere", async (t) => {
  const first = pages((w) => delta(w, 7, [0, 1, 7]));
  for (const postcopy of [true, false]) {
    const { replay, take } = setUp({ postcopy });
    replay.layout(BLOCKS, SECTION);
    if (postcopy) t.throws(() => take(first, "pages"), { code: "peer-invalid", message: /a delta of page 7/ });
    else take(first, "pages");
  }
});

t.test("frames of post-copy are refused where it was not agreed on, and before the layout", async (t) => {
  for (const postcopy of [true, false])
    for (const step of [discards, made]) {
      const { replay, take } = setUp({ postcopy });
      if (!postcopy) replay.layout(BLOCKS, SECTION);
      t.throws(() => take(...step), { code: "peer-invalid", message: /post-copy was not agreed on/ });
    }
});

t.test("a resumed post-copy takes the pages that are missing, and no package any more", async (t) => {
  const { replay, take } = setUp();
  const before = setUp().replay;
  before.layout(BLOCKS, SECTION);
  const missing = before.postcopy!;
  missing.resumeAck();
  for (let page = 0; page < PAGES; page++) if (page !== 5 && page !== 6) missing.placed(page, false);
  replay.resume(BLOCKS, SECTION, missing);
  t.equal(replay.postcopy, missing);
  take(...two);
  take(...tail);
  await replay.drained();
  t.equal(missing.missingPages, 0);
  const again = setUp();
  again.replay.resume(BLOCKS, SECTION, missing);
  t.throws(() => again.take(...made), { code: "peer-invalid", message: /kind package in post-copy/ });
});

t.test(
  "when the source begins again, frames that were not begun are dropped, and the others are not acknowledged",
  async (t) => {
    const { replay, take, takeAll, restart, acks, written } = setUp({ held: true });
    replay.layout(BLOCKS, SECTION);
    const full = pages((w) => {
      for (let page = 0; page < 15; page++) w.full(page, address(KERNEL_RESERVED_BYTES));
    });
    take(...all);
    // QEMU is given less than this at once, so some frames are not begun
    for (let i = 0; i < 16; i++) take(full, "pages");
    restart();
    t.equal(replay.sequence, 0);
    await takeAll();
    await replay.drained();
    await turn();
    t.same(acks, [], "frames of the earlier stream are not acknowledged");
    t.ok(written.length < 10, `${written.length} of 17 frames had been begun`);
    take(TWO, "pages");
    await takeAll();
    await replay.drained();
    const acknowledged = () => (acks.length > 0 ? true : undefined);
    await eventually(acknowledged, { timeoutMs: 20_000, what: "the acknowledgement of pages" });
    t.same(acks, [[1, TWO.length]], "frames and bytes are counted from zero");
  },
);

t.test("a frame of the earlier stream is refused once the source has begun again", async (t) => {
  const { replay, take, restart } = setUp();
  replay.layout(BLOCKS, SECTION);
  take(...all);
  restart();
  t.throws(() => replay.take(frame(2, TWO)), { code: "peer-invalid", message: /frame 2 after frame 0/ });
});
