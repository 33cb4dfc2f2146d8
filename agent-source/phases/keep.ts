import { MigrationFault } from "../../shared/fault.ts";
import type { QmpClient } from "../../shared/qemu/qmp-client.ts";
import type { Feed } from "../feed.ts";
import type { SourceContext } from "../source-context.ts";
import type { State } from "../source-state.ts";

const RESUMES_WITHIN_MS = 15_000;

/** Makes sure that the guest runs here and nothing stays there; then the migration has ended. */
export async function keep(state: State<"keeping">, cx: SourceContext): Promise<State<"kept">> {
  const { undo, fault } = state;
  cx.log.warn({ code: fault.code, reason: fault.message }, "keeping the guest at the source");
  cx.report.follow(undefined);
  if (undo.channel !== undefined) {
    undo.channel.send({ kind: "failure", code: fault.code, message: fault.message, refusedToken: new Uint8Array() });
    undo.channel.close();
  }
  const guestNow = undo.qmp === undefined ? undefined : await runHere(undo.qmp, undo.feed, cx);
  undo.qmp?.close();
  await cx.journal.write(cx.id, {
    kind: "kept",
    guest: cx.call.guest,
    destination: cx.call.to,
    startedAtMs: cx.report.view().startedAtMs,
  });
  return { kind: "kept", fault: guestNow === undefined ? fault : fault.with({ guestNow }) };
}

/** @returns what the guest does now, when it is not what is expected */
async function runHere(qmp: QmpClient, feed: Feed | undefined, cx: SourceContext): Promise<string | undefined> {
  try {
    if (feed !== undefined) {
      // a cancelled migration resumes the guest by itself, and so does one whose socket closes before SHUT
      await qmp.execute("migrate_cancel").catch((thrown: unknown) => cx.log.debug({ thrown }, "migrate_cancel"));
      await feed.stop();
      await waitUntilSettled(qmp);
      await waitUntilRunning(qmp);
      await feed.settings?.restore(qmp);
    }
    return undefined;
  } catch (thrown) {
    const { message } = MigrationFault.from(thrown);
    cx.log.error({ thrown }, "the guest could not be confirmed to run at the source");
    return `the guest is at the source, but could not be confirmed to run: ${message}`;
  }
}

const SETTLED: readonly unknown[] = [undefined, "none", "cancelled", "failed", "completed"];

/** While a cancelled migration winds down, QEMU takes no new settings. The event may have come already. */
async function waitUntilSettled(qmp: QmpClient): Promise<void> {
  const settled = qmp.waitFor("MIGRATION", (event) => SETTLED.includes(event.data.status), {
    timeoutMs: RESUMES_WITHIN_MS,
  });
  settled.catch(() => undefined);
  const { status } = await qmp.execute("query-migrate");
  if (!SETTLED.includes(status)) await settled;
}

async function waitUntilRunning(qmp: QmpClient): Promise<void> {
  const resumed = qmp.waitFor("RESUME", undefined, { timeoutMs: RESUMES_WITHIN_MS });
  resumed.catch(() => undefined);
  const { status } = await qmp.execute("query-status");
  if (status === "running") return;
  if (status === "postmigrate" || status === "paused") await qmp.execute("cont");
  await resumed;
}
