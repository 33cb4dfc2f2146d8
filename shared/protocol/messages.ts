/**
 * What the two agents say to each other, as plain types, in the order in which it is normally said. How it goes over
 * the wire is not here: shared/link/wire/ reads and writes the messages of proto/ferry/v1/peer.proto.
 *
 * Times are microseconds since the epoch, by the clock of the agent that says them.
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

/** What the source says in the handshake. */
export interface Offer {
  /** Newest first. */
  readonly protocolVersions: readonly number[];
  readonly migrationId: string;
  readonly token: Uint8Array;
  /** Where the destination dials the source: "host:port" or "unix:PATH". */
  readonly sourceAddress: string;
  readonly guest: GuestOffer;
  readonly transfer: TransferOffer;
  /** True for a check: the destination answers as for a real migration, and leaves nothing behind. */
  readonly dryRun: boolean;
  /** True when the destination is to dial the source after a check all the same, so that the link can be measured. */
  readonly measureLink: boolean;
  /**
   * True when the source will say `kept` once its journal says that the guest stays there. The destination keeps a
   * refused copy until then.
   */
  readonly saysKept: boolean;
}

/** A layer of a disk, or a file that holds guest memory, as a QEMU has it open. */
export interface Image {
  /** QEMU's driver: "raw", "qcow2". */
  readonly format: string;
  /** An absolute path, or the name of a storage that is no file of the host. */
  readonly file: string;
  /** The length of the content, as the guest or the layer above sees it. */
  readonly byteLength: number;
  readonly writable: boolean;
  /**
   * Tells one file from another on the same host. It is empty where QEMU is not seen to have a file of the host open.
   */
  readonly inode: string;
  /**
   * The last part of the file's path when all symbolic links are followed. It is empty where there is no file of the
   * host.
   */
  readonly baseName: string;
}

/** A disk of a guest, with what its QEMU has open for it. */
export interface Drive {
  readonly name: string;
  readonly removable: boolean;
  /** The layers, the top layer first. There are none where there is no medium. */
  readonly layers: readonly Image[];
  /**
   * The name of the device that has this drive (shared/qemu/inspect/device-tree.ts). It is empty where no device has
   * the drive, and from an older source.
   */
  readonly place: string;
}

export interface GuestDisks {
  /** The boot id of the host's kernel: two QEMUs with the same boot id run on one host, within one boot of it. */
  readonly boot: string;
  readonly drives: readonly Drive[];
  /**
   * Shared files that hold the guest's memory; `format` is the id of the memory backend. It is missing from an older
   * source.
   */
  readonly memory?: readonly Image[];
}

/**
 * A file that the source puts beside each image that the guest may write, for as long as the handshake lasts. A host
 * that finds this file shares the directory of the image.
 */
export interface DiskMark {
  readonly name: string;
  readonly content: string;
}

/** What the source says about the guest. */
export interface GuestOffer {
  readonly name: string;
  readonly definitionDigest: string;
  readonly machineType: string;
  readonly qemuVersion: QemuVersion;
  readonly cpuModel: string;
  readonly cpuFeatures: Readonly<Record<string, number>>;
  readonly ramBlocks: readonly RamBlock[];
  /** True when the guest is paused, and is to stay paused. */
  readonly paused: boolean;
  /** The devices that its QEMU has made (shared/qemu/inspect/guest-devices.ts); missing from an older source. */
  readonly devices?: readonly string[];
  /** How the devices are set, each setting as "disk0: num-queues = 1"; missing from an older source. */
  readonly deviceSettings?: readonly string[];
  /** The disks as its QEMU has them open; missing from an older source. */
  readonly disks?: GuestDisks;
  /** The mark beside its images; missing where no image could be marked. */
  readonly mark?: DiskMark;
  /** True when the operator answers for disks that cannot be proven to be the same on both hosts. */
  readonly disksUnchecked?: boolean;
}

/** How the source wants to move the guest. */
export interface TransferOffer {
  readonly codecs: readonly Codec[];
  readonly downtimeTargetMs: number;
  /** 0: there is no deadline. */
  readonly deadlineMs: number;
  readonly onDeadline: DeadlineAction;
  readonly frameBytes: number;
  readonly creditWindowBytes: number;
  readonly verify: boolean;
  /** The strategies that may be chosen: the operator's, or with "auto" all that the source can do with this guest. */
  readonly strategies: readonly Strategy[];
  /** The strategy with which the migration is to begin; "auto" leaves the choice to the agents. */
  readonly strategy: Strategy | "auto";
}

/** What both agents have agreed on for a migration. */
export interface Contract {
  readonly protocolVersion: number;
  readonly codecs: readonly Codec[];
  readonly frameBytes: number;
  readonly creditWindowBytes: number;
  readonly destinationQemuVersion: QemuVersion;
  readonly destinationFreeMemoryBytes: number;
  /**
   * The destination discards its QEMU when the source does not follow up for this long: no first frame comes, or later
   * nothing at all over a link that is up.
   */
  readonly followUpMs: number;
  readonly ramBlocks: readonly RamBlock[];
  /** The offered strategies that the destination can do as well; a destination of protocol 1 names none. */
  readonly strategies: readonly Strategy[];
  /** The strategy with which the migration begins. */
  readonly strategy: Strategy;
  /** True when both QEMUs must be able to go into post-copy, by the strategy or at the deadline. */
  readonly postcopy: boolean;
  readonly onDeadline: DeadlineAction;
  /** Why post-copy is not among the strategies although the offer asks for it; else empty. */
  readonly postcopyObstacle: string;
  /** True when the destination has compared the devices and disks. A destination of an older version does not. */
  readonly comparesDisks: boolean;
  /** What the operator should know about the contract, in whole sentences. */
  readonly warnings: readonly string[];
  /** True when the destination dials after a check, and answers probes until the source ends the stream. */
  readonly measuresLink: boolean;
}

export type HandshakeAnswer =
  | { readonly kind: "contract"; readonly contract: Contract }
  | { readonly kind: "refusals"; readonly refusals: readonly Refusal[] };

/**
 * `pages`: page records (shared/codec/page-frame.ts). `verbatim`: bytes of QEMU's stream. `discards`: pages that the
 * destination must forget, which come again (shared/codec/discard-frame.ts). `package`: post-copy's device state; its
 * length (u32, little endian) stands before its first byte.
 */
export type FrameKind = "pages" | "verbatim" | "discards" | "package";
export type FrameCodec = "none" | "zstd";

/** A batch of page records or of other bytes for the destination's QEMU. */
export interface Frame {
  readonly kind: "frame";
  /** 1, 2, 3 and so on, without a gap. */
  readonly sequence: number;
  readonly frameKind: FrameKind;
  readonly codec: FrameCodec;
  /** Length of the body before `codec` was applied, bytes. */
  readonly rawLength: number;
  /** XXH64 of the body before `codec` was applied, 8 bytes, little endian. */
  readonly checksum: Uint8Array;
  /** When received: a view that is valid only until the handler returns. A handler that needs it longer copies it. */
  readonly body: Uint8Array;
  /**
   * When sent: how many bytes before the body, in the same memory, the link may overwrite until the frame was taken. If
   * they are at least FRAME_HEAD_BYTES (shared/link/wire/frame-wire.ts), the link writes the head there, and does not
   * copy the body.
   */
  readonly headRoom?: number;
}

/** Source to destination, on the transfer stream. */
export type SourceMessage =
  /**
   * The first message on each connection. `received` counts the control messages that have come so far in this
   * generation of the stream.
   */
  | { readonly kind: "welcome"; readonly received: number; readonly generation: number }
  /** Post-copy: the first message of a stream that begins again. The destination must say which pages are missing. */
  | { readonly kind: "resume" }
  /**
   * Padding that measures the link before the first page. The destination acknowledges it as it acknowledges a frame.
   */
  | { readonly kind: "probe"; readonly sequence: number; readonly padding: Uint8Array }
  /** The RAM blocks of QEMU's stream, and the section that has their pages; before any frame. */
  | { readonly kind: "layout"; readonly blocks: readonly RamBlock[]; readonly ramSectionId: number }
  | Frame
  /** Asks for the destination's time. `received` counts as in `welcome`; it is 0 from an older source. */
  | { readonly kind: "clockPing"; readonly nonce: number; readonly received?: number }
  /** No frame follows. Before any frame it says that the link was measured. */
  | { readonly kind: "endOfStream"; readonly lastSequence: number }
  /** Asks for digests of the guest-physical memory from `start` on. */
  | { readonly kind: "verifyRequest"; readonly start: number; readonly byteLength: number; readonly last: boolean }
  /** The source gives the guest up, and has written `granted` into its journal before. */
  | { readonly kind: "grant"; readonly token: Uint8Array; readonly epoch: number; readonly paused: boolean }
  | PeerFailure;

/** Destination to source, on the transfer stream. */
export type DestinationMessage =
  | Hello
  /**
   * All frames up to and including `sequence` were written to QEMU. `appliedBytes` is the sum of their encoded bodies.
   */
  | { readonly kind: "ack"; readonly sequence: number; readonly appliedBytes: number }
  | { readonly kind: "clockReply"; readonly nonce: number; readonly destinationTimeUs: number }
  /** The destination's QEMU has everything, and is paused. */
  | {
      readonly kind: "loaded";
      readonly lastSequence: number;
      readonly lastByteAtUs: number;
      readonly loadedAtUs: number;
    }
  /**
   * The answer to `verifyRequest`: the digests of its pages, one after the other
   * (shared/runtime/guest/memory-digests.ts).
   */
  | {
      readonly kind: "pageDigests";
      readonly start: number;
      readonly byteLength: number;
      readonly digests: Uint8Array;
      readonly last: boolean;
    }
  | (Running & { readonly kind: "running" })
  /** Post-copy: the destination asks for pages for which its guest waits. */
  | { readonly kind: "pageRequest"; readonly firstPage: number; readonly pageCount: number }
  /** Post-copy: the destination's QEMU has answered a PING that was in the package. */
  | { readonly kind: "pong"; readonly value: number }
  /**
   * The answer to `resume`, in any number of pieces. `bits` has a bit for each page from `firstPage` on, lowest first,
   * which is set for a missing page. `last` is true in the last piece.
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

/** Post-copy is over: the guest has all of its pages. Times are on the destination's clock. */
export interface Complete {
  readonly completedAtUs: number;
  readonly service: ServiceTimes;
  readonly agentCpuSeconds: number;
  readonly agentPeakMemoryBytes: number;
}

/**
 * How long pages took from a request of the destination's QEMU until they were written to that QEMU, milliseconds; 0
 * when there was no request.
 */
export interface ServiceTimes {
  readonly requests: number;
  readonly medianMs: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** The destination introduces itself, once on each connection. */
export interface Hello {
  readonly kind: "hello";
  readonly migrationId: string;
  readonly token: Uint8Array;
  /**
   * The number of the connection, 1, 2, 3 and so on. A connection whose number is not the largest so far is refused.
   */
  readonly attempt: number;
  /** How many frames and control messages have come so far, over all connections of this generation. */
  readonly received: number;
  /**
   * The generation of the stream that `received` counts. A source that begins the stream again has another generation,
   * of which nothing has come yet.
   */
  readonly generation: number;
  /** True when the destination agent was started again in post-copy, and so knows of no stream. */
  readonly restarted: boolean;
}

/** What a source asks by a call after it has lost its stream, or was started again. */
export interface SettleCall {
  readonly migrationId: string;
  readonly token: Uint8Array;
  readonly epoch: number;
  readonly ask: Ask;
  /** With `grant`: true when the guest must not be started. */
  readonly paused: boolean;
}

/**
 * How long a destination agent that starts again lets callers wait while it looks for the QEMUs that its journal names,
 * milliseconds. After this time it serves calls, and goes on looking for a QEMU that has not answered.
 */
export const TAKES_UP_WITHIN_MS = 5000;

/**
 * How long a destination waits for its own decision before it answers a source that grants or withdraws, milliseconds.
 * After this time it answers that nothing is decided yet.
 */
export const DECIDES_WITHIN_MS = 5000;

/** What the destination answers to a SettleCall. */
export interface SettleAnswer {
  readonly standing: Standing;
  /** The reason for this standing, in words. */
  readonly reason: string;
  readonly running?: Running;
}

/**
 * The guest runs at the destination, or is paused there as its grant said. The destination says this only after it has
 * written `running` into its journal, or has seen that somebody else has started the guest. Times are on the
 * destination's clock.
 */
export interface Running {
  readonly epoch: number;
  /** When the guest was resumed; 0 for a guest that stays paused. */
  readonly resumedAtUs: number;
  readonly grantedAtUs: number;
  readonly agentCpuSeconds: number;
  readonly agentPeakMemoryBytes: number;
}

/** The sender has given the migration up. With the token of a grant it is the proof that this grant was refused. */
export interface PeerFailure {
  readonly kind: "failure";
  readonly code: string;
  readonly message: string;
  readonly refusedToken: Uint8Array;
}
