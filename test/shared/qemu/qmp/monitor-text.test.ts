/** Tests what is read from the tables of the human monitor. */
import t from "tap";
import { parseGuestMemory, parseRamBlocks } from "../../../../shared/qemu/qmp/monitor-text.ts";

t.test("blocks without a name do not migrate, and their memory makes no range", (t) => {
  const blocks = parseRamBlocks(
    [
      "              Block Name    PSize              Offset               Used              Total",
      "                  pc.ram    4 KiB  0x0000000000000000 0x0000000000100000 0x0000000000100000 0x0 rw",
      "                            4 KiB  0x0000000000100000 0x0000000000001000 0x0000000000001000 0x0 rw",
      "   0000:00:01.0/vga.vram    4 KiB  0x0000000000200000 0x0000000000100000 0x0000000000100000 0x0 rw",
    ].join("\r\n"),
  );
  t.strictSame(
    blocks.map((block) => block.name),
    ["pc.ram", "0000:00:01.0/vga.vram"],
  );
  const ranges = parseGuestMemory(
    [
      "FlatView #0",
      ' AS "I/O", root: io',
      "  0000000000000000-000000000000ffff (prio 0, ram): pc.ram",
      "",
      "FlatView #1",
      ' AS "memory", root: system',
      " Root memory region: system",
      "  0000000000000000-000000000007ffff (prio 0, ram): pc.ram kvm",
      "  0000000000080000-000000000009ffff (prio 0, rom): pc.ram @0000000000080000 kvm",
      "  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem",
      "  00000000000c0800-00000000000c17ff (prio 0, ram): pc.ram @00000000000c0800",
      "  00000000000d0800-00000000000d2fff (prio 0, ram): pc.ram @00000000000d0800",
      "  00000000e0000000-00000000e0000fff (prio 0, ram): unnamed",
      "  00000000fd000000-00000000fd0fffff (prio 1, ram): vga.vram",
      "  00000000ffc00000-00000000ffffffff (prio 0, romd): system.flash0",
    ].join("\r\n"),
    blocks,
  );
  t.strictSame(ranges, [
    { start: 0, byteLength: 0xa0000, block: "pc.ram" },
    { start: 0xd1000, byteLength: 0x2000, block: "pc.ram" },
    { start: 0xfd000000, byteLength: 0x100000, block: "0000:00:01.0/vga.vram" },
  ]);
  t.end();
});

t.test("a line that is longer than any line of QEMU is no block, and takes no time", async (t) => {
  const startMs = performance.now();
  for (const long of [`x${" ".repeat(400_000)}`, `  ${"0".repeat(400_000)}`, "a 1 ".repeat(100_000)]) {
    t.same(parseRamBlocks(long), []);
    t.same(parseGuestMemory(`FlatView #0\n AS "memory", root: system\n ${long}`, []), []);
  }
  // if the time grew with the square of the length, it would be minutes
  t.ok(performance.now() - startMs < 20_000);
});

t.test(
  "a table that a hostile QEMU has made up takes time by its length, and no more blocks than any guest has",
  async (t) => {
    const begun = process.cpuUsage();
    const spaces = Array.from({ length: 2000 }, () => `a${" ".repeat(990)}`).join("\n");
    t.same(parseRamBlocks(spaces), []);
    // it took 0.1 s, and by the square of the lines' lengths 8 s
    t.ok(process.cpuUsage(begun).user < 2e6);
    const row = (at: number): string => `    b${at}   4 KiB  0x0000000000000000 0x0000000000001000 0x0000000000001000`;
    const rows = Array.from({ length: 4097 }, (_, at) => row(at));
    t.equal(parseRamBlocks(rows.slice(1).join("\n")).length, 4096);
    t.throws(() => parseRamBlocks(rows.join("\n")), { code: "qmp-protocol", message: /more than 4096 RAM blocks/ });
  },
);
