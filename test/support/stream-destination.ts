/**
 * A destination at its end of a migration's transfer stream, inside the test's process. By itself it acknowledges
 * frames and probes and answers pings, as every destination does; it says everything else when a test wants it.
 */
import type { SourceContext } from "../../agent-source/migration/source-context.ts";
import type { DestinationChannel } from "../../shared/link/link.ts";
import { ResumingSource } from "../../shared/link/resume/resuming-source.ts";
import type { DestinationMessage, SourceMessage } from "../../shared/protocol/stream-messages.ts";
import type { Clock } from "../../shared/runtime/clock.ts";
import { eventually } from "./bounded.ts";
import { memoryTransfer } from "./memory-link.ts";

type Kind = SourceMessage["kind"];
/** Kinds that every stream is full of; `heard` leaves them out. */
const USUAL: readonly Kind[] = ["welcome", "clockPing", "probe", "frame"];
/** How long the source may be patient with a link that is down, milliseconds. */
const PATIENCE_MS = 600_000;

export class StreamDestination {
  /** The source's end of the stream, to be given to a session. */
  readonly link: ResumingSource;
  /** The messages of the source, without frames and what measures the link. */
  readonly heard: SourceMessage[] = [];
  /** The sequence of the newest frame. */
  lastSequence = 0;
  /** If false, frames, probes and pings are left without an answer, as by an agent that hangs. */
  answers = true;
  /** Called with each message that `heard` lists. */
  onHeard: (message: SourceMessage) => void = () => undefined;
  /** Called when the package of post-copy has come. */
  onPackage: () => void = () => undefined;
  private readonly id: string;
  private readonly token: Uint8Array;
  private readonly clock: Clock;
  private appliedBytes = 0;
  private attempt = 0;
  /** How many messages have come that the source numbers. */
  private received = 0;
  private generation = 0;
  private channel: DestinationChannel | undefined;
  private cutLink: () => void = () => undefined;

  constructor({ id, token, call, clock }: SourceContext) {
    this.id = id;
    this.token = token;
    this.clock = clock;
    this.link = new ResumingSource({ patienceMs: PATIENCE_MS, peer: call.to, clock });
  }

  /** Dials the source: the first time, or again after a cut. */
  dial(): void {
    const transfer = memoryTransfer();
    const { id: migrationId, token, received, generation } = this;
    const hello = { kind: "hello", migrationId, token, attempt: ++this.attempt, received, generation } as const;
    this.channel = transfer.destination;
    this.cutLink = transfer.cut;
    transfer.destination.receive((message) => this.take(message));
    this.link.attach({ ...hello, restarted: false }, transfer.source);
  }

  /** Breaks the connection, which can be dialled again. */
  cut(): void {
    this.cutLink();
  }

  /** Ends the connection in order, as an agent does that says nothing more. */
  end(): void {
    this.channel?.close();
  }

  say(message: DestinationMessage): void {
    this.channel?.send(message);
  }

  /** Says that the guest is loaded, with every frame that has come. */
  sayLoaded(lastSequence = this.lastSequence): void {
    this.say({ kind: "loaded", lastSequence, lastByteAtUs: 1, loadedAtUs: 2 });
  }

  /** What the source has said, in order, each with its kind. */
  get kinds(): readonly Kind[] {
    return this.heard.map(({ kind }) => kind);
  }

  /** Waits for a message of the source. @returns the first one of this kind */
  async until<K extends Kind>(kind: K): Promise<Extract<SourceMessage, { kind: K }>> {
    const isIt = (message: SourceMessage): message is Extract<SourceMessage, { kind: K }> => message.kind === kind;
    return await eventually(() => this.heard.find(isIt), { timeoutMs: 30_000, what: `${kind} of the source` });
  }

  private take(message: SourceMessage): void {
    const { kind } = message;
    if (kind === "welcome") this.generation = message.generation;
    if (kind !== "welcome" && kind !== "probe" && kind !== "clockPing") this.received++;
    if (kind === "frame") {
      this.lastSequence = message.sequence;
      this.appliedBytes += message.body.length;
    }
    if (this.answers) this.answer(message);
    if (kind === "frame" && message.frameKind === "package") this.onPackage();
    if (USUAL.includes(kind)) return;
    this.heard.push(message);
    this.onHeard(message);
  }

  private answer(message: SourceMessage): void {
    const { appliedBytes } = this;
    if (message.kind === "frame") this.say({ kind: "ack", sequence: message.sequence, appliedBytes });
    if (message.kind === "probe")
      this.say({ kind: "ack", sequence: message.sequence, appliedBytes: message.padding.length });
    if (message.kind === "clockPing")
      this.say({ kind: "clockReply", nonce: message.nonce, destinationTimeUs: this.clock.nowUs() });
  }
}
