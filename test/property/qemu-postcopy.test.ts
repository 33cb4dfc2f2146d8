/**
 * Tests the readers of QEMU's post-copy stream and return path with bytes that are cut anywhere and spoiled, and that
 * they read what the writers write.
 */
import fc from "fast-check";
import t from "tap";
import { PageSet } from "../../shared/page/page-set.ts";
import { encodePong, encodeReceivedPages, PageRequests } from "../../shared/qemu/return-path/return-path.ts";
import { ReturnPathReader } from "../../shared/qemu/return-path/return-path-reader.ts";
import { DiscardEncoder } from "../../shared/qemu/stream/command-encoder.ts";
import { advisedSetup, fakePostcopy, rewritePostcopy } from "../support/fake-postcopy.ts";
import { asking, fakeResumed, RESUMED_SETUP, readResumed } from "../support/fake-resumed.ts";
import { FILE_MS, forAWhile, named, spoiled } from "../support/hostile.ts";
import { RETURN_PATH_BLOCKS, ReturnPathLog, receivedBitmap } from "../support/return-path-log.ts";

t.setTimeout(FILE_MS);

const CODES = ["stream-invalid", "stream-unsupported"] as const;
const made = [1, 2, 3].map((seed) => fakePostcopy(seed, { packageBytes: 60 }).bytes);
/** The same streams without the pages of precopy, so that most spoiled bytes are those of post-copy. */
const switching = made.map((bytes) => {
  const setup = advisedSetup().done();
  return Buffer.concat([setup, bytes.subarray(bytes.indexOf(Buffer.from("08000b0000", "hex")))]);
});

const pieces = (bytes: Buffer, cuts: readonly number[]): Buffer[] => {
  const ends = [...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return ends.map((end, i) => bytes.subarray(ends[i - 1] ?? 0, end));
};

t.test("a spoiled stream ends in a fault or in waiting for more, the same wherever it is cut", async () => {
  const cuts = fc.array(fc.nat(30_000), { maxLength: 4 });
  forAWhile(fc.tuple(spoiled([...made, ...switching, ...switching]), cuts), ([bytes, where]) => {
    const sorted = where.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b);
    // bytes without a package may be a completion of precopy, whose end depends on the pieces (stream-end.ts); a stream
    // with a package ends the same in any pieces
    const whole = named(CODES, () => rewritePostcopy(bytes));
    const cut = named(CODES, () => rewritePostcopy(bytes, sorted));
    if (bytes.includes(Buffer.from("0800070004", "hex")) && whole !== cut)
      throw new Error(`${whole} in one piece, ${cut} in ${sorted.length + 1}`);
  });
});

t.test("a spoiled return path ends in a fault or in waiting for more, the same wherever it is cut", async () => {
  const requests = new PageRequests(RETURN_PATH_BLOCKS);
  for (const page of [5, 6, 101, 7, 99]) requests.add(page, 1);
  const bits = Buffer.alloc(16, 0x55);
  const good = Buffer.concat([encodePong(3), requests.take(), receivedBitmap("pc.ram", bits), encodePong(4)]);
  forAWhile(fc.tuple(spoiled([good]), fc.array(fc.nat(300), { maxLength: 5 })), ([bytes, cuts]) => {
    const read = (parts: readonly Buffer[]): string => {
      const sink = new ReturnPathLog();
      const reader = new ReturnPathReader(RETURN_PATH_BLOCKS, sink);
      const code = named(["stream-invalid"], () => {
        for (const part of parts) reader.push(part);
      });
      return `${code}: ${sink.log.join()}`;
    };
    const whole = read([bytes]);
    if (read(pieces(bytes, cuts)) !== whole) throw new Error(`not ${whole} in pieces`);
  });
});

t.test("requests and discards of any pages are read back as they were written", async () => {
  const range = fc.tuple(fc.nat(45), fc.nat(45)).map(([a, b]) => [Math.min(a, b), Math.abs(a - b) + 1] as const);
  const blocks = [
    { name: "pc.ram", byteLength: 40 * 4096 },
    { name: "pc.bios", byteLength: 4 * 4096 },
    { name: "/rom@etc/acpi/tables", byteLength: 2 * 4096 },
  ];
  const ends = [40, 44, 46];
  const split = ([first, count]: readonly [number, number]): string[] => {
    const parts: string[] = [];
    for (let page = first; page < first + count; ) {
      const end = Math.min(first + count, ends.find((one) => one > page)!);
      parts.push(`${page}+${end - page}`);
      page = end;
    }
    return parts;
  };
  forAWhile(fc.array(range, { maxLength: 40 }), (ranges) => {
    const expected = ranges.flatMap(split).join();
    const requests = new PageRequests(blocks);
    const commands: Buffer[] = [advisedSetup().done()];
    const encoder = new DiscardEncoder(blocks, (command) => commands.push(Buffer.from(command)));
    for (const [first, count] of ranges) {
      requests.add(first, count);
      encoder.add(first, count);
    }
    encoder.flush();
    const sink = new ReturnPathLog();
    new ReturnPathReader(blocks, sink).push(requests.take());
    if (sink.log.join() !== expected.replace(/\d+\+/g, "request $&")) throw new Error(`requests: ${sink.log.join()}`);
    const { log } = rewritePostcopy(Buffer.concat(commands));
    const discards = log.filter((line) => line.startsWith("discard ")).map((line) => line.slice(8));
    if (discards.join() !== expected) throw new Error(`discards: ${discards.join()}`);
  });
});

t.test("a spoiled resumed stream ends in a fault or in waiting for more, the same wherever it is cut", async () => {
  const good = [1, 2].map((seed) => fakeResumed(seed).bytes);
  const cuts = fc.array(fc.nat(30_000), { maxLength: 4 });
  forAWhile(fc.tuple(spoiled([...good, asking(), asking()]), cuts), ([bytes, where]) => {
    const sorted = where.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b);
    const read = (at: readonly number[]): string => {
      let told = "";
      const code = named(CODES, () => {
        const { log, pages } = readResumed(bytes, at);
        told = `${log.join()} ${pages.length}`;
      });
      return `${code}: ${told}`;
    };
    const whole = read([]);
    if (read(sorted) !== whole) throw new Error(`not ${whole} in pieces`);
  });
});

t.test("any set of received pages is read back as it was written", async () => {
  const { blocks } = RESUMED_SETUP;
  forAWhile(fc.uniqueArray(fc.nat(45)), (pages) => {
    const sent = new PageSet(46);
    for (const page of pages) sent.add(page);
    const sink = new ReturnPathLog();
    const reader = new ReturnPathReader(blocks, sink);
    let firstPage = 0;
    for (const block of blocks) {
      const count = block.byteLength / 4096;
      reader.push(encodeReceivedPages(block, sent.bits(firstPage, count)));
      firstPage += count;
    }
    const expected = [...pages].sort((a, b) => a - b).map((page) => `received ${page}`);
    if (sink.log.join() !== expected.join()) throw new Error(`${sink.log.join()}, not ${expected.join()}`);
  });
});
