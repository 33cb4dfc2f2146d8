/**
 * The destination agent's half of bench:path, in a process of its own: it dials the source and replays what comes into
 * the socket of a process that plays QEMU, with the parts of a real migration. It stays for many migrations, as an
 * agent does.
 */
import { once } from "node:events";
import { connect } from "node:net";
import { Receiver } from "../../../agent-destination/replay/receiver.ts";
import { Replay } from "../../../agent-destination/replay/replay.ts";
import { dialSource } from "../../../shared/link/grpc/grpc-link.ts";
import { ResumingDestination } from "../../../shared/link/resume/resuming-destination.ts";
import { systemClock } from "../../../shared/runtime/clock.ts";
import { orAborted } from "../../../shared/runtime/deferred.ts";
import { loadKernels } from "../../../shared/runtime/load-kernels.ts";
import { layoutOf } from "../guest-pages.ts";
import type { DestinationOrder, Task } from "./messages.ts";
import { CONTRACT, linkLimits } from "./terms.ts";
import { endedSince, usageNow } from "./usage.ts";

const task: Task = JSON.parse(process.argv[2] ?? "{}");
const limits = linkLimits(task, "beta");

async function migrate({ address, playerPath }: DestinationOrder): Promise<void> {
  const before = usageNow();
  const socket = connect(playerPath);
  await once(socket, "connect");
  const channel = new ResumingDestination({
    peer: address,
    patienceMs: 0,
    migrationId: "00",
    token: new Uint8Array(16),
    dial: () => dialSource(address, limits),
  });
  const receiver = new Receiver({
    channel,
    socket,
    clock: systemClock,
    cancelled: new AbortController().signal,
    makeReplay: (onFault) =>
      new Replay({
        createKernels: loadKernels,
        contract: { ...CONTRACT, ramBlocks: layoutOf(task.pages) },
        channel,
        socket,
        clock: systemClock,
        onFault,
        corruptPage: false,
      }),
  });
  await orAborted(receiver.ended.promise, receiver.signal);
  await orAborted(receiver.replay.drained(), receiver.signal);
  socket.end();
  await once(socket, "close");
  // this message ends the stream, since it is a destination's last message; no fault has happened
  channel.send({ kind: "failure", code: "cancelled", message: "all has come", refusedToken: new Uint8Array() });
  receiver.close();
  await channel.closed;
  process.send?.(await endedSince(before, 0));
}

process.on("message", (order: DestinationOrder) => void migrate(order));
process.on("disconnect", () => process.exit(0));
