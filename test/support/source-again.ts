/** A source agent that starts again, with a record of its own, a QEMU, and a destination that is asked. */
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

export const ID = "0123456789ab";
export const EARLIER = "ba9876543210";

export interface Found extends Partial<Pick<SourceRecord, "retiring" | "untold" | "postcopy" | "reason">> {
  readonly kind: SourceRecord["kind"];
  /** QEMU's run state; "gone": its process has ended. */
  readonly qemu: string;
  /** Of `query-migrate`. @default "completed" */
  readonly migration?: string;
  /** Another record of the same guest, of the migration before. */
  readonly earlier?: Partial<SourceRecord>;
  /** What the destination says, question by question; the last one again and again. @default unknown */
  readonly answers?: readonly Answer[];
  /** The record says that the guest was paused. */
  readonly paused?: boolean;
  /** The record names no process, as older versions wrote it. */
  readonly isNameless?: boolean;
}

export interface Again {
  readonly agent: SourceAgent;
  readonly qemu: FakeQemu;
  readonly destination: AskedDestination;
  readonly journal: Journal<SourceRecord>;
  /** The kinds of all records that were written since. */
  readonly written: SourceRecord["kind"][];
  record(id?: string): Promise<SourceRecord | undefined>;
  view(): MigrationView;
  /** Until its status is this one. */
  until(status: MigrationStatus): Promise<MigrationView>;
  /** Its last view. */
  end(): Promise<MigrationView>;
  /** Until its record is as wanted. */
  untilWritten(isIt: (record: SourceRecord) => boolean, what: string): Promise<SourceRecord>;
}

/** What the directories of an agent are, with a definition of the guest. */
export function placesIn(t: Test, qmp: string, definition: object = {}): readonly string[] {
  // with a path that is short enough for sockets
  const directory = folder(t);
  for (const name of ["guests", "state", "run"]) mkdirSync(join(directory, name));
  const guest = JSON.stringify({ name: "web", qmp, command: ["qemu"], ...definition });
  writeFileSync(join(directory, "guests", "web.json"), guest);
  return ["guests", "runtime", "state"].map(
    (name) => `--${name}-directory=${join(directory, name === "runtime" ? "run" : name)}`,
  );
}

/** Tells what is written into the journal from now on. */
export function recordKinds<Kind extends string>(journal: Journal<{ readonly kind: Kind }>): Kind[] {
  const written: Kind[] = [];
  const write = journal.write.bind(journal);
  journal.write = async (id, record, options) => {
    await write(id, record, options);
    written.push(record.kind);
  };
  return written;
}

/** Makes a journal whose disk takes nothing while it is told so. @returns tells it */
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

/** Starts an agent on a journal with that record. */
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
  // its clock was ahead then: numbers order records, not times
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
