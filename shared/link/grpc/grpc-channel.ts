/** Makes a Channel of a bidirectional gRPC call. link.ts says what a Channel promises. */
import type { ClientDuplexStream, ServerDuplexStream, ServiceError, StatusObject } from "@grpc/grpc-js";
import { MigrationFault } from "../../fault.ts";
import { deferred } from "../../runtime/deferred.ts";
import { type Channel, QUEUED_MESSAGES_MAX } from "../link.ts";
import type { Dialled } from "../tls/connection-fault.ts";
import type { Received } from "../wire/proto-files.ts";
import { streamFault, toStatus, unexpectedEnd, wasUnexpected } from "../wire/status.ts";

/** Either end of a bidirectional call. */
type Call<Out, In> = ClientDuplexStream<Out, Received<In>> | ServerDuplexStream<Received<In>, Out>;

/** What both ends of a call have in common. The subclasses differ in how a call ends. */
abstract class GrpcChannel<Out, In> implements Channel<Out, In> {
  readonly closed: Promise<MigrationFault | undefined>;
  readonly peer: string;
  expectsEnd: () => boolean = () => true;
  private readonly call: Call<Out, In>;
  private readonly outcome = deferred<MigrationFault | undefined>();
  /**
   * The `taken` callbacks of send() that were not called yet. gRPC forgets the callbacks of a call that fails, so they
   * are kept here too.
   */
  private readonly untaken = new Set<() => void>();
  private readonly waiting: (() => void)[] = [];
  private handler: ((message: In) => void) | undefined;
  private phase: "open" | "ending" | "over" = "open";

  constructor(call: Call<Out, In>, peer: string) {
    this.call = call;
    this.peer = peer;
    this.closed = this.outcome.promise;
    // messages stay with gRPC until receive() is called. gRPC's flow control bounds them only after a first read, which
    // read(0) makes
    call.pause();
    call.read(0);
    call.on("data", (message: Received<In>) => this.deliver(message));
    call.on("drain", () => this.wake());
  }

  send(message: Out, taken?: () => void): boolean {
    if (this.phase !== "open") {
      taken?.();
      return true;
    }
    if (this.call.writableLength >= QUEUED_MESSAGES_MAX) {
      this.close(
        new MigrationFault("peer-lost", `The peer does not read: ${QUEUED_MESSAGES_MAX} messages wait for it`),
      );
      taken?.();
      return true;
    }
    if (taken === undefined) return this.call.write(message);
    const once = (): void => {
      if (this.untaken.delete(once)) taken();
    };
    this.untaken.add(once);
    return this.call.write(message, once);
  }

  drained(): Promise<void> {
    if (this.phase !== "open" || !this.call.writableNeedDrain) return Promise.resolve();
    return new Promise((resolve) => this.waiting.push(resolve));
  }

  receive(handler: (message: In) => void): void {
    this.handler = handler;
    this.call.resume();
  }

  /** Stops delivery, and keeps what comes, until receive() is called again, by the next owner of the channel. */
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
    if (this.phase === "over") return;
    if (fault !== undefined) {
      this.settle(fault);
      this.tear(fault);
    } else if (this.phase === "open") {
      this.phase = "ending";
      this.call.end();
    }
  }

  /** Ends the call at once. */
  protected abstract tear(fault: MigrationFault): void;

  protected get isOpen(): boolean {
    return this.phase === "open";
  }

  protected settle(fault: MigrationFault | undefined): void {
    if (this.phase === "over") return;
    this.phase = "over";
    this.outcome.resolve(fault);
    this.wake();
  }

  /** Calls the callbacks that are left, since gRPC does not touch any buffer any more. */
  protected releaseBuffers(): void {
    for (const once of [...this.untaken]) once();
  }

  private wake(): void {
    for (const resolve of this.waiting.splice(0)) resolve();
  }

  private deliver(message: Received<In>): void {
    if (this.phase === "over" || this.handler === undefined) return;
    try {
      if (message instanceof MigrationFault) throw message;
      this.handler(message);
    } catch (thrown) {
      this.close(MigrationFault.from(thrown));
    }
  }
}

/** The end that dialled. It cannot say why it tears the stream, so its peer sees a stream that was cut. */
export class DiallingChannel<Out, In> extends GrpcChannel<Out, In> {
  private readonly cancel: () => void;

  constructor(call: ClientDuplexStream<Out, Received<In>>, peer: string, dialled?: Dialled) {
    super(call, peer);
    this.cancel = () => call.cancel();
    call.on("error", (error: ServiceError) => this.settle(streamFault(error, dialled)));
    let torn: MigrationFault | undefined;
    call.on("status", ({ metadata }: StatusObject) => {
      if (wasUnexpected(metadata))
        torn = new MigrationFault(
          "peer-lost",
          "The connection was cut between the hosts; the source saw it end in order",
        );
    });
    // "end" comes after the last message and the status; a bad status has come as an "error" before it
    call.on("end", () => this.settle(torn));
    void this.closed.then(() => this.releaseBuffers());
  }

  protected override tear(): void {
    this.cancel();
  }
}

/**
 * The end that was dialled. Its fault becomes the status of the call, which follows the messages that were sent before.
 */
export class ServingChannel<Out, In> extends GrpcChannel<Out, In> {
  private readonly refuse: (fault: MigrationFault) => void;

  constructor(call: ServerDuplexStream<Received<In>, Out>) {
    super(call, call.getPeer());
    this.refuse = (fault) => call.emit("error", toStatus(fault));
    call.on("error", (error) => this.settle(MigrationFault.from(error)));
    // a call that was reset emits "end" too, and may emit "cancelled" in the same turn: setImmediate() lets "cancelled"
    // come first. Other cuts of a connection may look like an orderly end, and peerEnded() tells them apart
    call.on("end", () => setImmediate(() => this.peerEnded(call)));
    // "finish" comes once the status was given to the connection; the "cancelled" that follows has no effect then
    call.on("finish", () => this.settle(undefined));
    call.on("cancelled", () => this.settle(new MigrationFault("peer-lost", "The peer cut the transfer stream")));
    // gRPC still reads what is queued in a torn call, until the call has closed
    call.on("close", () => this.releaseBuffers());
  }

  protected override tear(fault: MigrationFault): void {
    this.refuse(fault);
  }

  private peerEnded(call: ServerDuplexStream<Received<In>, Out>): void {
    if (this.isOpen && !this.expectsEnd()) {
      this.settle(new MigrationFault("peer-lost", "The connection ended, and the peer had not said that it would"));
      call.end(unexpectedEnd());
    } else this.close();
  }
}
