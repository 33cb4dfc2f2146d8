/** Views for the tests of the command line, and a simulated operator who types commands and reads what they print. */
import type { Surroundings } from "../../cli/context.ts";
import type { OperatorClient } from "../../cli/operator-client.ts";
import { runFerry } from "../../cli/program.ts";
import type { MigrationResult, MigrationView, Progress } from "../../shared/protocol/report.ts";
import type { TlsFiles } from "../../shared/runtime/files/certificates.ts";
import { FakeClock } from "./fake-clock.ts";

export const progress = (changes: Partial<Progress> = {}): Progress => ({
  elapsedSeconds: 12.34,
  guestMemoryBytes: 512 * 2 ** 20,
  passes: 7,
  bytesSent: 640e6,
  bytesPerSecond: 118e6,
  estimatedResidualBytes: 34_200_000,
  estimatedDowntimeMs: 290,
  pagesPending: 8000,
  pagesHeld: 5000,
  firstPassFraction: 0.52,
  heatClasses: [100_000, 20_000, 500, 0, 30_000],
  dirtyBytesPerSecond: 200e6,
  roundTripMs: 0.4,
  linkDownSeconds: 0,
  downtimeTargetMs: 300,
  stalledSeconds: 0,
  etaSeconds: 4.2,
  ...changes,
});

export const result = (changes: Partial<MigrationResult> = {}): MigrationResult => ({
  completed: true,
  totalSeconds: 4.21,
  downtime: {
    totalMs: 41.7,
    lastPagesMs: 12,
    deviceStateMs: 8.2,
    loadMs: 10.5,
    verifyMs: 0,
    commitMs: 11,
    clockErrorMs: 0.31,
  },
  bytes: { total: 219e6, zero: 10_240, full: 180e6, delta: 38e6, device: 300_000, other: 900_000 },
  pages: { captured: 412_345, zero: 60_000, full: 70_000, delta: 150_000, coalesced: 120_000, skipped: 12_345 },
  deltaRatio: 14.21,
  zstdRatio: 2.08,
  bitmapSyncs: 38,
  sourceAgentCpuSeconds: 3.4,
  destinationAgentCpuSeconds: 1.25,
  sourceAgentPeakMemoryBytes: 410 * 2 ** 20,
  destinationAgentPeakMemoryBytes: 120 * 2 ** 20,
  stalledSeconds: 0,
  switchReason: "the residual of 2.1 MB fits the downtime target of 300 ms",
  verified: false,
  pagesCompared: 0,
  degradations: [],
  verifyExceptions: [],
  paused: false,
  ...changes,
});

export const view = (changes: Partial<MigrationView> = {}): MigrationView => ({
  id: "m-1",
  guest: "web",
  destination: "host-b:7412",
  status: "copying",
  startedAtMs: Date.UTC(2026, 0, 2, 3, 4, 5),
  negotiated: { codecs: "xbzrle, zstd", strategy: "precopy (auto)" },
  progress: progress(),
  ...changes,
});

const unexpected = (name: string) => (): never => {
  throw new TypeError(`${name} was not expected`);
};

/** Makes a client that can do only what a test gives it. Every other call throws a TypeError. */
export const fakeClient = (methods: Partial<OperatorClient>): OperatorClient => ({
  listGuests: unexpected("listGuests"),
  plan: unexpected("plan"),
  migrate: unexpected("migrate"),
  watch: unexpected("watch"),
  listMigrations: unexpected("listMigrations"),
  cancel: unexpected("cancel"),
  heatMap: unexpected("heatMap"),
  resolve: unexpected("resolve"),
  close: () => undefined,
  ...methods,
});

interface Typed {
  readonly code: number;
  readonly out: string;
  readonly err: string;
  readonly addresses: readonly string[];
  readonly files: readonly (TlsFiles | undefined)[];
}

export interface Operator {
  /** Presses Ctrl-C. */
  interrupt(): void;
  /** The clock of the program. */
  readonly clock: FakeClock;
  type(line: string): Promise<Typed>;
}

export function operator(
  client: OperatorClient,
  changes: { interactive?: boolean; confirms?: boolean; env?: NodeJS.ProcessEnv } = {},
): Operator {
  const handlers = new Set<() => void>();
  const clock = new FakeClock();
  const type = async (line: string): Promise<Typed> => {
    let out = "";
    let err = "";
    const addresses: string[] = [];
    const files: (TlsFiles | undefined)[] = [];
    const surroundings: Surroundings = {
      terminal: {
        out: (text) => {
          out += text;
        },
        err: (text) => {
          err += text;
        },
        isInteractive: changes.interactive ?? false,
        columns: () => 120,
        confirm: async () => changes.confirms ?? false,
        monotonicMs: () => clock.monotonicMs(),
      },
      env: changes.env ?? {},
      connect: (address, _, tls) => {
        addresses.push(address);
        files.push(tls);
        return client;
      },
      onInterrupt: (handler) => {
        handlers.add(handler);
        return () => void handlers.delete(handler);
      },
      sleep: (ms, signal) => clock.sleep(ms, signal).catch(() => undefined),
    };
    const code = await runFerry(
      line.split(" ").filter((word) => word !== ""),
      surroundings,
    );
    return { code, out, err, addresses, files };
  };
  return {
    interrupt: () => [...handlers].forEach((handler) => void handler()),
    clock,
    type,
  };
}
