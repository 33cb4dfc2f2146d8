/**
 * Finds out of QEMU's device state in which run state the guest was when its migration stopped it: "running", or "paused" by
 * somebody else before. QEMU notes it in the moment of the stop (migration_stop_vm, global_state_store), so it is right however
 * close an operator's `stop` or `cont` comes to a switchover; events and query-status are not.
 *
 *     04 FULL | be32 section id | 0b "globalstate" | be32 instance 0 | be32 version 1 | be32 size | text, 00 …
 *                                                                      (migration/global_state.c, 2.4 and later)
 *
 * It is one of the first sections of the device state, ahead of all that the guest can write to; the first match counts.
 */

/** Its first byte comes once in it: when a byte does not fit, a head can at most begin with that byte. */
const HEAD = Uint8Array.from([0x0b, ...new TextEncoder().encode("globalstate"), 0, 0, 0, 0, 0, 0, 0, 1]);
const SIZE_BYTES = 4;
/** The longest is "finish-migrate", "guest-panicked", "internal-error". */
const TEXT_BYTES_MAX = 32;

export class GlobalState {
  /** As query-status names it; undefined until it was found. */
  runState: string | undefined;
  /** Bytes of the head and the size that have come. */
  private matched = 0;
  private text = "";

  /** Looks at the next bytes of the device state. */
  push(piece: Uint8Array): void {
    for (let at = 0; at < piece.length && this.runState === undefined; at++) this.take(piece[at]!);
  }

  private take(byte: number): void {
    if (this.matched < HEAD.length) {
      if (byte === HEAD[this.matched]) this.matched++;
      else this.matched = byte === HEAD[0] ? 1 : 0;
    } else if (this.matched < HEAD.length + SIZE_BYTES) this.matched++;
    else if (byte !== 0 && this.text.length < TEXT_BYTES_MAX) this.text += String.fromCharCode(byte);
    else this.runState = this.text;
  }
}
