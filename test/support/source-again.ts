/**
 * Starts a source agent as after a crash: its journal has a record of a migration, a simulated QEMU may run, and a
 * destination can be asked.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Test } from "tap";
import { SourceAgent } from "../../agent-source/service/source-agent.ts";
import { MigrationFault } from "../../shared/fault.ts";
import type { SourceRecord } from "../../shared/protocol/ownership.ts";
import { decodeSourceRecord } from "../../shared/protocol/record-decoding.ts";
import { isFinal, type MigrationStatus, type MigrationView } from "../../shared/protocol/report.ts";
import { systemClock } from "../../shared/runtime/clock.ts";
import { loadSourceConfig } from "../../shared/runtime/config/config.ts";
import { Journal } from "../../shared/runtime/journal/journal.ts";
import { loadKernels } from "../../shared/runtime/load-kernels.ts";
import { createLogger } from "../../shared/runtime/log/log.ts";
import { TestFaults } from "../../shared/runtime/test-faults.ts";
import { type Answer, AskedDestination } from "./asked-destination.ts";
import { eventually } from "./bounded.ts";
import { FakeQemu } from "./fake-qemu.ts";
import { LIMITS } from "./link.ts";
import { folder } from "./link-fixtures.ts";

/** The id of the migration in the record. */
export const ID = "0123456789ab";
/** The id of an earlier migration of the same guest. */
export const EARLIER = "ba9876543210";

/** What the agent finds when it starts. */
export interface Found extends Partial<Pick<SourceRecord, "retiring" | "untold" | "postcopy" | "reason">> {
  readonly kind: SourceRecord["kind"];
  /** QEMU's run state; "gone" if its process has ended. */
  readonly qemu: string;
  /** The status that `query-migrate` returns. @default "completed" */
  readonly migration?: string;
  /** Another record of the same guest, of an earlier migration. */
  readonly earlier?: Partial<SourceRecord>;
  /** The destination's answers, question by question. The last answer is given again and again. @default unknown */
  readonly answers?: readonly Answer[];
  /** True if the record says that the guest was paused. */
  readonly paused?: boolean;
  /** True if the record names no process, like the records of older versions. */
  readonly isNameless?: boolean;
}

/** An agent that has started again, and what a test may do with it. */
export interface Again {
  readonly agent: SourceAgent;
  readonly qemu: FakeQemu;
  readonly destination: AskedDestination;
  readonly journal: Journal<SourceRecord>;
  /** The kinds of all records that were written since the start. */
  readonly written: SourceRecord["kind"][];
  record(id?: string): Promise<SourceRecord | undefined>;
  view(): MigrationView;
  /** Waits until the migration has this status. */
  until(status: MigrationStatus): Promise<MigrationView>;
  /** Waits until the migration has ended. @returns its last view */
  end(): Promise<MigrationView>;
  /** Waits until the record is as wanted. @param what names what is wanted, in the error */
  untilWritten(isIt: (record: SourceRecord) => boolean, what: string): Promise<SourceRecord>;
}

/** Makes the directories of an agent, with a definition of the guest. @returns the agent's flags for the directories */
export function placesIn(t: Test, qmp: string, definition: object = {}): readonly string[] {
  // the path of this folder is short enough for sockets
  const directory = folder(t);
  for (const name of ["guests", "state", "run"]) mkdirSync(join(directory, name));
  const guest = JSON.stringify({ name: "web", qmp, command: ["qemu"], ...definition });
  writeFileSync(join(directory, "guests", "web.json"), guest);
  return ["guests", "runtime", "state"].map(
    (name) => `--${name}-directory=${join(directory, name === "runtime" ? "run" : name)}`,
  );
}

/** Records what is written to the journal from now on. @returns the kinds of the records, a list that grows */
export function recordKinds<Kind extends string>(journal: Journal<{ readonly kind: Kind }>): Kind[] {
  const written: Kind[] = [];
  const write = journal.write.bind(journal);
  journal.write = async (id, record, options) => {
    await write(id, record, options);
    written.push(record.kind);
  };
  return written;
}

/** Prepares a journal whose writes can be made to fail. @returns a function that says whether they fail from now on */
export function failingWrites(journal: Journal<unknown>): (fail: boolean) => void {
  const write = journal.write.bind(journal);
  let fails = false;
  journal.write = async (...given) => {
    if (fails) throw new MigrationFault("state-directory", "Cannot write: ENOSPC");
    await write(...given);
  };
  return (fail) => {
    fails = fail;
  };
}

/** Starts an agent with what `found` says. */
export async function startAgain(t: Test, found: Found): Promise<Again> {
  const { kind, qemu: status, migration, earlier, answers, paused = false, isNameless, ...noted } = found;
  const qemu = await FakeQemu.start(t, { status, migration });
  if (status === "gone") await qemu.end();
  const destination = await AskedDestination.serve(t);
  destination.answersInTurn(answers ?? ["unknown"]);
  const config = loadSourceConfig([...placesIn(t, qemu.path)], {});
  const journal = await Journal.open<SourceRecord>(config.stateDirectory, decodeSourceRecord);
  const grant = { token: "aa".repeat(16), epoch: 1, paused };
  const settings = { capabilities: { events: false }, parameters: { "downtime-limit": 300 } };
  const process = isNameless === true ? {} : { qemu: qemu.process };
  const record = { guest: "web", destination: destination.address, startedAtMs: 2, grant, settings, ...process };
  await journal.write(ID, { kind, ...record, sequence: 7, ...noted });
  // the clock was ahead when this record was written: the order of records follows their numbers, not their times
  if (earlier !== undefined)
    await journal.write(EARLIER, { kind: "plan", ...record, sequence: 6, startedAtMs: 3, ...earlier });
  const written = recordKinds(journal);
  const log = createLogger("test", "silent");
  const parts = { config, clock: systemClock, log, journal, limits: LIMITS, createKernels: loadKernels };
  const agent = new SourceAgent({ ...parts, faults: new TestFaults() });
  t.teardown(() => agent.stop());
  await agent.recover();
  const view = (): MigrationView => agent.getMigration(ID);
  const until = (isIt: (status: MigrationStatus) => boolean, what: string): Promise<MigrationView> =>
    eventually(() => (isIt(view().status) ? view() : undefined), { timeoutMs: 15_000, what });
  return {
    ...{ agent, qemu, destination, journal, written, view },
    record: (id = ID) => journal.read(id),
    until: (wanted) => until((one) => one === wanted, `${wanted}, which is ${view().status}`),
    untilWritten: (isIt, what) =>
      eventually(
        async () => {
          const found = await journal.read(ID);
          return found !== undefined && isIt(found) ? found : undefined;
        },
        { timeoutMs: 15_000, what: `the record ${what}` },
      ),
    end: () => until(isFinal, `its end, which is ${view().status}`),
  };
}
