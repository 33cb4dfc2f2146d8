/**
 * Makes the context of one migration at its source, for tests of single phases. The QEMU is simulated, and the
 * destination can only be asked.
 */
import type { Test } from "tap";
import { OwnQemu } from "../../agent-source/guest/own-qemu.ts";
import { RestartedStreams } from "../../agent-source/link/restarted-streams.ts";
import { OperatorWords } from "../../agent-source/migration/operator-words.ts";
import type { SourceContext } from "../../agent-source/migration/source-context.ts";
import { MigrationReport } from "../../agent-source/report/migration-report.ts";
import { MigrationFault } from "../../shared/fault.ts";
import type { SourceRecord } from "../../shared/protocol/ownership.ts";
import { decodeSourceRecord } from "../../shared/protocol/record-decoding.ts";
import type { MigrateOptions } from "../../shared/protocol/report.ts";
import { type Clock, systemClock } from "../../shared/runtime/clock.ts";
import { loadSourceConfig } from "../../shared/runtime/config/config.ts";
import { Journal } from "../../shared/runtime/journal/journal.ts";
import { loadKernels } from "../../shared/runtime/load-kernels.ts";
import { createLogger } from "../../shared/runtime/log/log.ts";
import { TestFaults } from "../../shared/runtime/test-faults.ts";
import { AskedDestination } from "./asked-destination.ts";
import { FakeQemu } from "./fake-qemu.ts";
import { LIMITS } from "./link.ts";
import { call } from "./link-fixtures.ts";
import { failingWrites, ID, placesIn, recordKinds } from "./source-again.ts";

export interface Phase {
  readonly cx: SourceContext;
  readonly qemu: FakeQemu;
  readonly destination: AskedDestination;
  /** The kinds of all records that were written. */
  readonly written: SourceRecord["kind"][];
  /**
   * What was written, said to QEMU and asked of the destination by calls, in the order in which it happened, such as
   * "journal: plan", "qemu: cont" and "call: withdraw". A record's marks follow its kind: "journal: plan retiring".
   */
  readonly happened: string[];
  /** Cancels the migration, as its operator does. */
  cancel(): void;
  /** Lets the agent leave its migrations as they are. */
  leave(): void;
  /** With true, every write of the journal fails from now on; with false, writes work again. */
  failWrites(fail: boolean): void;
  record(): Promise<SourceRecord | undefined>;
}

export interface PhaseOptions {
  /** @default the host's clock */
  readonly clock?: Clock;
  /** Flags of the agent, beside those for its directories. */
  readonly flags?: readonly string[];
  /** What the operator asks for, where it is not as in link-fixtures.ts. */
  readonly asked?: Partial<MigrateOptions>;
  /** Fields of the guest's definition. */
  readonly definition?: object;
}

/** Makes such a context. @param status QEMU's run state, or "gone" if its process has ended */
export async function sourcePhase(t: Test, status: string, options: PhaseOptions = {}): Promise<Phase> {
  const { clock = systemClock, flags = [], definition } = options;
  const qemu = await FakeQemu.start(t, { status });
  const config = loadSourceConfig([...placesIn(t, qemu.path, definition), ...flags], {});
  if (status === "gone") await qemu.end();
  const destination = await AskedDestination.serve(t);
  const journal = await Journal.open<SourceRecord>(config.stateDirectory, decodeSourceRecord);
  const written = recordKinds(journal);
  const failWrites = failingWrites(journal);
  const happened: string[] = [];
  noteWrites(journal, happened);
  qemu.onSaid = ({ execute }) => void happened.push(`qemu: ${execute}`);
  destination.onCall = ({ ask }) => void happened.push(`call: ${ask}`);
  const [leaving, cancelled] = [new AbortController(), new AbortController()];
  const leave = (): void => leaving.abort(new MigrationFault("stopping", "the test is over"));
  t.teardown(leave);
  const asked = {
    ...{ guest: "web", to: destination.address },
    options: { ...call.options, ...options.asked },
  };
  const cx: SourceContext = {
    ...{ id: ID, call: asked, chosenBecause: "", token: Buffer.from("aa".repeat(16), "hex"), config, journal },
    ...{ clock, log: createLogger("test", "silent"), limits: LIMITS, advertised: "alpha:7411" },
    report: new MigrationReport(ID, asked, clock),
    cancelled: cancelled.signal,
    leaving: leaving.signal,
    words: new OperatorWords(),
    doubt: { isWithdrawn: false },
    qemu: new OwnQemu("web", config, systemClock, qemu.process),
    ...{ sequence: 7, cpuSecondsBefore: 0, createKernels: loadKernels },
    dialledIn: async () => Promise.reject(new TypeError("not expected")),
    restartedStreams: new RestartedStreams(destination.address),
    faults: new TestFaults(),
  };
  return {
    ...{ cx, qemu, destination, written, happened, leave },
    cancel: () => cancelled.abort(new MigrationFault("cancelled", "Cancelled by the operator")),
    failWrites,
    record: () => journal.read(ID),
  };
}

/** The marks of a record that say what its kind does not say. */
const MARKS = ["retiring", "withdrawn", "untold", "postcopy"] as const;

/** Notes each record that the journal has taken. */
function noteWrites(journal: Journal<SourceRecord>, happened: string[]): void {
  const write = journal.write.bind(journal);
  journal.write = async (id, record, options) => {
    await write(id, record, options);
    const marks = MARKS.filter((mark) => record[mark] !== undefined);
    happened.push(["journal:", record.kind, ...marks].join(" "));
  };
}
