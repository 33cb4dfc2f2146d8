/** A transfer stream inside one process, for tests. It does what grpc-channel.ts does, without a network or a copy. */
import { MigrationFault } from "../../shared/fault.ts";
import type { Channel, DestinationChannel, SourceChannel } from "../../shared/link/link.ts";
import type { DestinationMessage, SourceMessage } from "../../shared/protocol/stream-messages.ts";
import { deferred } from "../../shared/runtime/deferred.ts";

export interface MemoryTransferOptions {
  /** From this many undelivered messages on, send() returns false. @default 16, as with the streams of grpc-js */
  readonly capacityMessages?: number;
}

export interface MemoryTransfer {
  readonly source: SourceChannel;
  readonly destination: DestinationChannel;
  /** Breaks the network: both ends see `peer-lost`, and the messages on their way are lost. */
  cut(): void;
}

const CAPACITY_MESSAGES = 16;

/**
 * Opens a stream. The messages of each end are delivered in turns of the event loop, and `taken` is called when the
 * receiver's handler has returned. As over gRPC, an orderly end of either end is the end of both, after everything that
 * it has sent.
 */
export function memoryTransfer(options: MemoryTransferOptions = {}): MemoryTransfer {
  const capacity = options.capacityMessages ?? CAPACITY_MESSAGES;
  if (!Number.isInteger(capacity) || capacity < 1) throw new RangeError(`capacity of ${capacity} messages`);
  const toDestination = new Lane<SourceMessage>(capacity);
  const toSource = new Lane<DestinationMessage>(capacity);
  const source = new MemoryChannel(toDestination, toSource, "memory:destination", (fault) => fault);
  const destination = new MemoryChannel(toSource, toDestination, "memory:source", lost);
  return {
    source,
    destination,
    cut: () => {
      toDestination.tear(lost());
      toSource.tear(lost());
    },
  };
}

const lost = (): MigrationFault => new MigrationFault("peer-lost", "The peer cut the transfer stream");

interface Queued<Message> {
  readonly message: Message;
  readonly taken: (() => void) | undefined;
}

/** One direction of the stream. `over` settles when the end of the direction was delivered, or when it was torn. */
class Lane<Message> {
  private readonly queue: Queued<Message>[] = [];
  private readonly capacity: number;
  private readonly settled = deferred<MigrationFault | undefined>();
  readonly over = this.settled.promise;
  private room = deferred<void>();
  private handler: ((message: Message) => void) | undefined;
  private onThrow: (thrown: unknown) => void = () => undefined;
  private paused = false;
  private ending = false;
  private closed = false;
  private pumping = false;

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  get isOver(): boolean {
    return this.closed;
  }

  send(message: Message, taken?: () => void): boolean {
    if (this.ending || this.closed) {
      taken?.();
      return true;
    }
    this.queue.push({ message, taken });
    this.pump();
    return this.queue.length < this.capacity;
  }

  drained(): Promise<void> {
    return this.queue.length < this.capacity || this.closed ? Promise.resolve() : this.room.promise;
  }

  receive(handler: (message: Message) => void, onThrow: (thrown: unknown) => void): void {
    this.handler = handler;
    this.onThrow = onThrow;
    this.pump();
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
    this.pump();
  }

  /** Ends the direction: no more is sent, and the end is delivered after everything that was sent. */
  end(): void {
    this.ending = true;
    this.pump();
  }

  /** Ends the direction at once. Messages that were not delivered are lost. */
  tear(fault: MigrationFault): void {
    if (this.closed) return;
    this.closed = true;
    for (const { taken } of this.queue.splice(0)) taken?.();
    this.room.resolve();
    this.settled.resolve(fault);
  }

  private pump(): void {
    if (this.pumping) return;
    this.pumping = true;
    // messages are delivered in a turn of their own, as those from a network are, so that two ends that answer each
    // other starve nothing else
    setImmediate(() => {
      this.deliver();
      this.pumping = false;
    });
  }

  private deliver(): void {
    while (!this.paused && !this.closed && this.handler !== undefined) {
      const next = this.queue.shift();
      if (next === undefined) break;
      try {
        this.handler(next.message);
      } catch (thrown) {
        this.onThrow(thrown);
      }
      next.taken?.();
      if (this.queue.length === this.capacity - 1) {
        this.room.resolve();
        this.room = deferred();
      }
    }
    if (!this.ending || this.paused || this.closed || this.queue.length > 0) return;
    this.closed = true;
    this.settled.resolve(undefined);
  }
}

class MemoryChannel<Out, In> implements Channel<Out, In> {
  readonly closed: Promise<MigrationFault | undefined>;
  readonly peer: string;
  expectsEnd: () => boolean = () => true;
  private readonly out: Lane<Out>;
  private readonly in: Lane<In>;
  private readonly outcome = deferred<MigrationFault | undefined>();
  private readonly seenByPeer: (fault: MigrationFault) => MigrationFault;

  /** @param seenByPeer what the peer sees of a fault that tears the stream */
  constructor(out: Lane<Out>, incoming: Lane<In>, peer: string, seenByPeer: (fault: MigrationFault) => MigrationFault) {
    this.out = out;
    this.in = incoming;
    this.peer = peer;
    // this end ends when the peer has ended
    void incoming.over.then((fault) => {
      if (fault !== undefined) return;
      if (this.expectsEnd()) out.end();
      else this.close(new MigrationFault("peer-lost", "The connection ended, and the peer had not said that it would"));
    });
    this.seenByPeer = seenByPeer;
    this.closed = this.outcome.promise;
    void Promise.all([out.over, incoming.over]).then(([sent, received]) => this.outcome.resolve(sent ?? received));
  }

  send(message: Out, taken?: () => void): boolean {
    return this.out.send(message, taken);
  }

  drained(): Promise<void> {
    return this.out.drained();
  }

  receive(handler: (message: In) => void): void {
    this.in.receive(handler, (thrown) => this.close(MigrationFault.from(thrown)));
  }

  pause(): void {
    this.in.pause();
  }

  resume(): void {
    this.in.resume();
  }

  close(fault?: MigrationFault): void {
    if (fault === undefined) {
      this.out.end();
      return;
    }
    if (this.out.isOver && this.in.isOver) return;
    this.outcome.resolve(fault);
    this.out.tear(this.seenByPeer(fault));
    this.in.tear(this.seenByPeer(fault));
  }
}
