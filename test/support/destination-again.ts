/** A destination agent that starts again, with a record of its own and a QEMU. */
import type { Test } from "tap";
import { DestinationAgent } from "../../agent-destination/service/destination-agent.ts";
import type { DestinationRecord } from "../../shared/protocol/ownership.ts";
import { decodeDestinationRecord } from "../../shared/protocol/record-decoding.ts";
import type { MigrationStatus, MigrationView } from "../../shared/protocol/report.ts";
import type { SettleAnswer, SettleCall } from "../../shared/protocol/stream-messages.ts";
import { systemClock } from "../../shared/runtime/clock.ts";
import { type DestinationConfig, loadDestinationConfig } from "../../shared/runtime/config/config.ts";
import { Journal } from "../../shared/runtime/journal/journal.ts";
import { loadKernels } from "../../shared/runtime/load-kernels.ts";
import { createLogger } from "../../shared/runtime/log/log.ts";
import { TestFaults } from "../../shared/runtime/test-faults.ts";
import { eventually } from "./bounded.ts";
import { FakeQemu } from "./fake-qemu.ts";
import { LIMITS } from "./link.ts";
import { failingWrites, ID, placesIn, recordKinds } from "./source-again.ts";

export { ID };

/** What a record holds of post-copy. */
export const POSTCOPY: NonNullable<DestinationRecord["postcopy"]> = {
  ...{ ramSectionId: 2, blocks: [{ name: "pc.ram", byteLength: 4096 }] },
  ...{ frameBytes: 65536, creditWindowBytes: 1 << 20, codecs: [], sourceAddress: "alpha:7411" },
};

const TOKEN = Buffer.from("aa".repeat(16), "hex");
const WITHIN = { timeoutMs: 15_000 };
/** An agent that is stopped waits for so long for a guest that misses pages; its source is nobody here. */
const GRACE = "--shutdown-grace=2s";

export interface Came
  extends Partial<
    Pick<DestinationRecord, "source" | "caller" | "heard" | "reason" | "postcopy" | "qemu" | "saysKept">
  > {
  readonly kind: DestinationRecord["kind"];
  /** QEMU's run state; "gone": its process has ended. */
  readonly status: string;
  /** Of `query-migrate`. @default "completed" */
  readonly migration?: string;
  /** The guest was granted paused. */
  readonly paused?: boolean;
  /** The mark of a refusal is in the QEMU. */
  readonly isMarked?: boolean;
  /** The monitor takes no client. */
  readonly isMute?: boolean;
}

export interface Again {
  readonly agent: DestinationAgent;
  readonly config: DestinationConfig;
  readonly qemu: FakeQemu;
  readonly journal: Journal<DestinationRecord>;
  readonly written: DestinationRecord["kind"][];
  /** The disk takes nothing, until it does again. */
  failWrites(fail: boolean): void;
  settle(ask: SettleCall["ask"], more?: Partial<SettleCall>): Promise<SettleAnswer>;
  record(): Promise<DestinationRecord | undefined>;
  view(): MigrationView;
  until(status: MigrationStatus): Promise<MigrationView>;
  /** Until its record has all of this. */
  untilWritten(wanted: Partial<DestinationRecord>): Promise<DestinationRecord>;
}

export async function startAgain(t: Test, came: Came): Promise<Again> {
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
  const parts = { config, clock: systemClock, log: createLogger("test", "silent"), journal, limits: LIMITS };
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
