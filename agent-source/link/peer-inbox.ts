/** What the destination says on the transfer stream, sorted to those who wait for it. */
import { MigrationFault } from "../../shared/fault.ts";
import type { SourceChannel } from "../../shared/link/link.ts";
import { PageSet } from "../../shared/page/page-set.ts";
import type { DestinationMessage } from "../../shared/protocol/messages.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import { type Deferred, deferred } from "../../shared/runtime/deferred.ts";
import type { LinkMeter } from "./link-meter.ts";

type Message<K extends DestinationMessage["kind"]> = Extract<DestinationMessage, { kind: K }>;

/** How the grant ended: the guest runs there, or the destination proved that it refused. */
export type GrantAnswer = Message<"running"> | Message<"failure">;

/** The source's end of post-copy. */
export interface PostcopyPeer {
  /** @throws MigrationFault `peer-invalid` for pages that there are not */
  request(firstPage: number, pageCount: number): void;
  pong(value: number): void;
}

/** Unanswered ones; the source asks one at a time. */
const PINGS_MAX = 16;

export class PeerInbox {
  readonly loaded: Deferred<Message<"loaded">> = deferred();
  readonly grantAnswer: Deferred<GrantAnswer> = deferred();
  /** Post-copy: the guest has all of its pages. */
  readonly complete: Deferred<Message<"complete">> = deferred();
  /** Takes what the destination's QEMU asks and answers in post-copy; without it such messages are refused. */
  postcopy: PostcopyPeer | undefined;
  /** Takes acknowledgements; the probe's first, then the sender's. */
  onAck: (ack: Message<"ack">) => void = () => undefined;
  /** Messages that came, of whatever kind. */
  heard = 0;
  /** Called for whatever comes. */
  onHeard: () => void = () => undefined;
  private readonly channel: SourceChannel;
  private readonly meter: LinkMeter;
  private readonly clock: Clock;
  private readonly pings = new Map<number, number>();
  private readonly digests = new Map<number, Deferred<Message<"pageDigests">>>();
  private nonce = 0;
  private granted: Uint8Array | undefined;
  private pongs: (() => void)[] = [];
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

  /** Settles when there is a connection again; replaced by then. */
  get nextConnection(): Promise<void> {
    return this.connection.promise;
  }

  /** There is a connection again; pings of the one before are not answered. */
  reconnected(): void {
    this.pings.clear();
    this.pongs = [];
    this.connection.resolve();
    this.connection = deferred();
  }

  /** Asks for the destination's time; resolves when any answer comes. */
  ping(): Promise<void> {
    // a peer that never answers must not make this grow
    if (this.pings.size > PINGS_MAX) this.pings.clear();
    if (this.pongs.length > PINGS_MAX) this.pongs.shift();
    this.pings.set(++this.nonce, this.clock.nowUs());
    this.channel.send({ kind: "clockPing", nonce: this.nonce });
    return new Promise((resolve) => this.pongs.push(resolve));
  }

  /** From now on a failure may be the proof that this grant was refused. */
  grantSent(token: Uint8Array): void {
    this.granted = token;
  }

  /** Asks for the digests of a stretch of memory. */
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

  /** Asks what the destination misses, of a stream that was begun anew. */
  askMissing(pageCount: number): Promise<PageSet> {
    this.missing = { pages: new PageSet(pageCount), told: deferred(), next: 0 };
    this.channel.send({ kind: "resume" });
    return this.missing.told.promise;
  }

  private takeMissing({ firstPage, pageCount, bits, last }: Message<"missing">): void {
    const { missing } = this;
    if (missing === undefined || firstPage !== missing.next || firstPage + pageCount > missing.pages.pageCount)
      throw new MigrationFault("peer-invalid", `The destination tells unasked which of ${pageCount} pages it misses`);
    if (bits.length * 8 < pageCount)
      throw new MigrationFault(
        "peer-invalid",
        `The destination tells in ${bits.length} bytes which of ${pageCount} pages it misses`,
      );
    missing.pages.setBits(firstPage, pageCount, bits);
    missing.next = firstPage + pageCount;
    if (!last) return;
    if (missing.next !== missing.pages.pageCount)
      throw new MigrationFault("peer-invalid", `The destination tells of ${missing.next} pages only`);
    missing.told.resolve(missing.pages);
  }

  private inPostcopy(kind: string): PostcopyPeer {
    if (this.postcopy === undefined)
      throw new MigrationFault(
        "peer-invalid",
        `The destination said ${kind}, which post-copy has, and it was not agreed on`,
      );
    return this.postcopy;
  }

  private pong(reply: Message<"clockReply">): void {
    const sentUs = this.pings.get(reply.nonce);
    this.pings.delete(reply.nonce);
    if (sentUs !== undefined) this.meter.clock(sentUs, this.clock.nowUs(), reply.destinationTimeUs);
    for (const resolve of this.pongs.splice(0)) resolve();
  }
}
