/** The state *staging*: the destination dials in, the link is measured, and QEMU's migration begins. */
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

/** Waits for the destination, makes the session and measures the link. Then QEMU begins to write its stream. */
export async function stage(state: State<"staging">, cx: SourceContext): Promise<State<"copying"> | State<"keeping">> {
  const { definition, qmp, contract } = state;
  const runs = await RunState.begin(qmp);
  // while the destination is awaited, the record is written to a temporary file: later only a rename is left
  // (Journal.prepare)
  const found = readSettings(qmp);
  const prepared = found.then(
    (settings) => cx.journal.prepare(cx.id, sourceRecord(cx, "plan", { settings, paused: runs.standsStill })),
    () => undefined,
  );
  const session = await dialledIn(contract, cx)
    .then((channel) => makeSession(state, runs, channel, cx))
    .catch(async (thrown: unknown) => {
      // the guest was not touched, and *keeping* leaves the journal alone
      await prepared;
      await cx.journal
        .remove(cx.id)
        .catch((fault: unknown) =>
          cx.log.warn({ fault: String(fault) }, "the record of this migration was not removed"),
        );
      throw thrown;
    });
  const { channel } = session;
  try {
    const probing = probeLink(channel, session.inbox, session.meter, cx.clock);
    probing.catch(() => undefined);
    // the steps from here on run beside the probe, which takes some tens of milliseconds. Nothing waits for the first
    // of them, the size of QEMU's resident memory
    void residentBytesOf(definition.qmp).then((bytes) => session.capture.observer.resident(bytes));
    await session.intake.listen(session.streamPath);
    // the record is written before anything is touched, so that an agent that starts again can undo the rest
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
    // the fault is not thrown: *keeping* must know of this session to undo what was done
    return {
      kind: afterSource("staging", "fault"),
      fault: MigrationFault.from(thrown),
      undo: undoSession(session, "copying"),
    };
  }
}

function makeSession(
  { qmp, facts, contract }: State<"staging">,
  runs: RunState,
  channel: ResumingSource,
  cx: SourceContext,
): TransferSession {
  const { ramBlocks } = facts;
  const onCut = askWhileCut(cx, channel);
  const paused = runs.standsStill;
  const onOutlook = (outlook: string): void => cx.report.foresees(outlook);
  return new TransferSession({ cx, qmp, ramBlocks, agreed: facts, contract, channel, runs, paused, onCut, onOutlook });
}

/**
 * Waits until the destination has dialled in.
 * @throws MigrationFault `peer-lost` when it does not within `followUpMs`
 */
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
    cx.clock,
  );
}
