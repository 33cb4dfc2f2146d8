/**
 * Asks a QEMU about its guest before a migration, and finds the reasons why Ferry will not carry that guest. Nothing at
 * the guest or its QEMU is changed.
 */
import { MigrationFault, type Refusal } from "../../fault.ts";
import { PAGE_SIZE } from "../../units.ts";
import { isSettled } from "../qmp/migration-status.ts";
import { type GuestMemoryRange, linesOf, parseGuestMemory, parseRamBlocks } from "../qmp/monitor-text.ts";
import type { QmpClient } from "../qmp/qmp-client.ts";
import type { QemuVersion } from "../qmp/qmp-types.ts";
import type { RamBlock } from "../stream/ram-blocks.ts";
import { readTree } from "./guest-devices.ts";
import { refusePostcopy } from "./postcopy-ability.ts";

export interface GuestFacts {
  readonly qemuVersion: QemuVersion;
  /** The machine type as it stands after -machine, such as pc-q35-10.0. */
  readonly machineType: string;
  /** The QOM type of the first CPU, such as qemu64-x86_64-cpu. */
  readonly cpuModel: string;
  /** The CPUID words as the guest sees them, by "input EAX:input ECX:register"; empty for other targets than x86. */
  readonly cpuFeatures: Readonly<Record<string, number>>;
  /** The RAM blocks that the migration stream lists, in the order of the stream. */
  readonly ramBlocks: readonly RamBlock[];
}

/** The facts about a guest at the source, with its state at the moment and what speaks against carrying it. */
export interface SourceFacts extends GuestFacts {
  /** True when the guest stands still because somebody wants it so: it was paused, or never started (-S). */
  readonly paused: boolean;
  /** Reasons against any migration. */
  readonly refusals: readonly Refusal[];
  /** Reasons against post-copy. */
  readonly postcopyRefusals: readonly Refusal[];
  /** Reasons against a comparison of the memory (`--verify`). */
  readonly verifyRefusals: readonly Refusal[];
}

/**
 * Run states of a guest that stands still and can be moved as it is; it stands still at the destination too. A guest in
 * `prelaunch` was started with -S and never continued.
 */
export const PAUSED_STATES: readonly string[] = ["paused", "prelaunch"];

/** Run states of a guest that runs or has run; no other guest gets into them (qapi/run-state.json). */
const HAS_RUN: readonly string[] = [
  ...["running", "io-error", "suspended", "guest-panicked", "internal-error", "watchdog", "shutdown", "debug"],
];

/** Tells from QEMU's run state whether somebody has started the guest. */
export const hasRun = (status: string): boolean => HAS_RUN.includes(status);

/** What to do about a guest that neither runs nor is paused, by QEMU's run state (qapi/run-state.json). */
const MENDS: Readonly<Record<string, string>> = {
  "io-error": "mend its disk, then continue or stop it",
  "guest-panicked": "reset it",
  "internal-error": "reset it",
  watchdog: "reset or continue it",
  shutdown: "reset it, or end its QEMU and start it at the other host",
  suspended: "wake it up",
  inmigrate: "its QEMU waits for an incoming migration: let that migration end first",
  postmigrate: "this QEMU has completed a migration: continue the guest (cont) only if no other host has it",
  debug: "detach the debugger, or let it continue the guest",
};

/** The first version of QEMU with the capability switchover-ack. */
const OLDEST_QEMU = [8, 1] as const;
/**
 * The first version of QEMU that keeps track of an emulated guest's writes when it syncs its dirty bitmap (QEMU commit
 * 03bfc2188f; docs/design/switchover.md#bounds-on-what-qemu-says).
 */
const OLDEST_EMULATING = [9, 0] as const;

/**
 * Capabilities that may be on: the agent sets them for the migration and puts them back
 * (agent-source/guest/qemu-settings.ts), or they change neither the stream nor the switchover. Any other capability is
 * refused while it is on, including one that a later QEMU has added. It may change the stream to a form that Ferry does
 * not read (multifd, xbzrle, compress, mapped-ram, x-ignore-shared, dirty-bitmaps, background-snapshot, zero-copy-send,
 * block), take the switchover out of the agents' hands (x-colo, pause-before-switchover), or let QEMU forget pages that
 * post-copy may have to send again (release-ram).
 */
const MAY_BE_ON: readonly string[] = [
  ...["return-path", "switchover-ack", "events", "postcopy-ram", "postcopy-preempt"],
  ...["auto-converge", "dirty-limit", "late-block-activate", "postcopy-blocktime", "rdma-pin-all"],
  ...["validate-uuid", "zero-blocks"],
];

/** Capabilities that the agents cannot do without. A guest whose QEMU lacks one of them is refused. */
const NEEDED: readonly string[] = ["return-path", "switchover-ack"];

/**
 * Looks at a guest at the source. Questions that do not depend on each other are asked at once: QEMU's main loop, which
 * shares a lock with an emulated guest, takes a millisecond or more to come to each of them (docs/decisions/0060).
 * @param tree the answer of readTree(), where it was asked for already
 * @throws MigrationFault `qmp-…`; a reason against the migration is not thrown but listed
 */
export async function inspectSource(qmp: QmpClient, tree = readTree(qmp)): Promise<SourceFacts> {
  const [facts, suppressed, { status }, version, migration, capabilities, parameters, devices, postcopyRefusals] =
    await Promise.all([
      inspect(qmp),
      qmp.execute("qom-get", { path: "/machine", property: "suppress-vmdesc" }),
      qmp.execute("query-status"),
      refuseVersion(qmp),
      refuseMigration(qmp),
      refuseCapabilities(qmp),
      refuseParameters(qmp),
      tree.then(refuseDevices),
      refusePostcopy(qmp),
    ]);
  const refusals = [
    ...version,
    ...refuseMachine(facts.machineType, suppressed),
    ...refuseRunState(status),
    ...migration,
    ...capabilities,
    ...parameters,
    ...devices.refusals,
    ...refuseBlocks(facts.ramBlocks),
  ];
  return {
    ...facts,
    paused: PAUSED_STATES.includes(status),
    refusals,
    postcopyRefusals,
    verifyRefusals: devices.verifyRefusals,
  };
}

/** Looks at a QEMU of the destination that waits with -incoming defer. */
export function inspectDestination(qmp: QmpClient): Promise<GuestFacts> {
  return inspect(qmp);
}

/** Finds the machine type as it stands after -machine. An alias such as q35 comes as its versioned name. */
export async function machineTypeOf(qmp: QmpClient): Promise<string> {
  const type = await textOf(qmp, "/machine", "type");
  return type.replace(/-machine$/, "");
}

/** Finds RAM and ROM as the guest's CPUs see them now. Both hosts find the same once the device state is loaded. */
export async function guestMemoryRanges(qmp: QmpClient): Promise<GuestMemoryRange[]> {
  const blocks = parseRamBlocks(await askHuman(qmp, "info ramblock"));
  return parseGuestMemory(await askHuman(qmp, "info mtree -f"), blocks);
}

async function inspect(qmp: QmpClient): Promise<GuestFacts> {
  const { version } = qmp.greeting;
  const [machineType, cpu, blocks] = await Promise.all([
    machineTypeOf(qmp),
    inspectCpu(qmp),
    askHuman(qmp, "info ramblock"),
  ]);
  return { qemuVersion: version, machineType, ...cpu, ramBlocks: parseRamBlocks(blocks) };
}

async function inspectCpu(qmp: QmpClient): Promise<Pick<GuestFacts, "cpuModel" | "cpuFeatures">> {
  const [cpu] = await qmp.execute("query-cpus-fast");
  if (cpu === undefined) throw new MigrationFault("qmp-protocol", "QEMU's monitor lists no CPU");
  const path = cpu["qom-path"];
  const [cpuModel, cpuFeatures] = await Promise.all([textOf(qmp, path, "type"), cpuFeaturesOf(qmp, path)]);
  return { cpuModel, cpuFeatures };
}

/** The most characters of a register's name, such as "EAX". */
const REGISTER_CHARACTERS_MAX = 8;

/** A word of CPU features: X86CPUFeatureWordInfo, from x86_cpu_get_feature_words in target/i386/cpu.c. */
interface FeatureWord {
  readonly "cpuid-input-eax": number;
  readonly "cpuid-input-ecx"?: number;
  readonly "cpuid-register": string;
  readonly features: number;
}

const isFeatureWord = (word: unknown): word is FeatureWord =>
  typeof word === "object" &&
  word !== null &&
  "features" in word &&
  typeof word.features === "number" &&
  "cpuid-input-eax" in word &&
  typeof word["cpuid-input-eax"] === "number" &&
  "cpuid-register" in word &&
  typeof word["cpuid-register"] === "string" &&
  word["cpuid-register"].length <= REGISTER_CHARACTERS_MAX;

async function cpuFeaturesOf(qmp: QmpClient, path: string): Promise<Record<string, number>> {
  const properties = await qmp.execute("qom-list", { path });
  if (!properties.some((property) => property.name === "feature-words")) return {};
  const words = await qmp.execute("qom-get", { path, property: "feature-words" });
  const features: Record<string, number> = {};
  if (!Array.isArray(words)) return features;
  for (const word of words) {
    if (!isFeatureWord(word)) throw new MigrationFault("qmp-protocol", `QEMU's ${path} has no feature words`);
    const { "cpuid-input-eax": eax, "cpuid-input-ecx": ecx = 0, "cpuid-register": register, features: bits } = word;
    features[`${eax}:${ecx}:${register}`] = bits;
  }
  return features;
}

async function refuseVersion(qmp: QmpClient): Promise<Refusal[]> {
  const { version } = qmp.greeting;
  const text = `QEMU ${version.major}.${version.minor}.${version.micro}`;
  if (isOlder(version, OLDEST_QEMU)) {
    const message = `${text} is older than ${OLDEST_QEMU.join(".")}; start the guest with a newer one`;
    return [{ code: "qemu-too-old", message }];
  }
  if (!isOlder(version, OLDEST_EMULATING) || (await qmp.execute("query-kvm")).enabled) return [];
  const mend = `start it with KVM, or with QEMU ${OLDEST_EMULATING.join(".")} or later`;
  const message = `${text} emulates this guest (TCG), and loses writes of such a guest in any migration; ${mend}`;
  return [{ code: "qemu-too-old", message }];
}

const isOlder = ({ major, minor }: QemuVersion, [oldest, oldestMinor]: readonly [number, number]): boolean =>
  major < oldest || (major === oldest && minor < oldestMinor);

/**
 * Refuses machines whose stream cannot be read. Machine types up to 2.3 send neither the configuration at the start of
 * the stream nor the footers at the ends of sections (hw/core/machine.c, hw_compat_2_3). Without a description of the
 * device state, the end of the device state cannot be found.
 */
function refuseMachine(machineType: string, suppressed: unknown): Refusal[] {
  const code = "machine-type";
  const [, major, minor] = /^pc-(?:i440fx-|q35-)?(\d+)\.(\d+)/.exec(machineType) ?? [];
  if (major !== undefined && Number(major) * 1000 + Number(minor) < 2004)
    return [{ code, message: `Machine type ${machineType} sends no section footers; use one of 2.4 or later` }];
  if (suppressed !== true) return [];
  return [{ code, message: "The machine sends no description of its device state; start it without suppress-vmdesc" }];
}

function refuseRunState(status: string): Refusal[] {
  if (status === "running" || PAUSED_STATES.includes(status)) return [];
  const mend = MENDS[status];
  const message = `The guest is ${status}, neither running nor paused${mend === undefined ? "" : `; ${mend}`}`;
  return [{ code: "guest-not-running", message }];
}

async function refuseMigration(qmp: QmpClient): Promise<Refusal[]> {
  const refusals: Refusal[] = [];
  const migration = await qmp.execute("query-migrate");
  if (!isSettled(migration.status))
    refusals.push({ code: "migration-active", message: `QEMU has a migration already, which is ${migration.status}` });
  for (const reason of migration["blocked-reasons"] ?? [])
    refusals.push({ code: "migration-blocked", message: `QEMU does not migrate this guest: ${reason}` });
  return refusals;
}

async function refuseCapabilities(qmp: QmpClient): Promise<Refusal[]> {
  const capabilities = await qmp.execute("query-migrate-capabilities");
  const code = (capability: string): string => `capability-${capability}`;
  const missing = NEEDED.filter((needed) => !capabilities.some(({ capability }) => capability === needed));
  const inTheWay = capabilities.filter(({ capability, state }) => state && !MAY_BE_ON.includes(capability));
  return [
    ...missing.map((capability) => ({
      code: code(capability),
      message: `QEMU has no migration capability ${capability}; start the guest with another version of QEMU`,
    })),
    ...inTheWay.map(({ capability }) => ({
      code: code(capability),
      message: `Migration capability ${capability} is on; switch it off with migrate-set-capabilities`,
    })),
  ];
}

/**
 * Refuses parameters with which QEMU would encrypt its stream (tls-creds), or would not migrate the guest live (mode).
 */
async function refuseParameters(qmp: QmpClient): Promise<Refusal[]> {
  const parameters = await qmp.execute("query-migrate-parameters");
  const refusals: Refusal[] = [];
  const { "tls-creds": credentials = "", mode = "normal" } = parameters;
  // a QEMU without credentials may also say null
  if (typeof credentials === "string" && credentials !== "")
    refusals.push({
      code: "parameter-tls-creds",
      message: `Migration parameter tls-creds is ${credentials}; empty it, the agents encrypt the way between the hosts`,
    });
  if (mode !== "normal")
    refusals.push({ code: "parameter-mode", message: `Migration parameter mode is ${mode}; set it to normal` });
  return refusals;
}

/** The code of the refusal to compare the memory of a guest whose balloon hints at free pages. */
export const FREE_PAGE_HINT = "verify-free-page-hint";

/** Finds devices that speak against any migration, and devices that speak against a comparison of the memory. */
function refuseDevices(tree: string): Pick<SourceFacts, "refusals" | "verifyRefusals"> {
  const refusals: Refusal[] = [];
  const lines = linesOf(tree);
  const has = (pattern: RegExp): boolean => lines.some((line) => pattern.test(line));
  if (has(/^ *dev: virtio-mem/))
    refusals.push({ code: "device-virtio-mem", message: "The guest has a virtio-mem device; unplug it" });
  if (has(/^ *dev: vfio-/))
    refusals.push({ code: "device-vfio", message: "The guest has a passed-through (vfio) device; unplug it" });
  const hints = has(/^ *free-page-hint = true/);
  const message =
    "The guest's balloon tells QEMU which pages are free (free-page-hint=on). QEMU does not send such pages, so they differ between the two hosts; leave out --verify";
  return { refusals, verifyRefusals: hints ? [{ code: FREE_PAGE_HINT, message }] : [] };
}

function refuseBlocks(blocks: readonly RamBlock[]): Refusal[] {
  return blocks
    .filter((block) => block.pageSize !== PAGE_SIZE)
    .map((block) => ({
      code: "page-size",
      message: `RAM block ${block.name} has pages of ${block.pageSize} bytes, not ${PAGE_SIZE}; start the guest without huge pages`,
    }));
}

async function textOf(qmp: QmpClient, path: string, property: string): Promise<string> {
  const value = await qmp.execute("qom-get", { path, property });
  if (typeof value !== "string")
    throw new MigrationFault("qmp-protocol", `QEMU's ${path} has no text as its ${property}`);
  return value;
}

function askHuman(qmp: QmpClient, commandLine: string): Promise<string> {
  return qmp.execute("human-monitor-command", { "command-line": commandLine });
}
