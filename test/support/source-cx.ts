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
import { systemClock } from "../../shared/runtime/clock.ts";
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
  /** With true, every write of the journal fails from now on; with false, writes work again. */
  failWrites(fail: boolean): void;
  record(): Promise<SourceRecord | undefined>;
}

/** Makes such a context. @param status QEMU's run state, or "gone" if its process has ended */
export async function sourcePhase(t: Test, status: string): Promise<Phase> {
  const qemu = await FakeQemu.start(t, { status });
  const config = loadSourceConfig([...placesIn(t, qemu.path)], {});
  if (status === "gone") await qemu.end();
  const destination = await AskedDestination.serve(t);
  const journal = await Journal.open<SourceRecord>(config.stateDirectory, decodeSourceRecord);
  const written = recordKinds(journal);
  const failWrites = failingWrites(journal);
  const leaving = new AbortController();
  t.teardown(() => leaving.abort(new MigrationFault("stopping", "the test is over")));
  const asked = { ...call, guest: "web", to: destination.address };
  const cx: SourceContext = {
    ...{ id: ID, call: asked, chosenBecause: "", token: Buffer.from("aa".repeat(16), "hex"), config, journal },
    ...{ clock: systemClock, log: createLogger("test", "silent"), limits: LIMITS, advertised: "" },
    report: new MigrationReport(ID, asked, systemClock),
    cancelled: new AbortController().signal,
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
    ...{ cx, qemu, destination, written },
    failWrites,
    record: () => journal.read(ID),
  };
}
