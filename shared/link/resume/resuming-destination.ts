/** The destination's end of a transfer stream that outlives its connections: it dials, and dials again after a cut. */
import { MigrationFault } from "../../fault.ts";
import type { DestinationMessage, SourceMessage } from "../../protocol/messages.ts";
import type { DestinationChannel } from "../link.ts";
import { type ResumeOptions, ResumingChannel } from "./resuming-channel.ts";

export interface DialOptions extends ResumeOptions {
  readonly migrationId: string;
  readonly token: Uint8Array;
  readonly dial: () => DestinationChannel;
  /** A connection that is not welcomed for this long is given up, milliseconds. @default 3000 */
  readonly attemptMs?: number;
  /** This agent has started again in post-copy. @default false */
  readonly restarted?: boolean;
}

const ATTEMPT_MS = 3000;
const PAUSE_MIN_MS = 50;
const PAUSE_MAX_MS = 1000;
/**
 * The most messages that are kept for a source that may not have received them. A source says four times a second what
 * came, and a guest asks for some thousands of pages a second at most.
 */
const KEPT_MAX = 50_000;

export class ResumingDestination extends ResumingChannel<DestinationMessage, SourceMessage> {
  private readonly dialling: DialOptions;
  private attempt = 0;
  private pauseMs = PAUSE_MIN_MS;
  private redial: NodeJS.Timeout | undefined;
  private late: NodeJS.Timeout | undefined;
  private generation = 0;
  /** Called when the source begins the stream anew: what came before counts no more, and what was said is forgotten. */
  onAnew: () => void = () => undefined;
  private lastAck: DestinationMessage | undefined;
  private met = false;
  private replaced = false;

  constructor(options: DialOptions) {
    super(options);
    this.dialling = options;
    void this.closed.then(() => {
      clearTimeout(this.redial);
      clearTimeout(this.late);
    });
  }

  override receive(handler: (message: SourceMessage) => void): void {
    super.receive(handler);
    if (this.current === undefined) this.dial();
  }

  protected override isKept(message: DestinationMessage): boolean {
    // what is acknowledged now holds for whatever connection comes
    if (message.kind === "ack") this.lastAck = message;
    return message.kind !== "ack" && message.kind !== "clockReply" && message.kind !== "hello";
  }

  protected override keep(message: DestinationMessage): DestinationMessage {
    return message;
  }

  protected override forget(): void {}

  protected override counts({ kind }: SourceMessage): boolean {
    return kind !== "probe" && kind !== "clockPing" && kind !== "welcome";
  }

  protected override isLast({ kind }: SourceMessage): boolean {
    return kind === "failure";
  }

  protected override lingers(): boolean {
    return this.said.length > 0 && !this.replaced;
  }

  /**
   * Decides whether `peer-untrusted` and `not-authorised` end the stream. At the first connection a setting is their
   * cause, so they are reported at once. After two agents have met, they concern only this connection, and count as a
   * cut: a certificate that has expired meanwhile is renewed, or no agent has answered.
   */
  protected override isFinal(fault: MigrationFault): boolean {
    return super.isFinal(fault) && !(this.met && (fault.code === "peer-untrusted" || fault.code === "not-authorised"));
  }

  /** True once the source has welcomed this stream. */
  get hasMet(): boolean {
    return this.met;
  }

  /** Ends the stream as close() does, and does not dial again: another stream takes its place. */
  leave(): void {
    this.replaced = true;
    this.close();
  }

  protected override takeOwn(message: SourceMessage): boolean {
    if (message.kind !== "welcome") {
      // the next question says that the last answer came: digests of a large guest are not all kept
      if (message.kind === "verifyRequest") this.confirm(this.oldest - 1 + this.said.length);
      if (message.kind === "clockPing") this.heardReceived(message.received ?? 0);
      return false;
    }
    clearTimeout(this.late);
    this.pauseMs = PAUSE_MIN_MS;
    this.met = true;
    if (message.generation !== this.generation) {
      this.generation = message.generation;
      const last = this.ending ? this.said.slice(-1) : [];
      this.restart();
      this.lastAck = undefined;
      // whoever has said the last word begins nothing anew, and says it again
      this.said.push(...last);
      if (!this.ending) this.onAnew();
    }
    const raw = this.current;
    if (raw === undefined || raw === this.raw)
      throw new MigrationFault("peer-invalid", "The source welcomed this agent twice", { role: "source" });
    this.connected(raw, message.received);
    if (this.said.length > KEPT_MAX)
      throw new MigrationFault("peer-invalid", `The source has not received ${this.said.length} messages`, {
        role: "source",
      });
    if (this.lastAck !== undefined) raw.send(this.lastAck);
    return true;
  }

  /** @param received what a ping says came; 0 of a source that does not say it. A question may have said more before. */
  private heardReceived(received: number): void {
    if (received >= this.oldest) this.confirmReceived(received);
  }

  /**
   * Bounds what is kept for a source that does not say what came. Whoever is dialled again has to say it. In post-copy
   * the requests of the guest's pages are such messages, and they may be as many as the guest has pages.
   */
  override send(message: DestinationMessage, taken?: () => void): boolean {
    const more = super.send(message, taken);
    if (this.said.length > KEPT_MAX && this.raw !== undefined)
      this.current?.close(
        new MigrationFault("peer-lost", `The source has not said for ${KEPT_MAX} messages what came`),
      );
    return more;
  }

  protected override onLost(): void {
    clearTimeout(this.late);
    this.redial = setTimeout(() => this.dial(), this.pauseMs);
    this.pauseMs = Math.min(PAUSE_MAX_MS, 2 * this.pauseMs);
  }

  private dial(): void {
    if (this.over) return;
    const { dial, migrationId, token, attemptMs } = this.dialling;
    const channel = dial();
    this.attempt++;
    const { attempt, received, generation } = this;
    // until it is welcomed, an agent that started again knows of no stream
    const restarted = this.dialling.restarted === true && generation === 0;
    channel.send({ kind: "hello", migrationId, token, attempt, received, generation, restarted });
    this.late = setTimeout(
      () => channel.close(new MigrationFault("peer-lost", "The source did not answer in time")),
      attemptMs ?? ATTEMPT_MS,
    );
    this.adopt(channel);
  }
}
