/** Takes what the destination says on the transfer stream, and hands each message to the part that waits for it. */
import { MigrationFault } from "../../shared/fault.ts";
import type { SourceChannel } from "../../shared/link/link.ts";
import { PageSet } from "../../shared/page/page-set.ts";
import type { DestinationMessage } from "../../shared/protocol/stream-messages.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import { type Deferred, deferred } from "../../shared/runtime/deferred.ts";
import type { LinkMeter } from "./link-meter.ts";

type Message<K extends DestinationMessage["kind"]> = Extract<DestinationMessage, { kind: K }>;

/** How the grant was answered: the guest runs at the destination, or the destination has proved that it refused. */
export type GrantAnswer = Message<"running"> | Message<"failure">;

/** Takes what the destination's QEMU asks and answers in post-copy. */
export interface PostcopyPeer {
  /** Takes a page request. @throws MigrationFault `peer-invalid` for pages that the guest does not have */
  request(firstPage: number, pageCount: number): void;
  pong(value: number): void;
}

/** The most pings without an answer that are remembered. The source asks one at a time. */
const PINGS_MAX = 16;

export class PeerInbox {
  /** Resolves when the destination has loaded the guest. */
  readonly loaded: Deferred<Message<"loaded">> = deferred();
  readonly grantAnswer: Deferred<GrantAnswer> = deferred();
  /** Resolves in post-copy when the guest has all of its pages. */
  readonly complete: Deferred<Message<"complete">> = deferred();
  /** Takes the messages of post-copy; while it is undefined, such messages are refused. */
  postcopy: PostcopyPeer | undefined;
  /** Takes acknowledgements: those of the probe first, then those of the sender's frames. */
  onAck: (ack: Message<"ack">) => void = () => undefined;
  /** How many messages have come, of every kind. */
  heard = 0;
  /** Called for each message that comes, of every kind. */
  onHeard: () => void = () => undefined;
  private readonly channel: SourceChannel;
  private readonly meter: LinkMeter;
  private readonly clock: Clock;
  /** When each ping was sent that has no answer yet, microseconds since the epoch, by its nonce. */
  private readonly pings = new Map<number, number>();
  /** Digests that were asked for, by the start of their memory. */
  private readonly digests = new Map<number, Deferred<Message<"pageDigests">>>();
  private nonce = 0;
  /** The token of the grant; undefined until the grant was sent. */
  private granted: Uint8Array | undefined;
  /** Resolves the promises of ping(). */
  private pongs: (() => void)[] = [];
  /**
   * The answer to askMissing() as far as it has come: the missing pages, and the page with which the next piece must
   * begin.
   */
  private missing: { readonly pages: PageSet; readonly told: Deferred<PageSet>; next: number } | undefined;
  private connection: Deferred<void> = deferred();
  private readonly onFault: (fault: MigrationFault) => void;

  constructor(channel: SourceChannel, meter: LinkMeter, clock: Clock, onFault: (fault: MigrationFault) => void) {
    this.channel = channel;
    this.meter = meter;
    this.clock = clock;
    this.onFault = onFault;
    channel.receive((message) => this.take(message));
    void channel.closed.then((fault) =>
      onFault(
        fault ?? new MigrationFault("peer-lost", "The destination ended the transfer stream", { role: "destination" }),
      ),
    );
  }

  /**
   * Resolves with the next connection. A read of this property after that gives a new promise, for the connection after
   * it.
   */
  get nextConnection(): Promise<void> {
    return this.connection.promise;
  }

  /** Notes that there is a new connection. Pings that were sent over the previous connection will not be answered. */
  reconnected(): void {
    this.pings.clear();
    this.pongs = [];
    this.connection.resolve();
    this.connection = deferred();
  }

  /** Asks for the destination's time. Resolves when the next answer comes, to this ping or to another one. */
  ping(): Promise<void> {
    // a peer that never answers must not make these lists grow
    if (this.pings.size > PINGS_MAX) this.pings.clear();
    if (this.pongs.length > PINGS_MAX) this.pongs.shift();
    this.pings.set(++this.nonce, this.clock.nowUs());
    this.channel.send({ kind: "clockPing", nonce: this.nonce });
    return new Promise((resolve) => this.pongs.push(resolve));
  }

  /** Notes that the grant was sent: from now on a `failure` with this token proves that the grant was refused. */
  grantSent(token: Uint8Array): void {
    this.granted = token;
  }

  /**
   * Asks for the digests of a range of memory.
   * @param start guest-physical address of its first byte
   * @param last true for the last range that is asked for
   */
  askDigests(start: number, byteLength: number, last: boolean): Promise<Message<"pageDigests">> {
    const answer = deferred<Message<"pageDigests">>();
    this.digests.set(start, answer);
    this.channel.send({ kind: "verifyRequest", start, byteLength, last });
    return answer.promise;
  }

  private take(message: DestinationMessage): void {
    this.heard++;
    this.onHeard();
    switch (message.kind) {
      case "ack":
        this.onAck(message);
        return;
      case "clockReply":
        this.pong(message);
        return;
      case "loaded":
        this.loaded.resolve(message);
        return;
      case "pageDigests":
        this.digests.get(message.start)?.resolve(message);
        this.digests.delete(message.start);
        return;
      case "running":
        if (this.granted === undefined)
          throw new MigrationFault("peer-invalid", "The destination says that the guest runs, without a grant");
        this.grantAnswer.resolve(message);
        return;
      case "pageRequest":
        this.inPostcopy(message.kind).request(message.firstPage, message.pageCount);
        return;
      case "pong":
        this.inPostcopy(message.kind).pong(message.value);
        return;
      case "missing":
        this.takeMissing(message);
        return;
      case "complete":
        this.inPostcopy(message.kind);
        if (this.granted === undefined)
          throw new MigrationFault("peer-invalid", "The destination says that it has every page, without a grant");
        this.complete.resolve(message);
        return;
      case "failure":
        if (this.granted !== undefined && Buffer.compare(this.granted, message.refusedToken) === 0)
          this.grantAnswer.resolve(message);
        else
          this.onFault(
            new MigrationFault("peer-failed", `The destination gave up: ${message.message}`, { role: "destination" }),
          );
        return;
      case "hello":
        throw new MigrationFault("peer-invalid", "The destination introduced itself twice");
    }
  }

  /** Asks which pages the destination misses, at the beginning of a stream that replaces a broken one in post-copy. */
  askMissing(pageCount: number): Promise<PageSet> {
    this.missing = { pages: new PageSet(pageCount), told: deferred(), next: 0 };
    this.channel.send({ kind: "resume" });
    return this.missing.told.promise;
  }

  private takeMissing({ firstPage, pageCount, bits, last }: Message<"missing">): void {
    const { missing } = this;
    if (missing === undefined || firstPage !== missing.next || firstPage + pageCount > missing.pages.pageCount)
      throw new MigrationFault(
        "peer-invalid",
        `The destination says out of turn which of ${pageCount} pages it misses`,
      );
    if (bits.length * 8 < pageCount)
      throw new MigrationFault(
        "peer-invalid",
        `The destination says with only ${bits.length} bytes which of ${pageCount} pages it misses`,
      );
    missing.pages.setBits(firstPage, pageCount, bits);
    missing.next = firstPage + pageCount;
    if (!last) return;
    if (missing.next !== missing.pages.pageCount)
      throw new MigrationFault(
        "peer-invalid",
        `The destination says of only ${missing.next} pages whether it misses them`,
      );
    missing.told.resolve(missing.pages);
  }

  private inPostcopy(kind: string): PostcopyPeer {
    if (this.postcopy === undefined)
      throw new MigrationFault("peer-invalid", `The destination sent ${kind}, although post-copy was not agreed on`);
    return this.postcopy;
  }

  private pong(reply: Message<"clockReply">): void {
    const sentUs = this.pings.get(reply.nonce);
    this.pings.delete(reply.nonce);
    if (sentUs !== undefined) this.meter.clock(sentUs, this.clock.nowUs(), reply.destinationTimeUs);
    for (const resolve of this.pongs.splice(0)) resolve();
  }
}
