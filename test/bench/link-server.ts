/**
 * The source's end of link-bench.ts, in a process of its own. It serves the agents' link in clear and over mutual TLS,
 * and the same service with generated serialisation. To a client that says hello it sends as many frames as the hello's
 * migration id says. To any message of its parent process it answers with its own CPU time. Its argument is a folder
 * with certificates.
 */
import { Server, ServerCredentials, type ServerDuplexStream, type UntypedServiceImplementation } from "@grpc/grpc-js";
import { serveSource } from "../../shared/link/grpc/grpc-server.ts";
import type { SourceChannel } from "../../shared/link/link.ts";
import { FRAME_HEAD_BYTES } from "../../shared/link/wire/frame-wire.ts";
import { methodOf } from "../../shared/link/wire/proto-files.ts";
import { LIMITS, SERVE, sourceService } from "../support/link.ts";
import { security, TestCa } from "../support/tls.ts";
import { FRAME_BYTES, numbers } from "./guest-pages.ts";

const FRAMES = 8;
const CHECKSUM = new Uint8Array(8).fill(7);

/**
 * Frames have a few bodies in turns, which do not compress. The bodies are in shared memory after head-room, as in the
 * sender's buffers.
 */
const ROOM = FRAME_HEAD_BYTES + FRAME_BYTES;
const memory = new SharedArrayBuffer(FRAMES * ROOM);
const bodies = Array.from({ length: FRAMES }, (_, index) => {
  const next = numbers(index + 1);
  const words = new Uint32Array(memory, index * ROOM + FRAME_HEAD_BYTES, FRAME_BYTES / 4);
  for (let i = 0; i < words.length; i++) words[i] = next();
  return new Uint8Array(memory, words.byteOffset, FRAME_BYTES);
});

/** Sends frames by the agents' link. @param frames how many, which the hello's migration id says */
async function sendFrames(channel: SourceChannel, frames: number): Promise<void> {
  channel.receive(() => {});
  for (let sequence = 1; sequence <= frames; sequence++) {
    const body = bodies[sequence % FRAMES]!;
    const frame = { kind: "frame", frameKind: "pages", codec: "none", rawLength: FRAME_BYTES } as const;
    const headRoom = FRAME_HEAD_BYTES;
    if (!channel.send({ ...frame, sequence, checksum: CHECKSUM, body, headRoom })) await channel.drained();
  }
  channel.send({ kind: "endOfStream", lastSequence: frames });
}

/** Sends the same frames as objects, by the serialisation that proto-loader generates from the proto file. */
async function sendGenerated(call: ServerDuplexStream<object, object>, frames: number): Promise<void> {
  for (let sequence = 1; sequence <= frames; sequence++) {
    const body = bodies[sequence % FRAMES]!;
    const kinds = { kind: "FRAME_KIND_PAGES", codec: "FRAME_CODEC_NONE", rawLength: FRAME_BYTES };
    const frame = { sequence, ...kinds, checksum: "506381209866536711", body };
    if (!call.write({ frame })) await new Promise((resolve) => call.once("drain", resolve));
  }
  call.write({ endOfStream: { lastSequence: frames } });
}

async function serveGenerated(): Promise<string> {
  const server = new Server({ "grpc.max_receive_message_length": LIMITS.messageBytes });
  const methods: UntypedServiceImplementation = {
    Transfer: (call: ServerDuplexStream<object, object>) => {
      call.on("error", () => {});
      call.on("end", () => call.end());
      call.once("data", (first: { hello?: { migrationId?: string } }) => {
        void sendGenerated(call, Number(first.hello?.migrationId));
      });
    },
  };
  server.addService({ Transfer: methodOf("TransferService", "Transfer") }, methods);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, chosen) =>
      error === null ? resolve(chosen) : reject(error),
    );
  });
  return `127.0.0.1:${port}`;
}

async function main(): Promise<void> {
  const accept = (hello: { migrationId: string }, channel: SourceChannel): void => {
    void sendFrames(channel, Number(hello.migrationId));
  };
  const listener = await serveSource(sourceService({ acceptTransfer: accept }), SERVE);
  const generated = await serveGenerated();
  const secure = security(new TestCa(process.argv[2] ?? "").material("alpha"));
  const secured = await serveSource(sourceService({ acceptTransfer: accept }), {
    ...SERVE,
    limits: { ...LIMITS, security: secure },
  });
  process.on("message", () => process.send?.({ cpu: process.cpuUsage() }));
  process.on("disconnect", () => process.exit(0));
  process.send?.({ address: listener.address, generated, secured: secured.address });
}

if (process.send !== undefined) await main();
