/**
 * How much a peer may send: the window of a stream or of a connection (RFC 9113, section 5.2). Bytes come back to the
 * window when they are not kept any more, and the peer is told so for many bytes at once.
 */
import { ERROR, NotUnderstood } from "./not-understood.ts";

/** The peer is told when this part of the window has come back. */
const TOLD_AT = 1 / 4;

export class ReceiveWindow {
  private readonly bytes: number;
  /** How much the peer may still send, bytes. */
  private left: number;
  /** How much has come back since the peer was last told, bytes. */
  private back = 0;

  constructor(bytes: number) {
    this.bytes = bytes;
    this.left = bytes;
  }

  /** Counts bytes that the peer sends. @throws NotUnderstood when the peer was not allowed to send as many */
  take(bytes: number): void {
    this.left -= bytes;
    if (this.left < 0) throw new NotUnderstood("more than its window allows", ERROR.flowControl);
  }

  /** Gives bytes back. @returns what the peer is to be told; 0 for nothing yet */
  give(bytes: number): number {
    this.back += bytes;
    if (this.back < this.bytes * TOLD_AT) return 0;
    const { back } = this;
    this.left += back;
    this.back = 0;
    return back;
  }
}
