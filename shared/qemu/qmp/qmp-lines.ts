/**
 * Makes QMP messages of the bytes of a monitor's socket: each line is a JSON object (docs/interop/qmp-spec.rst of
 * QEMU). The bytes may come in any pieces, and memory is bounded. A newline byte never stands inside a UTF-8 sequence,
 * so lines are cut before they are decoded, and a character may arrive in pieces.
 */
import { MigrationFault } from "../../fault.ts";

/**
 * The longest line that is taken, bytes. QEMU's longest answers (`info mtree` of a large guest) stay below 1 MiB, so a
 * longer line does not come from a monitor.
 */
export const LINE_MAX_BYTES = 4 * 1024 * 1024;

const NEWLINE = 0x0a;
/** The most characters of a text of QEMU in the message of a fault. */
const EXCERPT_CHARACTERS = 1000;
/** The size of the buffer for a line at first, bytes. Most lines fit. */
const FIRST_BYTES = 4096;

/** A message of QEMU before it is known of which kind it is. */
export interface QmpMessage {
  readonly QMP?: null | {
    readonly version?: { readonly qemu?: Record<string, unknown>; readonly package?: unknown };
    readonly capabilities?: unknown;
  };
  readonly id?: unknown;
  readonly return?: unknown;
  readonly error?: null | { readonly class?: unknown; readonly desc?: unknown };
  readonly event?: unknown;
  readonly data?: Record<string, unknown> | null;
  readonly timestamp?: Partial<Record<"seconds" | "microseconds", unknown>> | null;
}

export class QmpLines {
  private readonly decoder = new TextDecoder("utf-8", { fatal: true });
  /**
   * The buffer for the line so far. Its size doubles when it is full, so the time for copying grows with the length of
   * the line, and not with the number of the pieces in which the line comes.
   */
  private line = new Uint8Array(FIRST_BYTES);
  private length = 0;

  /** Hands each message that the chunk completes to `take`. @throws MigrationFault `qmp-protocol` */
  push(chunk: Uint8Array, take: (message: QmpMessage) => void): void {
    let from = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, from)) {
      const line = this.finishLine(chunk.subarray(from, end));
      from = end + 1;
      if (line !== "") take(parse(line));
    }
    if (from < chunk.length) this.keep(chunk.subarray(from));
  }

  private keep(piece: Uint8Array): void {
    const needed = this.length + piece.length;
    if (needed > LINE_MAX_BYTES)
      throw new MigrationFault("qmp-protocol", `QEMU's monitor sent a line of more than ${LINE_MAX_BYTES} bytes`);
    if (needed > this.line.length) {
      const longer = new Uint8Array(Math.max(needed, 2 * this.line.length));
      longer.set(this.line.subarray(0, this.length));
      this.line = longer;
    }
    this.line.set(piece, this.length);
    this.length = needed;
  }

  private finishLine(last: Uint8Array): string {
    this.keep(last);
    const line = this.line.subarray(0, this.length);
    this.length = 0;
    // a long answer is rare: its memory is not kept for the next line
    if (this.line.length > FIRST_BYTES) this.line = new Uint8Array(FIRST_BYTES);
    try {
      return this.decoder.decode(line).trim();
    } catch (cause) {
      throw new MigrationFault("qmp-protocol", "QEMU's monitor sent a line that is not UTF-8", { cause });
    }
  }
}

function parse(line: string): QmpMessage {
  let message: QmpMessage | null;
  try {
    message = JSON.parse(line);
  } catch (cause) {
    throw new MigrationFault("qmp-protocol", `QEMU's monitor sent a line that is not JSON: ${excerpt(line)}`, {
      cause,
    });
  }
  if (typeof message !== "object" || message === null)
    throw new MigrationFault("qmp-protocol", `QEMU's monitor sent a line that is not a JSON object: ${excerpt(line)}`);
  return message;
}

/** Cuts a text of QEMU for a fault's message, which goes to logs and operators. A line may have 4 MiB. */
export function excerpt(text: string): string {
  return text.length > EXCERPT_CHARACTERS ? `${text.slice(0, EXCERPT_CHARACTERS)}…` : text;
}
