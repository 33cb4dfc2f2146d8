/** Both ends of a transfer stream over gRPC inside one process, on which an agent rehearses (docs/decisions/0032). */
import { rm } from "node:fs/promises";
import { dialSource } from "./grpc-link.ts";
import { serveTransfers } from "./grpc-server.ts";
import type { LinkLimits } from "./link.ts";
import { ResumingDestination } from "./resuming-destination.ts";
import { ResumingSource } from "./resuming-source.ts";

export interface Loop {
  readonly source: ResumingSource;
  /** Dials in with its receive(). */
  readonly destination: ResumingDestination;
  /** Nobody listens afterwards, and the socket is gone. */
  close(): Promise<void>;
}

const NOBODY = new Uint8Array(16);
const GRACE_MS = 500;

/** @param path of a unix socket that nobody else may connect to; what is there is replaced */
export async function openLoop(path: string, { receiveWindowBytes, messageBytes }: LinkLimits): Promise<Loop> {
  const address = `unix:${path}`;
  const limits = { receiveWindowBytes, messageBytes };
  const options = { peer: address, patienceMs: 0 };
  const source = new ResumingSource(options);
  await rm(path, { force: true });
  const listener = await serveTransfers(
    { acceptTransfer: (hello, channel) => source.attach(hello, channel) },
    { listen: [address], limits },
  );
  const destination = new ResumingDestination({
    ...options,
    migrationId: "rehearsal",
    token: NOBODY,
    dial: () => dialSource(address, limits),
  });
  return {
    source,
    destination,
    close: async () => {
      destination.close();
      source.close();
      await listener.close(GRACE_MS);
      await rm(path, { force: true });
    },
  };
}
