/**
 * What the simulated QEMU (fake-qemu.ts) says of its guest when it is looked at before a migration: a machine without
 * disks, with one CPU, and with the RAM blocks of the streams that fake-stream.ts makes.
 */

/** The RAM blocks, in the order of the stream. */
export const FAKE_BLOCKS = [
  ["pc.ram", 40],
  ["pc.bios", 4],
  ["/rom@etc/acpi/tables", 2],
] as const;

/** The same blocks as the agents name them. */
export const FAKE_RAM = FAKE_BLOCKS.map(([name, pages]) => ({ name, byteLength: pages * 4096, pageSize: 4096 }));

/** The migration capabilities and parameters, as they are before anybody has changed them. */
export const FAKE_SETTINGS = {
  capabilities: {
    "return-path": false,
    "switchover-ack": false,
    events: false,
    "pause-before-switchover": false,
    "postcopy-ram": false,
  },
  parameters: { "max-bandwidth": 134_217_728, "downtime-limit": 300, "avail-switchover-bandwidth": 0 },
};

const hex = (bytes: number): string => `0x${bytes.toString(16).padStart(16, "0")}`;
const ramBlock = ([name, pages]: (typeof FAKE_BLOCKS)[number]): string =>
  `  ${name}    4 KiB  ${hex(0)} ${hex(pages * 4096)} ${hex(pages * 4096)} 0x0 rw`;
/** The guest's memory as its CPU sees it: all of `pc.ram`. */
const FLAT_VIEW = [
  "FlatView #0",
  ' AS "memory", root: system',
  "  0000000000000000-0000000000027fff (prio 0, ram): pc.ram",
];
const HUMAN: Readonly<Record<string, string>> = {
  "info ramblock": FAKE_BLOCKS.map(ramBlock).join("\r\n"),
  "info mtree -f": FLAT_VIEW.join("\r\n"),
  "info qtree": "bus: main-system-bus\r\n  type System\r\n",
  "info qom-tree": "/machine (pc-q35-10.0-machine)\r\n  /peripheral (container)\r\n",
};

/** What QEMU answers to the questions about its guest; undefined for every other command. */
export function factOf(execute: string, given: Readonly<Record<string, unknown>> = {}): unknown {
  switch (execute) {
    case "query-migrate-capabilities":
      return Object.entries(FAKE_SETTINGS.capabilities).map(([capability, state]) => ({ capability, state }));
    case "query-migrate-parameters":
      return FAKE_SETTINGS.parameters;
    case "human-monitor-command":
      return HUMAN[String(given["command-line"])] ?? "";
    case "qom-get":
      if (given.property !== "type") return false;
      return given.path === "/machine" ? "pc-q35-10.0-machine" : "qemu64-x86_64-cpu";
    case "query-kvm":
      return { enabled: false, present: false };
    case "query-block":
    case "query-block-jobs":
    case "query-memdev":
    case "query-pci":
      return [];
    default:
      return undefined;
  }
}
