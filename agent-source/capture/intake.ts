/**
 * Terminates QEMU's migration stream and return path at a unix socket to which QEMU connects. The stream is read into a
 * window of the migration's memory and parsed there in place.
 *
 * Reading stops when the sink, which takes the parsed pages, says so (the arena is full, or the capture is paced).
 * QEMU's migration thread then blocks in its socket, and the guest runs on. Reading never waits for a QMP answer.
 *
 * Not its job: what the stream means (StreamParser), and when a stopped stream is read on (read-hold.ts,
 * postcopy-capture.ts).
 */
import { createServer, type Server, Socket, type SocketConstructorOpts } from "node:net";
import { MigrationFault } from "../../shared/fault.ts";
import { encodeShut, encodeSwitchoverAck } from "../../shared/qemu/return-path/return-path.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import { removeLeft } from "../../shared/runtime/files/remove-left.ts";
import { listenForQemu } from "../../shared/runtime/guest/meeting-place.ts";
import type { Address } from "../../shared/units.ts";

/**
 * The most bytes of one read. The socket's kernel buffer is about 208 KiB; larger reads were measured, and brought
 * nothing.
 */
const READ_BYTES = 256 * 1024;
/** How long QEMU may take to connect, milliseconds. */
const QEMU_CONNECTS_WITHIN_MS = 10_000;

/** Reads as much of a stream as has come: a StreamReader, or a ResumedReader for a post-copy that was broken. */
export interface StreamParser {
  /**
   * The length of the longest item of the stream, bytes. An item is what the parser reads as a whole, such as a RAM
   * record with its page. With this many bytes there, consume() reads at least one item, unless the sink stops it.
   */
  readonly needs: number;
  /** True if the sink stopped the parser in the last consume(). */
  readonly stopped: boolean;
  /** Reads the complete items of [start, end). @returns the address of the first byte that was not consumed */
  consume(start: number, end: number): number;
}

export interface IntakeOptions {
  /** The migration's memory. */
  readonly memory: Uint8Array;
  /** Where in `memory` the stream is read to: [window, window + windowBytes). */
  readonly window: Address;
  readonly windowBytes: number;
  readonly reader: StreamParser;
  /**
   * Asked before bytes that were read are parsed. If it returns false, nothing more is parsed or read until resume().
   * @default bytes that were read are always parsed
   */
  readonly mayRead?: () => boolean;
  readonly clock: Clock;
  /** Called once if the stream is broken or QEMU closes it. Never called after shut() or close(). */
  readonly onFault: (fault: MigrationFault) => void;
}

export class Intake {
  /** How many bytes of the stream were read from the socket. */
  bytesRead = 0;
  private readonly parts: IntakeOptions;
  private readonly reader: StreamParser;
  private readonly windowEnd: number;
  /** The bytes of [head, tail) were read and are not consumed. */
  private head: number;
  private tail: number;
  private server: Server | undefined;
  private socket: Socket | undefined;
  private path = "";
  /** True once the sink takes no more or mayRead() has returned false, until resume(). */
  private held = false;
  /** True from hold() to release(). */
  private stopped = false;
  /** True once the socket may close without a further fault: after shut(), close() or the first fault. */
  private closing = false;

  constructor(parts: IntakeOptions) {
    this.parts = parts;
    this.reader = parts.reader;
    this.windowEnd = parts.window + parts.windowBytes;
    this.head = parts.window;
    this.tail = parts.window;
  }

  /**
   * Listens at `path` for the one connection that QEMU makes for `migrate unix:path`.
   * @throws MigrationFault `configuration` when the socket cannot be made
   */
  async listen(path: string): Promise<void> {
    this.path = path;
    await removeLeft(path);
    const server = createServer({ pauseOnConnect: true });
    this.server = server;
    await listenForQemu(server, path).catch((error: Error) => {
      throw new MigrationFault("configuration", `Cannot listen at ${path}: ${error.message}`, { cause: error });
    });
  }

  /**
   * Resolves when QEMU has connected. To be called before QMP's `migrate`.
   * @throws MigrationFault `qemu-failed` when QEMU does not connect in time; the fault with which `signal` is aborted
   */
  connected(signal: AbortSignal): Promise<void> {
    const { server } = this;
    const { clock } = this.parts;
    if (server === undefined) throw new TypeError("listen() comes first");
    return new Promise((resolve, reject) => {
      const late = `The source QEMU did not connect to ${this.path} within ${QEMU_CONNECTS_WITHIN_MS} ms`;
      const timer = clock.after(QEMU_CONNECTS_WITHIN_MS, () => fail(new MigrationFault("qemu-failed", late)));
      const onAbort = (): void => fail(MigrationFault.from(signal.reason));
      const done = (): void => {
        clock.cancel(timer);
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

  /** Neither reads nor parses until release(), even if the sink would take more. */
  hold(): void {
    this.stopped = true;
    this.socket?.pause();
  }

  /** Ends a hold(): parses what the sink has not taken, and reads on. */
  release(): void {
    this.stopped = false;
    if (this.held) this.resume();
    else this.socket?.resume();
  }

  /**
   * Parses what was read and not parsed yet, then reads on. Does nothing in three cases: neither the sink nor mayRead()
   * has stopped the parser; hold() was called and release() was not called since; the socket may close.
   */
  resume(): void {
    if (!this.held || this.closing || this.stopped) return;
    this.held = false;
    if (this.parse()) this.socket?.resume();
  }

  /** Tells QEMU on the return path that it may stop the guest and complete. */
  acknowledgeSwitchover(): void {
    this.socket?.write(encodeSwitchoverAck());
  }

  /** Writes post-copy's requests and answers on the return path. */
  answer(bytes: Uint8Array): void {
    this.socket?.write(bytes);
  }

  /**
   * Tells QEMU on the return path (SHUT) that the destination has everything. QEMU then completes its migration, and
   * never runs the guest by itself again.
   */
  shut(): void {
    // QEMU closes its end after SHUT, which is no fault
    this.closing = true;
    this.socket?.write(encodeShut(0));
  }

  /**
   * Closes the socket. If shut() was not called before, QEMU's migration fails (in post-copy the migration may pause
   * instead). QEMU then runs the guest again if its migration had stopped the guest. QEMU does not do so if the guest
   * stood still before, because its operator had paused it or, for post-copy, this agent had stopped it
   * (docs/decisions/0024).
   */
  async close(): Promise<void> {
    this.closing = true;
    this.server?.close();
    this.socket?.destroy();
    await removeLeft(this.path);
  }

  /**
   * Reads an accepted connection straight into the window. A server's sockets have no `onread`, so a new Socket with
   * `onread` takes over the handle of the accepted one.
   */
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
      this.fail(
        new MigrationFault("qemu-failed", `The source QEMU's migration stream broke: ${error.message}`, {
          cause: error,
        }),
      ),
    );
    socket.on("close", () =>
      this.fail(new MigrationFault("qemu-failed", "The source QEMU closed its migration stream")),
    );
    socket.on("end", () => this.fail(new MigrationFault("qemu-failed", "The source QEMU ended its migration stream")));
    socket.resume();
  }

  /** @returns where the next read puts its bytes: right after the bytes that are not consumed */
  private nextView(): Uint8Array {
    const { memory, window } = this.parts;
    const rest = this.tail - this.head;
    // reading begins at the window's start again when no more than an incomplete item is left: the same 256 KiB then
    // stay in the core's cache, which saves 3 to 12 % of the whole path's CPU time (docs/results/micro.md)
    if (rest <= this.reader.needs || this.windowEnd - this.tail < READ_BYTES) {
      // shared memory is moved by words where both places have the same alignment to 8 bytes, otherwise byte by byte
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

  /** Parses what the window has. @returns true if more may be read */
  private parse(): boolean {
    if (this.parts.mayRead?.() === false) {
      this.held = true;
      return false;
    }
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
