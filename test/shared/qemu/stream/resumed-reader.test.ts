/** Tests the reader of the stream with which the source's QEMU resumes a broken post-copy. */
import t, { type Test } from "tap";
import { openReturnPath, ping } from "../../../support/fake-postcopy.ts";
import { asking, fakeResumed, readResumed, recvBitmap, resume } from "../../../support/fake-resumed.ts";
import { SectionMaker } from "../../../support/fake-stream.ts";

const ASKED = ["bitmap pc.ram from 0", "bitmap pc.bios from 40", "bitmap /rom@etc/acpi/tables from 44", "resumed"];

const refused = (t: Test, stream: Buffer, message: RegExp, code = "stream-invalid"): unknown =>
  t.throws(() => readResumed(stream), { code, message });

t.test("the bitmaps are asked for first, and then the pages and the end come", async (t) => {
  for (const seed of [1, 2, 3]) {
    const { bytes, pages } = fakeResumed(seed);
    const told = readResumed(bytes);
    t.strictSame(told.log, [...ASKED, "part", "part", "part", "ramEnd", "end"]);
    t.strictSame(told.pages, pages);
    t.equal(told.left, 0);
  }
});

t.test("a stream reads the same in any pieces", async (t) => {
  const { bytes } = fakeResumed(4);
  const whole = readResumed(bytes);
  const every = Array.from({ length: bytes.length }, (_, i) => i);
  // the cuts are at every byte, except inside of pages
  const cuts = every.filter((at) => at < 200 || at % 97 === 0 || at > bytes.length - 60);
  t.strictSame(readResumed(bytes, cuts), whole);
  for (const cut of every.filter((at) => at < 120 || at % 31 === 0))
    t.strictSame(readResumed(bytes, [cut]), whole, `cut at ${cut}`);
});

t.test("a sink that is full is offered the page again", async (t) => {
  const { bytes } = fakeResumed(5);
  let calls = 0;
  t.strictSame(
    readResumed(bytes, [], () => calls++ % 3 === 0),
    readResumed(bytes),
  );
});

t.test("pings are told wherever they stand in the stream", async (t) => {
  const section = new SectionMaker([["pc.ram", 40]], () => 0).section(2, 1);
  const stream = Buffer.concat([ping(7).done(), asking(), ping(8).done(), section, ping(9).done()]);
  t.strictSame(readResumed(stream).log, ["ping 7", ...ASKED, "ping 8", "part", "ping 9"]);
});

t.test("a command or section that is out of order is a fault", async (t) => {
  const section = new SectionMaker([["pc.ram", 40]], () => 0).section(2, 1);
  refused(t, section, /a section of type 2 in a resumed stream \(asking\)/);
  refused(t, resume(), /postcopyResume after 0 of 3 blocks/);
  refused(t, Buffer.concat([recvBitmap("pc.ram"), resume()]), /after 1 of 3 blocks/);
  refused(t, Buffer.concat([recvBitmap("pc.ram"), recvBitmap("pc.ram")]), /a second command recvBitmap/);
  refused(t, Buffer.concat([asking(), resume()]), /a second command postcopyResume/);
  refused(t, Buffer.concat([asking(), recvBitmap("pc.ram")]), /recvBitmap after postcopyResume/);
  refused(t, Buffer.concat([asking(), Buffer.of(0)]), /a section of type 0 in a resumed stream \(pages\)/);
  const ended = fakeResumed(6).bytes;
  refused(t, Buffer.concat([ended, Buffer.of(0)]), /bytes after its end/);
  refused(t, Buffer.concat([ended.subarray(0, -1), ping(1).done()]), /a section of type 8 in a resumed stream \(eof\)/);
});

t.test("a command or section that does not belong to such a stream is a fault", async (t) => {
  const header = Buffer.from("5145564d00000003", "hex");
  refused(t, header, /a section of type 81/);
  refused(t, recvBitmap("vga.vram"), /RAM block vga.vram, which was not listed/);
  refused(t, Buffer.from("08000a0000", "hex"), /a command recvBitmap of 0 bytes/);
  refused(t, Buffer.from("08000a0101", "hex"), /a command recvBitmap of 257 bytes/);
  refused(t, Buffer.from("080009000100", "hex"), /a command postcopyResume of 1 bytes/);
  refused(t, openReturnPath().done(), /command openReturnPath in a resumed stream/, "stream-unsupported");
  const other = Buffer.concat([asking(), Buffer.from("0200000003", "hex")]);
  refused(t, other, /a part of section 3, which did not start/);
  const footer = fakeResumed(7).bytes;
  footer[footer.length - 6] = 0x7f;
  refused(t, footer, /no section footer/, "stream-unsupported");
});

t.test("a name that does not fill its command is a fault", async (t) => {
  const command = recvBitmap("pc.ram");
  command[5] = 5;
  refused(t, command, /a block's name of 5 bytes/);
});
