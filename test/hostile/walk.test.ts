/**
 * Plays a source that was taken over against the program ferry-destination and a QEMU that it starts, both as they are
 * installed.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import t, { type Test } from "tap";
import { connectDestination } from "../../shared/link/grpc/grpc-link.ts";
import { serveSource } from "../../shared/link/grpc/grpc-server.ts";
import { GrpcOperatorClient } from "../../shared/link/grpc/operator-client.ts";
import type { DestinationClient, SourceChannel } from "../../shared/link/link.ts";
import type { Offer } from "../../shared/protocol/messages.ts";
import type { DestinationMessage, SettleCall, SourceMessage } from "../../shared/protocol/stream-messages.ts";
import { type GuestFacts, inspectDestination } from "../../shared/qemu/inspect/preflight.ts";
import { QmpClient } from "../../shared/qemu/qmp/qmp-client.ts";
import { loadDestinationConfig } from "../../shared/runtime/config/config.ts";
import { loadGuest } from "../../shared/runtime/guest/guest-definition.ts";
import { packageRoot } from "../../shared/runtime/package-root.ts";
import { setSteps, startBiosGuest, twoSets, writeFirmware } from "../support/bios-guest.ts";
import { eventually } from "../support/bounded.ts";
import { FRAME_BYTES, frame } from "../support/frames.ts";
import { LIMITS, SERVE, sourceService } from "../support/link.ts";
import { folder, offer } from "../support/link-fixtures.ts";
import { RigProcess } from "../support/process.ts";
import { SETS } from "./hostile-destination.ts";

t.setTimeout(300_000);

const WITHIN = { timeoutMs: 60_000 };
const UNARY_MS = 60_000;
const TOKEN = Buffer.alloc(16, 0x5a);
/** A token that no migration has. */
const STRANGER = Buffer.alloc(16, 1);
const MACHINE = "-M pc-q35-8.1 -accel tcg -m 16 -nodefaults -no-user-config -display none".split(" ");
/** How many cheap calls or messages a flood has. */
const FLOOD = 2000;
const HANDSHAKES = 50;
/**
 * The most memory that the program may take, KiB: its promise (docs/operations.md, "Memory"), and what V8 leaves to be
 * collected.
 */
const MEMORY_MAX_KIB = 400 << 10;

/**
 * Stops a guest, and has its QEMU write the stream of its migration into a file. The stream is later sent as verbatim
 * frames.
 */
async function stoppedGuest(t: Test): Promise<{ readonly stream: Buffer; readonly facts: GuestFacts }> {
  const guest = await startBiosGuest(twoSets(SETS));
  t.teardown(() => guest.end());
  const facts = await inspectDestination(guest.qmp);
  await guest.qmp.execute("stop");
  const path = join(guest.folder, "stream");
  await guest.qmp.execute("migrate", { uri: `file:${path}` });
  const isOver = async (): Promise<true | undefined> => {
    const { status } = await guest.qmp.execute("query-migrate");
    if (status === "failed") throw new Error("QEMU did not write its stream");
    return status === "completed" ? true : undefined;
  };
  await eventually(isOver, { ...WITHIN, what: "QEMU's stream" });
  return { stream: readFileSync(path), facts };
}

interface Walk {
  readonly program: RigProcess;
  readonly client: DestinationClient;
  readonly operator: GrpcOperatorClient;
  readonly runtime: string;
  offerOf(id: string, changes?: Partial<Offer>): Offer;
  /** The next stream that the destination dials. */
  dialled(): Promise<SourceChannel>;
}

/** Starts the program, and a server for the streams that it dials. */
async function begin(t: Test, facts: GuestFacts): Promise<Walk> {
  const directory = folder(t);
  const places = {
    guests: join(directory, "guests"),
    runtime: join(directory, "run"),
    state: join(directory, "state"),
  };
  for (const path of Object.values(places)) mkdirSync(path, { mode: 0o700 });
  const firmware = join(directory, "bios");
  writeFirmware(firmware, twoSets(SETS));
  const monitors = ["web", "observer"].flatMap((name) => ["-qmp", `unix:{runtime}/${name}.qmp,server=on,wait=off`]);
  const command = ["qemu-system-x86_64", ...MACHINE, "-bios", firmware, ...monitors];
  writeFileSync(join(places.guests, "web.json"), JSON.stringify({ name: "web", qmp: "{runtime}/web.qmp", command }));
  const flags = Object.entries(places).map(([name, path]) => `--${name}-directory=${path}`);
  const { digest } = await loadGuest("web", loadDestinationConfig(flags, {}));
  const own = ["--listen=127.0.0.1:0", "--tls-insecure", "--operators-socket=", "--rehearsal=false"];
  const file = join(packageRoot(), "dist", "agent-destination", "main.js");
  const program = await RigProcess.start({
    name: "ferry-destination",
    command: [process.execPath, file, ...flags, ...own],
  });
  t.teardown(() => program.stop());
  const [, address = ""] = await program.waitForOutput(/Listening at (127[0-9.:]+)/, WITHIN);
  const channels: SourceChannel[] = [];
  const server = await serveSource(
    sourceService({
      acceptTransfer: (_, channel) => {
        channel.send({ kind: "welcome", received: 0, generation: 0 });
        channels.push(channel);
      },
    }),
    SERVE,
  );
  const client = connectDestination(address, LIMITS);
  const operator = new GrpcOperatorClient(address, UNARY_MS);
  t.teardown(async () => {
    client.close();
    operator.close();
    await server.close(0);
  });
  const offerOf = (migrationId: string, changes: Partial<Offer> = {}): Offer => ({
    ...offer,
    ...{
      migrationId,
      token: TOKEN,
      protocolVersions: [2],
      sourceAddress: server.address,
      dryRun: false,
      measureLink: false,
    },
    guest: { ...offer.guest, ...facts, cpuFeatures: {}, definitionDigest: digest, paused: false },
    transfer: { ...offer.transfer, frameBytes: FRAME_BYTES, creditWindowBytes: 1 << 20, verify: false },
    ...changes,
  });
  const dialled = (): Promise<SourceChannel> =>
    eventually(() => channels.shift(), { ...WITHIN, what: "the destination's stream" });
  return { program, client, operator, runtime: places.runtime, offerOf, dialled };
}

/**
 * A client of the QEMU that the agent has started for its guest, at a monitor of the test's own; undefined when there
 * is no QEMU.
 */
const qemuIn = (runtime: string): Promise<QmpClient | undefined> =>
  QmpClient.connect(join(runtime, "observer.qmp"), { timeoutMs: 5000 }).catch(() => undefined);

const settle = ({ client }: Walk, migrationId: string, ask: SettleCall["ask"], token: Uint8Array = TOKEN) =>
  client.settle({ migrationId, token, epoch: 1, ask, paused: false }, UNARY_MS);

/** Begins a migration, sends these messages, and checks that the migration fails and that no QEMU of it is left. */
async function assertFails(
  t: Test,
  { client, operator, runtime, offerOf, dialled }: Walk,
  id: string,
  messages: readonly SourceMessage[],
): Promise<void> {
  t.match(await client.handshake(offerOf(id), UNARY_MS), { answer: { kind: "contract" } });
  const channel = await dialled();
  channel.receive(() => undefined);
  for (const message of messages) channel.send(message);
  const isOver = async (): Promise<true | undefined> => {
    const view = (await operator.listMigrations()).find((one) => one.id === id);
    return view?.status === "failed" ? true : undefined;
  };
  await eventually(isOver, { ...WITHIN, what: `the end of ${id}` });
  const isGone = async (): Promise<true | undefined> => {
    const left = await qemuIn(runtime);
    left?.close();
    return left === undefined ? true : undefined;
  };
  const kind = messages.at(-1)?.kind;
  t.ok(await eventually(isGone, { ...WITHIN, what: "the end of its QEMU" }), `${kind}: no QEMU is left`);
}

/** Makes many calls of the source and of strangers side by side, and waits until each has been answered or refused. */
async function floodWithCalls(walk: Walk, migrationId: string): Promise<void> {
  const lost = (thrown: unknown): unknown => thrown;
  const asks = ["standing", "grant", "withdraw", "kept"] as const;
  const ask = (n: number): SettleCall["ask"] => asks[n % 4] ?? "standing";
  await Promise.all([
    ...Array.from({ length: FLOOD }, (_, n) => settle(walk, migrationId, ask(n), STRANGER).catch(lost)),
    ...Array.from({ length: FLOOD }, () => settle(walk, migrationId, "standing").catch(lost)),
    ...Array.from({ length: HANDSHAKES }, (_, n) =>
      walk.client.handshake(walk.offerOf(`more-${n}`, { dryRun: n % 2 === 0 }), UNARY_MS).catch(lost),
    ),
  ]);
}

t.test(
  "a source that means harm starts no guest, leaves no QEMU, and cannot make the destination fail or grow",
  async (t) => {
    const { stream, facts } = await stoppedGuest(t);
    const walk = await begin(t, facts);
    const { program, client, runtime, offerOf, dialled } = walk;
    const pieces = Array.from({ length: Math.ceil(stream.length / FRAME_BYTES) }, (_, at) =>
      frame(at + 1, stream.subarray(at * FRAME_BYTES, (at + 1) * FRAME_BYTES), { frameKind: "verbatim" }),
    );

    // half of QEMU's stream is sent, and then something wrong
    const wrong: readonly SourceMessage[] = [
      frame(pieces.length + 7, Buffer.from("out of sequence")),
      { kind: "layout", blocks: [], ramSectionId: 0 },
      { kind: "resume" },
      { kind: "endOfStream", lastSequence: Number.MAX_SAFE_INTEGER },
    ];
    const half = pieces.slice(0, pieces.length >> 1);
    for (const [index, message] of wrong.entries()) await assertFails(t, walk, `half-${index}`, [...half, message]);

    // the whole stream is sent as it should be
    t.match(await client.handshake(offerOf("whole"), UNARY_MS), { answer: { kind: "contract" } });
    const channel = await dialled();
    const heard: DestinationMessage[] = [];
    channel.receive((message) => void heard.push(message));
    for (const piece of pieces) if (!channel.send(piece)) await channel.drained();
    channel.send({ kind: "endOfStream", lastSequence: pieces.length });
    await eventually(() => heard.find(({ kind }) => kind === "loaded"), { ...WITHIN, what: "loaded" });
    const observer = await qemuIn(runtime);
    if (observer === undefined) throw new Error("no QEMU");
    t.teardown(async () => {
      await observer.execute("quit").catch(() => undefined);
      observer.close();
    });

    // floods of cheap calls and messages are sent, and words of strangers; what is too much at once is refused
    await floodWithCalls(walk, "whole");
    for (let nonce = 0; nonce < FLOOD; nonce++) channel.send({ kind: "clockPing", nonce });
    channel.send({ kind: "grant", token: STRANGER, epoch: 1, paused: false });
    channel.send({ kind: "resume" });
    t.match(
      await observer.execute("query-status"),
      { status: "paused" },
      "no word of a stranger has started the guest",
    );
    t.ok(program.running);
    const rssKib = Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${program.pid}/status`, "latin1"))?.[1]);
    t.ok(rssKib < MEMORY_MAX_KIB, `the agent has ${rssKib >> 10} MiB`);

    // the source's own grant still counts afterwards
    t.match(await settle(walk, "whole", "grant"), { standing: "running" });
    t.match(await observer.execute("query-status"), { status: "running" });
    await observer.execute("stop");
    const { most, counters } = await setSteps({ qmp: observer, folder: runtime }, SETS);
    t.ok(most <= 1, `its pages are as they were at the source: ${counters}`);
  },
);
