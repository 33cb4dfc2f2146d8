/** Plays a source agent that was taken over, against a real destination agent behind its real server. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DestinationAgent } from "../../agent-destination/service/destination-agent.ts";
import type { Incoming } from "../../agent-destination/service/incoming.ts";
import { MigrationFault } from "../../shared/fault.ts";
import { connectDestination } from "../../shared/link/grpc/grpc-link.ts";
import { serveDestination, serveSource } from "../../shared/link/grpc/grpc-server.ts";
import { GrpcOperatorClient } from "../../shared/link/grpc/operator-client.ts";
import type {
  DestinationClient,
  DestinationService,
  Listener,
  MigrationOperator,
  SourceChannel,
} from "../../shared/link/link.ts";
import type { PageKernels } from "../../shared/page/kernels.ts";
import type { HandshakeAnswer, Offer } from "../../shared/protocol/messages.ts";
import { decodeDestinationRecord } from "../../shared/protocol/record-decoding.ts";
import type {
  DestinationMessage,
  SettleAnswer,
  SettleCall,
  SourceMessage,
} from "../../shared/protocol/stream-messages.ts";
import { systemClock } from "../../shared/runtime/clock.ts";
import { loadDestinationConfig } from "../../shared/runtime/config/config.ts";
import { loadGuest } from "../../shared/runtime/guest/guest-definition.ts";
import { Journal } from "../../shared/runtime/journal/journal.ts";
import { loadKernels } from "../../shared/runtime/load-kernels.ts";
import { createLogger } from "../../shared/runtime/log/log.ts";
import { eventually } from "../support/bounded.ts";
import { BLOCKS, FRAME_BYTES, frame, PAGES, pages, SECTION } from "../support/frames.ts";
import { LIMITS, SERVE, sourceService } from "../support/link.ts";
import { folder, offer, type Test } from "../support/link-fixtures.ts";
import { Holds, StateLog } from "./state-log.ts";
import { LAST_BYTES, WaitingQemu } from "./waiting-qemu.ts";

const WITHIN_MS = 30_000;
const UNARY_MS = 60_000;

export class AttackedDestination {
  readonly log = new StateLog();
  readonly holds = new Holds();
  readonly qemu: WaitingQemu;
  readonly operator: GrpcOperatorClient;
  readonly client: DestinationClient;
  private readonly parts: ConstructorParameters<typeof DestinationAgent>[0];
  private agent: DestinationAgent;
  private readonly digest: string;
  private readonly attacks = new Map<string, Attack>();
  private sourceAddress = "";
  private count = 0;

  static async open(t: Test): Promise<AttackedDestination> {
    const directory = folder(t);
    for (const name of ["guests", "state", "run"]) mkdirSync(join(directory, name));
    const qemu = new WaitingQemu(t, directory, BLOCKS);
    const definition = { name: "web", qmp: qemu.path, command: qemu.command };
    writeFileSync(join(directory, "guests", "web.json"), JSON.stringify(definition));
    const places = { guests: "guests", runtime: "run", state: "state" };
    const flags = Object.entries(places).map(([name, path]) => `--${name}-directory=${join(directory, path)}`);
    const config = loadDestinationConfig([...flags, "--memory-reserve=0"], {});
    const { digest } = await loadGuest("web", config);
    const journal = await Journal.open(config.stateDirectory, decodeDestinationRecord);
    const attacked = new AttackedDestination({ config, journal }, qemu, digest);
    await attacked.serve(t);
    return attacked;
  }

  private listener: Listener | undefined;

  private constructor(
    parts: Pick<ConstructorParameters<typeof DestinationAgent>[0], "config" | "journal">,
    qemu: WaitingQemu,
    digest: string,
  ) {
    const log = createLogger("test", "info", this.log);
    // all migrations use one memory: there is one migration at a time, and the memories of hundreds would be collected
    // late
    let memory: PageKernels | undefined;
    const createKernels = (byteLength: number): PageKernels => {
      memory ??= loadKernels(byteLength);
      return memory;
    };
    this.parts = { ...parts, log, clock: systemClock, limits: LIMITS, createKernels, faults: this.holds };
    this.agent = new DestinationAgent(this.parts);
    this.qemu = qemu;
    this.digest = digest;
    this.operator = undefined as never;
    this.client = undefined as never;
  }

  private async serve(t: Test): Promise<void> {
    const now = (): DestinationAgent => this.agent;
    const service: DestinationService = {
      handshake: (given, caller) => now().handshake(given, caller),
      settle: (call) => now().settle(call),
    };
    const desk: MigrationOperator = {
      getMigration: (id) => now().desk.getMigration(id),
      listMigrations: () => now().desk.listMigrations(),
      watch: (id, observer) => now().desk.watch(id, observer),
      cancel: (id) => now().desk.cancel(id),
      resolve: (call) => now().desk.resolve(call),
    };
    const listener = await serveDestination(service, SERVE, desk);
    const own = await serveSource(
      sourceService({
        acceptTransfer: ({ migrationId, attempt, received }, channel) => {
          const attack = this.attacks.get(migrationId);
          if (attack === undefined || attack.isGone) throw new MigrationFault("peer-lost", "nobody is here");
          attack.accept(channel, attempt, received);
        },
      }),
      SERVE,
    );
    this.sourceAddress = own.address;
    this.listener = listener;
    Object.assign(this, {
      client: connectDestination(listener.address, LIMITS),
      operator: new GrpcOperatorClient(listener.address, UNARY_MS),
    });
    t.teardown(async () => {
      this.holds.release();
      await this.endAgent();
      this.client.close();
      this.operator.close();
      await Promise.all([listener.close(0), own.close(0)]);
    });
  }

  get address(): string {
    return this.listener?.address ?? "";
  }

  /**
   * Ends the agent, and starts another one that takes up what the first one has left. Where *adopting* is held, the new
   * agent has not looked at the QEMU yet.
   */
  async startAgain(): Promise<void> {
    for (const attack of this.attacks.values()) attack.hangUp();
    await this.endAgent();
    this.agent = new DestinationAgent(this.parts);
    void this.agent.recover();
  }

  /** Ends the agent as the end of its process would: it does not dial its sources again. */
  private async endAgent(): Promise<void> {
    const entries: ReadonlyMap<string, Incoming> = Reflect.get(this.agent, "entries");
    const streams = [...entries.values()].flatMap(({ state }) =>
      "receiver" in state && state.receiver !== undefined ? [state.receiver.channel] : [],
    );
    await this.agent.stop();
    for (const stream of streams) stream.leave();
  }

  /** True once the agent itself has seen something wrong on the stream of a migration. */
  hasFailed(id: string): boolean {
    const entries: ReadonlyMap<string, Incoming> = Reflect.get(this.agent, "entries");
    const state = entries.get(id)?.state;
    return state !== undefined && "receiver" in state && state.receiver?.signal.aborted === true;
  }

  /** Makes the migration that is offered next. */
  next(): Attack {
    const attack = new Attack(this, `m-${++this.count}`);
    this.attacks.set(attack.id, attack);
    return attack;
  }

  handshake(changes: Partial<Offer>): Promise<HandshakeAnswer> {
    const { guest, transfer } = offer;
    const given: Offer = {
      ...offer,
      protocolVersions: [2],
      sourceAddress: this.sourceAddress,
      dryRun: false,
      measureLink: false,
      guest: {
        ...guest,
        definitionDigest: this.digest,
        cpuFeatures: {},
        paused: false,
        ramBlocks: BLOCKS,
      },
      transfer: { ...transfer, frameBytes: FRAME_BYTES, creditWindowBytes: 1 << 20, verify: false },
      ...changes,
    };
    return this.client.handshake(given, UNARY_MS).then(({ answer }) => answer);
  }
}

/** One migration of the source that was taken over. */
export class Attack {
  readonly id: string;
  readonly token = Buffer.alloc(16, 0x5a);
  readonly heard: DestinationMessage[] = [];
  readonly on: AttackedDestination;
  /** The number of the last connection that the destination has made. */
  attempts = 0;
  /** How many messages the destination has said, with its last connection, that it has received. */
  received = 0;
  /** The number of the last frame that was sent as it should be. */
  sequence = 0;
  private channel: SourceChannel | undefined;
  private nonce = 0;

  constructor(on: AttackedDestination, id: string) {
    this.on = on;
    this.id = id;
  }

  get states(): readonly string[] {
    return this.on.log.states(this.id);
  }

  handshake(changes: Partial<Offer> = {}): Promise<HandshakeAnswer> {
    return this.on.handshake({ migrationId: this.id, token: this.token, ...changes });
  }

  settle(ask: SettleCall["ask"], changes: Partial<SettleCall> = {}): Promise<SettleAnswer> {
    const call = { migrationId: this.id, token: this.token, epoch: 1, ask, paused: false, ...changes };
    return this.on.client.settle(call, UNARY_MS);
  }

  accept(channel: SourceChannel, attempt: number, received: number): void {
    this.channel = channel;
    this.attempts = attempt;
    this.received = received;
    channel.receive((message) => this.heard.push(message));
    this.isLeft = false;
    void channel.closed.then(() => {
      this.isLeft = true;
    });
    channel.send({ kind: "welcome", received: 0, generation: 0 });
  }

  send(...messages: readonly SourceMessage[]): void {
    for (const message of messages) this.channel?.send(message);
  }

  /** True when the source takes no connection any more, as a host that is off. */
  isGone = false;

  hangUp(): void {
    this.isGone = true;
    this.close(new MigrationFault("peer-lost", "nobody is here"));
  }

  close(fault?: MigrationFault): void {
    this.channel?.close(fault);
  }

  private isLeft = false;

  /** Waits until the destination has ended its connection. */
  async left(): Promise<void> {
    const what = `the end of the stream in ${this.states.at(-1)}`;
    await eventually(() => this.isLeft || undefined, { timeoutMs: WITHIN_MS, what });
  }

  async connected(attempt = 1): Promise<void> {
    await eventually(() => (this.attempts >= attempt ? true : undefined), {
      timeoutMs: WITHIN_MS,
      what: `connection ${attempt}`,
    });
  }

  /** Waits until the destination has read all that was sent on this connection. */
  async answered(): Promise<void> {
    const nonce = ++this.nonce;
    this.send({ kind: "clockPing", nonce });
    const isIt = (one: DestinationMessage): boolean => one.kind === "clockReply" && one.nonce === nonce;
    await eventually(() => this.heard.find(isIt), {
      timeoutMs: WITHIN_MS,
      what: `the answer to ping ${nonce} in ${this.states.at(-1)}`,
    });
  }

  async hears(kind: DestinationMessage["kind"]): Promise<DestinationMessage> {
    return eventually(() => this.heard.find((one) => one.kind === kind), {
      timeoutMs: WITHIN_MS,
      what: `${kind} from the destination`,
    });
  }

  /** Sends the head of a stream, and every page, as they should be. */
  begin(): void {
    this.send(
      frame(++this.sequence, Buffer.from("head"), { frameKind: "verbatim" }),
      { kind: "layout", blocks: BLOCKS, ramSectionId: SECTION },
      frame(
        ++this.sequence,
        pages((writer) => writer.zeroRun(0, PAGES)),
      ),
    );
  }

  /** Sends the tail of the stream, and its end. */
  finish(): void {
    this.send(frame(++this.sequence, LAST_BYTES, { frameKind: "verbatim" }));
    this.send({ kind: "endOfStream", lastSequence: this.sequence });
  }

  get grant(): SourceMessage {
    return { kind: "grant", token: this.token, epoch: 1, paused: false };
  }
}
