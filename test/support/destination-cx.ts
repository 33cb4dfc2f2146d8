/**
 * Makes the context of one migration at its destination, and the QEMU and the transfer stream that its states hold, for
 * tests of single phases. The QEMU is simulated (fake-qemu.ts), and the stream stays within this process.
 */
import { PassThrough } from "node:stream";
import type { Test } from "tap";
import { GuestProcess, WAITING_ARGUMENTS } from "../../agent-destination/guest/guest-process.ts";
import {
  type DestinationContext,
  destinationRecord,
  keeperPlaces,
  tokenText,
} from "../../agent-destination/migration/destination-context.ts";
import { PostcopyPages } from "../../agent-destination/replay/postcopy-pages.ts";
import { Receiver } from "../../agent-destination/replay/receiver.ts";
import type { Replay } from "../../agent-destination/replay/replay.ts";
import { MigrationFault } from "../../shared/fault.ts";
import type { SourceChannel } from "../../shared/link/link.ts";
import type { ResumingDestination } from "../../shared/link/resume/resuming-destination.ts";
import { pageCountOf } from "../../shared/page/geometry.ts";
import type { HandshakeAnswer } from "../../shared/protocol/messages.ts";
import type { DestinationRecord, OwnershipGrant } from "../../shared/protocol/ownership.ts";
import { decodeDestinationRecord } from "../../shared/protocol/record-decoding.ts";
import type { DestinationMessage, Running } from "../../shared/protocol/stream-messages.ts";
import { AskedWord } from "../../shared/runtime/asked-word.ts";
import { type Clock, systemClock } from "../../shared/runtime/clock.ts";
import { loadDestinationConfig } from "../../shared/runtime/config/config.ts";
import { deferred } from "../../shared/runtime/deferred.ts";
import { loadGuest } from "../../shared/runtime/guest/guest-definition.ts";
import { Journal } from "../../shared/runtime/journal/journal.ts";
import { loadKernels } from "../../shared/runtime/load-kernels.ts";
import { createLogger } from "../../shared/runtime/log/log.ts";
import { TestFaults } from "../../shared/runtime/test-faults.ts";
import { PAGE_SIZE } from "../../shared/units.ts";
import { POSTCOPY } from "./destination-again.ts";
import { FakeQemu } from "./fake-qemu.ts";
import { LIMITS } from "./link.ts";
import { memoryTransfer } from "./memory-link.ts";
import { failingWrites, ID, placesIn } from "./source-again.ts";

export { ID, POSTCOPY };

export const TOKEN = Buffer.from("aa".repeat(16), "hex");
/** The grant of this migration. */
export const GRANT: OwnershipGrant = { token: TOKEN.toString("hex"), epoch: 1, paused: false };
/** The token of the grant that a message to the source refuses; empty for a failure that refuses none. */
export const refusedGrant = (message: DestinationMessage | undefined): string | undefined =>
  message?.kind === "failure" ? tokenText(message.refusedToken) : undefined;
/** What every fault of a source that withdraws says. */
export const WITHDRAWN = new MigrationFault("peer-failed", "The source withdrew the migration");

/** An operator's word. */
type Claim = Parameters<DestinationContext["claims"]["say"]>[0];

/** How a migration comes to its phase. */
export interface Came {
  /** QEMU's run state. @default "paused" */
  readonly status?: string;
  /** The status that `query-migrate` returns. @default "completed" */
  readonly migration?: string;
  /** False for a source of an earlier version, which never says `kept`. @default true */
  readonly saysKept?: boolean;
  readonly clock?: Clock;
  /** The arguments of the guest's command, behind the name of its program, which QEMU's process then has as well. */
  readonly words?: readonly string[];
}

/** One migration, and what a test may do with it. */
export interface Phase {
  readonly cx: DestinationContext;
  readonly qemu: FakeQemu;
  readonly guest: GuestProcess;
  /**
   * What was done so far, in order: each command to QEMU by its name, each record of the journal as `journal: KIND`,
   * and each message to the source as `source: KIND`.
   */
  readonly steps: string[];
  /** What operators and the source were told. */
  readonly told: { readonly running: Running[]; readonly news: string[]; readonly streams: ResumingDestination[] };
  /** The controllers of the context's signals. */
  readonly signals: Record<"cancelled" | "withdrawn" | "unneeded" | "stopping" | "leaving", AbortController>;
  /** Says an operator's word to the phase that waits for one. */
  say(claim: Claim): void;
  /** With true, every write of the journal fails from now on; with false, writes work again. */
  failWrites(fail: boolean): void;
  /** Writes a record of this migration and its QEMU, which is no step. */
  write(kind: DestinationRecord["kind"], more?: Partial<DestinationRecord>): Promise<void>;
  record(): Promise<DestinationRecord | undefined>;
  /** Makes a transfer stream of this migration. */
  stream(options?: StreamOptions): Stream;
}

/** Makes such a migration. */
export async function destinationPhase(t: Test, came: Came = {}): Promise<Phase> {
  const { status = "paused", migration, saysKept = true, clock = systemClock, words = [] } = came;
  const commandLine = words.length === 0 ? undefined : [...words, ...WAITING_ARGUMENTS];
  const qemu = await FakeQemu.start(t, { status, migration }, undefined, commandLine);
  const steps = qemu.said;
  const config = loadDestinationConfig([...placesIn(t, qemu.path, { command: ["qemu", ...words] })], {});
  const journal = await Journal.open<DestinationRecord>(config.stateDirectory, decodeDestinationRecord);
  const failWrites = failingWrites(journal);
  const write = journal.write.bind(journal);
  const signals = {
    ...{ cancelled: new AbortController(), withdrawn: new AbortController(), unneeded: new AbortController() },
    ...{ stopping: new AbortController(), leaving: new AbortController() },
  };
  t.teardown(() => signals.leaving.abort(new MigrationFault("stopping", "the test is over")));
  const told: Phase["told"] = { running: [], news: [], streams: [] };
  const claims = new AskedWord<Claim>();
  const cx: DestinationContext = {
    ...{ id: ID, guest: "web", token: TOKEN, source: "alpha:7411", caller: "alpha", neededBytes: 0, sequence: 7 },
    ...{ startedAtMs: 2, promisedBytes: async () => 0, config, clock, journal, limits: LIMITS, saysKept, claims },
    ...{ log: createLogger("test", "silent"), createKernels: loadKernels, faults: new TestFaults() },
    ...{ answer: deferred<HandshakeAnswer>(), granted: deferred<OwnershipGrant>(), cpuSecondsBefore: 0 },
    ...{ cancelled: signals.cancelled.signal, withdrawn: signals.withdrawn.signal, unneeded: signals.unneeded.signal },
    ...{ stopping: signals.stopping.signal, leaving: signals.leaving.signal },
    onRunning: (running) => void told.running.push(running),
    onStream: (stream) => void told.streams.push(stream),
    onNews: (news) => void told.news.push(news),
  };
  const definition = await loadGuest("web", config);
  const bound = { timeoutMs: 20_000, signal: signals.leaving.signal };
  const guest = await GuestProcess.adopt(definition, qemu.process, {
    ...bound,
    keeper: keeperPlaces(cx),
    missesPages: false,
  });
  if (guest === undefined) throw new Error("the simulated QEMU has ended");
  t.teardown(() => guest.letGo());
  journal.write = async (id, record, options) => {
    await write(id, record, options);
    steps.push(`journal: ${record.kind}`);
  };
  return {
    ...{ cx, qemu, guest, steps, told, signals, failWrites },
    say: (claim) => {
      if (!claims.say(claim)) throw new Error("no phase asks for a word");
    },
    write: (kind, more = {}) => write(ID, { ...destinationRecord(cx, kind, guest), ...more }),
    record: () => journal.read(ID),
    stream: (options) => openStream(t, cx, steps, options),
  };
}

export interface StreamOptions {
  /** True for a stream of post-copy whose package was written to QEMU. @default false */
  readonly postcopy?: boolean;
  /** True while the link is down. @default false */
  readonly isCut?: boolean;
}

/** A transfer stream between the phase under test and a source that the test plays. */
interface Stream {
  readonly receiver: Receiver;
  /** The source's end. */
  readonly source: SourceChannel;
  /** What the source was told, in order. */
  readonly said: DestinationMessage[];
  /** How long a cut of the link may last, milliseconds; undefined until a phase has set it. */
  readonly link: { isCut: boolean; patienceMs: number | undefined };
  /** Post-copy's pages; a page is missing from the start. */
  readonly pages: PostcopyPages | undefined;
  /** QEMU's end of its stream: what is written here, QEMU has written back. */
  readonly socket: PassThrough;
}

/** The number of the last frame of such a stream. */
export const LAST_SEQUENCE = 9;
/** When QEMU had taken the last byte of such a stream, microseconds. */
export const LAST_BYTE_AT_US = 1_000_000;

function openStream(t: Test, cx: DestinationContext, steps: string[], options: StreamOptions = {}): Stream {
  const { postcopy = false, isCut = false } = options;
  const { source, destination } = memoryTransfer();
  const said: DestinationMessage[] = [];
  const link: Stream["link"] = { isCut, patienceMs: undefined };
  const send = destination.send.bind(destination);
  // the phases use these few members of ResumingDestination beside those of every channel
  const channel = Object.assign(destination, {
    setPatience: (ms: number) => {
      link.patienceMs = ms;
    },
    leave: () => destination.close(),
    send: (message: DestinationMessage, taken?: () => void) => {
      steps.push(`source: ${message.kind}`);
      said.push(message);
      return send(message, taken);
    },
  }) as unknown as ResumingDestination;
  Object.defineProperty(channel, "isCut", { get: () => link.isCut });
  const socket = new PassThrough();
  const blocks = POSTCOPY.blocks.map((block) => ({ ...block, pageSize: PAGE_SIZE }));
  const parts = { blocks, pageCount: pageCountOf(blocks), clock: cx.clock };
  const pages = postcopy ? new PostcopyPages({ ...parts, send: (message) => void channel.send(message) }) : undefined;
  pages?.resumeAck();
  const replay = {
    sequence: LAST_SEQUENCE,
    lastByteAtUs: LAST_BYTE_AT_US,
    postcopy: pages,
    drained: async () => undefined,
  };
  const receiver = new Receiver({
    ...{ channel, socket: socket as never, clock: cx.clock, cancelled: cx.cancelled },
    makeReplay: () => replay as unknown as Replay,
    ...(postcopy ? { resumed: POSTCOPY } : {}),
  });
  source.receive(() => undefined);
  t.teardown(() => receiver.close());
  return { receiver, source, said, link, pages, socket };
}
