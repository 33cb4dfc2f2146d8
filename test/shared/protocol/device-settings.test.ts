/** Tests which differences between the settings of two QEMUs' devices count, and how they are named. */
import t from "tap";
import { compareSettings, saidSettings } from "../../../shared/protocol/device-settings.ts";

const QEMU = { major: 10, minor: 0, micro: 2 };
const NEWER = { major: 11, minor: 1, micro: 3 };
const SET = [
  "net0: bus = pcie.0",
  "net0: addr = 02.0",
  "net0/virtio-net-device: bus = virtio-bus",
  "net0/virtio-net-device: mq = true",
  "usb/usb-kbd 1: bus = usb.0",
  "usb/usb-kbd 1: head = 0 (0x0)",
  "machine: smp cores = 2",
];
const set = (settings: readonly string[], qemuVersion = QEMU) => ({ settings, qemuVersion });
const changed = (from: string, to: string) => SET.map((one) => one.replace(from, to));

t.test("the order of the settings makes no difference", async (t) => {
  t.equal(compareSettings(set(SET), set([...SET].reverse())), undefined);
});

t.test("each setting that differs is named, with both values", async (t) => {
  for (const [from, to, words] of [
    ["02.0", "03.0", /: addr of net0 is 02\.0 at the source and 03\.0 at the destination\. /],
    ["mq = true", "mq = false", /: mq of net0\/virtio-net-device is true at the source and false at/],
    ["cores = 2", "cores = 1", /: smp cores of machine is 2 at the source and 1 at/],
    ["usb-kbd 1", "usb-kbd 2", /: usb\/usb-kbd 1 is only at the source; usb\/usb-kbd 2 is only at the destination\. /],
  ] as const)
    t.match(compareSettings(set(SET), set(changed(from, to))), { code: "devices", message: words });
});

t.test("of very many settings only those that a definition gives are told and compared", async (t) => {
  const many = Array.from({ length: 10_000 }, (_, at) => `net${at}: x-known = ${at}`);
  t.equal(saidSettings(SET), SET);
  const said = saidSettings([...SET, ...many]);
  t.same(
    said,
    SET.filter((one) => !/mq|head/.test(one)),
  );
  t.equal(compareSettings(set(said), set(SET)), undefined);
  t.match(compareSettings(set(said), set(changed("02.0", "03.0"))), { message: /addr of net0/ });
});

t.test("between two versions of QEMU only settings that a definition gives are compared", async (t) => {
  t.equal(compareSettings(set(SET), set(changed("mq = true", "mq = false"), NEWER)), undefined);
  t.equal(compareSettings(set(SET), set([...SET, "rtc: x-new = 1"], NEWER)), undefined);
  t.match(compareSettings(set(SET), set(changed("02.0", "03.0"), NEWER)), { message: /addr of net0/ });
});
