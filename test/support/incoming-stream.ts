/** A simulated QEMU's end of its migration stream, at which it listens once it is told to take a stream. */
import { createServer, type Server, type Socket } from "node:net";
import type { Test } from "tap";
import { deferred } from "../../shared/runtime/deferred.ts";
import { bounded, eventually } from "./bounded.ts";
import type { FakeQemu } from "./fake-qemu.ts";

const WITHIN_MS = 20_000;

export class IncomingStream {
  /** The paths at which QEMU was told to take a stream, in order. */
  readonly paths: string[] = [];
  private readonly came: Buffer[] = [];
  private readonly connection = deferred<Socket>();
  private readonly servers: Server[] = [];
  private readonly sockets: Socket[] = [];

  /** @param answer what QEMU writes back when the bytes so far have come; undefined for nothing */
  static of(
    t: Test,
    qemu: FakeQemu,
    answer: (bytes: Buffer) => Uint8Array | undefined = () => undefined,
  ): IncomingStream {
    const stream = new IncomingStream();
    qemu.takesStreamAt = (path) => stream.listen(path, answer);
    t.teardown(() => {
      for (const server of stream.servers) server.close();
      for (const socket of stream.sockets) socket.destroy();
    });
    return stream;
  }

  /** QEMU's end of the first connection. */
  connected(): Promise<Socket> {
    return bounded(this.connection.promise, WITHIN_MS, "a connection to the simulated QEMU");
  }

  /** Waits until at least as many bytes have come. @returns all of them */
  untilCame(byteLength: number): Promise<Buffer> {
    const all = (): Buffer | undefined => {
      const bytes = Buffer.concat(this.came);
      return bytes.length < byteLength ? undefined : bytes;
    };
    return eventually(all, { timeoutMs: WITHIN_MS, what: `${byteLength} bytes for the simulated QEMU` });
  }

  private listen(path: string, answer: (bytes: Buffer) => Uint8Array | undefined): void {
    this.paths.push(path);
    const server = createServer((socket) => {
      this.sockets.push(socket);
      socket.on("error", () => undefined);
      socket.on("data", (bytes) => {
        this.came.push(bytes);
        const said = answer(Buffer.concat(this.came));
        if (said !== undefined) socket.write(said);
      });
      this.connection.resolve(socket);
    });
    // the socket is at its path when listen() returns, as QEMU's is when the command is answered
    this.servers.push(server.listen(path));
  }
}
