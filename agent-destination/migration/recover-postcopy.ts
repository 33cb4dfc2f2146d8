/**
 * Resumes a post-copy whose stream to the destination's QEMU is lost. QEMU says which pages it has, and waits for the
 * others on a new connection. This agent dials the source as an agent that knows of no earlier stream
 * (docs/design/post-copy.md#when-something-breaks).
 */

import type { Socket } from "node:net";
import { MigrationFault } from "../../shared/fault.ts";
import { diallerOf } from "../../shared/link/grpc/grpc-link.ts";
import { ResumingDestination } from "../../shared/link/resume/resuming-destination.ts";
import { pageCountOf } from "../../shared/page/geometry.ts";
import type { RamBlock } from "../../shared/protocol/messages.ts";
import type { DestinationPostcopy } from "../../shared/protocol/ownership.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { encodeRecvBitmap, encodeResume } from "../../shared/qemu/stream/command-encoder.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import { within } from "../../shared/runtime/deferred.ts";
import { removeLeft } from "../../shared/runtime/files/remove-left.ts";
import { connectedToQemu } from "../../shared/runtime/guest/guest-socket.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import { STUCK_MS } from "../guest/answering-process.ts";
import type { GuestProcess } from "../guest/guest-process.ts";
import { PostcopyPages } from "../replay/postcopy-pages.ts";
import { Receiver } from "../replay/receiver.ts";
import { Replay } from "../replay/replay.ts";
import type { DestinationContext } from "./destination-context.ts";
import { incomingPath } from "./phases/stage.ts";

/** How long QEMU may take to listen for a new stream, milliseconds; it first has to notice that the old one is over. */
const PAUSES_WITHIN_MS = 5000;
/** How long QEMU may take to say which pages it has, milliseconds. */
const ANSWERS_WITHIN_MS = 20_000;
/** The pause between two tries to make QEMU listen, milliseconds. */
const POLL_MS = 20;

/**
 * Gives QEMU a new stream, and dials the source.
 * @returns the receiver of the new stream; undefined when QEMU has every page already
 * @throws MigrationFault when QEMU has ended, or does not take the new stream: the call may then be repeated
 */
export async function recoverPostcopy(
  guest: GuestProcess,
  postcopy: DestinationPostcopy,
  cx: DestinationContext,
): Promise<Receiver | undefined> {
  const qmp = await guest.monitor();
  if (qmp === undefined) throw await guest.endFault();
  const path = incomingPath(cx);
  await removeLeft(path);
  if (!(await listens(qmp, `unix:${path}`, cx.clock))) return undefined;
  const channel = new ResumingDestination({
    clock: cx.clock,
    patienceMs: Number.POSITIVE_INFINITY,
    peer: postcopy.sourceAddress,
    migrationId: cx.id,
    token: cx.token,
    dial: diallerOf(postcopy.sourceAddress, cx.limits),
    restarted: true,
  });
  channel.onChange = (connected) =>
    cx.log.warn({ connected, ...channel.interruptions }, connected ? "the link is back" : "the link is lost");
  const { blocks } = postcopy;
  const pageCount = pageCountOf(blocks);
  const ramBlocks = blocks.map((block) => ({ ...block, pageSize: PAGE_SIZE }));
  const pages = new PostcopyPages({
    blocks: ramBlocks,
    pageCount,
    clock: cx.clock,
    send: (message) => void channel.send(message),
  });
  const socket = await connectedToQemu(path, "QEMU");
  const readBitmaps = (bytes: Buffer): void => pages.read(bytes);
  socket.on("data", readBitmaps);
  socket.on("error", () => undefined);
  for (const { name } of blocks) socket.write(encodeRecvBitmap(name));
  socket.write(encodeResume());
  await within(
    pages.resumed.promise,
    ANSWERS_WITHIN_MS,
    () => new MigrationFault("qemu-failed", "The destination's QEMU does not say which pages it has"),
    cx.clock,
  ).catch((thrown: unknown) => {
    socket.destroy();
    throw thrown;
  });
  socket.off("data", readBitmaps);
  cx.log.warn({ missing: pages.missingPages }, "post-copy is resumed");
  const receiver = makeReceiver(postcopy, { channel, socket, pages, ramBlocks }, cx);
  receiver.failsWith(guest);
  return receiver;
}

interface Resumed {
  readonly channel: ResumingDestination;
  readonly socket: Socket;
  readonly pages: PostcopyPages;
  readonly ramBlocks: readonly RamBlock[];
}

/** Makes the receiver of a stream that brings the pages which QEMU does not have. */
function makeReceiver(
  postcopy: DestinationPostcopy,
  { channel, socket, pages, ramBlocks }: Resumed,
  cx: DestinationContext,
): Receiver {
  return new Receiver({
    channel,
    socket,
    clock: cx.clock,
    cancelled: new AbortController().signal,
    resumed: postcopy,
    makeReplay: (onFault) => {
      const { frameBytes, creditWindowBytes, codecs } = postcopy;
      const replay = new Replay({
        createKernels: cx.createKernels,
        contract: { frameBytes, creditWindowBytes, codecs, ramBlocks, postcopy: true },
        channel,
        socket,
        clock: cx.clock,
        onFault,
        corruptPage: false,
      });
      replay.resume(ramBlocks, postcopy.ramSectionId, pages);
      return replay;
    },
  });
}

/**
 * Makes QEMU listen for a new stream. QEMU's main loop may wait for a page that only such a stream brings. So the
 * commands that matter are carried out beside the main loop (out of band), and QEMU is asked for its state only after a
 * try has failed.
 * @returns false when QEMU has completed post-copy
 */
async function listens(qmp: QmpClient, uri: string, clock: Clock): Promise<boolean> {
  const deadline = clock.monotonicMs() + PAUSES_WITHIN_MS;
  while (true) {
    try {
      await qmp.execute("migrate-recover", { uri });
      return true;
    } catch (thrown) {
      if (clock.monotonicMs() > deadline) throw thrown;
      // QEMU may not notice by itself that its stream is over
      await qmp.execute("migrate-pause").catch(() => undefined);
      const { status } = await qmp
        .execute("query-migrate", undefined, { timeoutMs: STUCK_MS })
        .catch(() => ({ status: "stuck" }));
      if (status === "completed") return false;
    }
    await clock.sleep(POLL_MS);
  }
}
