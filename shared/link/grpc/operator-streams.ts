/**
 * Bounds how many calls may stream the views of a migration to operators at the same time. Each such stream has a timer
 * and room for some views.
 */
import type { ServerWritableStream } from "@grpc/grpc-js";
import { MigrationFault } from "../../fault.ts";

/** The most streams of views that an agent serves at the same time, where its options do not say it. */
export const OPERATOR_STREAMS_MAX = 64;

export class OperatorStreams {
  private readonly max: number;
  private readonly open = new Set<object>();

  constructor(max: number) {
    this.max = max;
  }

  /** Counts a stream until it has ended. @throws MigrationFault `busy` when there are too many */
  admit<Request, Response>(call: ServerWritableStream<Request, Response>): void {
    if (this.open.size >= this.max)
      throw new MigrationFault("busy", `${this.max} operators watch this agent already (operators.maxStreams)`, {
        advice: "End a watch, or ask with ferry list; a migration needs nobody who watches it",
      });
    this.open.add(call);
    const gone = (): void => void this.open.delete(call);
    // a stream is read to its end, or left by its client, or ended by a fault of its call
    call.once("finish", gone);
    call.once("cancelled", gone);
    call.once("error", gone);
  }
}
