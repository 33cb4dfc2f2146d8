/**
 * The source agent's half of bench:path, in a process of its own: it takes QEMU's stream at a socket and serves it to
 * the destination that dials, with the parts of a real migration, without QMP. It stays for many migrations, as an
 * agent does.
 */
import { LinkMeter } from "../../../agent-source/link/link-meter.ts";
import { PeerInbox } from "../../../agent-source/link/peer-inbox.ts";
import { KeptMemory } from "../../../agent-source/send/kept-memory.ts";
import { buildSession, type SessionParts } from "../../../agent-source/transfer/build-session.ts";
import { retainedBytes } from "../../../agent-source/transfer/session-options.ts";
import { defined } from "../../../shared/defined.ts";
import type { MigrationFault } from "../../../shared/fault.ts";
import { serveSource } from "../../../shared/link/grpc/grpc-server.ts";
import { ResumingSource } from "../../../shared/link/resume/resuming-source.ts";
import type { MigrateOptions } from "../../../shared/protocol/report.ts";
import { systemClock } from "../../../shared/runtime/clock.ts";
import { loadSourceConfig } from "../../../shared/runtime/config/config.ts";
import { deferred } from "../../../shared/runtime/deferred.ts";
import { loadKernels } from "../../../shared/runtime/load-kernels.ts";
import { createLogger } from "../../../shared/runtime/log/log.ts";
import { MIGRATE_OPTIONS } from "../../support/frames.ts";
import { sourceService } from "../../support/link.ts";
import { layoutOf } from "../guest-pages.ts";
import type { Begun, SourceOrder, Task } from "./messages.ts";
import { CONTRACT, linkLimits } from "./terms.ts";
import { endedSince, usageNow } from "./usage.ts";

/** How often the source looks whether the first pass is done, milliseconds. */
const LOOK_MS = 2;
const task: Task = JSON.parse(process.argv[2] ?? "{}");
const directories = ["guests", "runtime", "state"].map((name) => `--${name}-directory=${task.folder}`);
const config = loadSourceConfig(directories, {});
const options: MigrateOptions = { ...MIGRATE_OPTIONS, strategy: "precopy", compression: task.compression };
const keptMemory = task.keep ? new KeptMemory(systemClock, () => undefined) : undefined;
const log = createLogger("bench", "silent");
let current: ResumingSource | undefined;

const listener = await serveSource(
  sourceService({ acceptTransfer: (hello, channel) => current?.attach(hello, channel) }),
  { listen: ["127.0.0.1:0"], limits: linkLimits(task, "alpha") },
);

/** Joins the parts of a migration, for a guest that always runs and a link that is always up. */
const build = (
  channel: ResumingSource,
  meter: LinkMeter,
  onFault: (fault: MigrationFault) => void,
  onEnd: () => void,
): SessionParts =>
  buildSession(
    {
      cx: {
        ...{ config, log, clock: systemClock, createKernels: loadKernels },
        ...defined({ keptMemory }),
        call: { guest: "bench", to: "", options },
      },
      ramBlocks: layoutOf(task.pages),
      contract: CONTRACT,
      channel,
      runs: { standsStill: false },
    },
    {
      meter,
      linkIsDown: () => false,
      onOutlook: () => undefined,
      onDecision: () => undefined,
      onPackaged: () => undefined,
      onStopped: () => undefined,
      onRead: () => undefined,
      onEnd,
      onFault,
      onQemuFault: onFault,
    },
  );

async function migrate({ streamPath }: SourceOrder): Promise<void> {
  const before = usageNow();
  const channel = new ResumingSource({ peer: "bench", patienceMs: 0 });
  current = channel;
  const failed = deferred<never>();
  const ended = deferred<void>();
  const meter = new LinkMeter();
  channel.retain(retainedBytes(CONTRACT));
  const inbox = new PeerInbox(channel, meter, systemClock, (fault) => {
    // destination.ts ends the stream by a failure, the last message that takes no guest's start
    if (fault.code !== "peer-failed") failed.reject(fault);
  });
  const session = build(channel, meter, failed.reject, ended.resolve);
  let wireBytes = 0;
  inbox.onAck = ({ sequence, appliedBytes }) => {
    wireBytes = appliedBytes;
    session.sender.acknowledge(sequence, appliedBytes);
  };
  // a capture paces the reading once the first pass is done, except that of a migration's last pages
  const look = setInterval(() => {
    if (session.capture.firstPassDone) session.capture.beginFinal();
  }, LOOK_MS);
  await session.intake.listen(streamPath);
  const begun: Begun = { kind: "begun", address: listener.address };
  process.send?.(begun);
  await Promise.race([session.intake.connected(new AbortController().signal), failed.promise]);
  await Promise.race([ended.promise, failed.promise]);
  channel.send({ kind: "endOfStream", lastSequence: session.sender.sequence });
  await Promise.race([channel.closed, failed.promise]);
  clearInterval(look);
  session.capture.stop();
  session.sender.stop();
  await session.intake.close();
  await session.zstd?.release();
  await keptMemory?.put(session.kernels, session.scheduler.pages.usedEnd);
  current = undefined;
  process.send?.(await endedSince(before, wireBytes));
}

process.on("message", (order: SourceOrder) => void migrate(order));
process.on("disconnect", () => process.exit(0));
