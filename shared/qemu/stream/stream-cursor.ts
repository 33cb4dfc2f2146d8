/**
 * A place in QEMU's stream, and in the window of memory that holds the part of the stream that has come. The cursor
 * reads fields at this place, and makes faults that name it. All integers are big-endian. Nothing but names is copied.
 */
import { MigrationFault } from "../../fault.ts";

/** Sizes and offsets must be below this, bytes, and so are exact as numbers. No guest has 4 PiB. */
const INTEGER_LIMIT = 2 ** 52;

export class StreamCursor {
  readonly memory: Uint8Array;
  readonly view: DataView;
  /** Address of the next byte. */
  at = 0;
  /** Address after the last byte that is there. */
  limit = 0;
  /** The position in the stream minus the address. */
  private origin = 0;

  constructor(memory: Uint8Array) {
    this.memory = memory;
    this.view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
  }

  /** Moves to [start, limit), where the bytes from the present position on lie now. */
  enter(start: number, limit: number): void {
    this.origin = this.position - start;
    this.at = start;
    this.limit = limit;
  }

  /** How many bytes of the stream come before the next byte. */
  get position(): number {
    return this.origin + this.at;
  }

  has(bytes: number): boolean {
    return this.limit - this.at >= bytes;
  }

  /** Reads a be64. @throws MigrationFault `stream-invalid` for a size that no guest has */
  uint64(at: number): number {
    const value = this.view.getUint32(at) * 2 ** 32 + this.view.getUint32(at + 4);
    if (value >= INTEGER_LIMIT) throw this.invalid(`0x${value.toString(16)} as a length`);
    return value;
  }

  text(at: number, length: number): string {
    return Buffer.from(this.memory.buffer, this.memory.byteOffset + at, length).toString("latin1");
  }

  /** Reads a name: a byte with the length, then the text. @returns undefined when it is not all there */
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
