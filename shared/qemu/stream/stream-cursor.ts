/**
 * A place in QEMU's stream and in the window of memory that holds what came of it; reads fields, names faults.
 * All integers big-endian. Nothing is copied but names.
 */
import { MigrationFault } from "../../fault.ts";

/** Sizes and offsets stay exact as numbers below this; no guest has 4 PiB. */
const INTEGER_LIMIT = 2 ** 52;

export class StreamCursor {
  readonly memory: Uint8Array;
  readonly view: DataView;
  /** Address of the next byte. */
  at = 0;
  /** Address behind the last byte that is there. */
  limit = 0;
  /** Position in the stream less address. */
  private origin = 0;

  constructor(memory: Uint8Array) {
    this.memory = memory;
    this.view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
  }

  /** Moves to [start, limit), where the bytes from the present position on are now. */
  enter(start: number, limit: number): void {
    this.origin = this.position - start;
    this.at = start;
    this.limit = limit;
  }

  /** Bytes from the start of the stream. */
  get position(): number {
    return this.origin + this.at;
  }

  has(bytes: number): boolean {
    return this.limit - this.at >= bytes;
  }

  /** @throws MigrationFault `stream-invalid` for what no guest has */
  uint64(at: number): number {
    const value = this.view.getUint32(at) * 2 ** 32 + this.view.getUint32(at + 4);
    if (value >= INTEGER_LIMIT) throw this.invalid(`0x${value.toString(16)} as a length`);
    return value;
  }

  text(at: number, length: number): string {
    return Buffer.from(this.memory.buffer, this.memory.byteOffset + at, length).toString("latin1");
  }

  /** The text at `at` with its length in one byte, or undefined when it is not all there. */
  name(at: number): string | undefined {
    if (at >= this.limit) return undefined;
    const length = this.memory[at]!;
    return at + 1 + length > this.limit ? undefined : this.text(at + 1, length);
  }

  invalid(what: string): MigrationFault {
    return new MigrationFault("stream-invalid", `QEMU's stream has ${what} (at byte ${this.position})`);
  }

  unsupported(what: string): MigrationFault {
    const message = `QEMU's stream has ${what}, which Ferry does not carry (at byte ${this.position})`;
    return new MigrationFault("stream-unsupported", message);
  }
}
