/**
 * Starts a destination agent as after a crash: its journal has a record of a migration, and a simulated QEMU may run.
 */
import type { Test } from "tap";
import { DestinationAgent } from "../../agent-destination/service/destination-agent.ts";
import type { DestinationRecord } from "../../shared/protocol/ownership.ts";
import { decodeDestinationRecord } from "../../shared/protocol/record-decoding.ts";
import type { MigrationStatus, MigrationView } from "../../shared/protocol/report.ts";
import type { SettleAnswer, SettleCall } from "../../shared/protocol/stream-messages.ts";
import { type Clock, systemClock } from "../../shared/runtime/clock.ts";
import { type DestinationConfig, loadDestinationConfig } from "../../shared/runtime/config/config.ts";
import { deferred } from "../../shared/runtime/deferred.ts";
import { Journal } from "../../shared/runtime/journal/journal.ts";
import { loadKernels } from "../../shared/runtime/load-kernels.ts";
import { createLogger } from "../../shared/runtime/log/log.ts";
import { TestFaults } from "../../shared/runtime/test-faults.ts";
import { eventually } from "./bounded.ts";
import { FakeClock } from "./fake-clock.ts";
import { FakeQemu } from "./fake-qemu.ts";
import { LIMITS } from "./link.ts";
import { failingWrites, ID, placesIn, recordKinds } from "./source-again.ts";

export { ID };

/** The part of a record that post-copy adds. */
export const POSTCOPY: NonNullable<DestinationRecord["postcopy"]> = {
  ...{ ramSectionId: 2, blocks: [{ name: "pc.ram", byteLength: 4096 }] },
  ...{ frameBytes: 65536, creditWindowBytes: 1 << 20, codecs: [], sourceAddress: "alpha:7411" },
};

const TOKEN = Buffer.from("aa".repeat(16), "hex");
const WITHIN = { timeoutMs: 15_000 };
/**
 * An agent that is stopped waits this long for a guest that misses pages. Here it has no source that could send them.
 */
const GRACE = "--shutdown-grace=2s";

/** What the agent finds when it starts: the record, and the state of the QEMU. */
export interface Came
  extends Partial<
    Pick<DestinationRecord, "source" | "caller" | "heard" | "reason" | "postcopy" | "qemu" | "saysKept">
  > {
  readonly kind: DestinationRecord["kind"];
  /** QEMU's run state; "gone" if its process has ended. */
  readonly status: string;
  /** The status that `query-migrate` returns. @default "completed" */
  readonly migration?: string;
  /** True if the guest was granted paused. */
  readonly paused?: boolean;
  /** True if the mark of a refusal is in the QEMU. */
  readonly isMarked?: boolean;
  /** True if the monitor greets no client. */
  readonly isMute?: boolean;
}

/** An agent that has started again, and what a test may do with it. */
export interface Again {
  readonly agent: DestinationAgent;
  readonly config: DestinationConfig;
  readonly qemu: FakeQemu;
  readonly journal: Journal<DestinationRecord>;
  /** The kinds of all records that were written since the start. */
  readonly written: DestinationRecord["kind"][];
  /** With true, every write of the journal fails from now on; with false, writes work again. */
  failWrites(fail: boolean): void;
  settle(ask: SettleCall["ask"], more?: Partial<SettleCall>): Promise<SettleAnswer>;
  record(): Promise<DestinationRecord | undefined>;
  view(): MigrationView;
  until(status: MigrationStatus): Promise<MigrationView>;
  /** Waits until the record of the migration has all of these fields. */
  untilWritten(wanted: Partial<DestinationRecord>): Promise<DestinationRecord>;
}

/**
 * Starts an agent with what `came` says.
 * @param clock the agent's clock. A FakeClock has to move while the agent starts, if a wait of the agent is to end
 */
export async function startAgain(t: Test, came: Came, clock: Clock = systemClock): Promise<Again> {
  const { kind, status, migration, paused = false, isMarked, isMute, ...noted } = came;
  const qemu = await FakeQemu.start(t, { status, migration });
  if (isMarked === true) qemu.objects.add("ferry-refused");
  qemu.greets = isMute !== true;
  const timeout = `--qmp-timeout=${isMute === true ? "500ms" : "10s"}`;
  const config = loadDestinationConfig([...placesIn(t, qemu.path), timeout, GRACE], {});
  if (status === "gone") await qemu.end();
  const journal = await Journal.open<DestinationRecord>(config.stateDirectory, decodeDestinationRecord);
  const grant = { token: TOKEN.toString("hex"), epoch: 1, paused };
  const record = { guest: "web", source: "alpha:7411", sequence: 7, startedAtMs: 2, grant, qemu: qemu.process };
  await journal.write(ID, { kind, ...record, ...noted });
  const written = recordKinds(journal);
  const failWrites = failingWrites(journal);
  const parts = { config, clock, log: createLogger("test", "silent"), journal, limits: LIMITS };
  const agent = new DestinationAgent({ ...parts, createKernels: loadKernels, faults: new TestFaults() });
  t.teardown(() => agent.stop());
  await agent.recover();
  const view = (): MigrationView => agent.desk.getMigration(ID);
  const again: Again = {
    ...{ agent, config, qemu, journal, written, view },
    failWrites,
    settle: (ask, more = {}) => agent.settle({ migrationId: ID, token: TOKEN, epoch: 1, ask, paused: false, ...more }),
    record: () => journal.read(ID),
    until: (wanted) =>
      eventually(() => (view().status === wanted ? view() : undefined), {
        ...WITHIN,
        what: `${wanted}, not ${JSON.stringify(view())}`,
      }),
    untilWritten: (wanted) =>
      eventually(
        async () => {
          const found = await journal.read(ID);
          const has = ([key, value]: [string, unknown]): boolean => found?.[key as keyof DestinationRecord] === value;
          return Object.entries(wanted).every(has) ? found : undefined;
        },
        { ...WITHIN, what: `the record ${JSON.stringify(wanted)}` },
      ),
  };
  return again;
}

/** An agent whose clock a test may let jump. */
export interface Moving extends Again {
  readonly clock: FakeClock;
  /** Waits for a status that comes after a time without an event: the clock goes on a second at a time. */
  jumpTo(status: MigrationStatus): Promise<void>;
}

/** Starts an agent as startAgain() does. Its clock moves along with real time until the test ends. */
export async function startMoving(t: Test, came: Came): Promise<Moving> {
  const clock = new FakeClock();
  const isOver = deferred<void>();
  t.teardown(() => isOver.resolve());
  void clock.walkUntil(isOver.promise);
  const again = await startAgain(t, came, clock);
  const reached = (status: MigrationStatus): true | undefined => {
    if (again.view().status === status) return true;
    clock.jump(1000);
    return undefined;
  };
  return {
    ...again,
    clock,
    jumpTo: async (status) => void (await eventually(() => reached(status), { ...WITHIN, what: status })),
  };
}
