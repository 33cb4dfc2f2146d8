/** The destination's end of a transfer stream that outlives its connections. It dials, and dials again after a cut. */
import { MigrationFault } from "../../fault.ts";
import type { DestinationMessage, SourceMessage } from "../../protocol/stream-messages.ts";
import type { Timer } from "../../runtime/clock.ts";
import type { DestinationChannel } from "../link.ts";
import { type ResumeOptions, ResumingChannel } from "./resuming-channel.ts";

export interface DialOptions extends ResumeOptions {
  readonly migrationId: string;
  readonly token: Uint8Array;
  /** Opens a new connection to the source. */
  readonly dial: () => DestinationChannel;
  /** How long a connection may wait for its welcome before it is given up, milliseconds. @default 3000 */
  readonly attemptMs?: number;
  /** True when this agent has started again in post-copy. @default false */
  readonly restarted?: boolean;
}

const ATTEMPT_MS = 3000;
/** The pause before the first new attempt, milliseconds. Each pause is twice the one before, up to PAUSE_MAX_MS. */
const PAUSE_MIN_MS = 50;
const PAUSE_MAX_MS = 1000;
/**
 * The most messages that are kept for a source that may not have received them. A source says four times a second how
 * many have come, and a guest asks for some thousands of pages a second at most
 * (docs/design/link-and-resume.md#what-is-kept-and-for-how-long).
 */
const KEPT_MAX = 50_000;

export class ResumingDestination extends ResumingChannel<DestinationMessage, SourceMessage> {
  private readonly dialling: DialOptions;
  private attempt = 0;
  private pauseMs = PAUSE_MIN_MS;
  private redial: Timer | undefined;
  private late: Timer | undefined;
  private generation = 0;
  /**
   * Called when the source begins the stream again: messages that came before do not count, and messages that were sent
   * before are not sent again.
   */
  onAnew: () => void = () => undefined;
  private lastAck: DestinationMessage | undefined;
  private met = false;
  /** True once another stream has taken the place of this one. */
  private replaced = false;

  constructor(options: DialOptions) {
    super(options);
    this.dialling = options;
    void this.closed.then(() => {
      this.clock.cancel(this.redial);
      this.clock.cancel(this.late);
    });
  }

  override receive(handler: (message: SourceMessage) => void): void {
    super.receive(handler);
    if (this.current === undefined) this.dial();
  }

  protected override isKept(message: DestinationMessage): boolean {
    // the last acknowledgement holds for the next connection too, and is said again over it
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
   * cause, so they are reported at once. After the two agents have met, they concern only one connection, and count as
   * a cut: a certificate that has expired meanwhile will be renewed, or what has answered was no agent.
   */
  protected override isFinal(fault: MigrationFault): boolean {
    return super.isFinal(fault) && !(this.met && (fault.code === "peer-untrusted" || fault.code === "not-authorised"));
  }

  /** True once the source has welcomed this stream. */
  get hasMet(): boolean {
    return this.met;
  }

  /** Ends the stream as close() does, but does not dial again, since another stream takes its place. */
  leave(): void {
    this.replaced = true;
    this.close();
  }

  protected override takeOwn(message: SourceMessage): boolean {
    if (message.kind !== "welcome") {
      // the next question says that the answer to the last one came, so the digests of a large guest are not all kept
      if (message.kind === "verifyRequest") this.confirm(this.oldest - 1 + this.said.length);
      if (message.kind === "clockPing") this.heardReceived(message.received ?? 0);
      return false;
    }
    this.clock.cancel(this.late);
    this.pauseMs = PAUSE_MIN_MS;
    this.met = true;
    if (message.generation !== this.generation) {
      this.generation = message.generation;
      const last = this.ending ? this.said.slice(-1) : [];
      this.restart();
      this.lastAck = undefined;
      // an end that has sent its last message begins nothing again, and only sends that message again
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

  /**
   * Takes what a ping says about how many messages the source has received. A smaller number is ignored, since a
   * question for digests may have confirmed more before.
   * @param received 0 from a source that does not say it
   */
  private heardReceived(received: number): void {
    if (received >= this.oldest) this.confirmReceived(received);
  }

  /**
   * Sends a message, and bounds what is kept for a source that does not say what it has received. The connection to
   * such a source is cut, since the source has to say what it has received when it is dialled again. In post-copy the
   * requests for the guest's pages are kept, and there may be as many of them as the guest has pages.
   */
  override send(message: DestinationMessage, taken?: () => void): boolean {
    const more = super.send(message, taken);
    if (this.said.length > KEPT_MAX && this.raw !== undefined)
      this.current?.close(
        new MigrationFault("peer-lost", `The source has acknowledged none of the last ${KEPT_MAX} messages`),
      );
    return more;
  }

  protected override onLost(): void {
    this.clock.cancel(this.late);
    this.redial = this.clock.after(this.pauseMs, () => this.dial());
    this.pauseMs = Math.min(PAUSE_MAX_MS, 2 * this.pauseMs);
  }

  private dial(): void {
    if (this.over) return;
    const { dial, migrationId, token, attemptMs } = this.dialling;
    const channel = dial();
    this.attempt++;
    const { attempt, received, generation } = this;
    // an agent that started again knows of no stream until it is welcomed
    const restarted = this.dialling.restarted === true && generation === 0;
    channel.send({ kind: "hello", migrationId, token, attempt, received, generation, restarted });
    this.late = this.clock.after(attemptMs ?? ATTEMPT_MS, () =>
      channel.close(new MigrationFault("peer-lost", "The source did not answer in time")),
    );
    this.adopt(channel);
  }
}
