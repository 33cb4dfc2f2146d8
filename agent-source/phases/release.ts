import { rm } from "node:fs/promises";
import { MigrationFault } from "../../shared/fault.ts";
import { qemuLogPath } from "../../shared/runtime/guest-definition.ts";
import type { Feed } from "../feed.ts";
import type { SourceContext } from "../source-context.ts";

const QUITS_WITHIN_MS = 10_000;

/** The guest runs at the destination: the journal says so, and the QEMU that is left here ends. */
export async function release(feed: Feed, cx: SourceContext): Promise<void> {
  cx.report.follow(undefined);
  await cx.journal.write(cx.id, {
    kind: "released",
    guest: cx.call.guest,
    destination: cx.call.to,
    startedAtMs: cx.report.view().startedAtMs,
  });
  await feed.stop();
  feed.channel.close();
  try {
    await feed.qmp.execute("quit", undefined, { timeoutMs: QUITS_WITHIN_MS });
    await feed.qmp.closed;
    // of a guest that had come here
    await rm(qemuLogPath(cx.call.guest, cx.config.runtimeDirectory), { force: true });
  } catch (thrown) {
    cx.log.warn(
      { thrown: MigrationFault.from(thrown).message },
      "the source QEMU did not quit; it is postmigrate and harmless",
    );
  }
}
