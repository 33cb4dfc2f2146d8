/**
 * Sends messages as DATA within the windows of the peer, in order. What the windows or the socket do not take waits
 * here. The channel decides how many messages may wait.
 */
import {
  endFrame,
  frameOf,
  HEAD_BYTES,
  PAYLOAD_BYTES_MAX,
  STREAM,
  TYPE,
  WINDOW_AT_FIRST,
  WINDOW_MAX,
} from "./frames.ts";
import { ERROR, NotUnderstood } from "./not-understood.ts";

export class Outbox {
  private readonly write: (frame: Buffer) => void;
  private readonly isSocketFull: () => boolean;
  /** The messages that wait, each with gRPC's prefix ahead of it. */
  private queue: Buffer[] = [];
  /** How many bytes of the first message were sent. */
  private sent = 0;
  private isOpen = false;
  private ending = false;
  /** True once the peer was told that nothing follows. */
  hasEnded = false;
  private connectionWindow = WINDOW_AT_FIRST;
  private streamWindow = WINDOW_AT_FIRST;
  /**
   * The window that the peer gives a new stream, bytes. If the peer changes it, the window of the open stream changes
   * by as much.
   */
  private initialWindow = WINDOW_AT_FIRST;

  /**
   * @param write gives a frame to the socket
   * @param isSocketFull tells whether the socket is to be given no more for now
   */
  constructor(write: (frame: Buffer) => void, isSocketFull: () => boolean) {
    this.write = write;
    this.isSocketFull = isSocketFull;
  }

  /** How many messages wait, in whole or in part. */
  get length(): number {
    return this.queue.length;
  }

  /** Begins to send: the stream is open. */
  open(): void {
    this.isOpen = true;
    this.pump();
  }

  /** @param message a message with gRPC's prefix ahead of it, in memory that does not change any more */
  push(message: Buffer): void {
    this.queue.push(message);
    this.pump();
  }

  /** Ends this side's half of the stream, behind the messages that wait. */
  end(): void {
    this.ending = true;
    this.pump();
  }

  /**
   * Widens the window of the stream, or that of the connection, by `increment` bytes, and sends what now fits.
   * @param stream 0 for the window of the connection
   * @throws NotUnderstood for an increment of 0, and for a window that becomes too large
   */
  widen(stream: number, increment: number): void {
    if (increment === 0) throw new NotUnderstood("a window update of 0 bytes");
    if (stream === STREAM) this.streamWindow += increment;
    else this.connectionWindow += increment;
    this.checkWindows();
    this.pump();
  }

  /** @throws NotUnderstood for a window that is too large */
  setInitialWindow(bytes: number): void {
    this.streamWindow += bytes - this.initialWindow;
    this.initialWindow = bytes;
    if (bytes > WINDOW_MAX) throw new NotUnderstood(`a window of ${bytes} bytes`, ERROR.flowControl);
    this.checkWindows();
    this.pump();
  }

  /** Sends what may be sent. */
  pump(): void {
    if (!this.isOpen || this.hasEnded) return;
    let done = 0;
    while (done < this.queue.length && !this.isSocketFull() && this.sendSome(this.queue[done]!)) done++;
    if (done > 0) this.queue = this.queue.slice(done);
    if (!this.ending || this.queue.length > 0) return;
    this.hasEnded = true;
    this.write(endFrame());
  }

  private checkWindows(): void {
    if (this.streamWindow > WINDOW_MAX || this.connectionWindow > WINDOW_MAX)
      throw new NotUnderstood("a window update beyond the largest window", ERROR.flowControl);
  }

  /** Sends the rest of a message as far as the windows allow. @returns true when all of it was sent */
  private sendSome(message: Buffer): boolean {
    while (this.sent < message.length) {
      const window = Math.min(this.streamWindow, this.connectionWindow);
      const length = Math.min(window, PAYLOAD_BYTES_MAX, message.length - this.sent);
      if (length <= 0) return false;
      const frame = frameOf(TYPE.data, 0, STREAM, length);
      message.copy(frame, HEAD_BYTES, this.sent, this.sent + length);
      this.sent += length;
      this.streamWindow -= length;
      this.connectionWindow -= length;
      this.write(frame);
    }
    this.sent = 0;
    return true;
  }
}
