/**
 * A transfer stream that outlives its connections (docs/design/link-and-resume.md). Frames and control messages are
 * numbered by their order, in each direction. When there is a connection again, each end says how many messages it has
 * received, and the other end goes on after them. So each message is delivered once and in order, whatever the link
 * does. Messages that matter only at their moment (probes, pings, acknowledgements) are not repeated.
 *
 * Only what an agent says ends the stream: the *last message* of either end (isLast), after which that end says nothing
 * more, or a refusal by the end that was dialled. A connection that ends without such a message was cut, whether it
 * ended in order or was torn, and whether one of the ends or something between them ended it
 * (docs/design/link-and-resume.md#what-ends-a-stream).
 *
 * Not its job: what a message means, and whether a repeated message would do harm, since none is delivered twice.
 */
import { MigrationFault } from "../../fault.ts";
import { type Clock, systemClock, type Timer } from "../../runtime/clock.ts";
import { type Deferred, deferred } from "../../runtime/deferred.ts";
import type { Channel } from "../link.ts";
import { type Interruptions, Outages } from "./outages.ts";

export interface ResumeOptions {
  /**
   * How long the link may be down before the stream is given up, milliseconds. The time does not run before the first
   * connection.
   */
  readonly patienceMs: number;
  /** The address of the peer, for messages. */
  readonly peer: string;
  /**
   * How late a cut may be noticed, milliseconds. A cut counts from when the peer was last heard, but from no earlier
   * than this long before the cut was noticed.
   * @default 0: a cut counts from when it is noticed
   */
  readonly noticedWithinMs?: number;
  /** @default systemClock */
  readonly clock?: Clock;
}

/**
 * How long this end tries to deliver its last message, milliseconds. A source that has missed the last message of its
 * destination asks by the call Settle what became of the migration.
 */
const LINGERS_MS = 60_000;

export abstract class ResumingChannel<Out, In> implements Channel<Out, In> {
  readonly closed: Promise<MigrationFault | undefined>;
  readonly peer: string;
  protected readonly clock: Clock;
  /** Called when a connection was lost, and when there is one again, but not for the first connection. */
  onChange: (connected: boolean) => void = () => undefined;
  /** How many control messages and frames were delivered here, over all connections. */
  protected received = 0;
  /** The connection that was adopted last. What comes over an earlier connection is ignored. */
  protected current: Channel<Out, In> | undefined;
  /**
   * The connection over which messages are sent: the newest one, once the peer has said over it what it has received.
   * Undefined while there is none.
   */
  protected raw: Channel<Out, In> | undefined;
  protected over = false;
  /**
   * True once this side has sent its last message. The stream is over when the peer has received it, or dials no more.
   */
  protected ending = false;
  /** True once the peer's last message has come. However its connection ends from then on, the stream is over. */
  protected peerEnded = false;
  /** True once a message of the peer has caused a fault: nothing more is taken. */
  private poisoned = false;
  /** Messages that were sent and perhaps not received. The message at index 0 has the number `confirmed` + 1. */
  protected readonly said: Out[] = [];
  private confirmed = 0;
  private readonly outcome = deferred<MigrationFault | undefined>();
  private handler: ((message: In) => void) | undefined;
  private waiting: Deferred<void> | undefined;
  private paused = false;
  private patience: number;
  private readonly outages: Outages;
  private lastLoss: MigrationFault | undefined;
  private timer: Timer | undefined;

  constructor(options: ResumeOptions) {
    this.peer = options.peer;
    this.clock = options.clock ?? systemClock;
    this.patience = options.patienceMs;
    this.outages = new Outages(options.noticedWithinMs ?? 0);
    this.closed = this.outcome.promise;
  }

  /** True while the stream is not over and has no connection. */
  get isCut(): boolean {
    return this.raw === undefined && !this.over;
  }

  get isOver(): boolean {
    return this.over;
  }

  /** How many messages are kept because the peer may not have received them. */
  get keptMessages(): number {
    return this.said.length;
  }

  /** How long there has been no connection, milliseconds; 0 while there is one. */
  get downForMs(): number {
    return this.outages.downForMs(this.clock.monotonicMs());
  }

  /** How many connections were lost so far, and for how long there was none. */
  get interruptions(): Interruptions {
    return this.outages.interruptions(this.clock.monotonicMs());
  }

  /** Sets another patience, milliseconds, also for a cut that lasts already. Infinity means for ever. */
  setPatience(ms: number): void {
    this.patience = ms;
    if (this.outages.isDown && !this.ending) this.arm(ms - this.downForMs);
  }

  send(message: Out, taken?: () => void): boolean {
    if (this.over || this.ending) {
      taken?.();
      return true;
    }
    if (!this.isKept(message)) {
      if (this.raw !== undefined) return this.raw.send(message, taken);
      taken?.();
      return false;
    }
    const kept = this.keep(message);
    this.said.push(kept);
    const more = this.raw?.send(kept) ?? false;
    // what was kept does not need the sender's buffers any more, but the sender is not called back inside its own call
    if (taken !== undefined) queueMicrotask(taken);
    return more;
  }

  drained(): Promise<void> {
    if (this.over) return Promise.resolve();
    if (this.raw !== undefined) return this.raw.drained();
    this.waiting ??= deferred();
    return this.waiting.promise;
  }

  receive(handler: (message: In) => void): void {
    this.handler = handler;
    if (this.raw !== undefined) this.listen(this.raw);
  }

  pause(): void {
    this.paused = true;
    this.raw?.pause();
  }

  resume(): void {
    this.paused = false;
    this.raw?.resume();
  }

  /**
   * Without a fault, the newest message that was sent is this end's last message. It still goes out, over a new
   * connection too where this end dials, and the stream is over when the peer has received it. With a fault, the stream
   * is over at once.
   */
  close(fault?: MigrationFault): void {
    if (fault !== undefined) this.settle(fault);
    if (this.over) return;
    if (!this.ending) {
      this.ending = true;
      this.raw?.close();
      this.arm(this.raw === undefined ? Math.min(this.patience, LINGERS_MS) : LINGERS_MS);
    }
    if (this.raw === undefined && !this.mayLinger) this.settle(undefined);
  }

  /** True for a message that is numbered, and sent again when it may not have arrived. */
  protected abstract isKept(message: Out): boolean;
  /** Returns the message in a form that stays valid until the peer has received it. */
  protected abstract keep(message: Out): Out;
  /** Gives up what keep() has returned. */
  protected abstract forget(message: Out): void;
  /** True for a message of the peer that is numbered. */
  protected abstract counts(message: In): boolean;
  /** True for a message after which its sender says nothing more. */
  protected abstract isLast(message: In): boolean;
  /**
   * Takes what a message says of the connection itself, such as a welcome or an acknowledgement.
   * @returns true if the message says nothing else, so that it is not delivered
   */
  protected abstract takeOwn(message: In): boolean;

  /**
   * Notes that there is a connection, over which the peer has said that it received `received` messages. Later messages
   * are sent again.
   * @throws MigrationFault `peer-invalid` when the peer cannot have received so many
   */
  protected connected(raw: Channel<Out, In>, received: number): void {
    this.confirmReceived(received);
    // this connection takes the place of one whose loss was not noticed yet
    if (this.raw !== undefined) this.noteCut();
    this.raw = raw;
    if (!this.ending) this.clock.cancel(this.timer);
    const again = this.outages.end(this.clock.monotonicMs());
    for (const message of this.said) raw.send(message);
    // this end's last message was sent again with the others
    if (this.ending) raw.close();
    if (again) this.onChange(true);
    this.waiting?.resolve();
    this.waiting = undefined;
  }

  /**
   * Begins the stream again, with message 1 in both directions. Messages that were sent and not received are not sent
   * again.
   */
  protected restart(): void {
    for (const message of this.said.splice(0)) this.forget(message);
    this.received = 0;
    this.confirmed = 0;
  }

  /**
   * Takes what the peer says about how many messages it has received.
   * @throws MigrationFault `peer-invalid` when the peer says that more messages came than were sent, or fewer than
   *   were confirmed before; the stream is over then
   */
  protected confirmReceived(received: number): void {
    const all = this.confirmed + this.said.length;
    if (received < this.confirmed || received > all) {
      const lie = `The peer says that it received ${received} messages; ${all} were sent, ${this.confirmed} of them acknowledged before`;
      const fault = new MigrationFault("peer-invalid", lie);
      this.settle(fault);
      throw fault;
    }
    this.confirm(received);
  }

  /** Notes that the messages up to the number `upTo` were received. */
  protected confirm(upTo: number): void {
    while (this.confirmed < upTo && this.said.length > 0) {
      this.forget(this.said.shift()!);
      this.confirmed++;
    }
  }

  /** The number of the oldest message that is kept. */
  protected get oldest(): number {
    return this.confirmed + 1;
  }

  /** Makes `raw` the current connection: starts delivery from it, and watches for its end. */
  protected adopt(raw: Channel<Out, In>): void {
    this.current = raw;
    raw.expectsEnd = () => this.peerEnded || this.ending;
    void raw.closed.then((fault) => this.lost(raw, fault));
    if (this.handler !== undefined) this.listen(raw);
  }

  /** Called when a connection is lost and the stream is not over. */
  protected onLost(): void {}

  /** True when this end dials again to deliver its last message, which may not have arrived. */
  protected lingers(): boolean {
    return false;
  }

  /** True if an agent has ended the stream with this fault. */
  protected isFinal(fault: MigrationFault): boolean {
    return fault.code !== "peer-lost";
  }

  protected settle(fault: MigrationFault | undefined): void {
    if (this.over) return;
    this.over = true;
    this.clock.cancel(this.timer);
    this.current?.close(fault ?? new MigrationFault("peer-lost", "The transfer stream is over"));
    this.raw = undefined;
    for (const message of this.said.splice(0)) this.forget(message);
    this.outcome.resolve(fault);
    this.waiting?.resolve();
  }

  private listen(raw: Channel<Out, In>): void {
    raw.receive((message) => this.take(raw, message));
    if (this.paused) raw.pause();
  }

  private take(raw: Channel<Out, In>, message: In): void {
    if (raw !== this.current || this.over || this.poisoned) return;
    this.outages.heard(this.clock.monotonicMs());
    try {
      if (this.takeOwn(message)) return;
      if (this.counts(message)) this.received++;
      if (this.isLast(message)) this.peerEnded = true;
      this.handler?.(message);
    } catch (thrown) {
      this.poison(MigrationFault.from(thrown));
    }
  }

  /** Takes nothing any more. The connection stays until close(), so that the peer can be told why. */
  private poison(fault: MigrationFault): void {
    this.poisoned = true;
    this.clock.cancel(this.timer);
    this.outcome.resolve(fault);
  }

  private lost(raw: Channel<Out, In>, fault: MigrationFault | undefined): void {
    if (raw !== this.current || this.over) return;
    const final = fault !== undefined && this.isFinal(fault);
    // no fault: the connection has ended in order, so the peer has received everything that was sent over it
    const taken = fault === undefined && raw === this.raw;
    if (this.peerEnded || (this.ending && (final || taken || !this.mayLinger))) this.settle(undefined);
    if (final || this.poisoned) this.settle(fault);
    if (this.over) return;
    this.lastLoss = fault;
    if (this.raw !== undefined) {
      this.raw = undefined;
      this.noteCut();
      this.arm(this.ending ? Math.min(this.patience, LINGERS_MS) : this.patience - this.downForMs);
    }
    this.onLost();
  }

  /** False for a channel that takes nothing any more, since it would not take the welcome of a new connection. */
  private get mayLinger(): boolean {
    return this.lingers() && !this.poisoned;
  }

  private noteCut(): void {
    this.outages.begin(this.clock.monotonicMs());
    this.onChange(false);
  }

  private arm(ms: number): void {
    this.clock.cancel(this.timer);
    if (!Number.isFinite(ms)) return;
    const over = (): void => this.settle(this.ending ? undefined : this.tooLong());
    this.timer = this.clock.after(Math.max(0, ms), over);
    // a last message that is still to be delivered does not keep the program running
    if (this.ending) this.timer.unref();
  }

  private tooLong(): MigrationFault {
    const { peer, patience, lastLoss } = this;
    const seen = lastLoss === undefined ? "" : `; the last try: ${lastLoss.message}`;
    return new MigrationFault("peer-lost", `The link to ${peer} was down for too long (${patience} ms)${seen}`, {
      advice: "See that the network between the hosts and both agents are up, then migrate again",
      cause: lastLoss,
    });
  }
}
