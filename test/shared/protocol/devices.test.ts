/** Tests which differences between two QEMUs' devices count, and how they are named. */
import t from "tap";
import { compareDevices } from "../../../shared/protocol/devices.ts";

const QEMU = { major: 10, minor: 0, micro: 2 };
const MACHINE = [
  "q35 (q35-pcihost)",
  "q35/mch (mch)",
  "unattached/device[0] (qemu64-x86_64-cpu)",
  "unattached/device[0]/lapic (apic)",
  "unattached/device[1] (kvmvapic)",
  "peripheral/net0 (virtio-net-pci)",
  "peripheral/net0/virtio-backend (virtio-net-device)",
  "PCI 02.0 (1af4:1000)",
];
const made = (devices: readonly string[], qemuVersion = QEMU) => ({ devices, qemuVersion });

t.test("the same devices in another order make no difference", async (t) => {
  t.equal(compareDevices(made(MACHINE), made([...MACHINE].reverse())), undefined);
});

t.test("the longest lists that a peer may send are compared at once", async (t) => {
  const theirs = Array.from({ length: 4000 }, (_, at) => `peripheral/${"a/".repeat(20)}${at} (virtio-net-pci)`);
  const begunAt = process.cpuUsage();
  t.match(compareDevices(made(theirs), made(MACHINE)), { code: "devices" });
  // it took 0.02 s, and by the square of the list's length 4 s
  t.ok(process.cpuUsage(begunAt).user < 1.5e6);
});

t.test("a device that was plugged or unplugged is named, without its parts and its place", async (t) => {
  const plugged = [
    "peripheral/net1 (virtio-net-pci)",
    "peripheral/net1/virtio-backend (virtio-net-device)",
    "PCI 03.0 (1af4:1000)",
  ];
  t.match(compareDevices(made([...MACHINE, ...plugged]), made(MACHINE)), {
    code: "devices",
    message: /^The devices differ: the guest has net1 \(virtio-net-pci\), which the destination's QEMU lacks\. /,
  });
  t.match(compareDevices(made(MACHINE), made([...MACHINE, ...plugged])), {
    message: /: the destination's QEMU has net1 \(virtio-net-pci\), which the guest lacks\. /,
  });
});

t.test("one more processor is one difference, although it changes the numbers of other devices", async (t) => {
  const more = [
    ...MACHINE.filter((one) => !one.startsWith("unattached/device[1]")),
    "unattached/device[1] (qemu64-x86_64-cpu)",
    "unattached/device[1]/lapic (apic)",
    "unattached/device[2] (kvmvapic)",
  ];
  t.match(compareDevices(made(more), made(MACHINE)), {
    message: /^The devices differ: the guest has qemu64-x86_64-cpu, which the destination's QEMU lacks\. /,
  });
});

t.test("the same device at another place on the bus is another device", async (t) => {
  const moved = MACHINE.map((one) => one.replace("PCI 02.0", "PCI 05.0"));
  t.match(compareDevices(made(moved), made(MACHINE)), {
    message: /has PCI 05\.0 \(1af4:1000\), .*; the destination's QEMU has PCI 02\.0 \(1af4:1000\)/,
  });
});

t.test("between two versions of QEMU only what a definition names counts", async (t) => {
  const newer = { major: 11, minor: 1, micro: 3 };
  t.equal(compareDevices(made(MACHINE), made([...MACHINE, "unattached/device[9] (vmport)"], newer)), undefined);
  t.match(compareDevices(made(MACHINE), made([...MACHINE, "peripheral/rng0 (virtio-rng-pci)"], newer)), {
    code: "devices",
  });
  const cpus = [...MACHINE, "unattached/device[9] (qemu64-x86_64-cpu)"];
  t.match(compareDevices(made(cpus), made(MACHINE, newer)), { message: /qemu64-x86_64-cpu/ });
});

t.test("of many differences only some are named", async (t) => {
  const many = Array.from({ length: 20 }, (_, at) => `peripheral/net${at + 1} (virtio-net-pci)`);
  t.match(compareDevices(made([...MACHINE, ...many]), made(MACHINE)), {
    message: /net6 \(virtio-net-pci\) and 14 more/,
  });
});
