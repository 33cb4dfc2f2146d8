/** Tests the frames of pages: records are read as they were written, and damaged frames are refused. */
import fc from "fast-check";
import t from "tap";
import { frameBufferBytes, PageFrameReader, PageFrameWriter } from "../../../shared/codec/page-frame.ts";
import { MigrationFault } from "../../../shared/fault.ts";
import { address, PAGE_SIZE } from "../../../shared/units.ts";
import { PlainKernels } from "../../support/plain-kernels.ts";

const PAGES = 1000;
const AT = 8192;
const BODY = 65536;
const kernels = new PlainKernels(AT + frameBufferBytes(BODY));

type Seen = ["zero" | "full" | "delta", number, string];
function collect(): { seen: Seen[]; sink: Parameters<PageFrameReader["drain"]>[0] } {
  const seen: Seen[] = [];
  const bytes = (at: number, length: number): string =>
    Buffer.from(kernels.memory.slice(at, at + length)).toString("hex");
  const sink = {
    hasRoom: true,
    zeroPage: (page: number) => seen.push(["zero", page, ""]),
    page: (page: number, at: number) => seen.push(["full", page, bytes(at, PAGE_SIZE)]),
    delta: (page: number, at: number, length: number) => seen.push(["delta", page, bytes(at, length)]),
  };
  return { seen, sink };
}

const record = fc.oneof(
  fc.record({ kind: fc.constant("zero" as const), page: fc.nat(PAGES - 20), count: fc.integer({ min: 1, max: 20 }) }),
  fc.record({ kind: fc.constant("full" as const), page: fc.nat(PAGES - 1), count: fc.nat(255) }),
  fc.record({ kind: fc.constant("delta" as const), page: fc.nat(PAGES - 1), count: fc.integer({ min: 1, max: 100 }) }),
);

function write(records: { kind: string; page: number; count: number }[]) {
  const writer = new PageFrameWriter(kernels);
  const expected: Seen[] = [];
  writer.begin(address(AT), BODY);
  for (const { kind, page, count } of records) {
    if (!writer.hasRoom) break;
    if (kind === "zero") {
      writer.zeroRun(page, count);
      for (let i = 0; i < count; i++) expected.push(["zero", page + i, ""]);
    } else if (kind === "full") {
      kernels.memory.fill(count, 0, PAGE_SIZE);
      writer.full(page, address(0));
      expected.push(["full", page, Buffer.alloc(PAGE_SIZE, count).toString("hex")]);
    } else {
      const delta = [3, count, ...Array.from({ length: count }, (_, i) => i)];
      kernels.memory.set(delta, writer.deltaPlace);
      writer.delta(page, delta.length);
      expected.push(["delta", page, Buffer.from(delta).toString("hex")]);
    }
  }
  const length = writer.finish();
  return { at: writer.frameAt, length, expected };
}

t.test("records are read again as they were written, one by one", async () => {
  fc.assert(
    fc.property(fc.array(record, { maxLength: 60 }), (records) => {
      const { at, length, expected } = write(records);
      const { seen, sink } = collect();
      const reader = new PageFrameReader(kernels, PAGES, true);
      reader.open(at, length);
      return reader.drain(sink) && JSON.stringify(seen) === JSON.stringify(expected);
    }),
    { numRuns: 200 },
  );
});

t.test("a reader that is out of room goes on where it stopped, also inside a zero run", async (t) => {
  const { at, length, expected } = write([
    { kind: "zero", page: 10, count: 20 },
    { kind: "full", page: 5, count: 7 },
  ]);
  const { seen, sink } = collect();
  const reader = new PageFrameReader(kernels, PAGES, true);
  reader.open(at, length);
  let asked = 0;
  const sparing = {
    ...sink,
    get hasRoom() {
      return asked++ % 2 === 1;
    },
  };
  while (!reader.drain(sparing));
  t.same(seen, expected);
});

t.test(
  "a frame that is cut or changed is refused with a named fault, or read as something within its bounds",
  async () => {
    fc.assert(
      fc.property(
        fc.array(record, { minLength: 1, maxLength: 10 }),
        fc.nat(400),
        fc.nat(255),
        fc.nat(400),
        (records, place, value, cut) => {
          const { at, length } = write(records);
          kernels.memory[at + (place % length)] = value;
          const { seen, sink } = collect();
          const reader = new PageFrameReader(kernels, PAGES, true);
          try {
            reader.open(at, Math.max(0, length - (cut % length)));
            reader.drain(sink);
          } catch (thrown) {
            return thrown instanceof MigrationFault && thrown.code === "peer-invalid";
          }
          return seen.every(([, page]) => page >= 0 && page < PAGES);
        },
      ),
      { numRuns: 1000 },
    );
  },
);

t.test("a delta is refused when deltas were not negotiated", async (t) => {
  const { at, length } = write([{ kind: "delta", page: 1, count: 4 }]);
  const reader = new PageFrameReader(kernels, PAGES, false);
  reader.open(at, length);
  t.throws(() => reader.drain(collect().sink), { code: "peer-invalid", message: /a delta, where none is allowed/ });
});
