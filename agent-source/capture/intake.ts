/**
 * Terminates QEMU's migration stream and its return path: a unix socket that QEMU connects to, read into a window of
 * the migration's memory and parsed in place. Reading stops when the sink says so (arena full, feed paced), which
 * blocks QEMU's migration thread in its socket while the guest runs on; reading never waits for a QMP answer.
 */
import { rm } from "node:fs/promises";
import { createServer, type Server, Socket, type SocketConstructorOpts } from "node:net";
import { MigrationFault } from "../../shared/fault.ts";
import { encodeShut, encodeSwitchoverAck } from "../../shared/qemu/return-path/return-path.ts";
import { listenForQemu } from "../../shared/runtime/guest/meeting-place.ts";
import type { Address } from "../../shared/units.ts";

/** One read of the socket at most; its kernel buffer is about 208 KiB (facts: larger reads bring nothing). */
const READ_BYTES = 256 * 1024;
const QEMU_CONNECTS_WITHIN_MS = 10_000;

/** Reads what is there of a stream (StreamReader, or ResumedReader of one that is taken up). */
export interface StreamParser {
  readonly needs: number;
  readonly stopped: boolean;
  consume(start: number, end: number): number;
}

export interface IntakeOptions {
  readonly memory: Uint8Array;
  readonly window: Address;
  readonly windowBytes: number;
  readonly reader: StreamParser;
  /** The stream is broken, or QEMU closed it. After the end was reached a close is no fault. */
  readonly onFault: (fault: MigrationFault) => void;
}

export class Intake {
  bytesRead = 0;
  private readonly parts: IntakeOptions;
  private readonly reader: StreamParser;
  private readonly windowEnd: number;
  /** Bytes read and not consumed: [head, tail). */
  private head: number;
  private tail: number;
  private server: Server | undefined;
  private socket: Socket | undefined;
  private path = "";
  /** The sink took no more; by hold(). */
  private held = false;
  private stopped = false;
  private closing = false;

  constructor(parts: IntakeOptions) {
    this.parts = parts;
    this.reader = parts.reader;
    this.windowEnd = parts.window + parts.windowBytes;
    this.head = parts.window;
    this.tail = parts.window;
  }

  /** Listens at `path` for the one connection of QEMU's `migrate unix:path`. */
  async listen(path: string): Promise<void> {
    this.path = path;
    await rm(path, { force: true });
    const server = createServer({ pauseOnConnect: true });
    this.server = server;
    await listenForQemu(server, path).catch((error: Error) => {
      throw new MigrationFault("configuration", `Cannot listen at ${path}: ${error.message}`, { cause: error });
    });
  }

  /** Resolves when QEMU has connected; call before `migrate`. */
  connected(signal: AbortSignal): Promise<void> {
    const server = this.server;
    if (server === undefined) throw new TypeError("listen() comes first");
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () =>
          fail(
            new MigrationFault(
              "qemu-failed",
              `QEMU did not connect to ${this.path} within ${QEMU_CONNECTS_WITHIN_MS} ms`,
            ),
          ),
        QEMU_CONNECTS_WITHIN_MS,
      );
      const onAbort = (): void => fail(MigrationFault.from(signal.reason));
      const done = (): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", onAbort);
      };
      const fail = (fault: MigrationFault): void => {
        done();
        reject(fault);
      };
      signal.addEventListener("abort", onAbort, { once: true });
      server.once("connection", (accepted) => {
        done();
        this.adopt(accepted);
        server.close();
        resolve();
      });
    });
  }

  /** Reads nothing until release(), whatever the sink would take. */
  hold(): void {
    this.stopped = true;
    this.socket?.pause();
  }

  release(): void {
    this.stopped = false;
    if (this.held) this.resume();
    else this.socket?.resume();
  }

  /** Parses what was read but not taken, then reads on. */
  resume(): void {
    if (!this.held || this.closing || this.stopped) return;
    this.held = false;
    if (this.parse()) this.socket?.resume();
  }

  /** Return path: QEMU may stop the guest and complete. */
  acknowledgeSwitchover(): void {
    this.socket?.write(encodeSwitchoverAck());
  }

  /** Return path: what post-copy asks and answers. */
  answer(bytes: Uint8Array): void {
    this.socket?.write(bytes);
  }

  /** Return path: the destination has loaded everything; QEMU completes and never runs the guest by itself again. */
  shut(): void {
    // QEMU closes its end on this: no fault any more
    this.closing = true;
    this.socket?.write(encodeShut(0));
  }

  /** Before SHUT was written, closing makes QEMU fail the migration and run its guest. */
  async close(): Promise<void> {
    this.closing = true;
    this.server?.close();
    this.socket?.destroy();
    await rm(this.path, { force: true });
  }

  /** Reads an accepted connection straight into the window: servers have no `onread`, so its handle is wrapped anew. */
  private adopt(accepted: Socket): void {
    const owner: { _handle: unknown } = Object.assign(accepted, { _handle: Reflect.get(accepted, "_handle") });
    const handle = owner._handle;
    owner._handle = null;
    const options: SocketConstructorOpts = {
      allowHalfOpen: false,
      onread: { buffer: () => this.nextView(), callback: (length) => this.onRead(length) },
    };
    // Node takes any open handle here; its types know only the BoundSocket that Node has had since 24.19
    Reflect.set(options, "handle", handle);
    const socket = new Socket(options);
    this.socket = socket;
    socket.on("error", (error) =>
      this.fail(new MigrationFault("qemu-failed", `QEMU's migration stream broke: ${error.message}`, { cause: error })),
    );
    socket.on("close", () => this.fail(new MigrationFault("qemu-failed", "QEMU closed its migration stream")));
    socket.on("end", () => this.fail(new MigrationFault("qemu-failed", "QEMU ended its migration stream")));
    socket.resume();
  }

  private nextView(): Uint8Array {
    const { memory, window } = this.parts;
    const rest = this.tail - this.head;
    // back to the start when no more than a cut item is left: the same 256 KiB stay in the core's cache, which saves 3
    // to 12 % of the whole path's CPU time (docs/results/micro.md)
    if (rest <= this.reader.needs || this.windowEnd - this.tail < READ_BYTES) {
      // shared memory is moved by words where both places are aligned alike, otherwise byte by byte
      const start = window + (this.head & 7);
      memory.copyWithin(start, this.head, this.tail);
      this.head = start;
      this.tail = start + rest;
    }
    return memory.subarray(this.tail, Math.min(this.tail + READ_BYTES, this.windowEnd));
  }

  private onRead(length: number): boolean {
    this.tail += length;
    this.bytesRead += length;
    return this.parse();
  }

  /** @returns may more be read? */
  private parse(): boolean {
    try {
      const at = this.reader.consume(this.head, this.tail);
      this.head = at;
    } catch (thrown) {
      this.fail(MigrationFault.from(thrown, "stream-invalid"));
      return false;
    }
    this.held = this.reader.stopped;
    return !this.held && !this.stopped;
  }

  private fail(fault: MigrationFault): void {
    if (this.closing) return;
    this.closing = true;
    this.socket?.destroy();
    this.parts.onFault(fault);
  }
}
