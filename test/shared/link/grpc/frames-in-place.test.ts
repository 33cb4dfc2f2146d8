/** Tests that frames leave the memory in which they lie, by the grpc-js that is installed, and arrive whole. */
import { type handleBidiStreamingCall, Server, ServerCredentials } from "@grpc/grpc-js";
import t from "tap";
import { sendFramesInPlace } from "../../../../shared/link/grpc/frames-in-place.ts";
import { dialSource } from "../../../../shared/link/grpc/grpc-link.ts";
import { transferService } from "../../../../shared/link/grpc/services.ts";
import { encodeFrame, FRAME_HEAD_BYTES } from "../../../../shared/link/wire/frame-wire.ts";
import type { Received } from "../../../../shared/link/wire/proto-files.ts";
import type { DestinationMessage, Frame, SourceMessage } from "../../../../shared/protocol/stream-messages.ts";
import { deferred } from "../../../../shared/runtime/deferred.ts";
import { LIMITS } from "../../../support/link.ts";
import { hello } from "../../../support/link-fixtures.ts";

/** Makes a frame in memory of its own, with head room. */
function frameOf(sequence: number, content: number, headRoom = FRAME_HEAD_BYTES): Frame {
  const memory = Buffer.alloc(headRoom + 100_000, content);
  const head = { kind: "frame", frameKind: "pages", codec: "none", rawLength: 100_000 } as const;
  return { ...head, sequence, checksum: new Uint8Array(8), body: memory.subarray(headRoom), headRoom };
}

t.test("the installed grpc-js sends frames in place, in order with other messages", async (t) => {
  const sent: SourceMessage[] = [
    frameOf(1, 1),
    { kind: "clockPing", nonce: 7, received: 0 },
    frameOf(2, 2, 8),
    frameOf(3, 3),
    { kind: "endOfStream", lastSequence: 3 },
  ];
  const isAllowed = deferred<boolean>();
  const serve: handleBidiStreamingCall<Received<DestinationMessage>, SourceMessage> = (call) => {
    isAllowed.resolve(sendFramesInPlace(call));
    call.on("error", () => undefined);
    call.resume();
    for (const message of sent) call.write(message);
    call.end();
  };
  const server = new Server();
  server.addService(transferService, { Transfer: serve });
  t.teardown(() => server.forceShutdown());
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  );
  const channel = dialSource(`127.0.0.1:${port}`, LIMITS);
  const came: SourceMessage[] = [];
  // a frame is the receiver's only until the handler returns
  channel.receive((message) =>
    came.push(message.kind === "frame" ? { ...message, body: Buffer.from(message.body) } : message),
  );
  channel.send(hello);
  await channel.closed;
  t.equal(await isAllowed.promise, true);
  const plain = (message: SourceMessage): unknown =>
    message.kind === "frame" ? { ...message, headRoom: undefined, body: Buffer.from(message.body) } : message;
  t.match(came.map(plain), sent.map(plain));
});

t.test("a frame without room for gRPC's prefix, and every other message, is sent as grpc-js does it", async (t) => {
  const innermost = { serializeMessage: (message: SourceMessage) => Buffer.from(`copied ${message.kind}`) };
  t.ok(sendFramesInPlace({ call: { nextCall: { nextCall: innermost } } }));
  const frame = frameOf(1, 1);
  const bytes = innermost.serializeMessage(frame);
  t.equal(bytes.buffer, frame.body.buffer);
  t.same(bytes.subarray(0, 5), Buffer.from([0, 0, 1, 0x86, 0xa0 + encodeFrame(frame).length - 100_000]));
  t.ok(encodeFrame(frame).equals(bytes.subarray(5)));
  t.equal(`${innermost.serializeMessage(frameOf(1, 1, 30))}`, "copied frame");
  t.equal(`${innermost.serializeMessage({ kind: "resume" })}`, "copied resume");
});

t.test("a grpc-js that has no such method is left alone", async (t) => {
  t.notOk(sendFramesInPlace({}));
  t.notOk(sendFramesInPlace({ call: { nextCall: {} } }));
  const endless: { nextCall?: object } = {};
  endless.nextCall = endless;
  t.notOk(sendFramesInPlace({ call: endless }));
});
