/**
 * How the agents reach each other, without naming the transport: grpc-link.ts carries these over gRPC,
 * memory-link.ts inside one process for tests.
 */
import type { MigrationFault } from "../fault.ts";
import type {
  DestinationMessage,
  HandshakeAnswer,
  Hello,
  Offer,
  SettleAnswer,
  SettleCall,
  SourceMessage,
} from "../protocol/messages.ts";
import type { PlanCall, PlanView } from "../protocol/plan-view.ts";
import type { GuestView, HeatMapBlock, MigrateCall, MigrationView, ResolveCall } from "../protocol/report.ts";
import type { LinkSecurity } from "./tls/security.ts";

/** One end of a transfer stream. Messages arrive in the order in which they were sent. */
export interface Channel<Out, In> {
  /**
   * Queues a message. Its buffers may be reused only after `taken` was called (once, also when the channel fails).
   * @returns may more be sent? If not, wait for `drained()`: what is sent all the same is queued, and a queue of
   * thousands of messages closes the channel with `peer-lost`.
   */
  send(message: Out, taken?: () => void): boolean;
  /** Resolves when more may be sent, or the channel has closed. */
  drained(): Promise<void>;
  /** Starts delivery. `handler` is called for each message, never re-entrantly; a throw closes the channel with that fault. */
  receive(handler: (message: In) => void): void;
  /** Stops and restarts delivery; what arrives meanwhile is bounded by the transport's flow control. */
  pause(): void;
  resume(): void;
  /**
   * Without a fault: ends in order. What was sent before arrives first, then the peer's side ends too, behind what it has sent.
   * With one: tears the stream; what is on its way may be lost. The peer of the end that was dialled sees the fault, as the
   * status; the end that dialled cannot say it, and its peer sees `peer-lost`.
   */
  close(fault?: MigrationFault): void;
  /**
   * Settles once, when both directions are over: with undefined after an orderly end, with `peer-lost` for any other
   * end of the transport, and with another fault only when one of the two agents named that fault. Nothing is delivered
   * afterwards. A paused channel sees the orderly end of its peer when it resumes.
   */
  readonly closed: Promise<MigrationFault | undefined>;
  /**
   * Asked by the end that was dialled, when the peer's side ends: true if the peer has announced its end. An end that
   * was not announced is a cut, which looks like an orderly end here, and counts as `peer-lost` at both ends. @default
   * the peer has announced it
   */
  expectsEnd?: () => boolean;
  /** Address of the peer, for logs. */
  readonly peer: string;
}

export type SourceChannel = Channel<SourceMessage, DestinationMessage>;
export type DestinationChannel = Channel<DestinationMessage, SourceMessage>;

/** What an operator may ask either agent of its migrations. Faults that its methods throw become gRPC statuses. */
export interface MigrationOperator {
  /** @throws MigrationFault `migration-unknown` */
  getMigration(id: string): MigrationView;
  listMigrations(): readonly MigrationView[];
  /**
   * Calls `observer` with the present view at once and on every change, at most a few times a second, until a final one.
   * @returns ends the watch
   */
  watch(id: string, observer: (view: MigrationView) => void): () => void;
  /** Resolves when the migration has ended. */
  cancel(id: string): Promise<MigrationView>;
  /** @throws MigrationFault `needs-confirmation` with what the operator must have made sure of */
  resolve(call: ResolveCall): Promise<MigrationView>;
}

/** What the source agent serves. Faults that its methods throw become gRPC statuses. */
export interface SourceService extends MigrationOperator {
  listGuests(): Promise<readonly GuestView[]>;
  plan(call: PlanCall): Promise<PlanView>;
  /** Starts a migration and returns its id, or throws when it cannot be started. */
  migrate(call: MigrateCall): Promise<string>;
  heatMap(idOrGuest: string, cells: number): readonly HeatMapBlock[];
  /** A destination dialled in, for the first time or again; its first message was this hello. Throws when no migration waits for it. */
  acceptTransfer(hello: Hello, channel: SourceChannel): void;
}

/** Who has made a call, as far as the connection shows it. */
export interface Caller {
  /** Tells one caller from another: over TLS the listed name of its certificate, in clear the address of its host. */
  readonly name: string;
  /** All names of its certificate. None in clear, where nothing is proven. */
  readonly names: readonly string[];
  /** For logs. */
  readonly text: string;
}

/** What the destination agent serves to sources; to operators it is a MigrationOperator. */
export interface DestinationService {
  handshake(offer: Offer, caller: Caller): Promise<HandshakeAnswer>;
  settle(call: SettleCall): Promise<SettleAnswer>;
}

/** A listening server. */
export interface Listener {
  /** The address it is bound to, with the port that was chosen: "host:port" or "unix:PATH". */
  readonly address: string;
  /** Stops accepting, lets calls under way end for at most `graceMs`, then tears them. */
  close(graceMs: number): Promise<void>;
}

/** The source's way to a destination agent. */
export interface DestinationClient {
  /** @returns the answer and the round trip of the connection, milliseconds */
  handshake(
    offer: Offer,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<{ answer: HandshakeAnswer; roundTripMs: number }>;
  settle(call: SettleCall, timeoutMs: number, signal?: AbortSignal): Promise<SettleAnswer>;
  close(): void;
}

export interface LinkLimits {
  /** gRPC receive window of the puller, bytes: about 2 x bandwidth x round trip. */
  readonly receiveWindowBytes: number;
  /** Largest message, bytes. */
  readonly messageBytes: number;
  /** A silent connection is tested this often, and lost when it does not answer for as long again. @default 2000 */
  readonly keepAliveMs?: number;
  /** How both ends prove who they are. @default in clear, over unix sockets and the loopback only */
  readonly security?: LinkSecurity;
}

export const KEEP_ALIVE_MS = 2000;
