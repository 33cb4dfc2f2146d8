/**
 * The destination's end of the transfer stream: answers what can be answered at once, and hands frames to the replay.
 */
import type { Socket } from "node:net";
import { MigrationFault } from "../../shared/fault.ts";
import type { ResumingDestination } from "../../shared/link/resume/resuming-destination.ts";
import type { GuestDisks, SourceMessage } from "../../shared/protocol/messages.ts";
import type { DestinationPostcopy } from "../../shared/protocol/ownership.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import { type Deferred, deferred } from "../../shared/runtime/deferred.ts";
import { youngCollector } from "../../shared/runtime/v8/return-memory.ts";
import type { GuestProcess } from "../guest/guest-process.ts";
import type { PostcopyPages } from "./postcopy-pages.ts";
import type { Replay } from "./replay.ts";

type Message<K extends SourceMessage["kind"]> = Extract<SourceMessage, { kind: K }>;

export interface ReceiverOptions {
  readonly channel: ResumingDestination;
  readonly socket: Socket;
  readonly makeReplay: (onFault: (fault: MigrationFault) => void) => Replay;
  readonly clock: Clock;
  readonly cancelled: AbortSignal;
  /**
   * The disks of the QEMU here, as they were compared with the source's. Missing where an earlier agent compared them.
   */
  readonly disks?: GuestDisks | undefined;
  /** Post-copy is taken up with this. */
  readonly resumed?: DestinationPostcopy;
  /** Where post-copy may follow: what taking it up again needs, but the layout. */
  readonly record?: Omit<DestinationPostcopy, "blocks" | "ramSectionId"> | undefined;
}

export class Receiver {
  readonly channel: ResumingDestination;
  readonly replay: Replay;
  /** The first frame came: the source follows up. */
  readonly begun: Deferred<void> = deferred();
  readonly ended: Deferred<Message<"endOfStream">> = deferred();
  readonly grant: Deferred<Message<"grant">> = deferred();
  /** The source has sent `failure`: the guest stays there. */
  readonly gaveUp: Deferred<MigrationFault> = deferred();
  private readonly packagedAtAll: Deferred<void> = deferred();
  /** Set while the guest is loaded: answers the source's requests for digests. */
  onVerify: ((request: Message<"verifyRequest">) => Promise<void>) | undefined;
  /** One at a time: each is a file, and memory, of a stretch. */
  private verifying = false;
  private readonly abort = new AbortController();
  private readonly socket: Socket;
  private readonly clock: Clock;
  private readonly parts: ReceiverOptions;
  private readonly collectYoung = youngCollector();
  /** Messages that came, of whatever kind. */
  heard = 0;
  private probeBytes = 0;
  /** Once the layout came. */
  record: DestinationPostcopy | undefined;
  private over = false;
  /** True after the source has begun the stream anew, until the source asks which pages are missing. */
  private mayResume = false;

  get disks(): GuestDisks | undefined {
    return this.parts.disks;
  }

  constructor(parts: ReceiverOptions) {
    const { channel, socket, cancelled } = parts;
    this.parts = parts;
    this.channel = channel;
    this.socket = socket;
    this.clock = parts.clock;
    this.replay = parts.makeReplay((fault) => this.fail(fault));
    cancelled.addEventListener("abort", this.onCancel, { once: true });
    if (cancelled.aborted) this.onCancel();
    socket.on("error", (error) =>
      this.fail(
        new MigrationFault("qemu-failed", `The destination's QEMU does not take the stream: ${error.message}`, {
          cause: error,
        }),
      ),
    );
    void channel.closed.then((fault) =>
      this.fail(fault ?? new MigrationFault("peer-lost", "The source ended the transfer stream", { role: "source" })),
    );
    if (parts.resumed !== undefined) {
      this.record = parts.resumed;
      this.readReturnPath();
    }
    channel.onAnew = () => this.beginAnew();
    channel.receive((message) => this.take(message));
  }

  /** True while the link is up, and QEMU takes what comes. */
  get isRead(): boolean {
    return !this.channel.isCut && !this.replay.isHeldBack;
  }

  /** Aborted with the first fault. */
  get signal(): AbortSignal {
    return this.abort.signal;
  }

  private readonly onCancel = (): void => this.fail(MigrationFault.from(this.parts.cancelled.reason));

  /**
   * The guest is loaded. From now on only the migration's states react to a withdrawal or a stop of the agent, and the
   * stream of pages stays open.
   */
  outlivesCancel(): void {
    this.parts.cancelled.removeEventListener("abort", this.onCancel);
  }

  /** Makes the end of the guest's QEMU a fault of this stream, for as long as the stream's channel is open. */
  failsWith(guest: Pick<GuestProcess, "onEnd" | "endFault">): void {
    const forget = guest.onEnd(() => void guest.endFault().then((fault) => this.fail(fault)));
    // post-copy may be taken up many times, and each receiver has a memory of its own
    void this.channel.closed.then(forget);
  }

  fail(fault: MigrationFault): void {
    if (!this.over) this.abort.abort(fault);
  }

  /**
   * From now on the end of the channel is no fault. The source waits for the last word: `running`, `complete` or a
   * failure.
   * @param fault said as the last word, where no other was said
   */
  close(fault?: MigrationFault): void {
    this.over = true;
    if (fault !== undefined) this.say(fault, new Uint8Array());
    this.socket.destroy();
    // another stream takes up a broken post-copy
    if (fault !== undefined && this.postcopy?.isActive === true) this.channel.leave();
    else this.channel.close();
  }

  say(fault: MigrationFault, refusedToken: Uint8Array): void {
    this.channel.send({ kind: "failure", code: fault.code, message: fault.message, refusedToken });
  }

  /** Where post-copy may follow. */
  get postcopy(): PostcopyPages | undefined {
    return this.replay.postcopy;
  }

  /** Resolves when post-copy's package was written to QEMU; of a migration that needs none, never. */
  get packaged(): Promise<void> {
    return this.packagedAtAll.promise;
  }

  /** Before post-copy what is lost with a stream is lost: its migration ends. */
  private beginAnew(): void {
    if (this.postcopy?.isActive !== true)
      throw new MigrationFault("peer-invalid", "The source begins a stream anew that is not post-copy's", {
        role: "source",
      });
    this.replay.restart();
    this.mayResume = true;
  }

  /** The source has begun the stream anew: it is told what is missing, when QEMU has taken what it was being given. */
  private resume(): void {
    const { postcopy } = this;
    if (postcopy?.isActive !== true)
      throw new MigrationFault("peer-invalid", "The source takes up a post-copy that there is not", { role: "source" });
    // an answer is kept until the source has it, since the connection may break: 32 KiB for each GiB of the guest
    if (!this.mayResume)
      throw new MigrationFault("peer-invalid", "The source asks twice what is missing from one stream", {
        role: "source",
      });
    this.mayResume = false;
    void this.replay.drained().then(() => postcopy.tellMissing());
  }

  private layout({ blocks, ramSectionId }: Message<"layout">): void {
    this.replay.layout(blocks, ramSectionId);
    const { record } = this.parts;
    if (record === undefined) return;
    const names = blocks.map(({ name, byteLength }) => ({ name, byteLength }));
    this.record = { ...record, blocks: names, ramSectionId };
    this.readReturnPath();
  }

  private readReturnPath(): void {
    const { postcopy } = this.replay;
    if (postcopy === undefined) return;
    void postcopy.packaged.promise.then(() => this.packagedAtAll.resolve());
    this.socket.on("data", (bytes) => {
      try {
        postcopy.read(bytes);
      } catch (thrown) {
        this.fail(MigrationFault.from(thrown));
      }
    });
  }

  private take(message: SourceMessage): void {
    this.heard++;
    switch (message.kind) {
      case "frame":
        this.begun.resolve();
        this.replay.take(message);
        this.collectYoung(message.body.length);
        return;
      case "probe":
        this.probeBytes += message.padding.length;
        this.channel.send({ kind: "ack", sequence: message.sequence, appliedBytes: this.probeBytes });
        return;
      case "clockPing":
        this.channel.send({ kind: "clockReply", nonce: message.nonce, destinationTimeUs: this.clock.nowUs() });
        return;
      case "layout":
        this.layout(message);
        return;
      case "endOfStream":
        if (message.lastSequence !== this.replay.sequence)
          throw new MigrationFault(
            "peer-invalid",
            `The source ended after frame ${message.lastSequence}; ${this.replay.sequence} came`,
            { role: "source" },
          );
        this.ended.resolve(message);
        return;
      case "verifyRequest":
        if (this.onVerify === undefined)
          throw new MigrationFault("peer-invalid", "The source asks for digests of a guest that is not loaded", {
            role: "source",
          });
        if (this.verifying)
          throw new MigrationFault("peer-invalid", "The source asks for digests before it has the ones it asked for", {
            role: "source",
          });
        this.verifying = true;
        void this.onVerify(message).then(() => {
          this.verifying = false;
        });
        return;
      case "grant":
        this.grant.resolve(message);
        return;
      case "resume":
        this.resume();
        return;
      case "welcome":
        return;
      case "failure": {
        const fault = new MigrationFault("peer-failed", `The source gave up: ${message.message}`, { role: "source" });
        this.gaveUp.resolve(fault);
        this.fail(fault);
        return;
      }
    }
  }
}
