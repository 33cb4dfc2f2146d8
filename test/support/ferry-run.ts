/** A migration by `ferry`, measured from outside as QEMU's own are: monitor events and interface counters. */
import type { MigrationView } from "../../shared/protocol/report.ts";
import type { QmpEvent } from "../../shared/qemu/qmp/qmp-types.ts";
import { ferryCommand, type HostAgents, listMigrations } from "./agents.ts";
import type { Rig } from "./rig.ts";

export interface FerryRun {
  readonly exitCode: number;
  /** From the command, as the agent has it, to RESUME; 0 when the guest did not move. */
  readonly totalSeconds: number;
  /** From STOP to RESUME. */
  readonly downtimeMs: number | undefined;
  readonly bytesOnWire: number;
  readonly view: MigrationView;
}

export interface FerryRunOptions {
  readonly from: HostAgents;
  readonly to: HostAgents;
  readonly guest: string;
  readonly options?: readonly string[];
  /** Runs the command line where it is to be seen, with the environment added. @returns its exit code */
  readonly show: (command: readonly string[], environment: Readonly<Record<string, string>>) => Promise<number>;
}

const RESUMES_WITHIN_MS = 60_000;

export async function measuredMigration(rig: Rig, options: FerryRunOptions): Promise<FerryRun> {
  const { from, to, guest } = options;
  const source = await rig.observe(from.host, guest);
  let stop: QmpEvent | undefined;
  const unsubscribe = source.subscribe((event) => {
    if (event.event === "STOP") stop = event;
  });
  // the destination's QEMU is there only once the handshake was made
  const waiting = new AbortController();
  const resumed = resumeEvent(rig, to, guest, waiting.signal);
  // a destination QEMU that ends takes its monitor with it, while the command is still to say why
  resumed.catch(() => undefined);
  const bytesBefore = await rig.network.wireBytes();
  const command = ferryCommand(from, ["migrate", guest, "--to", to.destinationAddress, ...(options.options ?? [])]);
  const exitCode = await options.show(command, rig.environment);
  if (exitCode !== 0) waiting.abort();
  const resume = exitCode === 0 ? await resumed : undefined;
  const bytesOnWire = (await rig.network.wireBytes()) - bytesBefore;
  unsubscribe();
  source.close();
  const view = (await listMigrations(rig, from)).filter((one) => one.guest === guest).at(-1);
  if (view === undefined) throw new Error(`${from.sourceAddress} knows no migration of ${guest}`);
  const totalSeconds = resume === undefined ? 0 : resume.timestampUs / 1e6 - view.startedAtMs / 1e3;
  const downtimeMs =
    resume === undefined || stop === undefined ? undefined : (resume.timestampUs - stop.timestampUs) / 1e3;
  return { exitCode, totalSeconds, downtimeMs, bytesOnWire, view };
}

async function resumeEvent(
  rig: Rig,
  to: HostAgents,
  guest: string,
  signal: AbortSignal,
): Promise<QmpEvent | undefined> {
  try {
    const monitor = await rig.observe(to.host, guest, { timeoutMs: RESUMES_WITHIN_MS });
    const event = await monitor.waitFor("RESUME", undefined, { timeoutMs: RESUMES_WITHIN_MS, signal });
    monitor.close();
    return event;
  } catch (thrown) {
    if (signal.aborted) return undefined;
    throw thrown;
  }
}
