/**
 * What the agents say to each other after the handshake: the messages of the transfer stream, and the calls by which a
 * source asks and tells a destination what becomes of a grant. `shared/link/wire/` reads and writes them.
 *
 * Times are microseconds since the epoch, by the clock of the agent that says them.
 *
 * The stream outlives its connections: after a cut, each end says how many frames and *control messages* have come, and
 * the other end goes on after these. Control messages are all messages but frames and those that are not repeated after
 * a cut, such as pings, probes and acknowledgements. A source that begins the stream again, with frame 1, begins
 * another *generation* of the stream. An *older source* is a source agent of an earlier version of Ferry.
 */
import type { Ask, Standing } from "./destination-states.ts";
import type { RamBlock } from "./messages.ts";

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
  readonly body: Uint8Array;
  /**
   * When received: true if the link uses the memory of `body` and `checksum` again when the handler returns, so that a
   * handler that needs them longer has to copy them.
   * @default false: they are the handler's
   */
  readonly isLent?: boolean;
  /**
   * When sent: how many bytes before the body, in the same memory, the link may overwrite until Channel.send() calls
   * `taken` (shared/link/link.ts). If they are at least FRAME_HEAD_BYTES (shared/link/wire/frame-wire.ts), the link
   * writes the head there, and does not copy the body.
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
  /**
   * No frame follows. Where the source only measures the link and sends no frame, it says that the measurement is over.
   */
  | { readonly kind: "endOfStream"; readonly lastSequence: number }
  /**
   * Asks for digests of the guest-physical memory [start, start + byteLength), bytes. `last` is true for the last range
   * that is asked for.
   */
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
  /**
   * Post-copy: the destination's QEMU has answered a PING command of the package, which is the part of QEMU's stream
   * with the devices' state. `value` is the number in that PING. The source passes the answer on to its own QEMU, which
   * from version 10.2 on waits for it.
   */
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

/**
 * The sender has given the migration up. If `refusedToken` is the token of a grant, it proves that this grant was
 * refused; otherwise it is empty.
 */
interface PeerFailure {
  readonly kind: "failure";
  readonly code: string;
  readonly message: string;
  readonly refusedToken: Uint8Array;
}
