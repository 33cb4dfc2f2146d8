/** Makes definitions of test guests, which run the kernel and the initramfs of .cache/guest (test/support/guest). */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import { run } from "./process.ts";

/** The usual machine type, which every QEMU that can be a source has (8.1 and later). */
const MACHINE = "pc-q35-8.1";
const MEMORY_MIB = 512;

/** What the guest does. The defaults are those of settings.c. Sizes are in MiB, rates in bytes a second. */
export interface Workload {
  /** How much memory is dirtied, page after page. @default 128 */
  readonly regionMiB?: number;
  /** How much memory holds the pattern. It is at least the region. @default the region */
  readonly fillMiB?: number;
  /** How much is dirtied a second, counted in whole pages. 0 makes an idle guest. @default 200e6 */
  readonly rate?: number;
  /** How many words of 8 bytes change in a page at each visit. @default 4 */
  readonly words?: number;
  /**
   * How many words of a page do not compress, percent. 27 compresses like the memory of processes, 2.2 times with
   * zstd's level 1.
   * @default 27
   */
  readonly randomPercent?: number;
  /** `scramble` writes whole pages of fresh random words: neither deltas nor zstd help. @default "counters" */
  readonly mode?: "counters" | "scramble";
  /**
   * The order in which pages are visited: that of the memory, at random with all pages alike, or at random with few
   * pages often.
   * @default "walk"
   */
  readonly order?: "walk" | "random" | "zipf";
  /** The time between two heartbeats, milliseconds. @default 50 */
  readonly beatMs?: number;
  /** How much the sweep in the background checks. @default 32e6 */
  readonly checkRate?: number;
  /** True if heartbeats say what the guest's application has done. The image must have one. @default false */
  readonly app?: boolean;
  /**
   * Drivers of virtio devices that the guest loads at its start, in addition to the driver of its disk (`diskMiB`). The
   * kernel of the tests has them as modules.
   */
  readonly drivers?: readonly ("virtio_blk" | "virtio_balloon")[];
  /** What the guest does when its balloon takes memory (QMP `balloon`). It needs the driver virtio_balloon. */
  readonly whenSqueezed?: "poweroff" | "reboot";
  /**
   * The size of the guest's first virtio disk, MiB. The guest writes to it and checks it all the time (disk-image.ts).
   */
  readonly diskMiB?: number;
  /** The most that is written to the disk, bytes a second. @default 4e6 */
  readonly diskRate?: number;
}

export interface GuestOptions {
  readonly name: string;
  readonly memoryMiB?: number;
  readonly machine?: string;
  readonly workload?: Workload;
  /** `redis` runs redis-server and its benchmark beside the workload (scripts/redis-image.sh). @default "initramfs" */
  readonly image?: "initramfs" | "redis";
  /** Further arguments of QEMU, with `{runtime}` where a host's runtime directory is meant. */
  readonly extra?: readonly string[];
}

/** The content of NAME.json (docs/design/guests-and-units.md#the-definition-of-a-guest). */
export interface GuestDefinitionFile {
  readonly name: string;
  readonly qmp: string;
  readonly command: readonly string[];
  readonly peers?: readonly string[];
}

/** Options of the kernel that leave out work at each boot. Under TCG they save a second together. */
const KERNEL_OPTIONS = [
  "console=ttyS0",
  "quiet",
  // with -no-reboot, a panic prints a line on the console and ends QEMU
  "panic=-1",
  "mitigations=off",
  "nokaslr",
  "tsc=reliable",
  "no_timer_check",
  "init_on_alloc=0",
  "8250.nr_uarts=1",
  "i8042.noaux",
  "apparmor=0",
  "audit=0",
];

/**
 * The names of a guest's files in a host's runtime directory. `observer` is a second monitor for the tests, since a QMP
 * socket serves one client only.
 */
export const guestFiles = (name: string): { qmp: string; observer: string; serial: string } => ({
  qmp: `${name}.qmp`,
  observer: `${name}.observer.qmp`,
  serial: `${name}.serial`,
});

/** Makes the definition of a guest, the same for both hosts. FERRY_ACCEL chooses another accelerator than tcg. */
export function guestDefinition(options: GuestOptions): GuestDefinitionFile {
  const files = guestFiles(options.name);
  const image = join(packageRoot(), ".cache", "guest");
  const socket = (file: string): string => `unix:{runtime}/${file},server=on,wait=off`;
  const command = [
    "qemu-system-x86_64",
    ...["-name", options.name],
    ...["-machine", options.machine ?? MACHINE],
    ...["-accel", process.env.FERRY_ACCEL ?? "tcg"],
    ...["-cpu", "qemu64", "-smp", "1", "-m", `${options.memoryMiB ?? MEMORY_MIB}`],
    ...["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-vga", "none"],
    ...["-qmp", socket(files.qmp), "-qmp", socket(files.observer)],
    ...["-serial", `file:{runtime}/${files.serial}`],
    ...["-kernel", join(image, "vmlinuz"), "-initrd", join(image, `${options.image ?? "initramfs"}.cpio.gz`)],
    ...["-append", [...KERNEL_OPTIONS, ...workloadOptions(options.workload ?? {})].join(" ")],
    ...(options.extra ?? []),
  ];
  return { name: options.name, qmp: `{runtime}/${files.qmp}`, command };
}

/** The modules that every driver of a virtio device needs, in the order in which they are loaded. */
const VIRTIO_MODULES = ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"];

function workloadOptions(workload: Workload): string[] {
  const given: [key: string, value: string | number | undefined][] = [
    ["region", mebibytes(workload.regionMiB)],
    ["fill", mebibytes(workload.fillMiB)],
    ["rate", workload.rate],
    ["words", workload.words],
    ["random", workload.randomPercent],
    ["mode", workload.mode],
    ["order", workload.order],
    ["beat", workload.beatMs],
    ["check", workload.checkRate],
    ["app", workload.app === true ? 1 : undefined],
    ["disk", mebibytes(workload.diskMiB)],
    ["diskrate", workload.diskRate],
  ];
  const options = given.flatMap(([key, value]) => (value === undefined ? [] : [`ferry.${key}=${value}`]));
  const { diskMiB, whenSqueezed } = workload;
  const drivers = new Set([...(workload.drivers ?? []), ...(diskMiB === undefined ? [] : ["virtio_blk"])]);
  if (drivers.size > 0) options.push(`init.modules=${[...VIRTIO_MODULES, ...drivers].join(",")}`);
  if (whenSqueezed !== undefined) options.push(`init.balloon=${whenSqueezed}`);
  return options;
}

const mebibytes = (size: number | undefined): string | undefined => (size === undefined ? undefined : `${size}M`);

/** Builds the guest's image with redis if it is not up to date. @throws Error when its packages cannot be downloaded */
export async function prepareRedisImage(): Promise<void> {
  await run([join(packageRoot(), "scripts", "redis-image.sh")], { timeoutMs: 180_000 });
}

/**
 * Builds the initramfs if it is not up to date.
 * @throws Error when there is no kernel for the guest, or a tool is missing
 */
export async function prepareGuestImage(): Promise<void> {
  const root = packageRoot();
  if (!existsSync(join(root, ".cache", "guest", "vmlinuz")))
    throw new Error("There is no kernel for test guests: run scripts/setup.sh");
  await run([join(root, "scripts", "guest-image.sh")], { timeoutMs: 60_000 });
}
