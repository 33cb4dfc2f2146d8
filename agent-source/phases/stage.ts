import { MigrationFault } from "../../shared/fault.ts";
import { isOlder } from "../../shared/protocol/handshake.ts";
import type { QmpClient } from "../../shared/qemu/qmp-client.ts";
import { orAborted, within } from "../../shared/runtime/deferred.ts";
import { Feed } from "../feed.ts";
import { probeLink } from "../probe.ts";
import type { SourceContext } from "../source-context.ts";
import type { State } from "../source-state.ts";

/** The destination dials in, the link is measured, and QEMU's feed is switched on. */
export async function stage(state: State<"staging">, cx: SourceContext): Promise<State<"copying">> {
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
    await prepareQemu(qmp, isOlder(facts.qemuVersion, { major: 8, minor: 2, micro: 0 }));
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
    channel.send({
      kind: "failure",
      code: "peer-failed",
      message: "The source gave up",
      refusedToken: new Uint8Array(),
    });
    channel.close();
    await feed.stop();
    throw thrown;
  }
}

/**
 * Capabilities that the feed needs, and limits with which QEMU never switches by itself: the acknowledgement is
 * withheld, and a bitmap sync comes only when a pass is drained (threshold 1000 bytes, less than a page).
 */
async function prepareQemu(qmp: QmpClient, before82: boolean): Promise<void> {
  await qmp.execute("migrate-set-capabilities", {
    capabilities: [
      { capability: "return-path", state: true },
      { capability: "switchover-ack", state: true },
      { capability: "events", state: true },
    ],
  });
  // 8.1 cannot be told the bandwidth of the switchover: its own estimate with the default limit is the bound there
  await qmp.execute(
    "migrate-set-parameters",
    before82
      ? { "max-bandwidth": 0, "downtime-limit": 300 }
      : { "max-bandwidth": 0, "downtime-limit": 1, "avail-switchover-bandwidth": 1_000_000 },
  );
}
