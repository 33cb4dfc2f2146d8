/**
 * Takes a guest back from a broken post-copy, if the guest was not granted, if the destination has refused it, or if
 * the operator keeps it at the source. The source QEMU, which is `postcopy-paused`, is told that the destination has
 * every page, and then that the destination has failed. QEMU leaves its migration with the whole guest
 * (docs/design/post-copy.md#who-owns-the-guest). This file does not start the guest (return-to-source.ts).
 */
import { createServer, type Socket } from "node:net";
import { MigrationFault } from "../../shared/fault.ts";
import type { StreamLayout } from "../../shared/protocol/ownership.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import {
  encodePong,
  encodeReceivedPages,
  encodeResumeAck,
  encodeShut,
} from "../../shared/qemu/return-path/return-path.ts";
import { ResumedReader, type ResumedSink } from "../../shared/qemu/stream/resumed-reader.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import { within } from "../../shared/runtime/deferred.ts";
import { removeLeft } from "../../shared/runtime/files/remove-left.ts";
import { listenForQemu, migrationFile } from "../../shared/runtime/guest/meeting-place.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import { setupOf } from "../transfer/resumed-streams.ts";
import type { SourceContext } from "./source-context.ts";

/** How long QEMU may take to go through its resumed stream, and then to leave its migration; milliseconds for each. */
const ANSWERS_WITHIN_MS = 10_000;
/**
 * How long to wait before QEMU is asked again whether it has left its migration, milliseconds. The time is short, since
 * the guest stands still until QEMU has left.
 */
const LEAVES_POLL_MS = 2;
/**
 * Room for the bytes of QEMU's stream that were read and not parsed yet, bytes. QEMU writes only commands, since it is
 * told that no page is missing.
 */
const MEMORY_BYTES = 256 << 10;

/**
 * Makes QEMU leave a post-copy that is `postcopy-paused`.
 * @throws MigrationFault `qemu-failed` when QEMU does not resume its migration, or does not leave it; `stream-invalid`
 *   when QEMU sends more than it was asked for. The call may be tried again
 */
export async function abortPostcopy(qmp: QmpClient, layout: StreamLayout, cx: SourceContext): Promise<void> {
  const path = migrationFile(cx.call.guest, cx, "stream");
  await removeLeft(path);
  const server = createServer();
  let socket: Socket | undefined;
  try {
    const done = new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.once("connection", (accepted) => {
        socket = accepted;
        accepted.on("error", reject);
        accepted.on("close", () =>
          reject(new MigrationFault("qemu-failed", "The source QEMU closed the stream of its resumed migration")),
        );
        readResumed(accepted, layout, resolve, reject);
      });
    });
    done.catch(() => undefined);
    await listenForQemu(server, path);
    await qmp.execute("migrate", { uri: `unix:${path}`, resume: true });
    await within(
      done,
      ANSWERS_WITHIN_MS,
      () => new MigrationFault("qemu-failed", "The source QEMU did not resume its migration"),
      cx.clock,
    );
    await leavesMigration(qmp, cx.clock);
  } finally {
    socket?.destroy();
    server.close();
    await removeLeft(path);
  }
}

/** Answers QEMU's resumed stream as a destination would that has received every page. */
function readResumed(socket: Socket, layout: StreamLayout, done: () => void, failed: (fault: unknown) => void): void {
  const memory = new Uint8Array(MEMORY_BYTES);
  let tail = 0;
  const sink: ResumedSink = {
    ping: (value) => void socket.write(encodePong(value)),
    bitmapWanted: (block) =>
      void socket.write(
        encodeReceivedPages(block, new Uint8Array(Math.ceil(block.byteLength / PAGE_SIZE / 8)).fill(255)),
      ),
    resumed: () => {
      socket.write(encodeResumeAck());
    },
    page: () => true,
    zeroPage: () => true,
    partEnd: () => true,
    ramEnd: () => undefined,
    // a SHUT before the end of the stream would make QEMU pause its post-copy again
    end: () => {
      socket.write(encodeShut(1));
      done();
    },
  };
  const reader = new ResumedReader(memory, setupOf(layout), sink);
  socket.on("data", (chunk) => {
    try {
      if (tail + chunk.length > MEMORY_BYTES)
        throw new MigrationFault("stream-invalid", "The source QEMU sends more than it was asked for");
      memory.set(chunk, tail);
      const at = reader.consume(0, tail + chunk.length);
      memory.copyWithin(0, at, tail + chunk.length);
      tail += chunk.length - at;
    } catch (thrown) {
      failed(thrown);
    }
  });
}

async function leavesMigration(qmp: QmpClient, clock: Clock): Promise<void> {
  const deadline = clock.monotonicMs() + ANSWERS_WITHIN_MS;
  while (true) {
    const { status } = await qmp.execute("query-migrate");
    if (status === "failed") return;
    if (clock.monotonicMs() > deadline)
      throw new MigrationFault("qemu-failed", `The source QEMU's migration is ${status} after it was told to fail`);
    await clock.sleep(LEAVES_POLL_MS);
  }
}
