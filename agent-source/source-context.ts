/** What one migration has at hand in every state. Nothing here changes with the state; that lives in the states. */
import type { LinkLimits } from "../shared/link/link.ts";
import type { ResumingSource } from "../shared/link/resuming-source.ts";
import type { PageKernels } from "../shared/page/kernels.ts";
import type { SavedSettings, SourcePostcopy, SourceRecord } from "../shared/protocol/ownership.ts";
import type { MigrateCall } from "../shared/protocol/report.ts";
import type { Clock } from "../shared/runtime/clock.ts";
import type { SourceConfig } from "../shared/runtime/config.ts";
import type { Deferred } from "../shared/runtime/deferred.ts";
import type { Journal } from "../shared/runtime/journal.ts";
import type { Logger } from "../shared/runtime/log.ts";
import type { TestFaults } from "../shared/runtime/test-faults.ts";
import type { FreshLinks } from "./fresh-links.ts";
import type { MigrationReport } from "./migration-report.ts";

export interface SourceContext {
  readonly id: string;
  readonly call: MigrateCall;
  /** Why the agents chose the strategy, where a plan did; else empty. */
  readonly chosenBecause: string;
  /** One-time secret of this migration: the destination shows it when it dials in, and the grant carries it. */
  readonly token: Uint8Array;
  readonly config: SourceConfig;
  readonly clock: Clock;
  readonly log: Logger;
  readonly journal: Journal<SourceRecord>;
  readonly report: MigrationReport;
  readonly limits: LinkLimits;
  /** Where the destination dials this agent. */
  readonly advertised: string;
  /** Aborted with the fault when the operator cancels or the agent stops; without effect once the grant is recorded. */
  readonly cancelled: AbortSignal;
  /** Aborted when the agent leaves whatever its migrations are doing: the next one takes them up from the journal. */
  readonly leaving: AbortSignal;
  /** The operator's word on a migration in doubt. */
  readonly resolution: Deferred<"source" | "destination">;
  /** Of this process when the migration began, to tell what it cost. */
  readonly cpuSecondsBefore: number;
  readonly createKernels: (byteLength: number) => PageKernels;
  /** Resolves when the destination dialled in with this migration's token. */
  readonly dialledIn: () => Promise<ResumingSource>;
  /** Streams that the destination begins anew in post-copy. */
  readonly anew: FreshLinks;
  readonly faults: TestFaults;
}

/** Counts the grants of a migration. There is one: an agent that starts again repeats it. */
export const EPOCH = 1;

/** What has to be known to leave the guest as it was found; nothing once it has ended. */
export interface Kept {
  readonly settings?: SavedSettings | undefined;
  /** Post-copy has begun, and so the guest was stopped by this agent. */
  readonly postcopy?: SourcePostcopy | undefined;
  /** By whoever operates it: never to be started by this agent. */
  readonly paused: boolean;
}

/** What the journal holds of a migration, at one of its turning points. */
export function sourceRecord(
  cx: SourceContext,
  kind: SourceRecord["kind"],
  { settings, postcopy, paused }: Kept = { paused: false },
): SourceRecord {
  const record = {
    kind,
    guest: cx.call.guest,
    destination: cx.call.to,
    startedAtMs: cx.report.startedAtMs,
    grant: { token: Buffer.from(cx.token).toString("hex"), epoch: EPOCH, paused },
  };
  if (kind === "released" || kind === "kept") return { ...record, endedAtMs: Math.floor(cx.clock.nowUs() / 1000) };
  return {
    ...record,
    ...(settings === undefined ? {} : { settings }),
    ...(postcopy === undefined ? {} : { postcopy }),
  };
}

/** What the guest does at this point, for errors. */
export const GUEST_RUNS_HERE = "the guest runs at the source";
export const GUEST_PAUSED_HERE = "the guest is at the source, paused as it was";
/** QEMU can be brought out of this state by `cont` only, which would run the guest (qmp_cont; runstate_transitions_def). */
export const GUEST_PAUSED_POSTMIGRATE =
  "the guest is at the source, paused as it was; its QEMU calls that postmigrate, and cont starts it";
export const GUEST_IN_DOUBT =
  "the guest is paused at the source and may run at the destination; nothing starts it here until it is resolved";
