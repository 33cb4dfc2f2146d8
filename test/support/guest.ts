/** Definitions of test guests: the kernel and initramfs of .cache/guest, the workload of test/support/guest. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import { run } from "./process.ts";

/** Known to every QEMU that can be a source (8.1 and later). */
const MACHINE = "pc-q35-8.1";
const MEMORY_MIB = 512;

/** What the guest does; the defaults are those of workload.c. Sizes are MiB, rates bytes a second. */
export interface Workload {
  /** Memory that is dirtied, page after page. @default 128 */
  readonly regionMiB?: number;
  /** Memory that holds the pattern, at least the region. @default the region */
  readonly fillMiB?: number;
  /** Dirtied a second, counted in whole pages; 0 is an idle guest. @default 200e6 */
  readonly rate?: number;
  /** Words of 8 bytes that change in a page at each visit. @default 4 */
  readonly words?: number;
  /**
   * Words of a page that do not compress, percent; 27 gives what process memory gives, 2.2 with zstd level 1.
   * @default 27
   */
  readonly randomPercent?: number;
  /** `scramble` writes whole pages of fresh random words: neither deltas nor zstd help. @default "counters" */
  readonly mode?: "counters" | "scramble";
  /** In which order pages are visited: memory's, all alike, or few of them often. @default "walk" */
  readonly order?: "walk" | "random" | "zipf";
  /** Milliseconds between two heartbeats. @default 50 */
  readonly beatMs?: number;
  /** Checked by the sweep in the background. @default 32e6 */
  readonly checkRate?: number;
  /** Heartbeats say what the guest's application has done; the image has one. @default false */
  readonly app?: boolean;
  /**
   * Drivers of virtio devices that the guest loads at its start, in addition to that of its disk (`diskMiB`). The
   * kernel of the tests has them as modules.
   */
  readonly drivers?: readonly ("virtio_blk" | "virtio_balloon")[];
  /** What the guest does when its balloon takes memory (QMP `balloon`). It needs the driver virtio_balloon. */
  readonly whenSqueezed?: "poweroff" | "reboot";
  /**
   * The size of the guest's first virtio disk, MiB. The guest writes to it and checks it all the time (disk-image.ts).
   */
  readonly diskMiB?: number;
  /** Written to the disk at most, bytes a second. @default 4e6 */
  readonly diskRate?: number;
}

export interface GuestOptions {
  readonly name: string;
  readonly memoryMiB?: number;
  readonly machine?: string;
  readonly workload?: Workload;
  /** `redis`: redis-server and its benchmark beside the workload (scripts/redis-image.sh). @default "initramfs" */
  readonly image?: "initramfs" | "redis";
  /** Further arguments of QEMU, with `{runtime}` where a host's runtime directory is meant. */
  readonly extra?: readonly string[];
}

/** The content of NAME.json (DESIGN 7). */
export interface GuestDefinitionFile {
  readonly name: string;
  readonly qmp: string;
  readonly command: readonly string[];
  readonly peers?: readonly string[];
}

/** What the kernel does not have to do at each boot; under TCG all of it together is a second. */
const KERNEL_OPTIONS = [
  "console=ttyS0",
  "quiet",
  // With -no-reboot a panic is a line on the console and the end of QEMU.
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

/** File names in a host's runtime directory. The observer socket is the rig's own: a QMP socket serves one client. */
export const guestFiles = (name: string): { qmp: string; observer: string; serial: string } => ({
  qmp: `${name}.qmp`,
  observer: `${name}.observer.qmp`,
  serial: `${name}.serial`,
});

/** A guest definition for both hosts. FERRY_ACCEL chooses another accelerator than tcg. */
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

/** The modules that each driver of a virtio device needs, in the order in which they are loaded. */
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

/** Builds the guest with redis if it is not up to date. @throws Error when its packages cannot be had */
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
