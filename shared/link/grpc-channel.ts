/** A transfer stream of gRPC as a Channel (link.ts says what that promises). */
import type { ClientDuplexStream, ServerDuplexStream, ServiceError } from "@grpc/grpc-js";
import { MigrationFault } from "../fault.ts";
import { deferred } from "../runtime/deferred.ts";
import type { Channel } from "./link.ts";
import { fromStatus } from "./status.ts";

/** Either end of a bidirectional call. */
export type Call<Out, In> = ClientDuplexStream<Out, In> | ServerDuplexStream<In, Out>;

export class GrpcChannel<Out, In> implements Channel<Out, In> {
  readonly closed: Promise<MigrationFault | undefined>;
  readonly peer: string;
  private readonly call: Call<Out, In>;
  private readonly tear: (fault: MigrationFault) => void;
  private readonly settled = deferred<MigrationFault | undefined>();
  private handler: ((message: In) => void) | undefined;
  /** Came before receive(); bounded, since the call is paused until then. */
  private readonly early: In[] = [];
  private over = false;

  /** @param tear ends the call with a fault: a server says its status, a client cancels */
  constructor(call: Call<Out, In>, tear: (fault: MigrationFault) => void) {
    this.call = call;
    this.tear = tear;
    this.peer = call.getPeer();
    this.closed = this.settled.promise;
    call.on("data", (message: In) => this.deliver(message));
    call.on("error", (error: ServiceError) => this.settle(fromStatus(error, "peer-lost")));
    call.on("end", () => this.settle(undefined));
    call.on("close", () => this.settle(undefined));
    // a server's call tells of a client that went away only so
    call.on("cancelled", () => this.settle(new MigrationFault("peer-lost", "The peer cut the transfer stream")));
  }

  send(message: Out, taken?: () => void): boolean {
    if (this.over) {
      taken?.();
      return true;
    }
    return this.call.write(message, () => taken?.());
  }

  drained(): Promise<void> {
    if (this.over || !this.call.writableNeedDrain) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        this.call.off("drain", done);
        this.call.off("close", done);
        resolve();
      };
      this.call.once("drain", done);
      this.call.once("close", done);
      void this.closed.then(done);
    });
  }

  receive(handler: (message: In) => void): void {
    this.handler = handler;
    for (const message of this.early.splice(0)) this.deliver(message);
    this.call.resume();
  }

  /** Keeps what comes until the next receive(): the channel changes hands. */
  hold(): void {
    this.handler = undefined;
    this.call.pause();
  }

  pause(): void {
    this.call.pause();
  }

  resume(): void {
    if (this.handler !== undefined) this.call.resume();
  }

  close(fault?: MigrationFault): void {
    if (this.over) return;
    if (fault === undefined) {
      this.call.end();
      return;
    }
    this.tear(fault);
    this.settle(fault);
  }

  private deliver(message: In): void {
    if (this.handler === undefined) {
      this.early.push(message);
      this.call.pause();
      return;
    }
    try {
      this.handler(message);
    } catch (thrown) {
      this.close(MigrationFault.from(thrown));
    }
  }

  private settle(fault: MigrationFault | undefined): void {
    if (this.over) return;
    this.over = true;
    this.settled.resolve(fault);
  }
}
