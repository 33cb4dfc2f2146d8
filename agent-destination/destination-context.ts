/** What one incoming migration has at hand in every state. Nothing here changes with the state; that lives in the states. */
import { join } from "node:path";
import type { LinkLimits } from "../shared/link/link.ts";
import type { PageKernels } from "../shared/page/kernels.ts";
import type { HandshakeAnswer, Running } from "../shared/protocol/messages.ts";
import type { DestinationPostcopy, DestinationRecord, OwnershipGrant } from "../shared/protocol/ownership.ts";
import type { Clock } from "../shared/runtime/clock.ts";
import type { DestinationConfig } from "../shared/runtime/config.ts";
import type { Deferred } from "../shared/runtime/deferred.ts";
import type { Journal } from "../shared/runtime/journal.ts";
import type { Logger } from "../shared/runtime/log.ts";
import type { TestFaults } from "../shared/runtime/test-faults.ts";
import type { GuestProcess } from "./guest-process.ts";

export interface DestinationContext {
  readonly id: string;
  /** Name of the guest. */
  readonly guest: string;
  /** Secret of this migration, which only its source knows. */
  readonly token: Uint8Array;
  readonly config: DestinationConfig;
  readonly clock: Clock;
  readonly log: Logger;
  readonly journal: Journal<DestinationRecord>;
  readonly limits: LinkLimits;
  readonly createKernels: (byteLength: number) => PageKernels;
  /** The handshake's answer, once it is known. */
  readonly answer: Deferred<HandshakeAnswer>;
  /** Aborted when the agent stops or the source withdraws; without effect once `running` is recorded. */
  readonly cancelled: AbortSignal;
  /** Aborted when the agent leaves whatever is under way: the next one takes it up from the journal. */
  readonly leaving: AbortSignal;
  /** The grant, whichever way it comes. */
  readonly granted: Deferred<OwnershipGrant>;
  /** The guest was seen running here, or paused as it was granted. */
  readonly onRunning: (running: Running) => void;
  readonly cpuSecondsBefore: number;
  readonly faults: TestFaults;
}

/** A migration has one grant; a source that starts again repeats it. */
export const EPOCH = 1;

export const tokenText = (token: Uint8Array): string => Buffer.from(token).toString("hex");

/** The monitor of a QEMU that may come into post-copy. */
export const keeperPath = (cx: DestinationContext): string => join(cx.config.runtimeDirectory, `${cx.id}.monitor`);

interface Noted {
  readonly postcopy?: DestinationPostcopy | undefined;
  /** As the grant says, once it has come. */
  readonly paused?: boolean;
}

/** What the journal holds of an incoming migration, at one of its turning points. */
export const destinationRecord = (
  cx: DestinationContext,
  kind: DestinationRecord["kind"],
  guest: GuestProcess | undefined,
  { postcopy, paused = false }: Noted = {},
): DestinationRecord => ({
  kind,
  guest: cx.guest,
  qemuPid: guest?.pid ?? 0,
  qemuProcess: guest?.identity ?? "",
  grant: { token: tokenText(cx.token), epoch: EPOCH, paused },
  ...(postcopy === undefined ? {} : { postcopy }),
});
