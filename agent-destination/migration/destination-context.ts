/**
 * What one incoming migration has at hand in every state. Nothing in it changes with the state: what changes is in the
 * states (destination-state.ts).
 */

import { join } from "node:path";
import { defined } from "../../shared/defined.ts";
import type { LinkLimits } from "../../shared/link/link.ts";
import type { ResumingDestination } from "../../shared/link/resume/resuming-destination.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import type { HandshakeAnswer } from "../../shared/protocol/messages.ts";
import {
  type DestinationPostcopy,
  type DestinationRecord,
  EPOCH,
  type OwnershipGrant,
} from "../../shared/protocol/ownership.ts";
import type { Running } from "../../shared/protocol/stream-messages.ts";
import type { AskedWord } from "../../shared/runtime/asked-word.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import type { DestinationConfig } from "../../shared/runtime/config/config.ts";
import type { Deferred } from "../../shared/runtime/deferred.ts";
import { meetingPlace } from "../../shared/runtime/guest/meeting-place.ts";
import type { Journal } from "../../shared/runtime/journal/journal.ts";
import type { Logger } from "../../shared/runtime/log/log.ts";
import type { TestFaults } from "../../shared/runtime/test-faults.ts";
import type { KeeperPlaces } from "../guest/guest-monitor.ts";
import type { GuestProcess } from "../guest/guest-process.ts";

/**
 * An operator's word on a guest that waits here, or misses pages of a lost source. `here`: the guest is started here;
 * `end`: the copy here ends.
 */
type Claim = "here" | "end";

export interface DestinationContext {
  readonly id: string;
  /** Name of the guest. */
  readonly guest: string;
  /** The secret of this migration. A source proves by it that the migration is its own. */
  readonly token: Uint8Array;
  /** Address of the source agent. */
  readonly source: string;
  /**
   * Name of the caller that offered the guest (Caller.name). Undefined where an earlier version of Ferry wrote the
   * record of this migration, since that version did not note the caller.
   */
  readonly caller: string | undefined;
  /** Memory that the guest takes here, bytes; 0 for a check, and where it is not known. */
  readonly neededBytes: number;
  /** The `sequence` of this migration's records in the journal: a later migration has a larger number. */
  readonly sequence: number;
  /** When the migration began, milliseconds since the epoch; for people only. */
  readonly startedAtMs: number;
  /** Tells how much memory the guests that were accepted before this one are still to take, bytes. */
  readonly promisedBytes: () => Promise<number>;
  readonly config: DestinationConfig;
  readonly clock: Clock;
  readonly log: Logger;
  readonly journal: Journal<DestinationRecord>;
  readonly limits: LinkLimits;
  /** Makes page kernels that work on a memory of `byteLength` bytes. */
  readonly createKernels: (byteLength: number) => PageKernels;
  /** Settled with the answer to the handshake. */
  readonly answer: Deferred<HandshakeAnswer>;
  /**
   * Aborted when the agent stops, the source withdraws or an operator cancels. This ends a migration that does not have
   * the whole guest yet, and no other migration.
   */
  readonly cancelled: AbortSignal;
  /**
   * True when the source tells this agent once its journal says that the guest stays at the source (`kept`). An older
   * source never says `kept`.
   */
  readonly saysKept: boolean;
  /**
   * Aborted when the source says that the guest stays at the source (`withdraw` or `kept`), or has begun another
   * migration of the guest.
   */
  readonly withdrawn: AbortSignal;
  /**
   * Aborted when the source needs no copy here any more. Either its journal says that the guest stays at the source
   * (`kept`), or it has begun another migration of the guest, or it has withdrawn and runs an older version of Ferry,
   * which never says `kept` (`saysKept` is false).
   */
  readonly unneeded: AbortSignal;
  /**
   * Aborted when the agent begins to stop. A migration that has the whole guest is then left to the next agent: the
   * agent of this host after its next start, which takes the migration up from the journal.
   */
  readonly stopping: AbortSignal;
  /** Aborted when the agent stops waiting for migrations that are still under way. The next agent takes them up. */
  readonly leaving: AbortSignal;
  /** Resolved with the grant, whether it comes by the stream or by a call. */
  readonly granted: Deferred<OwnershipGrant>;
  /**
   * Passes on the words of an operator, who has made sure that the source does not have the guest any more (`here`), or
   * that the copy here is not needed (`end`).
   */
  readonly claims: AskedWord<Claim>;
  /** Called when the guest was seen running here, or paused as it was granted. */
  readonly onRunning: (running: Running) => void;
  /**
   * Called with each stream of a guest that is being started or runs here; in post-copy the missing pages come by it.
   */
  readonly onStream: (stream: ResumingDestination) => void;
  /** Called with what an operator should know of the migration beside its state. */
  readonly onNews: (news: string) => void;
  /** Processor time that this agent had used when the migration began, seconds. */
  readonly cpuSecondsBefore: number;
  readonly faults: TestFaults;
}

/** Writes a token as the journal has it, in hexadecimal. */
export const tokenText = (token: Uint8Array): string => Buffer.from(token).toString("hex");

/**
 * Gives the paths of the keeper's socket and of the second monitor of a QEMU that may go into post-copy.
 * @param directory where QEMU opens its second monitor: the guest's own directory or runtimeDirectory. The default is
 *   the guest's own directory where this host has it. It is right only once QEMU was started, since the start may make
 *   that directory
 */
export const keeperPlaces = (
  { id, guest, config }: Pick<DestinationContext, "id" | "guest" | "config">,
  directory = meetingPlace(guest, config.runtimeDirectory),
): KeeperPlaces => ({
  path: join(config.runtimeDirectory, `${id}.monitor`),
  second: join(directory, `${id}.monitor-2`),
});

/** What a record says beside its kind, the migration and the QEMU. */
interface Noted {
  readonly postcopy?: DestinationPostcopy | undefined;
  /** True when the grant has come and says that the guest stays paused. */
  readonly paused?: boolean;
  /** True when somebody other than an agent has started the guest before its grant. */
  readonly ungranted?: boolean;
  /** True when the guest was seen running in post-copy, with pages missing. */
  readonly ran?: boolean;
  /** Only for `refused`: why the guest is refused. */
  readonly reason?: string;
  /** Only for `refused`: true when no copy needs to be kept any more. */
  readonly heard?: boolean;
}

/**
 * Makes the record that the journal is to hold of an incoming migration at one of its turning points.
 * @param guest the QEMU; undefined before one was started
 */
export const destinationRecord = (
  cx: DestinationContext,
  kind: DestinationRecord["kind"],
  guest: GuestProcess | undefined,
  { postcopy, paused = false, ungranted = false, ran = false, reason, heard = false }: Noted = {},
): DestinationRecord => ({
  kind,
  guest: cx.guest,
  source: cx.source,
  sequence: cx.sequence,
  startedAtMs: cx.startedAtMs,
  grant: { token: tokenText(cx.token), epoch: EPOCH, paused },
  ...defined({ caller: cx.caller, qemu: guest?.process, postcopy }),
  ...(ungranted ? { ungranted } : {}),
  ...(ran ? { ran } : {}),
  ...(cx.saysKept ? { saysKept: true } : {}),
  ...defined({ reason }),
  ...(heard ? { heard } : {}),
});
