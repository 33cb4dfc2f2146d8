/**
 * The source's end of a transfer stream that outlives its connections. The destination dials in, and again after a cut.
 */
import { MigrationFault } from "../../fault.ts";
import type { DestinationMessage, Hello, SourceMessage } from "../../protocol/stream-messages.ts";
import type { SourceChannel } from "../link.ts";
import { type ResumeOptions, ResumingChannel } from "./resuming-channel.ts";
import { RetainedFrames } from "./retained-frames.ts";

export class ResumingSource extends ResumingChannel<SourceMessage, DestinationMessage> {
  private frames: RetainedFrames | undefined;
  private attempt = 0;
  private readonly generation: number;
  /**
   * True once this end has sent a message of post-copy: `resume`, or the package. The guest's pages then follow the
   * guest, so the destination's message `running` is not its last one.
   */
  private pulls = false;

  /**
   * @param generation the number of this stream among the streams of its migration; a stream that is begun again has
   *   another number than the one before
   */
  constructor(options: ResumeOptions, generation = 0) {
    super(options);
    this.generation = generation;
  }

  /**
   * Makes room for the frames that the peer has not acknowledged. It is called before the first frame.
   * @param capacity the most bytes of all these frames together
   */
  retain(capacity: number): void {
    this.frames = new RetainedFrames(capacity);
  }

  /**
   * Takes a connection over which the destination has dialled in. From here on it is the stream's connection.
   * @throws MigrationFault `refused` when the stream is over, and for an older connection that comes late;
   *   `peer-invalid` when the destination cannot have received as many messages as it says
   */
  attach({ attempt, received, generation }: Hello, channel: SourceChannel): void {
    if (this.over) throw new MigrationFault("refused", "This migration has ended");
    if (attempt <= this.attempt)
      throw new MigrationFault(
        "refused",
        `Connection ${attempt} of this migration came too late: the source has taken connection ${this.attempt} already`,
      );
    this.attempt = attempt;
    const before = this.current;
    channel.send({ kind: "welcome", received: this.received, generation: this.generation });
    // a destination that has not heard of this generation has received nothing of it
    this.connected(channel, generation === this.generation ? received : 0);
    this.adopt(channel);
    before?.close(new MigrationFault("peer-lost", "The destination has dialled in again"));
  }

  /**
   * Sends a message. A ping also says how many messages came, so that the destination need not keep them any longer.
   */
  override send(message: SourceMessage, taken?: () => void): boolean {
    return super.send(message.kind === "clockPing" ? { ...message, received: this.received } : message, taken);
  }

  protected override isKept({ kind }: SourceMessage): boolean {
    return kind !== "probe" && kind !== "clockPing" && kind !== "welcome";
  }

  protected override keep(message: SourceMessage): SourceMessage {
    if (message.kind === "resume" || (message.kind === "frame" && message.frameKind === "package")) this.pulls = true;
    if (message.kind !== "frame") return message;
    if (this.frames === undefined) throw new TypeError("retain() comes before the first frame");
    return this.frames.keep(message);
  }

  protected override forget(message: SourceMessage): void {
    if (message.kind === "frame") this.frames?.dropOldest();
  }

  protected override counts({ kind }: DestinationMessage): boolean {
    return kind !== "ack" && kind !== "clockReply" && kind !== "hello";
  }

  protected override isLast({ kind }: DestinationMessage): boolean {
    return kind === "failure" || kind === "complete" || (kind === "running" && !this.pulls);
  }

  /**
   * Gives up the frames that the peer has acknowledged, and the messages that were sent before them. The
   * acknowledgement is delivered all the same, since the sender of the frames waits for it.
   */
  protected override takeOwn(message: DestinationMessage): boolean {
    if (message.kind !== "ack") return false;
    let upTo = 0;
    for (const [index, said] of this.said.entries()) {
      if (said.kind !== "frame") continue;
      if (said.sequence > message.sequence) break;
      upTo = index + 1;
    }
    this.confirm(this.oldest - 1 + upTo);
    return false;
  }
}
