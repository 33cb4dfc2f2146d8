/** The source's end of a transfer stream that outlives its connections: the destination dials in, and again after a cut. */
import { MigrationFault } from "../../fault.ts";
import type { DestinationMessage, Hello, SourceMessage } from "../../protocol/messages.ts";
import type { SourceChannel } from "../link.ts";
import { type ResumeOptions, ResumingChannel } from "./resuming-channel.ts";
import { RetainedFrames } from "./retained-frames.ts";

export class ResumingSource extends ResumingChannel<SourceMessage, DestinationMessage> {
  private frames: RetainedFrames | undefined;
  private attempt = 0;
  private readonly generation: number;
  /** In post-copy, by what was said here: the guest's pages follow it, and the stream goes on when it runs there. */
  private pulls = false;

  /** @param generation another one than before where the stream begins anew */
  constructor(options: ResumeOptions, generation = 0) {
    super(options);
    this.generation = generation;
  }

  /** Most bytes of frames that are kept for a peer that has not acknowledged them. Before the first frame. */
  retain(capacity: number): void {
    this.frames = new RetainedFrames(capacity);
  }

  /**
   * The destination dialled in: from here on this connection is the stream's.
   * @throws MigrationFault `refused` for an older connection that comes late, `peer-invalid` for a lying count
   */
  attach({ attempt, received, generation }: Hello, channel: SourceChannel): void {
    if (this.over) throw new MigrationFault("refused", "This migration has ended");
    if (attempt <= this.attempt)
      throw new MigrationFault("refused", `Connection ${attempt} of this migration comes behind ${this.attempt}`);
    this.attempt = attempt;
    const before = this.current;
    channel.send({ kind: "welcome", received: this.received, generation: this.generation });
    // one that has not heard of this generation has received nothing of it
    this.connected(channel, generation === this.generation ? received : 0);
    this.adopt(channel);
    before?.close(new MigrationFault("peer-lost", "The destination has dialled in again"));
  }

  /** A ping says how many messages came, so that the destination need not keep these any longer. */
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

  /** Acknowledged frames, and what was said before them, need not be kept; who waits for acknowledgements hears of it too. */
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
