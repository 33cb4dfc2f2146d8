/**
 * The loopback: both ends of everything that agents and operators say to each other over gRPC, inside one process. For
 * its warm-up an agent moves its simulated guest over the loopback (docs/design/warm-up.md).
 */
import { MigrationFault } from "../fault.ts";
import { connectDestination, dialSource } from "../link/grpc/grpc-link.ts";
import { serveDestination, serveSource } from "../link/grpc/grpc-server.ts";
import { GrpcOperatorClient } from "../link/grpc/operator-client.ts";
import type { DestinationService, LinkLimits, Listener, SourceService } from "../link/link.ts";
import { ResumingDestination } from "../link/resume/resuming-destination.ts";
import { ResumingSource } from "../link/resume/resuming-source.ts";
import type { Offer } from "../protocol/messages.ts";
import type { MigrationView } from "../protocol/report.ts";
import { systemClock } from "../runtime/clock.ts";

export interface Loopback {
  readonly source: ResumingSource;
  /** The destination's end of the transfer stream, which dials the source when its receive() is called. */
  readonly destination: ResumingDestination;
  /** Sets the function whose views the operator that watches sees from now on, until the loopback is closed. */
  watched(view: () => MigrationView): void;
  /** Closes every connection and listener. The sockets are gone afterwards. */
  close(): Promise<void>;
}

/** The token of the simulated migration. */
const NOBODY = new Uint8Array(16);
/** How long a listener may take to finish its calls when it is closed, milliseconds. */
const GRACE_MS = 500;
/** How often the operator that watches sees a view, milliseconds. */
const WATCH_MS = 20;
const CALL_MS = 1000;
/** How many calls of each kind are made ahead of the stream. */
const CALLS = 8;

const OFFER: Offer = {
  protocolVersions: [2, 1],
  migrationId: "00",
  token: NOBODY,
  sourceAddress: "localhost:1",
  guest: {
    name: "rehearsal",
    definitionDigest: "0",
    machineType: "none",
    qemuVersion: { major: 10, minor: 0, micro: 0 },
    cpuModel: "none",
    // numbers of 32 bits, as those of a real processor are: V8 does not treat these as small integers
    cpuFeatures: { "1:ecx": 0xfffa3203, "1:edx": 0x178bfbff, "7:ebx": 0x9c6fb9 },
    ramBlocks: [{ name: "pc.ram", byteLength: 5e9, pageSize: 4096 }],
    paused: false,
  },
  transfer: {
    codecs: ["xbzrle", "zstd"],
    downtimeTargetMs: 300,
    deadlineMs: 0,
    onDeadline: "cancel",
    frameBytes: 1 << 19,
    creditWindowBytes: 16 << 20,
    verify: false,
    strategies: ["precopy"],
    strategy: "precopy",
    postcopyMayFollow: false,
  },
  dryRun: false,
  measureLink: false,
  saysKept: true,
};

const refuse = (): never => {
  throw new MigrationFault("refused", "This is a rehearsal");
};

/**
 * Opens a loopback. Before it returns, it makes CALLS calls of each kind, or fewer if `signal` is aborted.
 * @param path the paths of the two unix sockets are `path` and `path`-peer. No other user may be able to connect
 *   there; a socket that was left behind is replaced
 */
export async function openLoopback(
  path: string,
  { receiveWindowBytes, messageBytes, byHand = true }: LinkLimits,
  signal: AbortSignal,
): Promise<Loopback> {
  const limits = { receiveWindowBytes, messageBytes, byHand };
  const [address, peerAddress] = [`unix:${path}`, `unix:${path}-peer`];
  const source = new ResumingSource({ peer: address, patienceMs: 0 });
  let view: (() => MigrationView) | undefined;
  const service = serviceOf(source, () => view?.());
  const listeners: Listener[] = [];
  const operator = new GrpcOperatorClient(address, CALL_MS);
  const left = new AbortController();
  let watching: Promise<void> | undefined;
  const destination = new ResumingDestination({
    peer: address,
    patienceMs: 0,
    migrationId: OFFER.migrationId,
    token: NOBODY,
    dial: () => dialSource(address, limits),
  });
  const close = async (): Promise<void> => {
    left.abort();
    await watching;
    operator.close();
    destination.close();
    source.close();
    await Promise.all(listeners.map((one) => one.close(GRACE_MS)));
  };
  try {
    listeners.push(await serveSource(service, { listen: [address], limits }));
    listeners.push(await serveDestination(PEER, { listen: [peerAddress], limits }));
    watching = operator.watch(OFFER.migrationId, () => undefined, left.signal).catch(() => undefined);
    await callAll(operator, peerAddress, limits, signal);
  } catch (thrown) {
    await close();
    throw thrown;
  }
  return {
    source,
    destination,
    watched: (of) => {
      view = of;
    },
    close,
  };
}

/** The destination of the simulated migration. */
const PEER: DestinationService = {
  handshake: async () => ({ kind: "refusals", refusals: [] }),
  settle: async () => ({ standing: "unknown", reason: "" }),
};

/**
 * Makes the source's service, which has the simulated migration only.
 * @param view returns what the operators that watch the migration see; undefined while they see nothing
 */
function serviceOf(source: ResumingSource, view: () => MigrationView | undefined): SourceService {
  const watch: SourceService["watch"] = (_, observer) => {
    const timer = systemClock.every(WATCH_MS, () => {
      const seen = view();
      if (seen !== undefined) observer(seen);
    });
    return () => systemClock.cancel(timer);
  };
  return {
    listGuests: async () => [],
    listMigrations: () => [],
    watch,
    acceptTransfer: (hello, channel) => source.attach(hello, channel),
    ...{ plan: refuse, migrate: refuse, getMigration: refuse, cancel: refuse, heatMap: refuse, resolve: refuse },
  };
}

/** Makes the calls that are not part of the transfer stream: those of operators, and those between agents. */
async function callAll(
  operator: GrpcOperatorClient,
  peerAddress: string,
  limits: LinkLimits,
  signal: AbortSignal,
): Promise<void> {
  const client = connectDestination(peerAddress, limits);
  const { migrationId, token } = OFFER;
  try {
    for (let call = 0; call < CALLS && !signal.aborted; call++) {
      await operator.listGuests();
      await operator.listMigrations();
      await client.handshake(OFFER, CALL_MS, signal);
      await client.settle({ migrationId, token, epoch: 1, ask: "standing", paused: false }, CALL_MS, signal);
    }
  } finally {
    client.close();
  }
}
