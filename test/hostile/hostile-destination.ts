/**
 * Plays a destination agent that was taken over, against a real source agent behind its real server, with a guest in a
 * real QEMU.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Test } from "tap";
import type { Made } from "../../agent-source/service/recovery.ts";
import { SourceAgent } from "../../agent-source/service/source-agent.ts";
import { MigrationFault } from "../../shared/fault.ts";
import { dialSource } from "../../shared/link/grpc/grpc-link.ts";
import { serveDestination, serveSource } from "../../shared/link/grpc/grpc-server.ts";
import { GrpcOperatorClient } from "../../shared/link/grpc/operator-client.ts";
import type { DestinationChannel } from "../../shared/link/link.ts";
import type { Contract, HandshakeAnswer, Offer, Strategy } from "../../shared/protocol/messages.ts";
import { decodeSourceRecord } from "../../shared/protocol/record-decoding.ts";
import { isFinal, type MigrationView } from "../../shared/protocol/report.ts";
import type { DestinationMessage, SettleAnswer, SourceMessage } from "../../shared/protocol/stream-messages.ts";
import type { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { systemClock } from "../../shared/runtime/clock.ts";
import { loadSourceConfig } from "../../shared/runtime/config/config.ts";
import { Journal } from "../../shared/runtime/journal/journal.ts";
import { loadKernels } from "../../shared/runtime/load-kernels.ts";
import { createLogger } from "../../shared/runtime/log/log.ts";
import { type BiosGuest, startBiosGuest, twoSets } from "../support/bios-guest.ts";
import { eventually } from "../support/bounded.ts";
import { MIGRATE_OPTIONS } from "../support/frames.ts";
import { LIMITS, SERVE } from "../support/link.ts";
import { folder } from "../support/link-fixtures.ts";
import { Holds, StateLog } from "./state-log.ts";

const WITHIN_MS = 20_000;
const UNARY_MS = 60_000;
/** The pages that the guest writes over and over. */
export const SETS = { cold: { from: 32, to: 64 }, hot: { from: 64, to: 72 }, hotTurns: 1 } as const;

export class AttackedSource {
  readonly log = new StateLog();
  readonly holds = new Holds();
  readonly guest: BiosGuest;
  readonly operator: GrpcOperatorClient;
  /** Where the source calls the destination that is played. */
  readonly address: string;
  private readonly agent: SourceAgent;
  /** The migration that was begun last. */
  last: Raid | undefined;

  static async open(t: Test, createKernels = loadKernels): Promise<AttackedSource> {
    const directory = folder(t);
    for (const name of ["guests", "state", "run"]) mkdirSync(join(directory, name), { mode: 0o700 });
    const qmp = join(directory, "web.qmp");
    const guest = await startBiosGuest(twoSets(SETS), ["-qmp", `unix:${qmp},server=on,wait=off`]);
    t.teardown(() => guest.end());
    const definition = { name: "web", qmp, command: ["qemu-system-x86_64"] };
    writeFileSync(join(directory, "guests", "web.json"), JSON.stringify(definition));
    const places = { guests: "guests", runtime: "run", state: "state" };
    const flags = Object.entries(places).map(([name, path]) => `--${name}-directory=${join(directory, path)}`);
    const own = ["--listen=127.0.0.1:0", "--tls-insecure", "--link-doubt-after=500ms", "--log-level=info"];
    const config = loadSourceConfig([...flags, ...own], {});
    const journal = await Journal.open(config.stateDirectory, decodeSourceRecord);
    const log = new StateLog();
    const holds = new Holds();
    const parts = { config, journal, clock: systemClock, limits: LIMITS, createKernels, faults: holds };
    const agent = new SourceAgent({ ...parts, log: createLogger("test", "info", log) });
    const listener = await serveSource(agent, SERVE);
    agent.advertised = listener.address;
    let attacked: AttackedSource | undefined;
    const raid = (): Raid => {
      if (attacked?.last === undefined) throw new TypeError("nobody was expected");
      return attacked.last;
    };
    const hostile = await serveDestination(
      { handshake: (offer) => raid().handshake(offer), settle: () => raid().settle() },
      SERVE,
    );
    const operator = new GrpcOperatorClient(listener.address, UNARY_MS);
    attacked = new AttackedSource({ guest, log, holds, agent, operator, address: hostile.address });
    t.teardown(async () => {
      holds.release();
      await agent.stop();
      operator.close();
      await Promise.all([listener.close(0), hostile.close(0)]);
    });
    return attacked;
  }

  private constructor(
    parts: Pick<AttackedSource, "guest" | "log" | "holds" | "operator" | "address"> & { agent: SourceAgent },
  ) {
    this.guest = parts.guest;
    this.log = parts.log;
    this.holds = parts.holds;
    this.operator = parts.operator;
    this.address = parts.address;
    this.agent = parts.agent;
  }

  get qmp(): QmpClient {
    return this.guest.qmp;
  }

  /** Begins a migration to the destination that was taken over. */
  async begin(raid: Raid, strategy: Strategy): Promise<void> {
    this.last = raid;
    const options = { ...MIGRATE_OPTIONS, strategy, verify: raid.verify };
    raid.id = await this.agent.migrate({ guest: "web", to: this.address, options });
  }

  /**
   * True once the agent itself has seen something wrong on the stream of a migration, or so many messages that it
   * counts, or the end of the stream.
   */
  hasTaken(raid: Raid, messages: number): boolean {
    const entries: ReadonlyMap<string, Made> = Reflect.get(Reflect.get(this.agent, "desk"), "entries");
    const link = entries.get(raid.id)?.link;
    if (link === undefined) return true;
    return Reflect.get(link, "poisoned") === true || Number(Reflect.get(link, "received")) >= messages || link.isOver;
  }

  view(raid: Raid): MigrationView {
    return this.agent.getMigration(raid.id);
  }

  /** Waits until the operator's view is final. */
  end(raid: Raid): Promise<MigrationView> {
    const last = (): MigrationView | undefined => (isFinal(this.view(raid).status) ? this.view(raid) : undefined);
    const what = `the end of ${raid.id}: ${this.log.states(raid.id).join(" ")}`;
    return eventually(last, { timeoutMs: WITHIN_MS, what });
  }
}

/** One migration, as the destination that was taken over plays it: honestly, except where a test says otherwise. */
export class Raid {
  id = "";
  verify = false;
  readonly heard: SourceMessage["kind"][] = [];
  token: Uint8Array = Buffer.alloc(16);
  sequence = 0;
  appliedBytes = 0;
  /** What is different in the contract from an honest one. */
  changes: Partial<Contract> = {};
  /** Gives the answer to the handshake in place of the contract; undefined for the contract. */
  answer: ((offer: Offer) => HandshakeAnswer) | undefined;
  /** The answer to each question of the source. */
  standing: SettleAnswer = { standing: "waiting", reason: "so it is" };
  /** Called with each message before its honest answer. @returns true when the test has answered it instead */
  instead: (message: SourceMessage) => boolean = () => false;
  offer: Offer | undefined;
  channel: DestinationChannel | undefined;

  handshake(offer: Offer): Promise<HandshakeAnswer> {
    this.offer = offer;
    this.token = offer.token;
    if (this.answer !== undefined) return Promise.resolve(this.answer(offer));
    this.dial(offer);
    return Promise.resolve({ kind: "contract", contract: { ...contractFor(offer), ...this.changes } });
  }

  settle(): Promise<SettleAnswer> {
    return Promise.resolve(this.standing);
  }

  /**
   * True once post-copy's package has come: pages are missing, and follow. QEMU sends no package where nothing was left
   * to be sent.
   */
  isPostcopy = false;
  /** How many messages were said so far that the source counts. */
  counted = 0;

  say(...messages: readonly DestinationMessage[]): void {
    for (const message of messages) {
      if (message.kind !== "ack" && message.kind !== "clockReply" && message.kind !== "hello") this.counted++;
      this.channel?.send(message);
    }
  }

  /** Forgets what was heard and said, since another migration is begun with this raid. */
  again(): void {
    this.heard.length = 0;
    this.sequence = 0;
    this.appliedBytes = 0;
    this.counted = 0;
    this.standing = { standing: "waiting", reason: "so it is" };
  }

  /** Says the proof that the grant was refused, and answers later questions alike. */
  refuse(): void {
    this.standing = { standing: "refused", reason: "the test is over" };
    this.say({ kind: "failure", code: "cancelled", message: "the test is over", refusedToken: this.token });
  }

  /**
   * Refuses a guest that was said to run. The stream cannot take that back any more, so it is closed, and the source
   * asks by calls.
   */
  vanish(): void {
    this.standing = { standing: "refused", reason: "the test is over" };
    this.channel?.close(new MigrationFault("peer-lost", "the test is over"));
  }

  async hears(kind: SourceMessage["kind"]): Promise<void> {
    await eventually(() => this.heard.includes(kind) || undefined, {
      timeoutMs: WITHIN_MS,
      what: `${kind} of the source`,
    });
  }

  private dial({ migrationId, token, sourceAddress }: Offer): void {
    const channel = dialSource(sourceAddress, LIMITS);
    this.channel = channel;
    channel.send({ kind: "hello", migrationId, token, attempt: 1, received: 0, generation: 0, restarted: false });
    channel.receive((message) => this.take(message));
  }

  private take(message: SourceMessage): void {
    this.heard.push(message.kind);
    if (this.instead(message)) return;
    switch (message.kind) {
      case "clockPing":
        this.say({ kind: "clockReply", nonce: message.nonce, destinationTimeUs: systemClock.nowUs() });
        return;
      case "probe":
        this.say({ kind: "ack", sequence: message.sequence, appliedBytes: message.padding.length });
        return;
      case "frame":
        this.sequence = message.sequence;
        this.appliedBytes += message.body.length;
        this.say({ kind: "ack", sequence: this.sequence, appliedBytes: this.appliedBytes });
        if (message.frameKind !== "package") return;
        this.isPostcopy = true;
        this.sayLoaded();
        return;
      case "endOfStream":
        if (!this.isPostcopy) this.sayLoaded();
        return;
      default:
        return;
    }
  }

  private sayLoaded(): void {
    const nowUs = systemClock.nowUs();
    this.say({ kind: "loaded", lastSequence: this.sequence, lastByteAtUs: nowUs, loadedAtUs: nowUs });
  }

  /** Says that the guest runs, as an honest destination says it. */
  sayRunning(): void {
    const usage = { agentCpuSeconds: 0.1, agentPeakMemoryBytes: 1 << 20 };
    this.say({
      kind: "running",
      epoch: 1,
      resumedAtUs: systemClock.nowUs(),
      grantedAtUs: systemClock.nowUs(),
      ...usage,
    });
  }
}

/** The contract to which an honest destination would agree. */
function contractFor({ guest, transfer, protocolVersions }: Offer): Contract {
  const strategy = transfer.strategy === "auto" ? "precopy" : transfer.strategy;
  return {
    protocolVersion: protocolVersions[0] ?? 2,
    codecs: transfer.codecs,
    frameBytes: transfer.frameBytes,
    creditWindowBytes: transfer.creditWindowBytes,
    destinationQemuVersion: guest.qemuVersion,
    destinationFreeMemoryBytes: 2 ** 34,
    followUpMs: 30_000,
    ramBlocks: guest.ramBlocks,
    strategies: transfer.strategies,
    strategy,
    postcopy: strategy === "postcopy" || strategy === "hybrid",
    onDeadline: transfer.onDeadline,
    postcopyObstacle: "",
    comparesDisks: true,
    warnings: [],
    measuresLink: false,
  };
}
