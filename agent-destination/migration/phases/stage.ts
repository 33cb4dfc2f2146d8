/** The phase *staging*: QEMU gets ready to take its stream, and the transfer stream is opened. */
import type { Socket } from "node:net";
import { MigrationFault } from "../../../shared/fault.ts";
import { diallerOf } from "../../../shared/link/grpc/grpc-link.ts";
import { ResumingDestination } from "../../../shared/link/resume/resuming-destination.ts";
import { afterDestination } from "../../../shared/protocol/destination-states.ts";
import type { Contract } from "../../../shared/protocol/messages.ts";
import { enablePostcopy } from "../../../shared/qemu/inspect/postcopy-ability.ts";
import { connectedToQemu } from "../../../shared/runtime/guest/guest-socket.ts";
import { migrationFile } from "../../../shared/runtime/guest/meeting-place.ts";
import type { GuestProcess } from "../../guest/guest-process.ts";
import { Receiver } from "../../replay/receiver.ts";
import { Replay } from "../../replay/replay.ts";
import type { DestinationContext } from "../destination-context.ts";
import type { State } from "../destination-state.ts";

/**
 * Makes QEMU listen for its stream, and dials the source. The destination dials because only gRPC's client side has a
 * receive window that can be raised: the pages flow from the server to the client (ARCHITECTURE.md).
 */
export async function stage(state: State<"staging">, cx: DestinationContext): Promise<State<"receiving">> {
  const { guest, contract, offer, disks } = state;
  const { source } = state;
  const socket = await openStream(guest, cx, contract.postcopy).catch((thrown: unknown) => {
    source?.close();
    throw thrown;
  });
  const channel = new ResumingDestination({
    clock: cx.clock,
    patienceMs: cx.config.link.giveUpAfterMs,
    peer: offer.sourceAddress,
    migrationId: cx.id,
    token: cx.token,
    dial: diallerOf(offer.sourceAddress, cx.limits, source),
  });
  channel.onChange = (connected) =>
    cx.log.warn({ connected, ...channel.interruptions }, connected ? "the link is back" : "the link is lost");
  const receiver = new Receiver({
    channel,
    socket,
    clock: cx.clock,
    cancelled: cx.cancelled,
    disks,
    record: contract.postcopy ? recordOf(contract, offer.sourceAddress) : undefined,
    makeReplay: (onFault) =>
      new Replay({
        createKernels: cx.createKernels,
        contract,
        channel,
        socket,
        clock: cx.clock,
        onFault,
        corruptPage: cx.faults.has("corrupt-page"),
      }),
  });
  try {
    // the source measures the link meanwhile, so the keeper costs no time of its own
    if (contract.postcopy) await guest.keepMonitor({ timeoutMs: cx.config.qmpTimeoutMs, signal: cx.cancelled });
    else guest.dismissKeeper();
  } catch (thrown) {
    receiver.close(MigrationFault.from(thrown));
    throw thrown;
  }
  receiver.failsWith(guest);
  return { kind: afterDestination("staging", "dialled"), guest, receiver };
}

/**
 * Gathers what the journal needs to resume a broken post-copy: the address of the source, and figures of the contract.
 */
const recordOf = ({ frameBytes, creditWindowBytes, codecs }: Contract, sourceAddress: string) => ({
  frameBytes,
  creditWindowBytes,
  codecs,
  sourceAddress,
});

/** Gives the path of the socket on which the destination's QEMU takes its stream. */
export const incomingPath = (cx: DestinationContext): string => migrationFile(cx.guest, cx, "incoming");

/** Makes QEMU listen for its stream, and connects to it. */
async function openStream(guest: GuestProcess, cx: DestinationContext, postcopy: boolean): Promise<Socket> {
  const path = incomingPath(cx);
  await guest.qmp.execute("migrate-set-capabilities", { capabilities: [{ capability: "events", state: true }] });
  if (postcopy) await enablePostcopy(guest.qmp);
  await guest.qmp.execute("migrate-incoming", { uri: `unix:${path}` });
  return await connectedToQemu(path, "the destination's QEMU");
}
