import { MigrationFault } from "../../shared/fault.ts";
import type { QmpClient } from "../../shared/qemu/qmp-client.ts";
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
async function runHere(
  qmp: QmpClient,
  feed: { stop(): Promise<void> } | undefined,
  cx: SourceContext,
): Promise<string | undefined> {
  try {
    if (feed !== undefined) {
      // a cancelled migration resumes the guest by itself, and so does one whose socket closes before SHUT
      await qmp.execute("migrate_cancel").catch((thrown: unknown) => cx.log.debug({ thrown }, "migrate_cancel"));
      await feed.stop();
      await waitUntilRunning(qmp);
    }
    await restoreQemu(qmp);
    return undefined;
  } catch (thrown) {
    const { message } = MigrationFault.from(thrown);
    cx.log.error({ thrown }, "the guest could not be confirmed to run at the source");
    return `the guest is at the source, but could not be confirmed to run: ${message}`;
  }
}

async function waitUntilRunning(qmp: QmpClient): Promise<void> {
  const resumed = qmp.waitFor("RESUME", undefined, { timeoutMs: RESUMES_WITHIN_MS });
  resumed.catch(() => undefined);
  const { status } = await qmp.execute("query-status");
  if (status === "running") return;
  if (status === "postmigrate" || status === "paused") await qmp.execute("cont");
  await resumed;
}

/** QEMU's own values, so that whoever migrates this guest next finds what is documented. */
async function restoreQemu(qmp: QmpClient): Promise<void> {
  await qmp.execute("migrate-set-capabilities", {
    capabilities: [
      { capability: "return-path", state: false },
      { capability: "switchover-ack", state: false },
      { capability: "events", state: false },
    ],
  });
  await qmp.execute("migrate-set-parameters", { "downtime-limit": 300, "max-bandwidth": 134_217_728 });
}
