/** The state *keeping*: the migration will not happen, and the guest is made to be at the source as it was. */
import { MigrationFault } from "../../../shared/fault.ts";
import { afterSource } from "../../../shared/protocol/source-states.ts";
import type { Clock } from "../../../shared/runtime/clock.ts";
import { endingAfter, orAborted } from "../../../shared/runtime/deferred.ts";
import { writeAtLast } from "../../../shared/runtime/journal/write-at-last.ts";
import { writeInTime } from "../../../shared/runtime/journal/write-in-time.ts";
import { tellUntilHeard } from "../ask-destination.ts";
import { leaveAsFound, runAtSource } from "../return-to-source.ts";
import { keptRecord, type SourceContext, sourceRecord } from "../source-context.ts";
import type { State, Undo } from "../source-state.ts";

/** The pause before a record that the disk has not taken is written again, milliseconds. */
const WRITES_AGAIN_MS = 250;
/**
 * For how long this state tells the destination `withdraw` by calls, milliseconds. A destination that may have the
 * whole guest is told later, in *withdrawing*, until it has heard.
 */
const TELLS_WITHIN_MS = 5000;

type Ends = State<"kept"> | State<"withdrawing"> | State<"orphaned">;

/**
 * Makes sure that the guest runs here, or is paused here as it was. The migration has then ended, except for what the
 * destination must still hear. If the QEMU here has ended and the destination may have the whole guest, the destination
 * is told nothing, because its copy may be the only one.
 */
export async function keep(state: State<"keeping">, cx: SourceContext): Promise<Ends> {
  const { fault } = state;
  // the guest was seen to run here after the grant: if its QEMU is in `postmigrate` now, the agent does not start the
  // guest as one that this migration has stopped
  const undo = cx.doubt.isWithdrawn ? { ...state.undo, isRetired: false } : state.undo;
  cx.log.warn({ code: fault.code, reason: fault.message }, "keeping the guest at the source");
  cx.report.follow(undefined);
  cx.report.failed(fault, `the guest is being made to ${undo.paused ? "stay paused" : "run"} at the source`);
  // where the agent cannot tell yet whether QEMU has ended, runAtSource() finds out
  if (undo.mayBeWhole && (await cx.qemu.isSeenEnded())) return orphan(undo, fault);
  tellDestination(undo, fault, cx);
  if (!undo.touched) return { kind: afterSource("keeping", "done"), fault: await untouched(fault, undo) };
  const takenBack = undo.granted === "no" ? undo : await takeBack(undo, cx);
  const { kind, guestNow } = await runAtSource(takenBack, cx);
  // so far the destination has heard only `withdraw`, and keeps the copy that it has
  if (kind === "gone" && undo.mayBeWhole) return orphan(undo, fault);
  return end(fault.with({ guestNow }), undo, cx);
}

/** Ends the session, and tells the destination nothing. */
function orphan(undo: Undo, cause: MigrationFault): State<"orphaned"> {
  void undo.session?.stop();
  undo.qmp?.close();
  // the stream is closed without a `failure`, which would end the copy at the destination
  undo.channel?.close(new MigrationFault("peer-lost", "The source QEMU has ended"));
  return { kind: afterSource("keeping", "gone"), fault: cause };
}

/**
 * Writes `plan` over `granted` before the guest is started here. Otherwise an agent that starts again would find
 * `granted`, and would repeat the grant if the QEMU here has ended meanwhile.
 *
 * If the grant was not sent yet, this function waits until the disk takes the record or the destination has refused the
 * guest. If the destination has refused the guest already, this function does not wait for the disk, since the
 * destination would refuse a repeated grant as well. It does not wait either if the operator has given the guest back.
 * @returns what is to be undone, with `givenBack` if the destination has refused
 */
async function takeBack(undo: Undo, cx: SourceContext): Promise<Undo> {
  const { settings, postcopy, paused, granted, isRetired } = undo;
  const record = sourceRecord(cx, "plan", { settings, postcopy, paused, ...(isRetired ? { retiring: true } : {}) });
  const write = (): Promise<void> => writeInTime(cx, record);
  const warn = (thrown: unknown): void => {
    const { message } = MigrationFault.from(thrown);
    cx.log.warn(
      { fault: message },
      "the journal still says granted; an agent that starts again would ask the destination",
    );
    if (granted === "unsaid")
      cx.report.guestNow(
        `the guest is paused at the source until the journal can be written or the destination has refused it (${message})`,
      );
  };
  if (granted === "givenBack") {
    await write().catch(warn);
    return undo;
  }
  const over = new AbortController();
  const signal = AbortSignal.any([cx.leaving, over.signal]);
  const refused = tellUntilHeard(cx, "withdraw", signal).then((told): Undo | Promise<never> =>
    // if the destination runs the guest, which it was never granted, the guest is not started here as well
    told === "running" ? orAborted(new Promise<never>(() => undefined), signal) : { ...undo, granted: "givenBack" },
  );
  refused.catch(() => undefined);
  try {
    return await Promise.race([writeUntilWritten(write, warn, cx.clock, signal).then(() => undo), refused]);
  } finally {
    over.abort();
  }
}

async function writeUntilWritten(
  write: () => Promise<void>,
  warn: (thrown: unknown) => void,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  while (true) {
    try {
      return await write();
    } catch (thrown) {
      warn(thrown);
      await orAborted(clock.sleep(WRITES_AGAIN_MS), signal);
    }
  }
}

/**
 * Tells the destination that the guest stays here: over the stream where there is one, and also by calls, since the
 * stream's link may be what is broken. The destination is told at once, before the guest runs here, because a
 * destination QEMU before 10.0 holds the locks of the guest's images until it ends. Later, when the journal says
 * `kept`, *withdrawing* makes sure that the destination has heard it.
 */
function tellDestination({ channel, accepted }: Undo, fault: MigrationFault, cx: SourceContext): void {
  if (channel !== undefined) {
    channel.send({ kind: "failure", code: fault.code, message: fault.message, refusedToken: new Uint8Array() });
    channel.close();
  }
  if (!accepted) return;
  const tell = (signal: AbortSignal) => tellUntilHeard(cx, "withdraw", signal);
  endingAfter(TELLS_WITHIN_MS, cx.leaving, cx.clock, tell).catch(() => undefined);
}

/**
 * Tells whether the destination may have the whole guest, and so waits for this source without limit. Any other
 * destination gives up by itself.
 */
const isAwaited = ({ accepted, isRetired, granted }: Undo): boolean => accepted && (isRetired || granted !== "no");

/** Writes `kept`. If the disk never takes the record, the next start of this agent looks at the guest again. */
async function end(fault: MigrationFault, undo: Undo, cx: SourceContext): Promise<Ends> {
  const untold = isAwaited(undo);
  const otherwise = "the next start of this agent would look at the guest again";
  await writeAtLast(cx.journal, cx.id, keptRecord(cx, fault, untold), { ...cx, otherwise });
  return { kind: afterSource("keeping", untold ? "untold" : "done"), fault };
}

/** Adds to the fault what the guest does. Called where this migration has not touched the guest. */
async function untouched(fault: MigrationFault, { qmp }: Undo): Promise<MigrationFault> {
  if (qmp === undefined) return fault.with({ guestNow: "the guest was not touched" });
  const guestNow = await leaveAsFound(qmp);
  qmp.close();
  return fault.with({ guestNow });
}
