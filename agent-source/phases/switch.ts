import { MigrationFault } from "../../shared/fault.ts";
import { afterSource } from "../../shared/protocol/source-states.ts";
import { orAborted, within } from "../../shared/runtime/deferred.ts";
import { type SourceContext, sourceRecord } from "../source-context.ts";
import type { State } from "../source-state.ts";
import { verifyMemory } from "../verify.ts";

/** A stopped guest is an outage: whatever hangs now is given up soon, and the guest goes on here. */
const STOPS_WITHIN_MS = 30_000;
const LOADS_WITHIN_MS = 60_000;

/** QEMU stops the guest and sends the rest; the destination loads it; its memory is compared when asked for. */
export async function switchOver(state: State<"switching">, cx: SourceContext): Promise<State<"retiring">> {
  const { feed, reason } = state;
  const passes = feed.qmp.subscribe((event) => {
    if (event.event === "MIGRATION_PASS") cx.report.passes = Number(event.data.pass);
  });
  // the guest is about to be stopped: from here on a broken link is an outage
  feed.channel.setPatience(cx.config.link.finalGiveUpAfterMs);
  try {
    const stopped = feed.qmp.waitFor("STOP", undefined, { timeoutMs: STOPS_WITHIN_MS, signal: feed.signal });
    // a fault of the first is the one to tell; the other follows from it
    stopped.catch(() => undefined);
    if (state.into === "postcopy")
      await feed.letPostcopy((layout) => cx.journal.write(cx.id, sourceRecord(cx, "plan", feed.settings, layout)));
    else feed.letStop();
    const stop = await stopped;
    // the end of the stream is said when it comes; of post-copy that is behind the hand-over
    await orAborted(Promise.race([feed.endWhenRead(), feed.packaged.promise]), feed.signal);
    const loaded = await within(
      orAborted(feed.inbox.loaded.promise, feed.signal),
      LOADS_WITHIN_MS,
      () => new MigrationFault("timeout", `The destination did not load the guest within ${LOADS_WITHIN_MS} ms`),
    );
    if (!feed.isPostcopy && loaded.lastSequence !== feed.sender.sequence)
      throw new MigrationFault(
        "peer-invalid",
        `The destination loaded ${loaded.lastSequence} of ${feed.sender.sequence} frames`,
      );
    const verifyStartMs = cx.clock.monotonicMs();
    const pagesCompared = cx.call.options.verify ? await orAborted(verifyMemory(feed, cx), feed.signal) : 0;
    const times = {
      stoppedUs: stop.timestampUs,
      lastPagesUs: feed.engine.lastPagesSentUs,
      lastByteUs: feed.meter.toLocal(loaded.lastByteAtUs),
      loadedUs: feed.meter.toLocal(loaded.loadedAtUs),
      verifyMs: cx.call.options.verify ? cx.clock.monotonicMs() - verifyStartMs : 0,
      pagesCompared,
    };
    return { kind: afterSource("switching", "loaded"), loaded: { feed, times, reason } };
  } finally {
    passes();
  }
}
