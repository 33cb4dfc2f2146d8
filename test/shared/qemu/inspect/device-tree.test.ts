/** Tests what is read from the human monitor's tree of devices. */
import t from "tap";
import { parseDeviceTree } from "../../../../shared/qemu/inspect/device-tree.ts";

/** The tree as QEMU 10.0 writes it, shortened. */
const TREE = `bus: main-system-bus
  type System
  dev: q35-pcihost, id ""
    MCFG = 2952790016 (0xb0000000)
    below-4g-mem-size = 268435456 (256 MiB)
    bus: pcie.0
      type PCIE
      dev: virtio-blk-pci, id "disk0"
        addr = 04.0
        romfile = "/usr/share/efi.rom"
        busnr = 0 (0x0)
        class SCSI controller, addr 00:04.0, pci id 1af4:1001 (sub 1af4:0002)
        bar 1: mem at 0xfeae6000 [0xfeae6fff]
        bus: virtio-bus
          type virtio-pci-bus
          dev: virtio-blk-device, id ""
            drive = "d0"
            cyls = 2 (0x2)
            num-queues = 1 (0x1)
      dev: qemu-xhci, id ""
        addr = 03.0
        bus: usb-bus.0
          type usb-bus
          dev: usb-tablet, id ""
            port = ""
            addr 0.2, port 1, speed 480, name QEMU USB Tablet, attached
      dev: PIIX4_PM, id ""
        smb_io_base = 1792 (0x700)
        addr = 01.3
`;

t.test("settings that a definition gives have names that do not depend on the order of the devices", async (t) => {
  const { settings, places } = parseDeviceTree(TREE, new Set(["qemu-xhci"]));
  t.same(settings, [
    "q35-pcihost: below-4g-mem-size = 268435456 (256 MiB)",
    "disk0: bus = pcie.0",
    "disk0: addr = 04.0",
    "disk0/virtio-blk-device: bus = virtio-bus",
    "disk0/virtio-blk-device: num-queues = 1 (0x1)",
    "q35-pcihost/qemu-xhci 03.0: bus = pcie.0",
    "q35-pcihost/qemu-xhci 03.0: addr = 03.0",
    "q35-pcihost/qemu-xhci 03.0/usb-tablet 1: bus = usb-bus.0",
    "q35-pcihost/qemu-xhci 03.0/usb-tablet 1: at port = 1",
  ]);
  t.same([...places], [["d0", "disk0/virtio-blk-device"]]);
});

t.test("an answer that a hostile QEMU has made up is read in bounded time and memory", async (t) => {
  const LINES = 1200;
  const line = (of: string): string => of.repeat(Math.ceil(990 / of.length)).slice(0, 990);
  const hostile: readonly string[] = [
    `dev: ${'x, id "'.repeat(100_000)}`,
    `dev: t, id ""\n  addr = ${" (".repeat(500_000)}`,
    Array.from({ length: LINES }, () => `dev: ${line('x, id "')}`).join("\n"),
    `dev: t, id ""\n${Array.from({ length: LINES }, () => `  addr = ${line(" (").slice(10)}`).join("\n")}`,
  ];
  for (const text of hostile) {
    const begun = process.cpuUsage();
    parseDeviceTree(text, new Set());
    // each took some 0.01 s, and by the square of the length minutes
    t.ok(process.cpuUsage(begun).user < 1.5e6);
  }
  // 240 devices, each behind the one before, and then 2000 behind the last: each label has all of them
  const deep = Array.from({ length: 240 }, (_, at) => `${" ".repeat(2 * at)}dev: ${"t".repeat(480)}, id ""`);
  const wide = Array.from({ length: 2000 }, () => `${" ".repeat(480)}dev: t, id ""`);
  t.throws(() => parseDeviceTree([...deep, ...wide].join("\n"), new Set()), {
    code: "qmp-protocol",
    message: /more devices and settings than any guest has/,
  });
});
