/** The streams of views that operators watch, at most so many for an agent: each has a timer and room for some views. */
import type { ServerWritableStream } from "@grpc/grpc-js";
import { MigrationFault } from "../../fault.ts";

export const OPERATOR_STREAMS_MAX = 64;

export class OperatorStreams {
  private readonly max: number;
  private readonly open = new Set<object>();

  constructor(max: number) {
    this.max = max;
  }

  /** Counts the stream until it has ended. @throws MigrationFault `busy` */
  admit<Request, Response>(call: ServerWritableStream<Request, Response>): void {
    if (this.open.size >= this.max)
      throw new MigrationFault("busy", `${this.max} operators watch this agent already (operators.maxStreams)`, {
        advice: "End a watch, or ask with ferry list; a migration needs nobody who watches it",
      });
    this.open.add(call);
    const gone = (): void => void this.open.delete(call);
    // whichever comes: read to its end, left by the client, refused by a fault of its call
    call.once("finish", gone);
    call.once("cancelled", gone);
    call.once("error", gone);
  }
}
