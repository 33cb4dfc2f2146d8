/** What one incoming migration has at hand in every state. Nothing here changes with the state; that lives in the states. */
import { join } from "node:path";
import type { LinkLimits } from "../../shared/link/link.ts";
import type { ResumingDestination } from "../../shared/link/resume/resuming-destination.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import type { HandshakeAnswer, Running } from "../../shared/protocol/messages.ts";
import {
  type DestinationPostcopy,
  type DestinationRecord,
  EPOCH,
  type OwnershipGrant,
} from "../../shared/protocol/ownership.ts";
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
 * An operator's word on a guest that waits here, or misses pages of a lost source. `here`: it is started here; `end`:
 * its copy ends.
 */
export type Claim = "here" | "end";

export interface DestinationContext {
  readonly id: string;
  /** Name of the guest. */
  readonly guest: string;
  /** Secret of this migration, which only its source knows. */
  readonly token: Uint8Array;
  /** Address of the source agent. */
  readonly source: string;
  /** Who has offered the guest (Caller.name). Undefined where the record of an earlier version does not say it. */
  readonly caller: string | undefined;
  /** Memory that the guest takes here, bytes; 0 of a check, and where it is not known. */
  readonly neededBytes: number;
  /** The `sequence` of its records in the journal. */
  readonly sequence: number;
  readonly startedAtMs: number;
  /** Memory that guests which were accepted before this one are still to take, bytes. */
  readonly promisedBytes: () => Promise<number>;
  readonly config: DestinationConfig;
  readonly clock: Clock;
  readonly log: Logger;
  readonly journal: Journal<DestinationRecord>;
  readonly limits: LinkLimits;
  readonly createKernels: (byteLength: number) => PageKernels;
  /** The handshake's answer, once it is known. */
  readonly answer: Deferred<HandshakeAnswer>;
  /**
   * Aborted when the agent stops, the source withdraws or an operator cancels: ends every migration that does not have
   * the whole guest yet. One that has it ends only by `withdrawn` or `claims`.
   */
  readonly cancelled: AbortSignal;
  /** True when the source will say `kept`. A source of the version before does not. */
  readonly saysKept: boolean;
  /** Aborted when the source says that the guest stays there (`withdraw` or `kept`). */
  readonly withdrawn: AbortSignal;
  /**
   * Aborted when the source needs no copy here any more, since its journal says that the guest stays there (`kept`).
   */
  readonly unneeded: AbortSignal;
  /** Aborted when the agent stops: a migration that has the whole guest is left to the next agent. */
  readonly stopping: AbortSignal;
  /** Aborted when the agent leaves whatever is under way; the next agent takes it up from the journal. */
  readonly leaving: AbortSignal;
  /** The grant, whichever way it comes. */
  readonly granted: Deferred<OwnershipGrant>;
  /**
   * Hands on the words of an operator, who has made sure that the source does not have the guest any more, or needs no
   * copy here.
   */
  readonly claims: AskedWord<Claim>;
  /** The guest was seen running here, or paused as it was granted. */
  readonly onRunning: (running: Running) => void;
  /** Told of each stream by which the guest's missing pages come. */
  readonly onStream: (stream: ResumingDestination) => void;
  /** Told what an operator should know of the guest beside its state. */
  readonly onNews: (news: string) => void;
  readonly cpuSecondsBefore: number;
  readonly faults: TestFaults;
}

export const tokenText = (token: Uint8Array): string => Buffer.from(token).toString("hex");

/**
 * Where the monitors of a QEMU that may go into post-copy are.
 * @param directory where the agent and this QEMU meet, for a QEMU that was not started yet
 */
export const keeperPlaces = (
  { id, guest, config }: Pick<DestinationContext, "id" | "guest" | "config">,
  directory = meetingPlace(guest, config.runtimeDirectory),
): KeeperPlaces => ({
  path: join(config.runtimeDirectory, `${id}.monitor`),
  second: join(directory, `${id}.monitor-2`),
});

interface Noted {
  readonly postcopy?: DestinationPostcopy | undefined;
  /** As the grant says, once it has come. */
  readonly paused?: boolean;
  /** Somebody other than an agent has started the guest. */
  readonly ungranted?: boolean;
  /** It was seen to run, with pages missing. */
  readonly ran?: boolean;
  /** Of a refusal. */
  readonly reason?: string;
  /** Only for `refused`: the source needs no copy here any more. */
  readonly heard?: boolean;
}

/** What the journal holds of an incoming migration, at one of its turning points. */
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
  ...(cx.caller === undefined ? {} : { caller: cx.caller }),
  ...(guest === undefined ? {} : { qemu: guest.process }),
  ...(postcopy === undefined ? {} : { postcopy }),
  ...(ungranted ? { ungranted } : {}),
  ...(ran ? { ran } : {}),
  ...(cx.saysKept ? { saysKept: true } : {}),
  ...(reason === undefined ? {} : { reason }),
  ...(heard ? { heard } : {}),
});
