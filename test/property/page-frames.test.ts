/** Tests the reader of page records (PageFrameReader) with frames that no source agent sends. */
import fc from "fast-check";
import t from "tap";
import { PageFrameReader, type RecordSink } from "../../shared/codec/page-frame.ts";
import { address, PAGE_SIZE } from "../../shared/units.ts";
import { AT, FRAME_BYTES, GOOD, kernels, PAGES } from "../support/frames.ts";
import { FILE_MS, forAWhile, named, spoiled } from "../support/hostile.ts";

t.setTimeout(FILE_MS);

t.test("spoiled records name only pages and bytes that exist, or are refused by name", async () => {
  forAWhile(fc.tuple(spoiled(GOOD), fc.boolean()), ([bytes, deltas]) => {
    const body = bytes.subarray(0, FRAME_BYTES);
    kernels.memory.set(body, AT);
    const reader = new PageFrameReader(kernels, PAGES, deltas);
    let zeros = 0;
    const within = (page: number, at: number, length: number): void => {
      if (page < 0 || page >= PAGES || at < AT || at + length > AT + body.length)
        throw new Error(`page ${page}, ${length} bytes at ${at - AT} of ${body.length}`);
    };
    const sink: RecordSink = {
      hasRoom: true,
      zeroPage: (page) => {
        within(page, AT, 0);
        if (++zeros > PAGES) throw new Error("a page twice");
      },
      page: (page, at) => within(page, at, PAGE_SIZE),
      delta: (page, at, length) => {
        within(page, at, length);
        if (!deltas) throw new Error("a delta that was not negotiated");
        if (!kernels.deltaIsValid(address(at), length)) throw new Error("a delta that QEMU does not take");
      },
    };
    named(["peer-invalid"], () => {
      reader.open(address(AT), body.length);
      if (!reader.drain(sink)) throw new Error("it stopped with room left");
    });
  });
});

t.test("a frame that is read whenever there is room again gives the same records as one read at once", async (t) => {
  for (const body of GOOD) {
    const read = (rooms: () => boolean): string[] => {
      kernels.memory.set(body, AT);
      const seen: string[] = [];
      const reader = new PageFrameReader(kernels, PAGES, true);
      const sink: RecordSink = {
        get hasRoom() {
          return rooms();
        },
        zeroPage: (page) => seen.push(`zero ${page}`),
        page: (page, at) => seen.push(`page ${page} at ${at}`),
        delta: (page, at, length) => seen.push(`delta ${page} at ${at}, ${length}`),
      };
      reader.open(address(AT), body.length);
      while (!reader.drain(sink));
      return seen;
    };
    const whole = read(() => true);
    for (let every = 2; every < 9; every++) {
      let asked = 0;
      t.same(
        read(() => asked++ % every !== 0),
        whole,
      );
    }
  }
});
