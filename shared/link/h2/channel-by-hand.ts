/**
 * The dialling end of a transfer stream over the client by hand, which is Ferry's own HTTP/2 client
 * (docs/design/wire.md#the-client-by-hand). This file makes a Channel of a Connection, and has gRPC's rules for calls.
 * link.ts says what a Channel promises. grpc/grpc-channel.ts makes one by grpc-js, with the same faults and texts.
 *
 * Invariants: a message is delivered from the socket's read or from a later turn of the event loop, and never inside a
 * call of the channel's owner; messages that were read wait while the channel is paused, and the orderly end waits
 * behind them.
 */
import { MigrationFault } from "../../fault.ts";
import { deferred } from "../../runtime/deferred.ts";
import { type Channel, QUEUED_MESSAGES_MAX } from "../link.ts";
import type { Dialled } from "../tls/connection-fault.ts";
import { PREFIX_BYTES, putPrefix } from "../wire/message-prefix.ts";
import type { Received } from "../wire/proto-files.ts";
import { streamFault, wasUnexpected } from "../wire/status.ts";
import type { Call, Connection } from "./connection.ts";
import type { HeaderField } from "./hpack.ts";
import { ERROR, NotUnderstood } from "./not-understood.ts";
import { authorityOf } from "./open-socket.ts";
import { type StreamStatus, statusOf, statusOfReset } from "./stream-status.ts";

/** The method that is called. */
interface CalledMethod<Out, In> {
  readonly path: string;
  readonly serialize: (message: Out) => Buffer;
  /** Reads a message whose memory is used again when the receiver of the message returns. */
  readonly deserialize: (bytes: Buffer) => Received<In>;
}

interface ChannelOptions<Out, In> {
  readonly method: CalledMethod<Out, In>;
  readonly dialled: Dialled;
  readonly isSecure: boolean;
  /** Called when the peer's bytes were not understood, before the channel closes. */
  readonly onNotUnderstood: (fault: MigrationFault) => void;
}

export class ChannelByHand<Out, In> implements Channel<Out, In> {
  readonly closed: Promise<MigrationFault | undefined>;
  readonly peer: string;
  expectsEnd: () => boolean = () => true;
  private readonly connection: Connection;
  private readonly options: ChannelOptions<Out, In>;
  private readonly outcome = deferred<MigrationFault | undefined>();
  private readonly waiting: (() => void)[] = [];
  private handler: ((message: In) => void) | undefined;
  private paused = false;
  /** True while onTurn() is about to be called, which delivers the messages that wait. */
  private turning = false;
  private phase: "open" | "ending" | "over" = "open";
  private httpStatus: string | undefined;
  /** The status with which the peer has ended the stream in order. The channel closes once all messages are taken. */
  private ended: StreamStatus | undefined;

  constructor(connection: Connection, options: ChannelOptions<Out, In>) {
    this.connection = connection;
    this.options = options;
    this.peer = options.dialled.address;
    this.closed = this.outcome.promise;
    connection.open(this.makeCall(), this.request());
  }

  send(message: Out, taken?: () => void): boolean {
    if (this.phase !== "open") {
      taken?.();
      return true;
    }
    const { outbox } = this.connection;
    if (outbox.length >= QUEUED_MESSAGES_MAX) {
      this.close(
        new MigrationFault("peer-lost", `The peer does not read: ${QUEUED_MESSAGES_MAX} messages wait for it`),
      );
      taken?.();
      return true;
    }
    outbox.push(this.prefixed(message));
    // the outbox has a copy, so the sender may use its buffers again, but the sender is not called back inside its call
    if (taken !== undefined) queueMicrotask(taken);
    return this.connection.hasRoom;
  }

  drained(): Promise<void> {
    if (this.phase !== "open" || this.connection.hasRoom) return Promise.resolve();
    return new Promise((resolve) => this.waiting.push(resolve));
  }

  receive(handler: (message: In) => void): void {
    this.handler = handler;
    this.resume();
  }

  pause(): void {
    this.paused = true;
    this.connection.inbox.hold();
  }

  resume(): void {
    if (this.handler === undefined) return;
    this.paused = false;
    if (this.turning) return;
    this.turning = true;
    process.nextTick(this.onTurn);
  }

  close(fault?: MigrationFault): void {
    if (this.phase === "over") return;
    if (fault !== undefined) {
      this.settle(fault);
      this.connection.leave(ERROR.cancel);
    } else if (this.phase === "open") {
      this.phase = "ending";
      this.connection.outbox.end();
    }
  }

  /** Delivers the messages that wait. resume() schedules it, so that it runs outside of every call of the owner. */
  private readonly onTurn = (): void => {
    this.turning = false;
    if (this.paused || this.phase === "over") return;
    if (this.connection.guard(() => this.connection.inbox.release())) this.settleWhenTaken();
  };

  private makeCall(): Call {
    return {
      message: (bytes) => this.deliver(bytes),
      headers: (fields, endsStream) => this.takeHeaders(fields, endsStream),
      ended: () => this.end(statusOf([], this.httpStatus)),
      reset: (errorCode) => this.end(statusOfReset(errorCode)),
      drained: () => this.wake(),
      over: (why) => this.takeEnd(why),
    };
  }

  private request(): readonly HeaderField[] {
    return [
      [":method", "POST"],
      [":scheme", this.options.isSecure ? "https" : "http"],
      [":path", this.options.method.path],
      [":authority", authorityOf(this.peer)],
      ["te", "trailers"],
      ["content-type", "application/grpc"],
      ["user-agent", "ferry"],
      ["grpc-accept-encoding", "identity"],
    ];
  }

  private prefixed(message: Out): Buffer {
    const bytes = this.options.method.serialize(message);
    const whole = Buffer.allocUnsafe(PREFIX_BYTES + bytes.length);
    putPrefix(whole);
    whole.set(bytes, PREFIX_BYTES);
    return whole;
  }

  private deliver(bytes: Buffer): void {
    if (this.phase === "over" || this.handler === undefined) return;
    try {
      const message = this.options.method.deserialize(bytes);
      if (message instanceof MigrationFault) throw message;
      this.handler(message);
    } catch (thrown) {
      this.close(MigrationFault.from(thrown));
    }
  }

  private takeHeaders(fields: readonly HeaderField[], endsStream: boolean): void {
    const status = fields.find(([name]) => name === ":status")?.[1];
    if (endsStream) {
      this.httpStatus ??= status;
      this.end(statusOf(fields, this.httpStatus));
      return;
    }
    // a status of 100 to 199 stands ahead of the real one
    if (status?.startsWith("1")) return;
    if (this.httpStatus !== undefined || status === undefined)
      throw new NotUnderstood(status === undefined ? "headers without a status" : "headers twice");
    this.httpStatus = status;
    // only a proxy answers with a status other than 200, and its page follows in place of messages
    if (status !== "200") this.end(statusOf(fields, status));
  }

  /** The peer has ended the stream. */
  private end(status: StreamStatus): void {
    const { connection } = this;
    if (status.isOk && connection.inbox.isWithinMessage) throw new NotUnderstood("a stream that ends within a message");
    connection.leave(ERROR.none);
    if (status.isOk) {
      this.ended = status;
      this.settleWhenTaken();
    } else this.takeEnd(status);
  }

  /** Closes the channel in order, once everything that came before the end was taken. */
  private settleWhenTaken(): void {
    const { ended, connection } = this;
    if (ended === undefined || this.paused || this.handler === undefined || this.turning) return;
    if (connection.inbox.hasWaiting) return;
    const wasCut = wasUnexpected(ended.metadata);
    this.settle(
      wasCut
        ? new MigrationFault("peer-lost", "The connection was cut between the hosts; the source saw it end in order")
        : undefined,
    );
  }

  /** Closes the channel with the fault for which `why` stands. */
  private takeEnd(why: StreamStatus | MigrationFault): void {
    if (why instanceof NotUnderstood && this.phase !== "over") this.options.onNotUnderstood(why);
    this.settle(why instanceof MigrationFault ? why : streamFault(why, this.options.dialled));
  }

  private settle(fault: MigrationFault | undefined): void {
    if (this.phase === "over") return;
    this.phase = "over";
    this.connection.inbox.stop();
    this.outcome.resolve(fault);
    this.wake();
  }

  private wake(): void {
    for (const resolve of this.waiting.splice(0)) resolve();
  }
}
