/**
 * The contract of the link: what the agents ask of each other, what operators ask of them, and what a transfer stream
 * promises. Only LinkLimits is about the transport. The files of `grpc/` and `h2/` carry the contract over gRPC, and
 * `test/support/memory-link.ts` carries transfer streams inside one process, for tests.
 */
import type { MigrationFault } from "../fault.ts";
import type { HandshakeAnswer, Offer } from "../protocol/messages.ts";
import type { PlanCall, PlanView } from "../protocol/plan-view.ts";
import type { GuestView, HeatMapBlock, MigrateCall, MigrationView, ResolveCall } from "../protocol/report.ts";
import type {
  DestinationMessage,
  Hello,
  SettleAnswer,
  SettleCall,
  SourceMessage,
} from "../protocol/stream-messages.ts";
import type { LinkSecurity } from "./tls/security.ts";

/** One end of a transfer stream. Messages arrive in the order in which they were sent. */
export interface Channel<Out, In> {
  /**
   * Queues a message. The caller may reuse the buffers of the message only after `taken` was called. `taken` is called
   * once, also when the channel fails.
   * @returns true if more may be sent; if not, wait for `drained()`. A message that is sent all the same is queued, and
   *   a queue of thousands of messages closes the channel with `peer-lost`
   */
  send(message: Out, taken?: () => void): boolean;
  /** Resolves when more may be sent, or when the channel has closed. */
  drained(): Promise<void>;
  /**
   * Starts delivery. `handler` is called for each message, never re-entrantly. If it throws, the channel closes with
   * that fault.
   */
  receive(handler: (message: In) => void): void;
  /** Stops delivery until resume(). The transport's flow control bounds what arrives meanwhile. */
  pause(): void;
  resume(): void;
  /**
   * Without a fault, ends the stream in order: everything that was sent before still arrives, and then the peer's side
   * ends too, after everything that the peer has sent. With a fault, tears the stream: messages on their way may be
   * lost. A fault of the end that was dialled reaches the peer as the status of the call. The end that dialled cannot
   * say its fault, and its peer sees `peer-lost`.
   */
  close(fault?: MigrationFault): void;
  /**
   * Settles once, when both directions are over: with undefined after an orderly end, with `peer-lost` for any other
   * end of the transport, and with another fault only when one of the two agents named that fault. Nothing is delivered
   * afterwards. A paused channel sees the orderly end of its peer when it resumes.
   */
  readonly closed: Promise<MigrationFault | undefined>;
  /**
   * Tells whether one of the two agents has announced the end of the stream. The owner of the channel sets this
   * function, and a channel that was dialled calls it when the peer's side ends. If the answer is false, the connection
   * was cut, although it ended in order here, and the channel closes with `peer-lost` at both ends.
   * @default true: every end counts as announced
   */
  expectsEnd?: () => boolean;
  /** The address of the peer, for logs. */
  readonly peer: string;
}

/** The source's end of a transfer stream: the end that was dialled. */
export type SourceChannel = Channel<SourceMessage, DestinationMessage>;
/** The destination's end of a transfer stream: the end that dialled. */
export type DestinationChannel = Channel<DestinationMessage, SourceMessage>;

/** What an operator may ask either agent about its migrations. A fault that a method throws becomes a gRPC status. */
export interface MigrationOperator {
  /** @throws MigrationFault `migration-unknown` */
  getMigration(id: string): MigrationView;
  listMigrations(): readonly MigrationView[];
  /**
   * Calls `observer` with the present view at once, and then with newer views a few times a second, until a final view.
   * A view may be the same as the one before.
   * @returns a function that ends the watch
   * @throws MigrationFault `migration-unknown`
   */
  watch(id: string, observer: (view: MigrationView) => void): () => void;
  /**
   * Cancels a migration. Resolves when the migration has ended, when it waits for another host or for an operator's
   * word, or after 20 s.
   * @throws MigrationFault `migration-unknown`; `too-late` once the guest is being handed over
   */
  cancel(id: string): Promise<MigrationView>;
  /**
   * Takes an operator's word on a migration that waits for one.
   * @throws MigrationFault `needs-confirmation` with what the operator must first make sure of, `not-in-doubt`,
   *   `not-resolvable`
   */
  resolve(call: ResolveCall): Promise<MigrationView>;
}

/** What the source agent serves. A fault that a method throws becomes a gRPC status. */
export interface SourceService extends MigrationOperator {
  listGuests(): Promise<readonly GuestView[]>;
  plan(call: PlanCall): Promise<PlanView>;
  /** Starts a migration. @returns its id @throws MigrationFault when the migration cannot be started */
  migrate(call: MigrateCall): Promise<string>;
  /**
   * Tells where the guest writes: for each RAM block, the mean heat of each cell, which is a stretch of pages.
   * @param cells the most cells of each block
   * @throws MigrationFault `migration-unknown`
   */
  heatMap(idOrGuest: string, cells: number): readonly HeatMapBlock[];
  /**
   * Takes the connection of a destination that dialled in, for the first time or again.
   * @param hello the first message of the connection
   * @throws MigrationFault `refused` when no migration waits for this destination, `peer-lost` when it is to dial again
   *   later, `peer-invalid` when it says that it has received what was not sent
   */
  acceptTransfer(hello: Hello, channel: SourceChannel): void;
}

/** The caller of a method, as far as its connection shows it. */
export interface Caller {
  /** What tells one caller from another: over TLS the listed name of its certificate, in clear its host's address. */
  readonly name: string;
  /** All names of the caller's certificate. There are none in clear, where nothing is proven. */
  readonly names: readonly string[];
  /** A description of the caller, for logs. */
  readonly text: string;
}

/** What the destination agent serves to sources. To operators it serves a MigrationOperator. */
export interface DestinationService {
  handshake(offer: Offer, caller: Caller): Promise<HandshakeAnswer>;
  settle(call: SettleCall): Promise<SettleAnswer>;
}

/** A listening server. */
export interface Listener {
  /** The first address that the server is bound to, with the port that was chosen: "host:port" or "unix:PATH". */
  readonly address: string;
  /** Takes no connection any more, gives calls under way at most `graceMs` milliseconds to end, and then tears them. */
  close(graceMs: number): Promise<void>;
}

/** A source agent's client of a destination agent. */
export interface DestinationClient {
  /** @returns the answer, and how long the call took, milliseconds */
  handshake(
    offer: Offer,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<{ answer: HandshakeAnswer; roundTripMs: number }>;
  settle(call: SettleCall, timeoutMs: number, signal?: AbortSignal): Promise<SettleAnswer>;
  close(): void;
}

/** The limits of a connection, and how it is secured. */
export interface LinkLimits {
  /** The receive window of the destination agent, which pulls the pages, bytes: about 2 x bandwidth x round trip. */
  readonly receiveWindowBytes: number;
  /** The largest message, bytes. */
  readonly messageBytes: number;
  /**
   * How often an end of a connection asks the other end for a sign of life, by PING of HTTP/2, milliseconds. A peer
   * that does not answer for as long again is lost.
   * @default 2000
   */
  readonly keepAliveMs?: number;
  /** How both ends prove who they are. @default in clear, over unix sockets only */
  readonly security?: LinkSecurity;
  /**
   * Whether the destination agent pulls the pages by Ferry's own HTTP/2 client (shared/link/h2/), and not by grpc-js.
   * @default true
   */
  readonly byHand?: boolean;
}

/** The default of `keepAliveMs` in LinkLimits, milliseconds. */
export const KEEP_ALIVE_MS = 2000;
/**
 * The most messages that wait for a peer that does not read. One more closes the channel, so that a peer that asks and
 * does not read cannot fill this agent's memory. Only answers and acknowledgements of some 30 bytes each are sent
 * without waiting for drained(), and a peer that reads never leaves more than tens of them unread.
 */
export const QUEUED_MESSAGES_MAX = 4096;
