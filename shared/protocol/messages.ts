/**
 * What a source offers and a destination answers, as plain types. What the agents say after that is in
 * stream-messages.ts. How it goes over the wire is not here: shared/link/wire/ reads and writes the messages of
 * proto/ferry/v1/peer.proto.
 *
 * An *older source* is a source agent of an earlier version of Ferry, which does not send every field.
 */
import type { Refusal } from "../fault.ts";

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
   * True when the source will say `kept` once its journal says that the guest stays at the source. The destination
   * keeps a refused copy until then.
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
  /**
   * True with "auto" where the source may go into post-copy later although the migration begins as precopy. An older
   * source never does.
   */
  readonly postcopyMayFollow: boolean;
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
  /**
   * True when both QEMUs must be able to go into post-copy: by the strategy, at the deadline, or because post-copy may
   * follow (`TransferOffer.postcopyMayFollow`).
   */
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
