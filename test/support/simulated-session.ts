/**
 * Makes a source's TransferSession whose QEMU and destination are simulated, with a clock that stands still until a
 * test moves it. QEMU writes the stream of fake-stream.ts when the test says so, and notes what it is told. The
 * destination notes what it is sent, and says nothing by itself.
 */
import { connect, type Socket } from "node:net";
import type { Test } from "tap";
import { RunState } from "../../agent-source/guest/run-state.ts";
import type { SessionOptions } from "../../agent-source/transfer/session-options.ts";
import { TransferSession } from "../../agent-source/transfer/transfer-session.ts";
import type { MigrationFault } from "../../shared/fault.ts";
import { ResumingSource } from "../../shared/link/resume/resuming-source.ts";
import type { SourceMessage } from "../../shared/protocol/stream-messages.ts";
import { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { ReturnPathReader } from "../../shared/qemu/return-path/return-path-reader.ts";
import { loadSourceConfig } from "../../shared/runtime/config/config.ts";
import { loadKernels } from "../../shared/runtime/load-kernels.ts";
import { createLogger } from "../../shared/runtime/log/log.ts";
import { FakeClock } from "./fake-clock.ts";
import { type Command, greeting, Monitor, serve } from "./fake-monitor.ts";
import { contract, MIGRATE_OPTIONS } from "./frames.ts";
import { hello } from "./link-fixtures.ts";
import { memoryTransfer } from "./memory-link.ts";
import { placesIn } from "./source-again.ts";

/** The RAM blocks of fake-stream.ts. */
const RAM_BLOCKS = [
  { name: "pc.ram", byteLength: 40 * 4096, pageSize: 4096 },
  { name: "pc.bios", byteLength: 4 * 4096, pageSize: 4096 },
  { name: "/rom@etc/acpi/tables", byteLength: 2 * 4096, pageSize: 4096 },
];

interface SimulatedOptions {
  /** QEMU's run state. @default running */
  readonly status?: string;
  readonly contract?: Partial<SessionOptions["contract"]>;
  readonly resumed?: SessionOptions["resumed"];
}

/** A simulated QEMU: what it says of itself, and what it was told. */
class SimulatedMonitor {
  status: string;
  migration = "active";
  /** Commands, and on the return path "ack" and "shut", in the order in which they came. */
  readonly said: string[] = [];
  /** What `migrate-set-parameters` has set. */
  readonly limits: unknown[] = [];
  private monitor: Monitor | undefined;

  constructor(status: string) {
    this.status = status;
  }

  /** Listens for one client. @returns the path of the monitor's socket */
  serve(t: Test): Promise<string> {
    return serve(t, (socket) => {
      this.monitor = new Monitor(socket, (command, monitor) => monitor.reply(this.answer(command)));
      this.monitor.reply(greeting());
    });
  }

  event(name: string): void {
    this.monitor?.reply({ event: name, data: {}, timestamp: { seconds: 1_767_225_600, microseconds: 0 } });
  }

  /** Closes the monitor. */
  hangUp(): void {
    this.monitor?.socket.destroy();
  }

  private answer({ execute, arguments: given, id }: Command): object {
    if (!execute.startsWith("query-")) this.said.push(execute);
    if (execute === "migrate-set-parameters") this.limits.push(given);
    const answers: Record<string, object> = {
      "query-status": { status: this.status, running: this.status === "running" },
      "query-migrate": { status: this.migration },
    };
    return { return: answers[execute] ?? {}, id };
  }
}

/** Connects as QEMU does for `migrate`, and notes in `said` what comes on the return path. */
async function openStream(t: Test, session: TransferSession, said: string[]): Promise<Socket> {
  await session.intake.listen(session.streamPath);
  const connected = session.intake.connected(session.signal);
  const socket = connect(session.streamPath);
  t.teardown(() => socket.destroy());
  socket.on("error", () => undefined);
  const none = (): void => undefined;
  const reader = new ReturnPathReader(RAM_BLOCKS, {
    ...{ requestPages: none, pong: none, resumeAck: none, receivedPages: none },
    switchoverAck: () => void said.push("ack"),
    shut: () => void said.push("shut"),
  });
  socket.on("data", (bytes) => reader.push(bytes));
  await connected;
  return socket;
}

export async function simulatedSession(t: Test, { status = "running", ...given }: SimulatedOptions = {}) {
  const clock = new FakeClock();
  const qemu = new SimulatedMonitor(status);
  const path = await qemu.serve(t);
  const qmp = await QmpClient.connect(path, {}, clock);
  t.teardown(() => qmp.close());
  const channel = new ResumingSource({ patienceMs: 60_000, peer: "beta", clock });
  const sent: SourceMessage[] = [];
  let attempt = 0;
  const dialIn = () => {
    const link = memoryTransfer();
    link.destination.receive((message) => void sent.push(message));
    channel.attach({ ...hello, attempt: ++attempt }, link.source);
    return link;
  };
  const link = dialIn();
  const flags = ["--memory-arena=16MiB", "--memory-base-cache=16MiB", "--transfer-zstd-workers=0"];
  const cancel = new AbortController();
  const cuts: ((fault: MigrationFault) => void)[] = [];
  const session = new TransferSession({
    cx: {
      ...{ id: "m-1", clock, log: createLogger("test", "silent"), createKernels: loadKernels },
      call: { guest: "web", to: "beta:7411", options: { ...MIGRATE_OPTIONS, compression: "off" } },
      config: loadSourceConfig([...placesIn(t, path), ...flags], {}),
      cancelled: cancel.signal,
    },
    ...{ qmp, ramBlocks: RAM_BLOCKS, channel, runs: await RunState.begin(qmp), paused: status === "paused" },
    contract: { ...contract, codecs: [], strategy: "precopy", postcopy: false, ...given.contract },
    onOutlook: () => undefined,
    onCut: (_signal, onGone) => void cuts.push(onGone),
    ...(given.resumed === undefined ? {} : { resumed: given.resumed }),
  });
  t.teardown(() => session.stop());
  return {
    ...{ clock, qemu, qmp, channel, link, sent, session, cuts, dialIn },
    stream: () => openStream(t, session, qemu.said),
    cancel: (fault: MigrationFault) => cancel.abort(fault),
    kinds: () => sent.map(({ kind }) => kind),
  };
}
