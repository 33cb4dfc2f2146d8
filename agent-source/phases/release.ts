import { rm } from "node:fs/promises";
import { MigrationFault } from "../../shared/fault.ts";
import { afterSource } from "../../shared/protocol/source-states.ts";
import type { QmpClient } from "../../shared/qemu/qmp-client.ts";
import { loadGuest, qemuLogPath } from "../../shared/runtime/guest-definition.ts";
import { migrationResult } from "../migration-result.ts";
import { openMonitor } from "../monitor.ts";
import { type SourceContext, sourceRecord } from "../source-context.ts";
import type { State } from "../source-state.ts";

const QUITS_WITHIN_MS = 10_000;

/**
 * The guest runs at the destination: the journal says so, and the QEMU that is left here ends. Whatever fails now
 * cannot bring the guest back, and is no reason to: it is told, and the migration has succeeded.
 */
export async function release(state: State<"releasing">, cx: SourceContext): Promise<State<"released">> {
  const { loaded, running, complete, postcopy } = state;
  const cuts = loaded?.feed.channel.interruptions;
  if (cuts !== undefined && cuts.count > 0)
    cx.report.degradations.push(
      `The link was lost ${cuts.count === 1 ? "once" : `${cuts.count} times`}, for ${(cuts.downMs / 1000).toFixed(1)} s in all`,
    );
  // of one that was taken up from the journal, or settled without a word on when the guest resumed, nothing was measured
  if (loaded !== undefined && running !== undefined)
    cx.report.result = migrationResult(cx, { ...loaded, running, complete });
  cx.report.follow(undefined);
  const warn = (what: string) => (thrown: unknown) => cx.log.warn({ fault: MigrationFault.from(thrown).message }, what);
  await cx.journal
    .write(cx.id, sourceRecord(cx, "released"))
    .catch(warn("the journal still says granted; the next start of this agent will ask the destination again"));
  await loaded?.feed.stop();
  loaded?.feed.channel.close();
  await endQemu(loaded?.feed.qmp, cx, postcopy !== undefined || loaded?.feed.isPostcopy === true).catch(
    warn("the source QEMU did not quit; it is postmigrate and harmless"),
  );
  // of a guest that had come here
  await rm(qemuLogPath(cx.call.guest, cx.config.runtimeDirectory), { force: true });
  return { kind: afterSource("releasing", "done") };
}

/** Of post-copy, whose stream may have been lost for good when the guest had all that it needed. */
const LEFT_BY_POSTCOPY: readonly string[] = ["postmigrate", "finish-migrate", "paused"];

async function endQemu(known: QmpClient | undefined, cx: SourceContext, postcopy: boolean): Promise<void> {
  const qmp = known?.isOpen ? known : await openMonitor(cx);
  if (qmp === undefined) {
    // one that was killed leaves its socket
    await rm((await loadGuest(cx.call.guest, cx.config)).qmp, { force: true });
    return;
  }
  const { status } = await qmp.execute("query-status");
  // never anything but what this migration left: who started a new QEMU on this socket meanwhile keeps it
  if (status !== "postmigrate" && !(postcopy && LEFT_BY_POSTCOPY.includes(status))) {
    qmp.close();
    throw new MigrationFault("qemu-failed", `The QEMU of ${cx.call.guest} is ${status}, not postmigrate`);
  }
  await qmp.execute("quit", undefined, { timeoutMs: QUITS_WITHIN_MS });
  await qmp.closed;
}
