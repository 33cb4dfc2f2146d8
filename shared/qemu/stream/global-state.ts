/**
 * Finds in QEMU's device state in which run state the guest was when its migration stopped it: "running", or "paused"
 * if somebody had paused it before. QEMU notes the run state at the moment of the stop (migration_stop_vm,
 * global_state_store), so it is right however close an operator's `stop` or `cont` comes to a switchover. Events and
 * `query-status` are not that reliable.
 *
 *     04 FULL | be32 section id | 0b "globalstate" | be32 instance 0 | be32 version 1 | be32 size | text, 00 …
 *                                                                      (migration/global_state.c, 2.4 and later)
 *
 * This section is one of the first of the device state, ahead of everything that the guest can write to, so the first
 * match counts.
 */

/**
 * The bytes before the size: the name, the instance and the version. The first of them is not among the others, so a
 * byte that does not fit can at most be the first byte of another match.
 */
const HEAD = Uint8Array.from([0x0b, ...new TextEncoder().encode("globalstate"), 0, 0, 0, 0, 0, 0, 0, 1]);
const SIZE_BYTES = 4;
/**
 * The longest run state that is taken, bytes. QEMU's longest have 14: "finish-migrate", "guest-panicked",
 * "internal-error".
 */
const TEXT_BYTES_MAX = 32;

export class GlobalState {
  /** The run state as `query-status` names it; undefined until it was found. */
  runState: string | undefined;
  /** How many bytes of the head and the size have come. */
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
