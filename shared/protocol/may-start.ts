/**
 * Decides for supervisors whether a guest may be started on this host (`ferry may-start`), from the journals of both
 * agents.
 *
 * The latest record of the guest decides. A record `kept` or `arrived` allows a start once its QEMU has ended, unless
 * the `arrived` is `ungranted`. Every other record forbids a start. A guest without a record may start. This file does
 * not look at processes: its caller finds out whether the QEMU lives.
 */
import type { DestinationRecord, QemuProcess, SourceRecord } from "./ownership.ts";

/** The latest record of a guest on this host, whichever agent wrote it. */
export type LatestRecord =
  | { readonly side: "source"; readonly id: string; readonly record: SourceRecord }
  | { readonly side: "destination"; readonly id: string; readonly record: DestinationRecord };

/** The answer to a supervisor. */
export interface Verdict {
  readonly may: boolean;
  /** True when an agent ends this state by itself, so that waiting makes sense. */
  readonly passing: boolean;
  /** The reason, as one sentence without a final period. */
  readonly because: string;
}

type Entry<R> = { readonly id: string; readonly record: R };

/** Finds the latest record of a guest in the journals of both agents. @returns undefined where neither has one */
export function latestRecordOf(
  guest: string,
  source: readonly Entry<SourceRecord>[],
  destination: readonly Entry<DestinationRecord>[],
): LatestRecord | undefined {
  const left = lastOf(guest, source);
  const came = lastOf(guest, destination);
  if (left === undefined) return came === undefined ? undefined : { side: "destination", ...came };
  if (came === undefined || isLater(left.record, came.record)) return { side: "source", ...left };
  return { side: "destination", ...came };
}

/**
 * Finds the latest record of the guest in one journal: the record with the largest sequence. Records of a version that
 * wrote no sequence count as the earliest; among themselves they are ordered by the time at which they began.
 */
function lastOf<R extends SourceRecord | DestinationRecord>(
  guest: string,
  entries: readonly Entry<R>[],
): Entry<R> | undefined {
  const order = ({ record }: Entry<R>): readonly [number, number] => [record.sequence, record.startedAtMs];
  return entries
    .filter(({ record }) => record.guest === guest)
    .reduce<Entry<R> | undefined>((latest, one) => {
      if (latest === undefined) return one;
      const [sequence, startedAtMs] = order(one);
      const [most, lastMs] = order(latest);
      return sequence > most || (sequence === most && startedAtMs > lastMs) ? one : latest;
    }, undefined);
}

/**
 * Tells whether the guest left this host after it came. If both QEMUs were started within one boot, their start times
 * decide: a guest that left from the QEMU in which it came, or from a later one, left afterwards. Otherwise the
 * sequences decide, which are comparable only if the clock was never set back between the two records.
 */
function isLater(left: SourceRecord, came: DestinationRecord): boolean {
  const [from, into] = [left.qemu, came.qemu].map((qemu) => (qemu === undefined ? undefined : startOf(qemu)));
  if (from !== undefined && into !== undefined && from.boot === into.boot) {
    if (left.qemu?.identity === came.qemu?.identity) return true;
    if (from.ticks !== into.ticks) return from.ticks > into.ticks;
  }
  if (left.sequence !== came.sequence) return left.sequence > came.sequence;
  // nothing orders the two records, so the one that forbids a start counts
  return left.kind !== "kept";
}

/**
 * Reads the boot and the start time (in kernel ticks since that boot) from the identity of a process
 * (shared/runtime/host/process-identity.ts). @returns undefined where the identity has no start time
 */
function startOf({ identity }: QemuProcess): { readonly boot: string; readonly ticks: number } | undefined {
  const [boot, , ticks] = identity.split("/");
  return boot === undefined || !/^\d+$/.test(ticks ?? "") ? undefined : { boot, ticks: Number(ticks) };
}

/** Gives the QEMU that the record names. While that QEMU lives, the guest must not be started beside it. */
export const processOf = (latest: LatestRecord): QemuProcess | undefined => latest.record.qemu;

/**
 * Decides from the latest record of a guest whether the guest may be started.
 * @param latest undefined where no journal of this host knows the guest
 * @param lives whether the process that the record names still lives
 */
export function mayStart(latest: LatestRecord | undefined, lives: boolean): Verdict {
  if (latest === undefined)
    return { may: true, passing: false, because: "no journal of this host knows of a migration of it" };
  if (latest.side === "source") return afterSourceRecord(latest.id, latest.record, lives);
  return afterDestinationRecord(latest.id, latest.record, lives);
}

function afterSourceRecord(id: string, { kind, destination, qemu }: SourceRecord, lives: boolean): Verdict {
  switch (kind) {
    case "plan":
      return no(true, `migration ${id} of it to ${destination} is under way, or ferry-source has not settled it yet`);
    case "granted":
      return no(true, `migration ${id} has granted it to ${destination}, and what became of it there is not settled`);
    case "released":
      return no(false, `migration ${id} has moved it to ${destination}`);
    case "kept":
      return lives ? runsAlready(qemu) : yes(`migration ${id} to ${destination} has kept it on this host`);
  }
}

function afterDestinationRecord(
  id: string,
  { kind, source, qemu, ungranted }: DestinationRecord,
  lives: boolean,
): Verdict {
  const from = source === "" ? "another host" : source;
  switch (kind) {
    case "waiting":
      return no(true, `migration ${id} is bringing it from ${from}`);
    case "running":
      return no(
        lives,
        lives
          ? `migration ${id} from ${from} is starting it here`
          : `migration ${id} from ${from} started it here, its QEMU has ended, and ${from} may have taken it back`,
      );
    case "arrived":
      if (ungranted === true && !lives)
        return no(false, `somebody started it here, and ${from} has not granted it (migration ${id})`);
      return lives ? runsAlready(qemu) : yes(`migration ${id} from ${from} has brought it to this host`);
    case "refused":
      return no(false, `migration ${id} was refused here, so it belongs to ${from}`);
  }
}

const runsAlready = (qemu: QemuProcess | undefined): Verdict =>
  no(false, `its QEMU is there already, as process ${qemu?.pid ?? 0}`);
const yes = (because: string): Verdict => ({ may: true, passing: false, because });
const no = (passing: boolean, because: string): Verdict => ({ may: false, passing, because });
