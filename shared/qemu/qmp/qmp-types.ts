/**
 * The part of QEMU's monitor protocol that the agents use: commands with their arguments and answers, and events. The
 * shapes follow qapi/*.json of QEMU 8.1 to 11.1; fields that the agents do not read are left out. qmp-answers.ts checks
 * that each field has the type that is given here.
 */

/** A run state of QEMU (qapi/run-state.json, RunState). It is a string because later versions add states. */
type RunState = string;

export interface QemuVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
}

export interface QmpGreeting {
  readonly version: QemuVersion;
  /** What the distribution calls its build; empty when it says nothing. */
  readonly package: string;
}

export interface QmpEvent {
  readonly event: string;
  readonly data: Record<string, unknown>;
  /** Microseconds since the epoch on the clock of QEMU's host. */
  readonly timestampUs: number;
}

/** The data of the events that the agents wait for. */
export interface QmpEventData {
  readonly STOP: Record<string, unknown>;
  readonly RESUME: Record<string, unknown>;
  readonly SHUTDOWN: { readonly guest: boolean; readonly reason: string };
  /** Comes only with the capability `events`. */
  readonly MIGRATION: { readonly status: string };
  /** Comes only with the capability `events`: QEMU has synced its dirty bitmap for the `pass`-th time. */
  readonly MIGRATION_PASS: { readonly pass: number };
}

/** An event of this name, with the data that such an event has. */
export type QmpEventNamed<E extends string> = QmpEvent & {
  readonly event: E;
  readonly data: E extends keyof QmpEventData ? QmpEventData[E] : unknown;
};

/**
 * What QEMU says of its migration (qapi/migration.json, MigrationInfo). Without `status` there was no migration yet.
 * Sizes are in bytes, times in milliseconds, and `dirty-pages-rate` is in pages per second.
 */
export interface MigrationInfo {
  readonly status?: string;
  readonly ram?: {
    readonly total: number;
    readonly remaining: number;
    readonly transferred: number;
    readonly "dirty-sync-count": number;
    readonly "dirty-pages-rate": number;
    readonly "page-size": number;
  };
  readonly "error-desc"?: string;
  readonly "blocked-reasons"?: readonly string[];
  readonly downtime?: number;
  readonly "expected-downtime"?: number;
  readonly "total-time"?: number;
}

interface MigrationCapability {
  readonly capability: string;
  readonly state: boolean;
}

/** Migration parameters by name. "downtime-limit" is in milliseconds, a bandwidth in bytes each second. */
export type MigrationParameters = Readonly<Record<string, number | string | boolean>>;

interface CpuInfo {
  readonly "cpu-index": number;
  readonly "qom-path": string;
  readonly "thread-id": number;
  readonly target: string;
}

export interface MachineInfo {
  readonly name: string;
  readonly alias?: string;
  readonly "is-default"?: boolean;
  readonly deprecated?: boolean;
}

interface QomProperty {
  readonly name: string;
  readonly type: string;
}

interface MemoryDevice {
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** A memory backend (qapi/machine.json, Memdev). `size` is in bytes. */
export interface MemoryBackend {
  readonly id?: string;
  readonly share?: boolean;
  readonly size?: number;
}

/** An image with the images below it (qapi/block-core.json, ImageInfo). */
export interface ImageInfo {
  readonly filename: string;
  readonly format: string;
  readonly "virtual-size": number;
  readonly "backing-image"?: ImageInfo;
}

/** A drive (qapi/block-core.json, BlockInfo). */
export interface BlockInfo {
  readonly device: string;
  /** The id of the device, or its path in the object tree; missing where no device has the drive. */
  readonly qdev?: string;
  readonly removable: boolean;
  /** Missing where the drive has no medium. */
  readonly inserted?: { readonly image: ImageInfo; readonly "node-name"?: string };
}

/** A node of QEMU's block layer (qapi/block-core.json, BlockDeviceInfo). */
export interface BlockNode {
  readonly "node-name"?: string;
  readonly drv?: string;
  readonly file?: string;
  readonly ro?: boolean;
  readonly image?: ImageInfo;
}

/** A PCI device (qapi/pci.json, PciDeviceInfo). */
export interface PciDevice {
  readonly slot: number;
  readonly function: number;
  readonly id: { readonly vendor: number; readonly device: number };
}

/** A command. `Returns` is void where the answer says only that the command has succeeded. */
interface Command<Arguments, Returns> {
  readonly arguments: Arguments;
  readonly returns: Returns;
}

export interface QmpCommands {
  "query-status": Command<undefined, { readonly status: RunState; readonly running: boolean }>;
  /** `enabled` is true when the guest runs under KVM. */
  "query-kvm": Command<undefined, { readonly enabled: boolean; readonly present: boolean }>;
  "query-version": Command<undefined, { readonly qemu: QemuVersion; readonly package: string }>;
  "query-migrate": Command<undefined, MigrationInfo>;
  /** With `resume`, a source resumes a paused post-copy over a new connection. */
  migrate: Command<{ readonly uri: string; readonly resume?: boolean }, void>;
  /** A destination resumes a paused post-copy, and listens at the address for the new connection. */
  "migrate-recover": Command<{ readonly uri: string }, void>;
  /** Breaks the connection of a post-copy, at either end: both QEMUs go to postcopy-paused. */
  "migrate-pause": Command<undefined, void>;
  migrate_cancel: Command<undefined, void>;
  "migrate-start-postcopy": Command<undefined, void>;
  "migrate-incoming": Command<{ readonly uri: string }, void>;
  "migrate-set-capabilities": Command<{ readonly capabilities: readonly MigrationCapability[] }, void>;
  "query-migrate-capabilities": Command<undefined, readonly MigrationCapability[]>;
  "migrate-set-parameters": Command<MigrationParameters, void>;
  "query-migrate-parameters": Command<undefined, MigrationParameters>;
  stop: Command<undefined, void>;
  cont: Command<undefined, void>;
  /** QEMU may close the monitor before it answers: the answer and the close both count as success. */
  quit: Command<undefined, void>;
  /** All arguments except `rounds` are milliseconds. */
  "announce-self": Command<
    { readonly initial: number; readonly max: number; readonly rounds: number; readonly step: number },
    void
  >;
  /** Writes `size` bytes of guest-physical memory from `val` to a file that QEMU opens. */
  pmemsave: Command<{ readonly val: number; readonly size: number; readonly filename: string }, void>;
  "human-monitor-command": Command<{ readonly "command-line": string }, string>;
  "query-cpus-fast": Command<undefined, readonly CpuInfo[]>;
  "qom-get": Command<{ readonly path: string; readonly property: string }, unknown>;
  "qom-list": Command<{ readonly path: string }, readonly QomProperty[]>;
  /** QEMU makes an object under /objects. An object of the type `secret` holds a text. */
  "object-add": Command<{ readonly "qom-type": string; readonly id: string; readonly data: string }, void>;
  "object-del": Command<{ readonly id: string }, void>;
  /**
   * Makes block nodes active or inactive (QEMU 10.0 and later): all of them, since no node is named. Active nodes are
   * locked and may be written to.
   */
  "blockdev-set-active": Command<{ readonly active: boolean }, void>;
  "query-named-block-nodes": Command<{ readonly flat: boolean }, readonly BlockNode[]>;
  "query-block": Command<undefined, readonly BlockInfo[]>;
  "query-block-jobs": Command<
    undefined,
    readonly { readonly type: string; readonly device: string; readonly status: string }[]
  >;
  /** `id` is the id of the device, or its path in the object tree. */
  eject: Command<{ readonly id: string; readonly force: boolean }, void>;
  "blockdev-change-medium": Command<
    {
      readonly id: string;
      readonly filename: string;
      readonly format: string;
      readonly force: boolean;
      readonly "read-only-mode": "read-only" | "read-write";
    },
    void
  >;
  balloon: Command<{ readonly value: number }, unknown>;
  "query-vm-generation-id": Command<undefined, { readonly guid: string }>;
  "query-pci": Command<undefined, readonly { readonly devices: readonly PciDevice[] }[]>;
  "query-machines": Command<undefined, readonly MachineInfo[]>;
  /** Lists the memory backends under /objects, and the one that QEMU makes for the machine. */
  "query-memdev": Command<undefined, readonly MemoryBackend[]>;
  "query-memory-devices": Command<undefined, readonly MemoryDevice[]>;
}

export type QmpCommandName = keyof QmpCommands;

export interface QmpCallOptions {
  /** How long the call may take, milliseconds. @default 10000 */
  readonly timeoutMs?: number | undefined;
  /** Ends the call when it is aborted. QEMU may still carry the command out. */
  readonly signal?: AbortSignal | undefined;
}

/** What follows the command's name in a call: arguments only where the command has some. */
export type QmpCall<C extends QmpCommandName> = QmpCommands[C]["arguments"] extends undefined
  ? [args?: undefined, options?: QmpCallOptions]
  : [args: QmpCommands[C]["arguments"], options?: QmpCallOptions];
