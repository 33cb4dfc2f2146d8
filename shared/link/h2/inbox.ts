/**
 * Assembles gRPC's messages from the data of the stream, each whole and contiguous in a *slot*: a buffer that is used
 * again and again. A message that comes while messages are taken is handed on at once, in its slot. While none are
 * taken, messages wait in slots of their own.
 *
 *     data ──copy──> slot ──(taken now)──────────────> taker, until it returns
 *                      └──(held)──> waiting ──resume──> taker, until it returns; the slot is free again
 *
 * The receive window bounds what waits, since bytes that wait are not given back to the sender's window
 * (receive-window.ts). So all slots together have some 2 x the window and one message at most.
 *
 * Invariants: the length of a message is checked before anything is allocated for it; a message is handed on once, in
 * order, and never while another one is being handed on; nothing is handed on while held, or after stop().
 */
import { MigrationFault } from "../../fault.ts";
import { PREFIX_BYTES } from "../wire/message-prefix.ts";
import { NotUnderstood } from "./not-understood.ts";

/** The smallest slot, bytes. Sizes are powers of two, so that frames of changing lengths need no new slots. */
const SLOT_BYTES_MIN = 64 << 10;
/**
 * The most messages that wait. Bytes are bounded by the window, but a message of a few bytes takes some hundred bytes
 * of memory. An honest source sends tens of small messages a second.
 */
const WAITING_MAX = 65_536;
/** The list of messages that wait is shortened once this many messages at its beginning were handed on. */
const FORGOTTEN_MIN = 1024;

const NONE = Buffer.alloc(0);

/** What the inbox tells. */
interface InboxTaker {
  /** Takes a whole message, which is valid until the call returns. */
  message(bytes: Buffer): void;
  /** So many bytes of the stream are not kept any more. */
  consumed(bytes: number): void;
}

interface Waiting {
  readonly message: Buffer;
  /** The slot in which the message lies; undefined for a short message, which is a copy. */
  readonly slot: Buffer | undefined;
}

export class Inbox {
  private readonly taker: InboxTaker;
  private readonly messageBytesMax: number;
  private readonly prefix = Buffer.alloc(PREFIX_BYTES);
  private prefixBytes = 0;
  /** The slot of the message that is coming. */
  private slot: Buffer = NONE;
  private length = 0;
  private filled = 0;
  private readonly free: Buffer[] = [];
  private waiting: Waiting[] = [];
  /** The index of the first message that waits. */
  private first = 0;
  /** How many bytes of the stream have come and were not reported by consumed() yet. */
  private owed = 0;
  private held = true;
  private stopped = false;

  constructor(taker: InboxTaker, messageBytesMax: number) {
    this.taker = taker;
    this.messageBytesMax = messageBytesMax;
  }

  /** True when a part of a message has come. */
  get isWithinMessage(): boolean {
    return this.prefixBytes > 0;
  }

  /** True when a whole message waits. */
  get hasWaiting(): boolean {
    return this.first < this.waiting.length;
  }

  /** Keeps what comes from now on. */
  hold(): void {
    this.held = true;
  }

  /** Hands on what waits, and then what comes. It must not be called while a message is being handed on. */
  release(): void {
    this.held = false;
    while (!this.held && !this.stopped && this.hasWaiting) this.handOnNext();
    if (!this.held) this.pay();
  }

  /** Forgets everything: nothing is handed on any more. */
  stop(): void {
    this.stopped = true;
    this.waiting = [];
    this.free.length = 0;
    this.slot = NONE;
  }

  /**
   * Takes data of the stream.
   * @throws MigrationFault `peer-invalid` for a message that is too long, `peer-lost` for too many that wait
   */
  take(bytes: Buffer, from: number, to: number): void {
    this.owed += to - from;
    let at = from;
    while (at < to && !this.stopped) {
      if (this.prefixBytes < PREFIX_BYTES) {
        this.prefix[this.prefixBytes++] = bytes[at++]!;
        if (this.prefixBytes === PREFIX_BYTES) this.begin();
      } else {
        const end = at + Math.min(this.length - this.filled, to - at);
        bytes.copy(this.slot, this.filled, at, end);
        this.filled += end - at;
        at = end;
      }
      if (this.prefixBytes === PREFIX_BYTES && this.filled === this.length) this.finish();
    }
    if (!this.held) this.pay();
  }

  /** Begins a message whose prefix has come. */
  private begin(): void {
    const { prefix, messageBytesMax } = this;
    if (prefix[0] !== 0) throw new NotUnderstood("a compressed message, which was not asked for");
    this.length = prefix.readUInt32BE(1);
    if (this.length > messageBytesMax)
      throw new MigrationFault(
        "peer-invalid",
        `Received message larger than max (${this.length} vs ${messageBytesMax})`,
      );
    this.filled = 0;
    if (this.slot.length >= this.length) return;
    let size = SLOT_BYTES_MIN;
    while (size < this.length) size *= 2;
    this.slot = Buffer.allocUnsafeSlow(Math.max(this.length, Math.min(size, messageBytesMax)));
  }

  private finish(): void {
    this.prefixBytes = 0;
    const message = this.slot.subarray(0, this.length);
    if (!this.held && !this.hasWaiting) {
      this.taker.message(message);
      return;
    }
    if (this.waiting.length - this.first >= WAITING_MAX)
      throw new MigrationFault("peer-lost", `More than ${WAITING_MAX} messages of the source wait to be taken`);
    if (message.length * 2 <= this.slot.length) this.waiting.push({ message: Buffer.from(message), slot: undefined });
    else {
      this.waiting.push({ message, slot: this.slot });
      this.slot = this.free.pop() ?? NONE;
    }
  }

  private handOnNext(): void {
    const { message, slot } = this.waiting[this.first++]!;
    // the places of messages that were handed on are given up, now and then
    if (!this.hasWaiting || this.first >= FORGOTTEN_MIN) {
      this.waiting = this.waiting.slice(this.first);
      this.first = 0;
    }
    this.taker.message(message);
    if (slot !== undefined && !this.stopped) this.free.push(slot);
    const bytes = Math.min(this.owed, PREFIX_BYTES + message.length);
    this.owed -= bytes;
    this.taker.consumed(bytes);
  }

  /**
   * Reports all bytes that came and were not reported yet, those of a message that is still coming included. While a
   * message waits, nothing is reported.
   */
  private pay(): void {
    if (this.owed === 0 || this.hasWaiting) return;
    const { owed } = this;
    this.owed = 0;
    this.taker.consumed(owed);
  }
}
