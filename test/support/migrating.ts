/**
 * Makes a migration that has its session, for tests of single phases: a real TransferSession between a simulated QEMU
 * that may write a stream, and a destination at its end of the transfer stream. Compression is off, and the arena is
 * small.
 */
import { setTimeout } from "node:timers/promises";
import type { Test } from "tap";
import { RunState } from "../../agent-source/guest/run-state.ts";
import type { Loaded } from "../../agent-source/migration/source-state.ts";
import { TransferSession } from "../../agent-source/transfer/transfer-session.ts";
import { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { loadGuest } from "../../shared/runtime/guest/guest-definition.ts";
import { eventually } from "./bounded.ts";
import type { FakeClock } from "./fake-clock.ts";
import { FAKE_RAM, FAKE_SETTINGS } from "./fake-guest-facts.ts";
import { type Phase, type PhaseOptions, sourcePhase } from "./source-cx.ts";
import { StreamDestination } from "./stream-destination.ts";
import { type Streaming, StreamingQemu } from "./streaming-qemu.ts";

/** Flags of an agent that gives a migration little memory. */
export const SMALL = ["--memory-arena=1MiB", "--memory-base-cache=1MiB"];
/** What the operator asks for: no compression, no comparison of the memory, and no limit of rate or time. */
export const PLAIN = {
  compression: "off",
  delta: false,
  verify: false,
  bandwidthBytesPerSecond: 0,
  deadlineMs: 0,
} as const;

/** How long a test waits for something, milliseconds of real time; long enough for a machine with busy processors. */
const WITHIN_MS = 60_000;

export interface MigratingOptions extends PhaseOptions {
  /** The guest's run state when the migration begins. @default "running" */
  readonly status?: string;
  /** True where the guest's operator has paused it. @default true for the run state "paused" */
  readonly paused?: boolean;
  /** What QEMU does with its stream; undefined where it is to write none. */
  readonly stream?: Streaming;
  readonly agreed?: ConstructorParameters<typeof TransferSession>[0]["agreed"];
}

export interface Migrating extends Phase {
  readonly session: TransferSession;
  readonly qmp: QmpClient;
  /**
   * The destination at its end of the transfer stream. What the source says there is among `happened`, as "link: …".
   */
  readonly there: StreamDestination;
  /** QEMU's stream. What comes on its return path is among `happened`, as "qemu hears: …". */
  readonly stream: StreamingQemu;
}

/** The terms that the two agents have agreed on. */
export const terms = (postcopy: boolean) => ({
  ...{ protocolVersion: 2, codecs: [], frameBytes: 65_536, creditWindowBytes: 1 << 20, postcopy },
  ...({ strategy: postcopy ? "hybrid" : "precopy", onDeadline: "cancel" } as const),
});

/** Makes such a migration. With `stream`, QEMU has begun to write, and the agent knows the guest's RAM blocks. */
export async function migrating(t: Test, options: MigratingOptions = {}): Promise<Migrating> {
  const { status = "running", paused = status === "paused", stream: how, agreed } = options;
  const asked = { ...PLAIN, ...options.asked };
  const phase = await sourcePhase(t, status, { ...options, asked, flags: [...SMALL, ...(options.flags ?? [])] });
  const { cx, qemu, happened } = phase;
  const { qmp: path } = await loadGuest("web", cx.config);
  const qmp = await QmpClient.connect(path, {}, cx.clock);
  t.teardown(() => qmp.close());
  await cx.qemu.meet(qmp, path);
  const there = new StreamDestination(cx);
  there.onHeard = ({ kind }) => void happened.push(`link: ${kind}`);
  const stream = new StreamingQemu(t, qemu, how);
  stream.onHeard = (what) => void happened.push(`qemu hears: ${what}`);
  const runs = await RunState.begin(qmp);
  const session = new TransferSession({
    ...{ cx, qmp, ramBlocks: FAKE_RAM, contract: terms(how?.postcopy === true), channel: there.link },
    ...{
      runs,
      paused,
      onCut: () => undefined,
      onOutlook: () => undefined,
      ...(agreed === undefined ? {} : { agreed }),
    },
  });
  t.teardown(() => session.stop());
  there.dial();
  session.probed(0);
  session.settings = FAKE_SETTINGS;
  if (how !== undefined) {
    await session.intake.listen(session.streamPath);
    const connected = session.intake.connected(session.signal);
    await qmp.execute("migrate", { uri: `unix:${session.streamPath}` });
    await connected;
    await until(() => session.capture.layoutSeen !== undefined, "the RAM blocks of the stream");
    await there.until("layout");
  }
  happened.length = 0;
  return { ...phase, session, qmp, there, stream };
}

/** Waits until something is so. @throws Error when it is not so after WITHIN_MS */
export const until = (isIt: () => boolean, what: string): Promise<true> =>
  eventually(() => (isIt() ? true : undefined), { timeoutMs: WITHIN_MS, what });

/**
 * Moves a clock on until a promise has settled. Between two steps there is a moment of real time, so that sockets and
 * files get on, which know nothing of this clock.
 * @throws Error when the promise has not settled after WITHIN_MS of real time
 */
export async function passing<T>(clock: FakeClock, promise: Promise<T>, stepMs = 100): Promise<T> {
  let isOver = false;
  const over = (): void => {
    isOver = true;
  };
  promise.then(over, over);
  const endMs = performance.now() + WITHIN_MS;
  while (!isOver) {
    if (performance.now() > endMs)
      throw new Error(`Waited ${WITHIN_MS} ms, and ${clock.monotonicMs()} ms by the clock`);
    await clock.advance(stepMs);
    await setTimeout(10);
  }
  return await promise;
}

/** What a session has once the destination has loaded its guest. */
export const loadedOf = (session: TransferSession): Loaded => ({
  session,
  times: {
    ...{ stoppedUs: 1_000_000, lastPagesUs: 1_010_000, lastByteUs: 1_030_000, loadedUs: 1_060_000, verifyMs: 0 },
    compared: { pages: 0, exceptions: [] },
  },
  reason: "what is left fits the downtime",
});
