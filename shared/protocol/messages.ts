/**
 * What the two agents say to each other: domain unions, in the order in which they are normally said.
 * The generated types of proto/ferry/v1/peer.proto stay behind shared/link/wire.ts.
 * Times are microseconds since the epoch on the clock of the one who says them.
 */
import type { Refusal } from "../fault.ts";
import type { Ask, Standing } from "./destination-states.ts";

export interface QemuVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
}

export interface RamBlock {
  readonly name: string;
  readonly byteLength: number;
  readonly pageSize: number;
}

export type Codec = "xbzrle" | "zstd";
export const DEADLINE_ACTIONS = ["cancel", "force", "postcopy"] as const;
export type DeadlineAction = (typeof DEADLINE_ACTIONS)[number];
export const STRATEGIES = ["stop-and-copy", "precopy", "postcopy", "hybrid"] as const;
export type Strategy = (typeof STRATEGIES)[number];

/** The source's side of the handshake (DESIGN 4). */
export interface Offer {
  /** Newest first. */
  readonly protocolVersions: readonly number[];
  readonly migrationId: string;
  readonly token: Uint8Array;
  /** Where the destination dials the source: "host:port" or "unix:PATH". */
  readonly sourceAddress: string;
  readonly guest: GuestOffer;
  readonly transfer: TransferOffer;
  /** Only a check. */
  readonly dryRun: boolean;
  /** With a check: the destination is to dial the source all the same, so that the link can be measured. */
  readonly measureLink: boolean;
  /**
   * The source will say `kept` when its journal says that the guest stays there; the destination keeps a refused copy
   * until then.
   */
  readonly saysKept: boolean;
}

/** A layer of a disk, as a QEMU has it open. */
export interface Image {
  /** QEMU's driver: "raw", "qcow2". */
  readonly format: string;
  /** An absolute path, or the name of a storage that is no file of the host. */
  readonly file: string;
  /** As the guest sees it, or the layer above. */
  readonly byteLength: number;
  readonly writable: boolean;
  /** Tells one file from another on the same host; empty where QEMU has no file of the host open. */
  readonly inode: string;
  /** Name of the file, behind links, in its directory; empty where it is no file of the host. */
  readonly baseName: string;
}

export interface Drive {
  readonly name: string;
  readonly removable: boolean;
  /** The top layer first; none where there is no medium. */
  readonly layers: readonly Image[];
  /**
   * The name of the device that has this drive (shared/qemu/inspect/device-tree.ts). It is empty where no device has it, and
   * from an older source.
   */
  readonly place: string;
}

export interface GuestDisks {
  /** Tells one host, since it was booted, from another. */
  readonly boot: string;
  readonly drives: readonly Drive[];
  /**
   * Shared files that hold the guest's memory; `format` is the id of the memory backend. Missing from an older source.
   */
  readonly memory?: readonly Image[];
}

/** A file that the source has made beside each image that the guest may write, to be found by a host that shares it. */
export interface DiskMark {
  readonly name: string;
  readonly content: string;
}

export interface GuestOffer {
  readonly name: string;
  readonly definitionDigest: string;
  readonly machineType: string;
  readonly qemuVersion: QemuVersion;
  readonly cpuModel: string;
  readonly cpuFeatures: Readonly<Record<string, number>>;
  readonly ramBlocks: readonly RamBlock[];
  /** It is paused, and is to stay so. */
  readonly paused: boolean;
  /** As its QEMU has made them (shared/qemu/inspect/guest-devices.ts); missing from an older source. */
  readonly devices?: readonly string[];
  /** How the devices are set, each as "disk0: num-queues = 1"; missing from an older source. */
  readonly deviceSettings?: readonly string[];
  /** As its QEMU has them open; missing from an older source. */
  readonly disks?: GuestDisks;
  /** Missing where nothing could be marked. */
  readonly mark?: DiskMark;
  /** The operator answers for disks that nobody can prove to be shared. */
  readonly disksUnchecked?: boolean;
}

export interface TransferOffer {
  readonly codecs: readonly Codec[];
  readonly downtimeTargetMs: number;
  /** 0: none. */
  readonly deadlineMs: number;
  readonly onDeadline: DeadlineAction;
  readonly frameBytes: number;
  readonly creditWindowBytes: number;
  readonly verify: boolean;
  /** What the source can do with this guest, and the operator would have: one, or with "auto" all that it can. */
  readonly strategies: readonly Strategy[];
  /** With which the migration is to begin; "auto" leaves that to the agents. */
  readonly strategy: Strategy | "auto";
}

/** What both agents will keep to. */
export interface Contract {
  readonly protocolVersion: number;
  readonly codecs: readonly Codec[];
  readonly frameBytes: number;
  readonly creditWindowBytes: number;
  readonly destinationQemuVersion: QemuVersion;
  readonly destinationFreeMemoryBytes: number;
  /** The destination discards its QEMU when nobody follows up for this long. */
  readonly followUpMs: number;
  readonly ramBlocks: readonly RamBlock[];
  /**
   * Of those that were offered, the ones that the destination can do as well; a destination of protocol 1 says none.
   */
  readonly strategies: readonly Strategy[];
  /** With which the migration begins. */
  readonly strategy: Strategy;
  /** Both QEMUs are to be able to go into post-copy: by the strategy, or at the deadline. */
  readonly postcopy: boolean;
  readonly onDeadline: DeadlineAction;
  /** Why post-copy is not among the strategies, where it was asked for; else empty. */
  readonly postcopyObstacle: string;
  /** The destination has compared the devices and disks; one of before does not. */
  readonly comparesDisks: boolean;
  /** What the operator is to know of what was agreed, whole sentences. */
  readonly warnings: readonly string[];
  /** Behind a check the destination dials, and answers probes until the source ends the stream. */
  readonly measuresLink: boolean;
}

export type HandshakeAnswer =
  | { readonly kind: "contract"; readonly contract: Contract }
  | { readonly kind: "refusals"; readonly refusals: readonly Refusal[] };

/**
 * `verbatim`: bytes of QEMU's stream. `discards`: pages that the destination must forget, which come again
 * (shared/codec/discard-frame.ts). `package`: post-copy's device state, its length (u32, little endian) ahead of its
 * first byte.
 */
export type FrameKind = "pages" | "verbatim" | "discards" | "package";
export type FrameCodec = "none" | "zstd";

/** A batch for the destination QEMU; 1, 2, 3 … without a gap. */
export interface Frame {
  readonly kind: "frame";
  readonly sequence: number;
  readonly frameKind: FrameKind;
  readonly codec: FrameCodec;
  /** Length of the body before `codec`, bytes. */
  readonly rawLength: number;
  /** XXH64 of the body before `codec`, 8 bytes, little endian. */
  readonly checksum: Uint8Array;
  /** When received: a view that is valid only until the handler returns, unless it keeps a copy. */
  readonly body: Uint8Array;
  /**
   * When sent: bytes ahead of the body, in the same memory, that the link may overwrite until the frame was taken. With
   * FRAME_HEAD_BYTES of them (shared/link/wire/frame-wire.ts) the body is not copied to be sent behind its head.
   */
  readonly headRoom?: number;
}

/** Source to destination, on the transfer stream. */
export type SourceMessage =
  /** First on each connection: control messages that came so far, of this generation of the stream. */
  | { readonly kind: "welcome"; readonly received: number; readonly generation: number }
  /** Post-copy, first of a stream that was begun anew: the destination is to say which pages are missing. */
  | { readonly kind: "resume" }
  | { readonly kind: "probe"; readonly sequence: number; readonly padding: Uint8Array }
  | { readonly kind: "layout"; readonly blocks: readonly RamBlock[]; readonly ramSectionId: number }
  | Frame
  /** `received`: control messages that came so far, as in `welcome`; 0 of an older source. */
  | { readonly kind: "clockPing"; readonly nonce: number; readonly received?: number }
  | { readonly kind: "endOfStream"; readonly lastSequence: number }
  | { readonly kind: "verifyRequest"; readonly start: number; readonly byteLength: number; readonly last: boolean }
  | { readonly kind: "grant"; readonly token: Uint8Array; readonly epoch: number; readonly paused: boolean }
  | PeerFailure;

/** Destination to source, on the transfer stream. */
export type DestinationMessage =
  | Hello
  | { readonly kind: "ack"; readonly sequence: number; readonly appliedBytes: number }
  | { readonly kind: "clockReply"; readonly nonce: number; readonly destinationTimeUs: number }
  | {
      readonly kind: "loaded";
      readonly lastSequence: number;
      readonly lastByteAtUs: number;
      readonly loadedAtUs: number;
    }
  | {
      readonly kind: "pageDigests";
      readonly start: number;
      readonly byteLength: number;
      readonly digests: Uint8Array;
      readonly last: boolean;
    }
  | (Running & { readonly kind: "running" })
  /** Post-copy: pages that the guest waits for. */
  | { readonly kind: "pageRequest"; readonly firstPage: number; readonly pageCount: number }
  /** The destination's QEMU answers a PING that the package of its source had. */
  | { readonly kind: "pong"; readonly value: number }
  /**
   * The answer to `resume`: a bit for each page from `firstPage` on, lowest first; in any pieces, `last` with the last
   * one.
   */
  | {
      readonly kind: "missing";
      readonly firstPage: number;
      readonly pageCount: number;
      readonly bits: Uint8Array;
      readonly last: boolean;
    }
  | (Complete & { readonly kind: "complete" })
  | PeerFailure;

/** Post-copy is over: the guest has all of its pages. Times on the destination's clock. */
export interface Complete {
  readonly completedAtUs: number;
  readonly service: ServiceTimes;
  readonly agentCpuSeconds: number;
  readonly agentPeakMemoryBytes: number;
}

/** From a request of the destination's QEMU to the page being written to it, milliseconds; 0 when there was none. */
export interface ServiceTimes {
  readonly requests: number;
  readonly medianMs: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** The destination introduces itself, once for each connection. */
export interface Hello {
  readonly kind: "hello";
  readonly migrationId: string;
  readonly token: Uint8Array;
  /** 1, 2, 3 … */
  readonly attempt: number;
  /** Frames and control messages that came so far, in all connections of this generation. */
  readonly received: number;
  /** Of the stream that `received` counts; a source that begins it anew has another one, and nothing of it came yet. */
  readonly generation: number;
  /** The destination agent has started again in post-copy, and knows of no stream. */
  readonly restarted: boolean;
}

/** What a source asks that lost its stream, or started again. */
export interface SettleCall {
  readonly migrationId: string;
  readonly token: Uint8Array;
  readonly epoch: number;
  readonly ask: Ask;
  /** Of a grant: the guest is not to be started. */
  readonly paused: boolean;
}

/**
 * How long a destination agent that starts again lets callers wait while it looks for the QEMUs of its journal,
 * milliseconds. A QEMU that has not answered by then is looked at while calls are served.
 */
export const TAKES_UP_WITHIN_MS = 5000;

/**
 * How long a destination waits for its own decision before it answers a source that grants or withdraws, milliseconds.
 * When that time is over, its answer says that nothing is decided yet.
 */
export const DECIDES_WITHIN_MS = 5000;

export interface SettleAnswer {
  readonly standing: Standing;
  readonly reason: string;
  readonly running?: Running;
}

/**
 * The guest runs at the destination, or is paused there as its grant said; said only after `running` was journalled.
 * Times on the destination's clock.
 */
export interface Running {
  readonly epoch: number;
  /** 0 of a guest that stays paused. */
  readonly resumedAtUs: number;
  readonly grantedAtUs: number;
  readonly agentCpuSeconds: number;
  readonly agentPeakMemoryBytes: number;
}

/** The sender gave the migration up; with `refusedToken` it is the proof that a grant was refused. */
export interface PeerFailure {
  readonly kind: "failure";
  readonly code: string;
  readonly message: string;
  readonly refusedToken: Uint8Array;
}
