import { MigrationFault } from "../../../shared/fault.ts";
import type { ResumingSource } from "../../../shared/link/resume/resuming-source.ts";
import type { Contract } from "../../../shared/protocol/messages.ts";
import { afterSource } from "../../../shared/protocol/source-states.ts";
import { orAborted, within } from "../../../shared/runtime/deferred.ts";
import { residentBytesOf } from "../../../shared/runtime/host/resident-memory.ts";
import { applySettings, readSettings } from "../../guest/qemu-settings.ts";
import { RunState } from "../../guest/run-state.ts";
import { probeLink } from "../../link/probe-link.ts";
import { TransferSession } from "../../transfer/transfer-session.ts";
import { unlessSilentFor } from "../await-answer.ts";
import { askWhileCut } from "../poll-cut-destination.ts";
import { type SourceContext, sourceRecord } from "../source-context.ts";
import { type State, undoSession } from "../source-state.ts";

/** The destination dials in, the link is measured, and QEMU's session is switched on. */
export async function stage(state: State<"staging">, cx: SourceContext): Promise<State<"copying"> | State<"keeping">> {
  const { definition, qmp, facts, contract } = state;
  const runs = await RunState.begin(qmp);
  // beside the wait for the destination: the record is then only to be put in its place
  const found = readSettings(qmp);
  const prepared = found.then(
    (settings) => cx.journal.prepare(cx.id, sourceRecord(cx, "plan", { settings, paused: runs.standsStill })),
    () => undefined,
  );
  const session = await dialledIn(contract, cx)
    .then((channel) => {
      const { ramBlocks } = facts;
      const onCut = askWhileCut(cx, channel);
      return new TransferSession({
        cx,
        qmp,
        ramBlocks,
        agreed: facts,
        contract,
        channel,
        runs,
        paused: runs.standsStill,
        onCut,
      });
    })
    .catch(async (thrown: unknown) => {
      // the guest was not touched, and *keeping* leaves the journal alone
      await prepared;
      await cx.journal.remove(cx.id).catch((fault: unknown) => cx.log.warn({ fault: String(fault) }, "journal"));
      throw thrown;
    });
  const { channel } = session;
  try {
    const probing = probeLink(channel, session.inbox, session.meter, cx.clock);
    probing.catch(() => undefined);
    // all of this beside the probe, which is some tens of milliseconds; for this one nothing waits
    void residentBytesOf(definition.qmp).then((bytes) => session.capture.observer.resident(bytes));
    await session.intake.listen(session.streamPath);
    // before anything is touched, so that an agent that starts again can undo it
    const settings = await found;
    await cx.journal.write(cx.id, sourceRecord(cx, "plan", { ...session.kept, settings }));
    session.settings = settings;
    await applySettings(qmp, contract.postcopy ? "postcopy" : "precopy", settings);
    session.probed(await unlessSilentFor(orAborted(probing, session.signal), session, cx));
    cx.log.info(
      { bytesPerSecond: session.meter.bytesPerSecond, roundTripMs: session.meter.roundTripMs },
      "link measured",
    );
    cx.report.negotiated = {
      ...cx.report.negotiated,
      "measured bandwidth": `${((session.meter.bytesPerSecond * 8) / 1e6).toFixed(0)} Mbit/s`,
      "measured round trip": `${session.meter.roundTripMs.toFixed(2)} ms`,
    };
    const connected = session.intake.connected(session.signal);
    await qmp.execute("migrate", { uri: `unix:${session.streamPath}` });
    await connected;
    return { kind: afterSource("staging", "feeding"), session };
  } catch (thrown) {
    // not thrown on: *keeping* must know of this session to undo it
    return {
      kind: afterSource("staging", "fault"),
      fault: MigrationFault.from(thrown),
      undo: undoSession(session, "copying"),
    };
  }
}

function dialledIn({ followUpMs }: Contract, cx: SourceContext): Promise<ResumingSource> {
  return within(
    orAborted(cx.dialledIn(), cx.cancelled),
    followUpMs,
    () =>
      new MigrationFault(
        "peer-lost",
        `The destination accepted, but did not dial ${cx.advertised} within ${followUpMs} ms`,
        { advice: "Check that the destination host reaches this agent's advertised address (advertise)" },
      ),
  );
}
