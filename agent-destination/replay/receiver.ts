/**
 * The destination's end of the transfer stream. It answers probes and clock pings by itself, and hands frames to the
 * replay. What a message means for the migration is decided by the phases (migration/phases/).
 */
import type { Socket } from "node:net";
import { MigrationFault } from "../../shared/fault.ts";
import type { ResumingDestination } from "../../shared/link/resume/resuming-destination.ts";
import type { GuestDisks } from "../../shared/protocol/messages.ts";
import type { DestinationPostcopy } from "../../shared/protocol/ownership.ts";
import type { SourceMessage } from "../../shared/protocol/stream-messages.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import { type Deferred, deferred } from "../../shared/runtime/deferred.ts";
import { youngCollector } from "../../shared/runtime/v8/return-memory.ts";
import type { GuestProcess } from "../guest/guest-process.ts";
import type { PostcopyPages } from "./postcopy-pages.ts";
import type { Replay } from "./replay.ts";

type Message<K extends SourceMessage["kind"]> = Extract<SourceMessage, { kind: K }>;

/** The parts of a Receiver. */
export interface ReceiverOptions {
  readonly channel: ResumingDestination;
  readonly socket: Socket;
  /** Makes the replay of this stream. `onFault` takes a fault that arises while QEMU takes bytes. */
  readonly makeReplay: (onFault: (fault: MigrationFault) => void) => Replay;
  readonly clock: Clock;
  /** Aborted when the migration is to end before it has the whole guest. */
  readonly cancelled: AbortSignal;
  /**
   * The disks of the QEMU here, as they were compared with the source's; missing where an earlier life of this agent
   * compared them.
   */
  readonly disks?: GuestDisks | undefined;
  /** Only where a broken post-copy is resumed: what the journal has of it. */
  readonly resumed?: DestinationPostcopy;
  /**
   * Set where post-copy may follow: what it takes to resume post-copy, except for the layout, which the source sends.
   */
  readonly record?: Omit<DestinationPostcopy, "blocks" | "ramSectionId"> | undefined;
}

/** Receives the messages of one transfer stream. */
export class Receiver {
  readonly channel: ResumingDestination;
  readonly replay: Replay;
  /** Resolved when the first frame comes. The phase *receiving* waits for it no longer than the setting `followUp`. */
  readonly begun: Deferred<void> = deferred();
  /** Resolved when the source has said that there are no more frames. */
  readonly ended: Deferred<Message<"endOfStream">> = deferred();
  /** Resolved with the grant, if it comes by this stream. */
  readonly grant: Deferred<Message<"grant">> = deferred();
  /** Resolved when the source has sent `failure`: the guest stays at the source. */
  readonly gaveUp: Deferred<MigrationFault> = deferred();
  /** Resolved when post-copy's package was written to QEMU. Unlike `postcopy`, this promise exists from the start. */
  private readonly packagedAtAll: Deferred<void> = deferred();
  /** Set while the guest is loaded: answers the source's requests for digests. */
  onVerify: ((request: Message<"verifyRequest">) => Promise<void>) | undefined;
  /**
   * True while a request for digests is answered. Only one request may be under way, because each request takes a file
   * and memory for a stretch of the guest.
   */
  private verifying = false;
  private readonly abort = new AbortController();
  private readonly socket: Socket;
  private readonly clock: Clock;
  private readonly parts: ReceiverOptions;
  /**
   * Collects V8's young garbage after every few megabytes of frames
   * (docs/design/memory-and-v8.md#during-a-migration).
   */
  private readonly collectYoung = youngCollector();
  /** How many messages have come, of whatever kind. */
  heard = 0;
  /** The bytes of all probes so far, which the acknowledgement of a probe has as its `appliedBytes`. */
  private probeBytes = 0;
  /** What the journal needs of post-copy; set where post-copy may follow, once the layout has come. */
  record: DestinationPostcopy | undefined;
  /** True once this side has closed the stream: whatever fails after that is ignored. */
  private over = false;
  /** True from the moment when the source begins the stream again until it asks which pages are missing. */
  private mayResume = false;

  /** The disks of the QEMU here, as ReceiverOptions describes them. */
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

  /** True while the link is up and QEMU takes what comes. */
  get isRead(): boolean {
    return !this.channel.isCut && !this.replay.isHeldBack;
  }

  /** Aborted with the first fault of this stream. */
  get signal(): AbortSignal {
    return this.abort.signal;
  }

  private readonly onCancel = (): void => this.fail(MigrationFault.from(this.parts.cancelled.reason));

  /**
   * Called when the guest is loaded. From then on only the migration's states react to a withdrawal or a stop of the
   * agent, and the stream of pages stays open.
   */
  outlivesCancel(): void {
    this.parts.cancelled.removeEventListener("abort", this.onCancel);
  }

  /** Makes the end of the guest's QEMU a fault of this stream, for as long as the stream's channel is open. */
  failsWith(guest: Pick<GuestProcess, "onEnd" | "endFault">): void {
    const forget = guest.onEnd(() => void guest.endFault().then((fault) => this.fail(fault)));
    // post-copy may be resumed many times, and QEMU must not keep each receiver, which has a memory of its own
    void this.channel.closed.then(forget);
  }

  /** Aborts `signal` with a fault of this stream, unless this side has closed the stream. */
  fail(fault: MigrationFault): void {
    if (!this.over) this.abort.abort(fault);
  }

  /**
   * Closes this side of the stream. From then on the end of the channel is no fault. The source waits for the stream's
   * last message: `running`, `complete` or a failure.
   * @param fault is sent as the last message, a `failure`; undefined where the last message was sent already
   */
  close(fault?: MigrationFault): void {
    this.over = true;
    if (fault !== undefined) this.say(fault, new Uint8Array());
    this.socket.destroy();
    // another stream resumes a broken post-copy, so this one does not dial again
    if (fault !== undefined && this.postcopy?.isActive === true) this.channel.leave();
    else this.channel.close();
  }

  /**
   * Tells the source that the migration has failed.
   * @param refusedToken proves to the source that its grant is refused; empty where nothing is refused
   */
  say(fault: MigrationFault, refusedToken: Uint8Array): void {
    this.channel.send({ kind: "failure", code: fault.code, message: fault.message, refusedToken });
  }

  /** Post-copy's pages; undefined where post-copy cannot follow, and before the layout has come. */
  get postcopy(): PostcopyPages | undefined {
    return this.replay.postcopy;
  }

  /** Resolves when post-copy's package was written to QEMU; never in a migration without post-copy. */
  get packaged(): Promise<void> {
    return this.packagedAtAll.promise;
  }

  /**
   * Called when the source begins the stream again. A source may do so only in post-copy: before post-copy, what is
   * lost with a stream cannot be sent again, and the migration ends.
   */
  private beginAnew(): void {
    if (this.postcopy?.isActive !== true)
      throw new MigrationFault("peer-invalid", "The source begins its stream again although post-copy has not begun", {
        role: "source",
      });
    this.replay.restart();
    this.mayResume = true;
  }

  /**
   * Answers a source that has begun the stream again: the source is told which pages are missing, once QEMU has taken
   * every frame that came.
   */
  private resume(): void {
    const { postcopy } = this;
    if (postcopy?.isActive !== true)
      throw new MigrationFault("peer-invalid", "The source resumes post-copy, which has not begun", { role: "source" });
    // an answer takes 32 KiB for each GiB of the guest, and is kept until the source has received it, since the
    // connection may break. So a source may ask only once for each stream
    if (!this.mayResume)
      throw new MigrationFault(
        "peer-invalid",
        "The source asks a second time on the same stream which pages are missing",
        { role: "source" },
      );
    this.mayResume = false;
    void this.replay.drained().then(() => postcopy.tellMissing());
  }

  /** Takes the layout of QEMU's stream. */
  private layout({ blocks, ramSectionId }: Message<"layout">): void {
    this.replay.layout(blocks, ramSectionId);
    const { record } = this.parts;
    if (record === undefined) return;
    const names = blocks.map(({ name, byteLength }) => ({ name, byteLength }));
    this.record = { ...record, blocks: names, ramSectionId };
    this.readReturnPath();
  }

  /** Reads what QEMU writes back, where post-copy may follow. */
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

  /**
   * Takes a message of the source.
   * @throws MigrationFault `peer-invalid`, `checksum-mismatch`
   */
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
            `The source says that frame ${message.lastSequence} is its last, but the last frame that came is ${this.replay.sequence}`,
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
          throw new MigrationFault(
            "peer-invalid",
            "The source asks for digests while its earlier request for digests is still being answered",
            { role: "source" },
          );
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
