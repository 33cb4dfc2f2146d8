import { MigrationFault } from "../../shared/fault.ts";
import { orAborted, within } from "../../shared/runtime/deferred.ts";
import { Feed } from "../feed.ts";
import { probeLink } from "../probe.ts";
import { QemuSettings } from "../qemu-settings.ts";
import type { SourceContext } from "../source-context.ts";
import type { State } from "../source-state.ts";

/** The destination dials in, the link is measured, and QEMU's feed is switched on. */
export async function stage(state: State<"staging">, cx: SourceContext): Promise<State<"copying"> | State<"keeping">> {
  const { qmp, facts, contract } = state;
  const channel = await within(
    orAborted(cx.dialledIn(), cx.cancelled),
    contract.followUpMs,
    () =>
      new MigrationFault(
        "peer-lost",
        `The destination accepted, but did not dial ${cx.advertised} within ${contract.followUpMs} ms`,
        {
          advice: "Check that the destination host reaches this agent's advertised address (advertise)",
        },
      ),
  );
  const feed = new Feed({ cx, qmp, facts, contract, channel });
  try {
    const probing = probeLink(channel, feed.inbox, feed.meter, cx.clock);
    await feed.intake.listen(feed.streamPath);
    feed.settings = await QemuSettings.apply(qmp);
    feed.probed(await orAborted(probing, feed.signal));
    cx.log.info({ bytesPerSecond: feed.meter.bytesPerSecond, roundTripMs: feed.meter.roundTripMs }, "link measured");
    cx.report.negotiated = {
      ...cx.report.negotiated,
      "measured bandwidth": `${((feed.meter.bytesPerSecond * 8) / 1e6).toFixed(0)} Mbit/s`,
      "measured round trip": `${feed.meter.roundTripMs.toFixed(2)} ms`,
    };
    await cx.journal.write(cx.id, {
      kind: "plan",
      guest: cx.call.guest,
      destination: cx.call.to,
      startedAtMs: cx.report.view().startedAtMs,
    });
    const connected = feed.intake.connected(feed.signal);
    await qmp.execute("migrate", { uri: `unix:${feed.streamPath}` });
    await connected;
    return { kind: "copying", feed };
  } catch (thrown) {
    // not thrown on: *keeping* must know of this feed to undo it
    return { kind: "keeping", fault: MigrationFault.from(thrown), undo: { qmp, channel, feed } };
  }
}
