/**
 * A transfer stream that outlives its connections. Frames and control messages are numbered by their order, in each
 * direction: whoever connects again says how many came, and the other side goes on behind them. So a message is
 * delivered once and in order, whatever the link does; what is only of the moment (probes, pings, acknowledgements) is
 * not repeated.
 *
 * Only what an agent says ends it: a last word of either side (isLast), or the refusal of whoever dials. However a
 * connection ends without one, in order or torn, by either end or by what is between them, it was cut.
 *
 * Not its job: what a message means, and whether a repeated one would do harm: none is delivered twice.
 */
import { MigrationFault } from "../../fault.ts";
import { type Deferred, deferred } from "../../runtime/deferred.ts";
import type { Channel } from "../link.ts";
import { type Interruptions, Outages } from "./outages.ts";

export interface ResumeOptions {
  /** How long the link may be down, milliseconds. */
  readonly patienceMs: number;
  /** Of the peer, for messages. */
  readonly peer: string;
  /**
   * How late a cut is noticed at most, milliseconds. A cut counts from when the peer was last heard.
   * @default 0: a cut counts from when it is noticed
   */
  readonly noticedWithinMs?: number;
}

/** How long this end tries to deliver its last word. A peer that misses the word asks for it. */
const LINGERS_MS = 60_000;

export abstract class ResumingChannel<Out, In> implements Channel<Out, In> {
  readonly closed: Promise<MigrationFault | undefined>;
  readonly peer: string;
  /** Called when the connection was lost, and when there is one again; not at the first. */
  onChange: (connected: boolean) => void = () => undefined;
  /** Control messages and frames that were delivered here, in all connections. */
  protected received = 0;
  /** The connection that counts: adopted last. */
  protected current: Channel<Out, In> | undefined;
  /** The same once the peer has said what it received: messages go this way. */
  protected raw: Channel<Out, In> | undefined;
  protected over = false;
  /** This side has said its last word: the stream is over when the peer has it, or dials no more. */
  protected ending = false;
  /** The peer has said its last word: however its connection ends from now on, the stream is over. */
  protected peerEnded = false;
  private poisoned = false;
  /** Said, and perhaps not received: the one at index 0 has the number `confirmed` + 1. */
  protected readonly said: Out[] = [];
  private confirmed = 0;
  private readonly outcome = deferred<MigrationFault | undefined>();
  private handler: ((message: In) => void) | undefined;
  private waiting: Deferred<void> | undefined;
  private paused = false;
  private patience: number;
  private readonly outages: Outages;
  private lastLoss: MigrationFault | undefined;
  private timer: NodeJS.Timeout | undefined;

  constructor(options: ResumeOptions) {
    this.peer = options.peer;
    this.patience = options.patienceMs;
    this.outages = new Outages(options.noticedWithinMs ?? 0);
    this.closed = this.outcome.promise;
  }

  /** Is there no connection now, of a stream that is not over? */
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
    return this.outages.downForMs(performance.now());
  }

  /** Connections that were lost so far, and for how long there was none. */
  get interruptions(): Interruptions {
    return this.outages.interruptions(performance.now());
  }

  /** Another patience from now on, also for a cut that lasts already. Infinity: for ever. */
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
    // a copy of its own was kept: the sender's is free, but not inside of its call
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
   * Without a fault: what was sent before is the last word. It still goes out, where this end dials also over a new
   * connection, and the stream is over when the peer has it.
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

  /** Is it numbered, and sent again when it may not have come? */
  protected abstract isKept(message: Out): boolean;
  /** The message in a form that stays until it was received. */
  protected abstract keep(message: Out): Out;
  protected abstract forget(message: Out): void;
  protected abstract counts(message: In): boolean;
  /** True for a message after which its sender says nothing more. */
  protected abstract isLast(message: In): boolean;
  /** Of the connection itself; @returns was it one of those? */
  protected abstract takeOwn(message: In): boolean;

  /** A connection is there, and the peer has received `received` messages. @throws MigrationFault `peer-invalid` */
  protected connected(raw: Channel<Out, In>, received: number): void {
    this.confirmReceived(received);
    // one that was replaced before anybody noticed that it was lost
    if (this.raw !== undefined) this.noteCut();
    this.raw = raw;
    if (!this.ending) clearTimeout(this.timer);
    const again = this.outages.end(performance.now());
    for (const message of this.said) raw.send(message);
    // its last word was sent with the others
    if (this.ending) raw.close();
    if (again) this.onChange(true);
    this.waiting?.resolve();
    this.waiting = undefined;
  }

  /** The stream begins anew, with message 1 in both directions: what was said and not received is not said again. */
  protected restart(): void {
    for (const message of this.said.splice(0)) this.forget(message);
    this.received = 0;
    this.confirmed = 0;
  }

  /** The peer says that it has received so many messages. @throws MigrationFault `peer-invalid`, which ends the stream */
  protected confirmReceived(received: number): void {
    const all = this.confirmed + this.said.length;
    if (received < this.confirmed || received > all) {
      const lie = `The peer says that ${received} messages came, of ${all}, ${this.confirmed} of them acknowledged`;
      const fault = new MigrationFault("peer-invalid", lie);
      this.settle(fault);
      throw fault;
    }
    this.confirm(received);
  }

  /** All up to this number were received. */
  protected confirm(upTo: number): void {
    while (this.confirmed < upTo && this.said.length > 0) {
      this.forget(this.said.shift()!);
      this.confirmed++;
    }
  }

  /** Number of the oldest message that is kept. */
  protected get oldest(): number {
    return this.confirmed + 1;
  }

  /** Starts delivery from a connection, which counts from here on, and watches for its end. */
  protected adopt(raw: Channel<Out, In>): void {
    this.current = raw;
    raw.expectsEnd = () => this.peerEnded || this.ending;
    void raw.closed.then((fault) => this.lost(raw, fault));
    if (this.handler !== undefined) this.listen(raw);
  }

  /** Called when a connection is lost and the stream is not over. */
  protected onLost(): void {}

  /** True when this end dials again to deliver a last word that may not have arrived. */
  protected lingers(): boolean {
    return false;
  }

  /** Did an agent end the stream with this? */
  protected isFinal(fault: MigrationFault): boolean {
    return fault.code !== "peer-lost";
  }

  protected settle(fault: MigrationFault | undefined): void {
    if (this.over) return;
    this.over = true;
    clearTimeout(this.timer);
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
    this.outages.heard(performance.now());
    try {
      if (this.takeOwn(message)) return;
      if (this.counts(message)) this.received++;
      if (this.isLast(message)) this.peerEnded = true;
      this.handler?.(message);
    } catch (thrown) {
      this.poison(MigrationFault.from(thrown));
    }
  }

  /** Nothing is taken any more, but the connection stays until close(): the peer is to be told why. */
  private poison(fault: MigrationFault): void {
    this.poisoned = true;
    clearTimeout(this.timer);
    this.outcome.resolve(fault);
  }

  private lost(raw: Channel<Out, In>, fault: MigrationFault | undefined): void {
    if (raw !== this.current || this.over) return;
    const final = fault !== undefined && this.isFinal(fault);
    // in order, over a connection that this side has ended: the peer has all of it
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

  /** A channel that takes nothing any more does not hear whether it is let in. */
  private get mayLinger(): boolean {
    return this.lingers() && !this.poisoned;
  }

  private noteCut(): void {
    this.outages.begin(performance.now());
    this.onChange(false);
  }

  private arm(ms: number): void {
    clearTimeout(this.timer);
    if (!Number.isFinite(ms)) return;
    this.timer = setTimeout(() => this.settle(this.ending ? undefined : this.tooLong()), Math.max(0, ms));
    // a last word is no reason for a program to stay
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
