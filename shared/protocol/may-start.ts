/**
 * Whether a guest may be started on this host, for supervisors (`ferry may-start`), from the journals of both agents.
 *
 * The latest record of the guest decides. `kept` and `arrived` allow a start once their QEMU has ended, unless an
 * `arrived` is `ungranted`; every other record forbids it. A guest without a record may start. The caller finds out
 * whether a process lives.
 */
import type { DestinationRecord, QemuProcess, SourceRecord } from "./ownership.ts";

/** The latest record of a guest on this host, whichever agent wrote it. */
export type LastWord =
  | { readonly side: "source"; readonly id: string; readonly record: SourceRecord }
  | { readonly side: "destination"; readonly id: string; readonly record: DestinationRecord };

export interface Verdict {
  readonly may: boolean;
  /** True when an agent ends this state by itself, so that waiting makes sense. */
  readonly passing: boolean;
  /** One sentence without a final period. */
  readonly because: string;
}

type Entry<R> = { readonly id: string; readonly record: R };

/** @returns undefined where neither journal knows the guest */
export function lastWordOf(
  guest: string,
  source: readonly Entry<SourceRecord>[],
  destination: readonly Entry<DestinationRecord>[],
): LastWord | undefined {
  const left = lastOf(guest, source);
  const came = lastOf(guest, destination);
  if (left === undefined) return came === undefined ? undefined : { side: "destination", ...came };
  if (came === undefined || isLater(left.record, came.record)) return { side: "source", ...left };
  return { side: "destination", ...came };
}

/**
 * Finds the latest record of the guest in one journal: the one with the largest sequence. Records of a version that
 * wrote no sequence come first, ordered by its clock.
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
 * Tells whether the guest left this host after it came. The QEMUs of the two records decide where they can: within one
 * boot the kernel counts when each process was started. A guest that left from the QEMU in which it came, or from a
 * later one, left afterwards. Otherwise the sequences decide, which are comparable only if the clock was never set back
 * between the two records.
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
 * Reads boot and start time (in kernel ticks since that boot) from the text that shared/runtime/host/process-identity.ts
 * makes.
 */
function startOf({ identity }: QemuProcess): { readonly boot: string; readonly ticks: number } | undefined {
  const [boot, , ticks] = identity.split("/");
  return boot === undefined || !/^\d+$/.test(ticks ?? "") ? undefined : { boot, ticks: Number(ticks) };
}

/** The QEMU that the record names; the guest must not be started beside it while it lives. */
export const processOf = (word: LastWord): QemuProcess | undefined => word.record.qemu;

/**
 * Judges from the latest record of a guest.
 * @param lives whether the process that the record names still lives
 */
export function mayStart(word: LastWord | undefined, lives: boolean): Verdict {
  if (word === undefined)
    return { may: true, passing: false, because: "no journal of this host knows of a migration of it" };
  if (word.side === "source") return afterSourceRecord(word.id, word.record, lives);
  return afterDestinationRecord(word.id, word.record, lives);
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
